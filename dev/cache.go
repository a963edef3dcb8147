package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"
)

// keycloakOptions are the options that Keycloak bakes in; all others are given when it starts.
var keycloakOptions = []string{"build", "--db=dev-file", "--health-enabled=true"}

// distribution names the folders of the cache that this checkout needs.
type distribution struct {
	servers  string // etcd, kube-apiserver, kube-controller-manager, kubectl, helm; empty for a guest
	keycloak string // unpacked and built
}

func cacheDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w", err)
	}
	return filepath.Join(base, "hallpass-dev"), nil
}

// ensureDistribution returns the servers, built now if that never happened for these versions.
func (s *stack) ensureDistribution() (*distribution, error) {
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return nil, err
	}
	sso, err := s.keycloakBuild()
	if err != nil {
		return nil, err
	}
	if s.Context != "" { // its owner has kubectl and helm
		d := &distribution{keycloak: filepath.Join(cache, sso.key, "server")}
		return d, errors.Join(checkTools(!exists(d.keycloak), false, ""), sso.ensure(cache))
	}
	kube, err := s.serversBuild()
	if err != nil {
		return nil, err
	}
	d := &distribution{servers: filepath.Join(cache, kube.key), keycloak: filepath.Join(cache, sso.key, "server")}
	if err := checkTools(!exists(d.keycloak), !exists(d.servers), s.source("dev", "servers")); err != nil {
		return nil, err
	}
	return d, together(
		func() error { return kube.ensure(cache) },
		func() error { return sso.ensure(cache) },
	)
}

// cachedBuild is something slow that is done once per user and version.
type cachedBuild struct {
	what  string
	key   string
	build func(folder string) error
}

// ensure builds in a folder beside the final one and renames it: what was interrupted is never used. A lock keeps two
// checkouts from building the same thing twice.
func (b cachedBuild) ensure(cache string) error {
	final := filepath.Join(cache, b.key)
	if exists(final) {
		return nil
	}
	lock, err := lockFile(final+".lock", "another build of "+b.what)
	if err != nil {
		return err
	}
	defer lock.Close()
	if exists(final) {
		return nil
	}
	return step(b.what, func() (string, error) {
		stop := reportProgress(b.what)
		defer stop()
		work := final + ".unfinished"
		if err := errors.Join(os.RemoveAll(work), os.Mkdir(work, 0o700)); err != nil {
			return "", err
		}
		if err := b.build(work); err != nil {
			return "", err
		}
		return "built into " + final, os.Rename(work, final)
	})
}

// reportProgress prints a line each minute: silence for a quarter of an hour looks like a hang.
func reportProgress(what string) (stop func()) {
	begin, done := time.Now(), make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Minute):
				say("  %-24s still building, %.0f min", what, time.Since(begin).Minutes())
			}
		}
	}()
	return func() { close(done) }
}

var (
	kubernetesLine = regexp.MustCompile(`(?m)^\s*k8s\.io/kubernetes (v1\.(\d+)\.\d+)$`)
	keycloakLine   = regexp.MustCompile(`<keycloak\.version>([^<]+)</keycloak\.version>`)
)

// serversBuild compiles dev/servers. Compiling costs a quarter of an hour on two cores the first time, linking seconds.
func (s *stack) serversBuild() (*cachedBuild, error) {
	module := s.source("dev", "servers")
	flags, err := versionFlags(filepath.Join(module, "go.mod"))
	if err != nil {
		return nil, err
	}
	key, err := digest(strings.Join(flags, " ")+runtime.GOARCH,
		filepath.Join(module, "go.mod"), filepath.Join(module, "go.sum"), filepath.Join(module, "main.go"))
	if err != nil {
		return nil, err
	}
	compile := func(output, what string) error {
		args := append(append([]string{"build"}, flags...), "-o", output, what)
		return s.logged("build-servers", module, "go", args...)
	}
	return &cachedBuild{"Kubernetes servers, helm", "servers-" + key, func(folder string) error {
		say("  building the Kubernetes servers and helm: some ten minutes on two cores, the first time only")
		if err := compile(filepath.Join(folder, "servers"), "."); err != nil {
			return err
		}
		for _, name := range []string{etcd, apiServer, controllerManager, "kubectl"} {
			if err := os.Symlink("servers", filepath.Join(folder, name)); err != nil {
				return err
			}
		}
		return compile(filepath.Join(folder, "helm"), "helm.sh/helm/v4/cmd/helm")
	}}, nil
}

// versionFlags are the build's flags for the version of Kubernetes that go.mod names.
func versionFlags(goMod string) ([]string, error) {
	text, err := os.ReadFile(goMod)
	if err != nil {
		return nil, err
	}
	kubernetes := kubernetesLine.FindSubmatch(text)
	if kubernetes == nil {
		return nil, fmt.Errorf("no k8s.io/kubernetes in %s", goMod)
	}
	return buildFlags(string(kubernetes[1]), string(kubernetes[2])), nil
}

// buildFlags tell the programs their version: clients complain about the v0.0.0-master that a plain build says.
func buildFlags(gitVersion, minor string) []string {
	ld := "-s -w"
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		ld += fmt.Sprintf(" -X %[1]s.gitVersion=%[2]s -X %[1]s.gitMajor=1 -X %[1]s.gitMinor=%[3]s"+
			" -X %[1]s.gitTreeState=clean -X %[1]s.buildDate=2026-09-23T00:00:00Z", pkg, gitVersion, minor)
	}
	return []string{"-trimpath", "-ldflags", ld}
}

// keycloakBuild unpacks the server that Maven fetches and lets it bake in its build options.
func (s *stack) keycloakBuild() (*cachedBuild, error) {
	pom := s.source("dev", "keycloak", "pom.xml")
	text, err := os.ReadFile(pom)
	if err != nil {
		return nil, err
	}
	number := keycloakLine.FindSubmatch(text)
	if number == nil {
		return nil, fmt.Errorf("no keycloak.version in %s", pom)
	}
	key, err := digest(strings.Join(keycloakOptions, " "), pom)
	if err != nil {
		return nil, err
	}
	return &cachedBuild{"Keycloak", fmt.Sprintf("keycloak-%s-%s", number[1], key), func(folder string) error {
		work := filepath.Join(folder, "work")
		err := s.logged("build-keycloak", s.dir, "mvn", "-q", "-B", "-f", pom, "-Dwork="+work, "process-resources")
		if err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(work, "keycloak-"+string(number[1])), filepath.Join(folder, "server")); err != nil {
			return err
		}
		if err := os.RemoveAll(work); err != nil {
			return err
		}
		return s.logged("build-keycloak", s.dir, filepath.Join(folder, "server", "bin", "kc.sh"), keycloakOptions...)
	}}, nil
}

// logged runs a program with its output in a log of the stack, and shows the end of it if it fails.
func (s *stack) logged(name, dir, command string, args ...string) error {
	log, err := s.openLog(name)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(command, args...)
	cmd.Dir = dir
	cmd.Env = append(serverEnv(), "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s failed (%w); the end of %s:\n%s", filepath.Base(command), err, log.Name(), s.logTail(name))
	}
	return nil
}

// digest is a short name for the text and the contents of the files.
func digest(text string, files ...string) (string, error) {
	hash := sha256.New()
	fmt.Fprintf(hash, "%d %s", len(text), text)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(hash, "%d ", len(data))
		hash.Write(data)
	}
	return hex.EncodeToString(hash.Sum(nil))[:16], nil
}
