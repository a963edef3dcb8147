// Command release makes what a release consists of beside the binary: the container image, and what says what is inside.
// It needs no container engine, and what it writes depends on its input alone: the same binary gives the same digest.
//
//	release image --binary FILE --arch ARCH --version V --revision R --created TIME --out DIR
//	release sbom --out FILE
//
// Both read Cargo.lock of the present folder.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("usage: release image|sbom (see release/main.go)")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	out := flags.String("out", "", "where to write")
	target := flags.String("target", "x86_64-unknown-linux-gnu", "the Rust target of the binary")
	var image imageOptions
	flags.StringVar(&image.binary, "binary", "", "the static binary")
	flags.StringVar(&image.arch, "arch", "amd64", "the architecture of the binary, as OCI calls it")
	flags.StringVar(&image.version, "version", "", "the version, which is the tag too")
	flags.StringVar(&image.revision, "revision", "", "the commit")
	created := flags.String("created", "1970-01-01T00:00:00Z", "the time of the commit")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if *out == "" {
		return fmt.Errorf("--out is missing")
	}
	packages, err := inside(*target)
	if err != nil {
		return err
	}
	others, err := besides()
	if err != nil {
		return err
	}
	bom, err := encode(describe(packages, others))
	if err != nil {
		return err
	}
	switch args[0] {
	case "sbom":
		return os.WriteFile(*out, bom, 0o644)
	case "image":
		if image.created, err = time.Parse(time.RFC3339, *created); err != nil {
			return fmt.Errorf("--created: %w", err)
		}
		licences, err := licences(packages, others)
		if err != nil {
			return err
		}
		digest, err := writeImage(image, bom, licences, *out)
		if err != nil {
			return err
		}
		fmt.Println(digest)
		return nil
	}
	return fmt.Errorf("unknown: %s", args[0])
}
