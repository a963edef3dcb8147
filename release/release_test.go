package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// The commands read Cargo.lock and LICENSE of the present folder.
func TestMain(m *testing.M) {
	if err := os.Chdir(".."); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func image(t *testing.T, binary string) (folder, digest string) {
	t.Helper()
	folder = filepath.Join(t.TempDir(), "image")
	file := filepath.Join(t.TempDir(), "hallpass")
	if err := os.WriteFile(file, []byte(binary), 0o700); err != nil {
		t.Fatal(err)
	}
	options := imageOptions{
		binary: file, arch: "arm64", version: "1.2.3", revision: "abc", created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	digest, err := writeImage(options, []byte("bom"), []byte("licences"), folder)
	if err != nil {
		t.Fatal(err)
	}
	return folder, digest
}

func TestTheSameBinaryGivesTheSameDigestAndAnotherOneAnother(t *testing.T) {
	_, one := image(t, "binary")
	_, same := image(t, "binary")
	_, another := image(t, "another")
	if one != same || one == another {
		t.Errorf("%s %s %s", one, same, another)
	}
}

func TestTheImageHoldsTheBinaryTheAuthoritiesAndTheLicencesAndNoShell(t *testing.T) {
	folder, digest := image(t, "binary")
	index, err := layout.ImageIndexFromPath(folder)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	only := manifest.Manifests[0]
	if len(manifest.Manifests) != 1 || only.Digest.String() != digest || only.Platform.Architecture != "arm64" {
		t.Errorf("%+v", manifest.Manifests)
	}
	image, err := index.Image(only.Digest)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Architecture != "arm64" || config.Config.User != "65532:65532" || config.Config.Entrypoint[0] != "/hallpass" ||
		config.Config.Labels["org.opencontainers.image.version"] != "1.2.3" || !slices.Contains(config.Config.Env, memory) {
		t.Errorf("%+v", config)
	}
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	packed, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	contents := map[string]string{}
	for r := tar.NewReader(packed); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Mode&0o022 != 0 {
			t.Errorf("somebody else could write %s", h.Name)
		}
		contents[h.Name] = string(body)
	}
	var names []string
	for name := range contents {
		if !strings.HasSuffix(name, "/") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	expected := []string{
		"etc/passwd", "etc/ssl/certs/ca-certificates.crt", "hallpass", "licenses/LICENSE", "licenses/sbom.cdx.json", "licenses/third-party.txt",
	}
	if !slices.Equal(names, expected) {
		t.Errorf("%v", names)
	}
	if contents["hallpass"] != "binary" || strings.Count(contents["etc/ssl/certs/ca-certificates.crt"], "BEGIN CERTIFICATE") < 100 {
		t.Error("what is inside is not what was put there")
	}
}

func whatIsInside(t *testing.T) ([]*crate, []other) {
	t.Helper()
	packages, err := inside("x86_64-unknown-linux-gnu")
	if err != nil {
		t.Fatal(err)
	}
	others, err := besides()
	if err != nil {
		t.Fatal(err)
	}
	return packages, others
}

func TestTheBillOfMaterialsNamesWhatIsInsideWithItsLicenceAndNothingElse(t *testing.T) {
	packages, others := whatIsInside(t)
	text, err := encode(describe(packages, others))
	if err != nil {
		t.Fatal(err)
	}
	var bom struct {
		Metadata   struct{ Component struct{ Name string } }
		Components []struct {
			Name     string
			Purl     string
			Licenses []struct{ Expression string }
			Hashes   []struct{ Content string }
		}
	}
	if err := json.Unmarshal(text, &bom); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, c := range bom.Components {
		names[c.Name] = true
		if len(c.Licenses) != 1 || c.Licenses[0].Expression == "" {
			t.Errorf("%+v", c)
		}
		isOther := slices.ContainsFunc(others, func(o other) bool { return o.name == c.Name })
		if !isOther && (len(c.Hashes) != 1 || !strings.HasPrefix(c.Purl, "pkg:cargo/"+c.Name+"@")) {
			t.Errorf("%+v", c)
		}
	}
	if bom.Metadata.Component.Name != "hallpass" || !names["rustls"] || !names["kube-client"] || !names["glibc"] {
		t.Errorf("%s of %d components", bom.Metadata.Component.Name, len(names))
	}
	for _, outside := range []string{"hallpass", "proptest", "wiremock", "serde_derive", "cc"} {
		if names[outside] {
			t.Errorf("%s is not in the binary", outside)
		}
	}
	again, err := encode(describe(packages, others))
	if err != nil || !bytes.Equal(text, again) {
		t.Error("it differs from time to time")
	}
}

func TestWhoseLicenceWantsItsTextToBeThereHasIt(t *testing.T) {
	packages, others := whatIsInside(t)
	text, err := licences(packages, others)
	if err != nil {
		t.Fatal(err)
	}
	for _, words := range []string{"ring 0.", "Apache License", "Permission is hereby granted, free of charge", "glibc 2."} {
		if !strings.Contains(string(text), words) {
			t.Errorf("%q is missing", words)
		}
	}
	without := &crate{Name: "mine", Version: "1.0.0", License: "MIT", ManifestPath: filepath.Join(t.TempDir(), "Cargo.toml")}
	if _, err := licences(append(packages, without), others); err == nil || !strings.Contains(err.Error(), "mine 1.0.0 (MIT)") {
		t.Errorf("%v", err)
	}
}
