package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"text/template"
	"time"
)

const tokenLife = 24 * time.Hour

// operatorBinary is what cargo built, or $HALLPASS_BIN.
func (s *stack) operatorBinary() string {
	if binary := os.Getenv("HALLPASS_BIN"); binary != "" {
		return binary
	}
	target := os.Getenv("CARGO_TARGET_DIR")
	if target == "" {
		target = s.source("target")
	}
	return filepath.Join(target, "debug", "hallpass")
}

// needOperatorBinary says what to do if there is none.
func (s *stack) needOperatorBinary() error {
	if binary := s.operatorBinary(); !exists(binary) {
		return fmt.Errorf("%s is not there: cargo build makes it, $HALLPASS_BIN names another, and dev/dev up --no-operator goes without", binary)
	}
	return nil
}

func (s *stack) operator(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: dev/dev operator start|stop|kill|restart")
	}
	if err := s.lock(); err != nil {
		return err
	}
	switch args[0] {
	case "start":
		return s.startOperator()
	case "stop":
		return s.stopNamed(operator)
	case "kill":
		return step(operator, func() (string, error) { return "killed", s.end(operator, syscall.SIGKILL, 20*time.Second) })
	case "restart":
		if err := s.needOperatorBinary(); err != nil {
			return err
		}
		if err := s.stopNamed(operator); err != nil {
			return err
		}
		return s.startOperator()
	}
	return fmt.Errorf("unknown: operator %s", args[0])
}

// startOperator runs the operator under the chart's service account, never as an administrator: what the chart forgot
// to allow must fail here too.
func (s *stack) startOperator() error {
	binary := s.operatorBinary()
	if err := s.needOperatorBinary(); err != nil {
		return err
	}
	built, err := buildOf(binary)
	if err != nil {
		return err
	}
	record := s.path("run", "hallpass.build")
	if old, err := os.ReadFile(record); s.running(operator) != nil && (err != nil || string(old) != built) {
		if err := s.stopNamed(operator); err != nil { // what runs is not what was built since
			return err
		}
	}
	return step("operator", func() (string, error) {
		if s.running(operator) == nil {
			if err := save(record, []byte(built), 0o600); err != nil {
				return "", err
			}
			if err := s.writeOperatorKubeconfig(); err != nil {
				return "", err
			}
		}
		_, err := s.start(program{
			name: operator,
			args: []string{binary, "run", "--config", s.path("hallpass.yaml"), "--listen", fmt.Sprintf("127.0.0.1:%d", s.Ports.Operator)},
			// GLIBC_TUNABLES as in the image: see release/image.go.
			env: []string{
				"KUBECONFIG=" + s.path("config", "operator.kubeconfig"),
				"GLIBC_TUNABLES=glibc.malloc.mmap_threshold=131072:glibc.malloc.trim_threshold=131072",
			},
		})
		if err != nil {
			return "", err
		}
		probe := s.operatorPeer()
		// With very many requests the first list takes a minute.
		return s.operatorURL() + "/readyz", s.waitFor([]string{operator}, 5*time.Minute, probe.leads)
	})
}

// operatorPeer asks the operator how it is.
func (s *stack) operatorPeer() *peer {
	return &peer{url: s.operatorURL(), http: &http.Client{Timeout: 2 * time.Second}}
}

// leads is content with an operator that is ready and leads: one that waits is ready, too.
func (p *peer) leads() error {
	answer, err := p.http.Get(p.url + "/readyz")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK || !bytes.Contains(text, []byte("this process leads")) {
		return fmt.Errorf("%s: %s", answer.Status, bytes.TrimSpace(text))
	}
	return nil
}

// buildOf tells one build of a binary from the next.
func buildOf(binary string) (string, error) {
	info, err := os.Stat(binary)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s %d %d", binary, info.Size(), info.ModTime().UnixNano()), nil
}

var operatorKubeconfig = template.Must(template.New("").Parse(`apiVersion: v1
kind: Config
clusters:
- {name: dev, cluster: {server: {{printf "%q" .Server}}, certificate-authority: {{printf "%q" .CA}}}}
users:
- {name: operator, user: {token: {{printf "%q" .Token}}}}
contexts:
- {name: operator, context: {cluster: dev, user: operator, namespace: {{.Namespace}}}}
current-context: operator
`))

func (s *stack) writeOperatorKubeconfig() error {
	api, err := s.asAdmin()
	if err != nil {
		return err
	}
	token, err := api.serviceAccountToken(operatorNamespace, operator, tokenLife)
	if isStatus(err, http.StatusNotFound) {
		return fmt.Errorf("no service account %s/%s: the chart is not installed (dev/dev up does that)", operatorNamespace, operator)
	}
	if err != nil {
		return fmt.Errorf("ask for the operator's token: %w", err)
	}
	var text bytes.Buffer
	err = operatorKubeconfig.Execute(&text, map[string]string{
		"Server": s.apiURL(), "CA": s.apiCA(), "Token": token, "Namespace": operatorNamespace,
	})
	if err != nil {
		return err
	}
	return save(s.path("config", "operator.kubeconfig"), text.Bytes(), 0o600)
}
