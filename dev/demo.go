package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// demo is the story of one request, told while it happens on the running stack.
type demo struct {
	*stack
	api     *peer
	request string // its name, new each time
	watch   *accessWatch

	asked, seen, approved time.Time
}

// demoDuration is long enough to look around and short enough to wait for.
const demoDuration = "30s"

func (s *stack) tellDemo() error {
	api, err := s.asAdmin()
	if err != nil {
		return err
	}
	if err := s.operatorPeer().readyz(); err != nil {
		return fmt.Errorf("the operator is not ready; dev/dev up starts it: %w", err)
	}
	d := &demo{stack: s, api: api, request: "fix-checkout-" + time.Now().Format("150405")}
	if d.watch, err = s.watchAccess("alice"); err != nil {
		return err
	}
	defer d.watch.stop()
	for _, chapter := range []func() error{d.policy, d.ask, d.forge, d.approve, d.access, d.ending, d.goodbye} {
		if err := chapter(); err != nil {
			return fmt.Errorf("%w (dev/dev logs %s shows what the operator said)", err, operator)
		}
	}
	return nil
}

func (d *demo) policy() error {
	tell("The security team's policy says who may ask for what, for how long, and who must agree.")
	if err := d.kubectl("apply", "-f", "examples/policy.yaml"); err != nil {
		return err
	}
	if err := d.kubectl("wait", "--for=condition=Ready", "-f", "examples/policy.yaml", "--timeout=30s"); err != nil {
		return err
	}
	tell("Alice is on call. This is what Keycloak says about her now:")
	return d.command("dev", "token", "alice")
}

func (d *demo) ask() error {
	manifest, err := d.manifest()
	if err != nil {
		return err
	}
	tell("She asks for access, for %s.", demoDuration)
	if err := d.command("cat", manifest); err != nil {
		return err
	}
	if err := d.kubectl("--context", "alice", "apply", "-f", manifest); err != nil {
		return err
	}
	if d.asked, err = d.acceptedAt("create", "oidc:alice"); err != nil {
		return err
	}
	if _, err := d.waitFor("the operator's answer", func(r *accessRequest) bool { return r.approveCommand() != "" }); err != nil {
		return err
	}
	d.seen = time.Now()
	tell("What is missing, and who can help:")
	if err := d.kubectl("--context", "alice", "get", "areq", d.request); err != nil {
		return err
	}
	return d.kubectl("--context", "alice", "get", "areq", d.request,
		"-o", `jsonpath={.status.conditions[?(@.type=="Approved")].message}`)
}

// manifest is examples/request.yaml under a new name, so that the story can be told again, and for a short time.
func (d *demo) manifest() (string, error) {
	text, err := os.ReadFile(d.source("examples", "request.yaml"))
	if err != nil {
		return "", err
	}
	changed, err := renamed(string(text), d.request, demoDuration)
	if err != nil {
		return "", fmt.Errorf("examples/request.yaml: %w", err)
	}
	path := d.path("demo", "request.yaml")
	if err := save(path, []byte(changed), 0o600); err != nil {
		return "", err
	}
	if short, err := filepath.Rel(d.Checkout, path); err == nil && !strings.HasPrefix(short, "..") {
		return short, nil
	}
	return path, nil
}

var (
	nameLine     = regexp.MustCompile(`(?m)^  (?:name|generateName): .*$`)
	durationLine = regexp.MustCompile(`(?m)^  duration: .*$`)
)

// renamed changes the lines of the manifest that hold its name and its duration.
func renamed(manifest, name, duration string) (string, error) {
	old := nameLine.FindString(manifest)
	if old == "" || !durationLine.MatchString(manifest) {
		return "", errors.New("no line with the name, or none with the duration")
	}
	manifest = strings.Replace(manifest, old, "  name: "+name, 1)
	return durationLine.ReplaceAllLiteralString(manifest, "  duration: "+duration), nil
}

