package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseStatCountsFromTheEndOfTheName(t *testing.T) {
	rest := " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21"
	for _, name := range []string{"(etcd)", "(a b)", "(x) R 1 (y)", "()"} {
		state, ticks, err := parseStat("42 " + name + rest)
		if err != nil || state != "S" || ticks != "4711" {
			t.Errorf("%s: got %q %q %v", name, state, ticks, err)
		}
	}
	for _, bad := range []string{"", "42", "42 (etcd", "42 (etcd) S 1 2"} {
		if _, _, err := parseStat(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestReusedPidIsNotTakenForTheServer(t *testing.T) {
	s := &stack{dir: t.TempDir()}
	if _, err := s.start(program{name: "sleeper", args: []string{"sleep", "60"}}); err != nil {
		t.Fatal(err)
	}
	p := s.running("sleeper")
	if p == nil {
		t.Fatal("not found right after the start")
	}
	stranger := *p
	stranger.Started = "another boot/1"
	if err := saveJSON(s.processFile("sleeper"), stranger); err != nil {
		t.Fatal(err)
	}
	if err := s.stop("sleeper"); err != nil {
		t.Fatal(err)
	}
	if _, err := startOf(p.PID); err != nil {
		t.Fatal("a process that is not the recorded one was ended")
	}
	if err := saveJSON(s.processFile("sleeper"), *p); err != nil {
		t.Fatal(err)
	}
	if err := s.stop("sleeper"); err != nil {
		t.Fatal(err)
	}
	if s.running("sleeper") != nil || exists(s.processFile("sleeper")) {
		t.Error("still there after stop")
	}
}

func TestStopEndsWhatDoesNotListen(t *testing.T) {
	s := &stack{dir: t.TempDir()}
	script := `trap "" TERM; echo ready; while :; do sleep 0.1; done`
	if _, err := s.start(program{name: "deaf", args: []string{"sh", "-c", script}}); err != nil {
		t.Fatal(err)
	}
	err := s.waitFor([]string{"deaf"}, 5*time.Second, func() error {
		if data, err := os.ReadFile(s.logFile("deaf")); err != nil || len(data) == 0 {
			return os.ErrNotExist
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.end("deaf", 15, 300*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if s.running("deaf") != nil {
		t.Error("still running")
	}
}

func TestWaitForFailsAtOnceWhenTheServerEnds(t *testing.T) {
	s := &stack{dir: t.TempDir()}
	if _, err := s.start(program{name: "weak", args: []string{"sh", "-c", "sleep 0.2; echo no disk; exit 1"}}); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	err := s.waitFor([]string{"weak"}, time.Minute, func() error { return os.ErrNotExist })
	if err == nil || !strings.Contains(err.Error(), "no disk") || time.Since(begin) > 20*time.Second {
		t.Errorf("after %s: %v", time.Since(begin), err)
	}
}

func TestAZombieHasEnded(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := startOf(cmd.Process.Pid); err != nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("an ended process that nobody collected counts as running")
		}
	}
}

func TestVersions(t *testing.T) {
	for text, want := range map[string]version{
		"openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime":                {17, 0, 15},
		"Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version \"21\" 2023-09-19": {21},
		"java version \"1.8.0_402\"":                                             {1, 8, 0},
		"\x1b[1mApache Maven 3.8.7\x1b[m\nMaven home: /usr":                      {3, 8, 7},
		"Apache Maven 4.0.0-rc-4 (abc)":                                          {4},
	} {
		if got, err := parseVersion(versionLine(text)); err != nil || got != want {
			t.Errorf("%q: got %v %v", text, got, err)
		}
	}
	if !(version{1, 8}).less(version{17}) || (version{17, 0, 1}).less(version{17}) || (version{17}).less(version{17}) {
		t.Error("order of versions")
	}
}

func TestAnInterruptedBuildIsNotUsed(t *testing.T) {
	cache := t.TempDir()
	builds := 0
	broken := cachedBuild{"thing", "thing-1", func(folder string) error {
		builds++
		os.WriteFile(filepath.Join(folder, "half"), nil, 0o600)
		return os.ErrDeadlineExceeded
	}}
	if err := broken.ensure(cache); err == nil {
		t.Fatal("no error")
	}
	whole := cachedBuild{"thing", "thing-1", func(folder string) error {
		builds++
		if exists(filepath.Join(folder, "half")) {
			t.Error("began with leftovers")
		}
		return nil
	}}
	for range 2 {
		if err := whole.ensure(cache); err != nil {
			t.Fatal(err)
		}
	}
	if builds != 2 || !exists(filepath.Join(cache, "thing-1")) {
		t.Errorf("%d builds", builds)
	}
}

func TestClaimsLeaveOutWhatEverybodyHas(t *testing.T) {
	payload := `{"preferred_username":"alice","groups":["/payments"],"realm_access":{"roles":["default-roles-acme","payments-admin"]},` +
		`"resource_access":{"account":{"roles":["view-profile"]},"checkout":{"roles":["debug"]}}}`
	c, err := parseClaims("x." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".x")
	if err != nil {
		t.Fatal(err)
	}
	want := "user:         alice\nrealm roles:  payments-admin\nclient roles: checkout/debug\ngroups:       /payments\n"
	if got := c.summary(); got != want {
		t.Errorf("got\n%s", got)
	}
}

func TestApproveCommandIsReadFromTheCondition(t *testing.T) {
	var r accessRequest
	message := `{"status":{"conditions":[{"type":"Ready","message":"stage lead wants 1 more. To approve: kubectl annotate ` +
		`accessrequest fix -n team-payments approve.hallpass.dev/7f3a91bc.lead.1=yes ; or: kubectl annotate ` +
		`accessrequest fix -n team-payments approve.hallpass.dev/7f3a91bc.security.1=yes"}]}}`
	if err := json.Unmarshal([]byte(message), &r); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(r.approveArgs("oidc:bob"), " ")
	if want := "annotate accessrequest fix -n team-payments approve.hallpass.dev/7f3a91bc.lead.1=oidc:bob"; got != want {
		t.Errorf("got %s", got)
	}
}

func TestRenamedManifest(t *testing.T) {
	manifest := "metadata:\n  name: fix-checkout\n  namespace: team-payments\nspec:\n  duration: 2h # short\n  reason: x\n"
	got, err := renamed(manifest, "fix-7", "20s")
	want := "metadata:\n  name: fix-7\n  namespace: team-payments\nspec:\n  duration: 20s\n  reason: x\n"
	if err != nil || got != want {
		t.Errorf("got %s, %v", got, err)
	}
	if _, err := renamed("metadata: {}\n", "fix-7", "20s"); err == nil {
		t.Error("a manifest without the lines was taken")
	}
}

func TestAnImageHoldsTheProgramAndWhatItIsLinkedTo(t *testing.T) {
	image, err := imageOf("localhost/sh:dev", "/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	parts := unpack(t, image)
	var manifest []struct {
		Config           string
		RepoTags, Layers []string
	}
	if err := json.Unmarshal(parts["manifest.json"], &manifest); err != nil {
		t.Fatal(err)
	}
	if len(manifest) != 1 || !slices.Equal(manifest[0].RepoTags, []string{"localhost/sh:dev"}) {
		t.Fatalf("one image of that name, not %+v", manifest)
	}
	var config struct {
		Config struct {
			Entrypoint []string
			User       string
		}
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal(parts[manifest[0].Config], &config); err != nil {
		t.Fatal(err)
	}
	layer := parts[manifest[0].Layers[0]]
	if sum := fmt.Sprintf("sha256:%x", sha256.Sum256(layer)); !slices.Equal(config.RootFS.DiffIDs, []string{sum}) {
		t.Fatalf("the layer is %s, the config says %v", sum, config.RootFS.DiffIDs)
	}
	if !slices.Equal(config.Config.Entrypoint, []string{"/sh"}) || config.Config.User != "65532:65532" {
		t.Fatalf("%+v", config.Config)
	}
	files := unpack(t, layer)
	libraries, err := librariesOf("/bin/sh")
	if err != nil || len(libraries) == 0 {
		t.Fatalf("a shell is linked to libraries, not to %v: %v", libraries, err)
	}
	for _, name := range append(libraries, "/sh", "/etc/passwd") {
		if len(files[name[1:]]) == 0 {
			t.Errorf("%s is missing", name)
		}
	}
}

func unpack(t *testing.T, packed []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for reader := tar.NewReader(bytes.NewReader(packed)); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[header.Name], err = io.ReadAll(reader); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKernelSettingsAreNotedOnce(t *testing.T) {
	s := &stack{dir: t.TempDir()}
	const name = "vm/panic_on_oom"
	if err := save(s.kernelNote(name), []byte("what was there before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.noteKernel(); err != nil {
		t.Skip("no such settings here: ", err)
	}
	if kept, _ := os.ReadFile(s.kernelNote(name)); string(kept) != "what was there before\n" {
		t.Errorf("noted again, after we changed it: %q", kept)
	}
	if noted, _ := os.ReadFile(s.kernelNote("kernel/panic")); len(noted) == 0 {
		t.Error("kernel/panic is not noted")
	}
}

func TestUpIsAskedForOneThing(t *testing.T) {
	for args, want := range map[string]wanted{
		"":                    {operator: true},
		"--no-operator":       {},
		"--node":              {node: true},
		"--context kind-kind": {operator: true, context: "kind-kind"},
	} {
		if got, err := parseUp(strings.Fields(args)); err != nil || got != want {
			t.Errorf("%q: %+v %v", args, got, err)
		}
	}
	for _, bad := range [][]string{{"--context"}, {"--context", ""}, {"--node", "--no-operator"}, {"--nodes"}} {
		if got, err := parseUp(bad); err == nil {
			t.Errorf("%q was taken: %+v", bad, got)
		}
	}
}
