package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"
)

// accessRequest is the part of an AccessRequest that the story reads.
type accessRequest struct {
	Status struct {
		Phase      string `json:"phase"`
		Conditions []struct {
			Type    string `json:"type"`
			Message string `json:"message"`
		} `json:"conditions"`
		Grant struct {
			Deadline    time.Time `json:"deadline"`
			PowerlessAt time.Time `json:"powerlessAt"`
		} `json:"grant"`
	} `json:"status"`
}

var approvePattern = regexp.MustCompile(`kubectl annotate \S+ \S+ -n \S+ approve\.hallpass\.dev/[^\s=]+=\S+`)

// approveCommand is the command that the request's conditions tell an approver to run.
func (r *accessRequest) approveCommand() string {
	for _, c := range r.Status.Conditions {
		if command := approvePattern.FindString(c.Message); command != "" {
			return command
		}
	}
	return ""
}

// approveArgs are the arguments of that command with a name in place of the "yes" or the blank it shows.
func (r *accessRequest) approveArgs(voter string) []string {
	command, _, _ := strings.Cut(strings.TrimPrefix(r.approveCommand(), "kubectl "), "=")
	return strings.Fields(command + "=" + voter)
}

func (d *demo) get() (*accessRequest, error) {
	var r accessRequest
	path := "/apis/hallpass.dev/v1alpha1/namespaces/" + requestNamespace + "/accessrequests/" + d.request
	return &r, d.api.get(path, &r)
}

// acceptedAt is when the API server had written what the person sent, by its audit log: kubectl itself takes longer than
// what is measured here.
func (d *demo) acceptedAt(verb, user string) (time.Time, error) {
	if d.Context != "" {
		return time.Time{}, nil // somebody else's audit log
	}
	log, err := os.ReadFile(d.path("log", "audit.log"))
	if err != nil {
		return time.Time{}, err
	}
	var at time.Time
	for line := range bytes.Lines(log) {
		var event struct {
			Verb string `json:"verb"`
			User struct {
				Username string `json:"username"`
			} `json:"user"`
			Object struct {
				Name string `json:"name"`
			} `json:"objectRef"`
			Response struct {
				Code int `json:"code"`
			} `json:"responseStatus"`
			At time.Time `json:"stageTimestamp"`
		}
		if bytes.Contains(line, []byte(d.request)) && json.Unmarshal(line, &event) == nil && event.Verb == verb &&
			event.User.Username == user && event.Object.Name == d.request && event.Response.Code/100 == 2 {
			at = event.At
		}
	}
	if at.IsZero() {
		return at, fmt.Errorf("no %s by %s in the audit log", verb, user)
	}
	return at, nil
}

// waitFor polls the request until it is as hoped.
func (d *demo) waitFor(what string, hoped func(*accessRequest) bool) (*accessRequest, error) {
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		r, err := d.get()
		if err == nil && hoped(r) {
			return r, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("waited 30 s for %s; phase %s, %v", what, r.Status.Phase, r.Status.Conditions)
		}
	}
}

// tell prints a sentence of the story.
func tell(format string, args ...any) { fmt.Printf("\n"+format+"\n", args...) }

// kubectl prints a command as a person would type it, runs it, and prints what it says.
func (d *demo) kubectl(args ...string) error { return d.command("kubectl", args...) }

func (d *demo) command(name string, args ...string) error {
	typed := name
	for _, a := range args {
		if strings.ContainsAny(a, ` {"'`) {
			a = "'" + a + "'"
		}
		typed += " " + a
	}
	fmt.Println("  $ " + typed)
	program := name
	if own := d.path("bin", name); exists(own) {
		program = own
	}
	cmd := exec.Command(program, args...)
	cmd.Dir = d.Checkout
	cmd.Env = append(os.Environ(), "KUBECONFIG="+d.path("kubeconfig"))
	out, err := cmd.CombinedOutput()
	for line := range strings.Lines(strings.TrimRight(string(out), "\n")) {
		fmt.Println("    " + strings.TrimRight(line, "\n"))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", typed, err)
	}
	return nil
}