func (d *demo) forge() error {
	r, err := d.get()
	if err != nil {
		return err
	}
	tell("Mallory, who has no say, answers in Bob's name. The API server refuses it; no webhook is involved.")
	forged := append([]string{"--context", "mallory"}, r.approveArgs("oidc:bob")...)
	if err := d.kubectl(forged...); err == nil {
		return errors.New("the forged approval was taken")
	}
	return nil
}

func (d *demo) approve() error {
	r, err := d.get()
	if err != nil {
		return err
	}
	tell("Bob leads the team. He runs the command that the request names.")
	vote := "oidc:bob"
	if strings.HasSuffix(r.approveCommand(), "=yes") { // the API server turns it into his name
		vote = "yes"
	}
	if err := d.kubectl(append([]string{"--context", "bob"}, r.approveArgs(vote)...)...); err != nil {
		return err
	}
	d.approved, err = d.acceptedAt("patch", "oidc:bob")
	return err
}

func (d *demo) access() error {
	if err := d.watch.wait(30*time.Second, func(w *accessWatch) bool { return len(w.added()) > 0 }); err != nil {
		return fmt.Errorf("nothing arrived in Keycloak: %w", err)
	}
	tell("Keycloak's administration API now lists for Alice:\n    %s", strings.Join(d.watch.added(), "\n    "))
	tell("and her next token carries it:")
	if err := d.command("dev", "token", "alice"); err != nil {
		return err
	}
	if _, err := d.waitFor("phase Active", func(r *accessRequest) bool { return r.Status.Phase == "Active" }); err != nil {
		return err
	}
	return d.kubectl("--context", "alice", "get", "areq", d.request)
}

func (d *demo) ending() error {
	r, err := d.get()
	if err != nil {
		return err
	}
	left := time.Until(r.Status.Grant.Deadline)
	tell("Nobody does anything any more. The access ends at %s, in %.0f s ...",
		r.Status.Grant.Deadline.Format(time.TimeOnly), left.Seconds())
	if err := d.watch.wait(max(left, 0)+time.Minute, func(w *accessWatch) bool { return len(w.added()) == 0 }); err != nil {
		return fmt.Errorf("the access is still there: %w", err)
	}
	tell("It is gone from Keycloak, and from her next token:")
	if err := d.command("dev", "token", "alice"); err != nil {
		return err
	}
	expired, err := d.waitFor("phase Expired", func(r *accessRequest) bool { return r.Status.Phase == "Expired" })
	if err != nil {
		return err
	}
	if err := d.kubectl("--context", "alice", "get", "areq", d.request, "-o", "wide"); err != nil {
		return err
	}
	d.times(expired)
	return nil
}

// times prints what was measured. Keycloak was asked every pollInterval, which is how exact the times can be.
func (d *demo) times(r *accessRequest) {
	arrived, gone := d.watch.times()
	tell("Measured, with Keycloak asked every %s:", pollInterval)
	for _, row := range []struct {
		what     string
		from, to time.Time
	}{
		{"asked -> told what is missing", d.asked, d.seen},
		{"approved -> in Keycloak", d.approved, arrived},
		{"deadline -> gone from Keycloak", r.Status.Grant.Deadline, gone},
	} {
		if row.from.IsZero() {
			continue
		}
		fmt.Printf("    %-34s %8.0f ms\n", row.what, float64(row.to.Sub(row.from).Microseconds())/1000)
	}
	if at := r.Status.Grant.PowerlessAt; !at.IsZero() {
		fmt.Printf("    %-34s %8s (old access tokens have run out by then)\n", "powerless for certain", at.Local().Format(time.TimeOnly))
	}
}

func (d *demo) goodbye() error {
	env := d.path("env")
	if short, err := filepath.Rel(d.Checkout, env); err == nil && !strings.HasPrefix(short, "..") {
		env = "./" + short
	}
	tell(`Now you. Everybody is here: alice, bob, carol, dave, erin and mallory (their passwords are their names).
    . %s
    kubectl --context alice apply -f examples/request.yaml
    kubectl --context bob get areq -o wide
    kubectl --context alice describe areq
    dev token alice
make down stops everything.`, env)
	return nil
}
