package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"
)

// up starts what does not run. Kubernetes and Keycloak start side by side; Keycloak takes longer, so the chart is
// installed meanwhile.
func (s *stack) up(w wanted) error {
	begin := time.Now()
	if w.operator {
		if err := s.needOperatorBinary(); err != nil {
			return err
		}
	}
	if err := s.lock(); err != nil {
		return err
	}
	if err := s.settle(w); err != nil {
		return err
	}
	d, err := s.ensureDistribution()
	if err != nil {
		return err
	}
	if err := s.settlePorts(); err != nil {
		return err
	}
	if err := s.ensurePKI(); err != nil {
		return err
	}
	if s.Node {
		if err := step("network", s.linkNode); err != nil {
			return err
		}
	}
	if err := s.writeConfig(d); err != nil {
		return err
	}
	err = untilOneFails(
		func() error { return s.upKubernetes(d) },
		func() error { return s.upKeycloak(d) },
	)
	if err != nil {
		return err
	}
	if s.Context == "" {
		if err := step("sign-in", s.waitForSignIn); err != nil {
			return err
		}
	}
	if !s.Node {
		if err := step("admission policies", s.waitForAdmission); err != nil {
			return err
		}
	}
	if w.operator {
		if err := s.startOperator(); err != nil {
			return err
		}
	}
	say("\nup after %.1f s. To use it:  . %s", time.Since(begin).Seconds(), s.path("env"))
	return nil
}

func (s *stack) upKubernetes(d *distribution) error {
	if s.Context != "" {
		return s.upGuest()
	}
	if err := step("etcd, API server", func() (string, error) { return s.upAPIServer(d) }); err != nil {
		return err
	}
	if err := step("controller manager", func() (string, error) { return s.upControllerManager(d) }); err != nil {
		return err
	}
	if s.Node {
		return s.nodeUp()
	}
	return step("chart", s.installChart)
}

func (s *stack) nodeUp() error {
	d, err := s.nodeRuns() // noted by linkNode
	if err != nil {
		return err
	}
	return step("node", func() (string, error) { return s.upNode(d) })
}

// settle ends all of a stack that was of another kind: with a node the servers listen on its bridge, and a guest has no API server.
func (s *stack) settle(w wanted) error {
	if s.Node == w.node && s.Context == w.context {
		return nil
	}
	if err := s.stopAll(); err != nil {
		return err
	}
	if err := removeIfThere(s.path("chart.digest")); err != nil {
		return err
	}
	s.Node, s.cluster = w.node, cluster{}
	if w.context != "" {
		s.cluster = cluster{Context: w.context, Kubeconfig: os.Getenv("KUBECONFIG")}
	}
	return nil
}

func (s *stack) upAPIServer(d *distribution) (string, error) {
	if _, err := s.start(s.etcdProgram(d)); err != nil {
		return "", err
	}
	// The API server waits for etcd by itself.
	if _, err := s.start(s.apiServerProgram(d)); err != nil {
		return "", err
	}
	api, err := s.asAdmin()
	if err != nil {
		return "", err
	}
	if err := s.waitFor([]string{apiServer, etcd}, 2*time.Minute, api.readyz); err != nil {
		return "", err
	}
	if err := api.openIssuer(); err != nil {
		return "", err
	}
	return s.apiURL(), api.createNamespace(requestNamespace)
}

// readyz is content with any answer of 200; what it says is for people.
func (p *peer) readyz() error {
	answer, err := p.http.Get(p.url + "/readyz")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return errors.New(answer.Status)
	}
	return nil
}

// upControllerManager is done when the controllers work: the one for service accounts has served the new namespace.
func (s *stack) upControllerManager(d *distribution) (string, error) {
	if _, err := s.start(s.controllerManagerProgram(d)); err != nil {
		return "", err
	}
	api, err := s.asAdmin()
	if err != nil {
		return "", err
	}
	// It makes its own certificate, which nobody could verify.
	manager := peer{
		url:  fmt.Sprintf("https://127.0.0.1:%d", s.Ports.ControllerManager),
		http: &http.Client{Timeout: time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}},
	}
	return "ready", s.waitFor([]string{controllerManager, apiServer, etcd}, time.Minute, func() error {
		answer, err := manager.http.Get(manager.url + "/healthz")
		if err != nil {
			return err
		}
		answer.Body.Close()
		return api.get("/api/v1/namespaces/"+requestNamespace+"/serviceaccounts/default", nil)
	})
}

func (s *stack) upKeycloak(d *distribution) error {
	return step("Keycloak", func() (string, error) {
		if err := s.prepareKeycloak(d); err != nil {
			return "", err
		}
		password, err := s.secret("keycloak-admin")
		if err != nil {
			return "", err
		}
		if _, err := s.start(s.keycloakProgram(password)); err != nil {
			return "", err
		}
		trusting, err := s.trusting()
		if err != nil {
			return "", err
		}
		management := peer{url: fmt.Sprintf("https://%s:%d", s.host(), s.Ports.KeycloakManagement), http: trusting}
		err = s.waitFor([]string{keycloak}, 5*time.Minute, func() error { return management.get("/health/ready", nil) })
		if err != nil {
			return "", err
		}
		return s.keycloakURL() + "/realms/" + realmName, os.WriteFile(s.keycloakMark(), nil, 0o600)
	})
}

// waitForSignIn waits until the API server accepts Keycloak's tokens. It reads the issuer's keys when it starts, before
// Keycloak is there, and tries again every ten seconds.
func (s *stack) waitForSignIn() (string, error) {
	t, err := s.signInPerson("alice")
	if err != nil {
		return "", err
	}
	client, err := s.trusting()
	if err != nil {
		return "", err
	}
	api := peer{url: s.apiURL(), http: client, bearer: t.ID}
	var name string
	err = s.waitFor([]string{apiServer, keycloak}, time.Minute, func() error {
		name, err = api.whoAmI()
		return err
	})
	return "the API server takes Keycloak's tokens: " + name, err
}

// waitForAdmission waits until the API server has taken in the admission policies and their parameters, which takes it
// some seconds after a start: an honest request passes and a forged one does not. Both are dry runs.
func (s *stack) waitForAdmission() (string, error) {
	api, err := s.asAdmin()
	if err != nil {
		return "", err
	}
	try := func(fields map[string]any) error {
		spec := map[string]any{"policyName": "dry-run"}
		for key, value := range fields {
			spec[key] = value
		}
		return api.call(http.MethodPost, "/apis/hallpass.dev/v1alpha1/namespaces/"+requestNamespace+"/accessrequests?dryRun=All",
			map[string]any{
				"apiVersion": "hallpass.dev/v1alpha1", "kind": "AccessRequest",
				"metadata": map[string]any{"generateName": "dry-run-"}, "spec": spec,
			}, nil)
	}
	return "enforced", s.waitFor([]string{apiServer}, time.Minute, func() error {
		if err := try(nil); err != nil {
			return err
		}
		err := try(map[string]any{"requester": "oidc:nobody", "submittedBy": "oidc:nobody"})
		if err == nil {
			return errors.New("a forged request passes")
		}
		if !strings.Contains(err.Error(), "hallpass-identity") {
			return err
		}
		return nil
	})
}
