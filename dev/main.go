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

  up [--no-operator]    start everything (quick when it runs already)
  down [--clean]        stop everything; --clean also removes the state folder
  status                what runs, where, since when
  logs [NAME [-f]]      where the logs are, or the end of one; -f follows it
  operator start|stop|kill|restart
                        the operator alone; kill is SIGKILL, without a goodbye
  keycloak start|stop|restart
                        Keycloak alone, with the data that it has
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
		noOperator, err := onlyFlag(rest, "--no-operator")
		if err != nil {
			return err
		}
		return s.up(!noOperator)
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
	case "demo":
		return s.tellDemo()
	case "token":
		return s.showToken(rest)
	case "exec-credential": // called by kubectl, see people.go
		return s.execCredential(rest)
	}
	return fmt.Errorf("unknown command %q; dev/dev help lists them", command)
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
