// Command dev runs Hallpass's development stack on this machine without containers: the real etcd, kube-apiserver,
// kube-controller-manager and Keycloak, the project's chart installed with the real helm, and the operator as a process
// under its own service account. It knows nothing about how the operator works inside.
//
// It is built and called by the script dev/dev.
package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

const usage = `usage: dev/dev COMMAND

  up [--no-operator | --node | --context NAME]
                        start everything (quick when it runs already). With --node (as root) also a node that runs Pods, for a
                        chart that you install yourself: neither chart nor operator are started. With --context, a context of
                        your kubeconfig, Keycloak and operator only, beside that cluster; down takes away what it got
  down [--clean]        stop everything; --clean also removes the state folder
  status                what runs, where, since when
  logs [NAME [-f]]      where the logs are, or the end of one; -f follows it
  operator start|stop|kill|restart
                        the operator alone; kill is SIGKILL, without a goodbye
  keycloak start|stop|restart
                        Keycloak alone, with the data that it has
  node check            could a node run on this machine?
  node load NAME:TAG=SOURCE
                        give the node an image: an OCI layout (make image), or a program that is put into one
  demo                  the story of one request, told on the running stack
  token NAME [--raw]    sign in as alice, bob, carol, dave, erin or mallory and show what the token says
  help                  this text

State is kept in $HALLPASS_DEV_STATE (default: .dev in the checkout), built servers in ~/.cache/hallpass-dev.
`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "dev: "+err.Error())
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 || slices.Contains([]string{"help", "-h", "--help"}, args[0]) {
		fmt.Print(usage)
		return nil
	}
	s, err := openStack()
	if err != nil {
		return err
	}
	command, rest := args[0], args[1:]
	switch command {
	case "up":
		wanted, err := parseUp(rest)
		if err != nil {
			return err
		}
		return s.up(wanted)
	case "down":
		clean, err := onlyFlag(rest, "--clean")
		if err != nil {
			return err
		}
		return s.down(clean)
	case "status":
		return s.status()
	case "logs":
		return s.logs(rest)
	case "operator":
		return s.operator(rest)
	case "keycloak":
		return s.keycloakAlone(rest)
	case "node":
		return s.nodeCommand(rest)
	case "demo":
		return s.tellDemo()
	case "token":
		return s.showToken(rest)
	case "exec-credential": // called by kubectl, see people.go
		return s.execCredential(rest)
	}
	return fmt.Errorf("unknown command %q; dev/dev help lists them", command)
}

// wanted is what up is asked for.
type wanted struct {
	operator, node bool
	context        string // whose guest the stack is to be
}

func parseUp(args []string) (wanted, error) {
	switch {
	case len(args) == 0:
		return wanted{operator: true}, nil
	case len(args) == 1 && args[0] == "--no-operator":
		return wanted{}, nil
	case len(args) == 1 && args[0] == "--node":
		return wanted{node: true}, nil
	case len(args) == 2 && args[0] == "--context" && args[1] != "":
		return wanted{operator: true, context: args[1]}, nil
	}
	return wanted{}, errors.New("usage: dev/dev up [--no-operator | --node | --context NAME]")
}

// onlyFlag says whether flag is given, and refuses everything else.
func onlyFlag(args []string, flag string) (bool, error) {
	for _, a := range args {
		if a != flag {
			return false, errors.New("unexpected argument " + strings.TrimSpace(a) + "; dev/dev help lists what there is")
		}
	}
	return len(args) > 0, nil
}
