package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// peer is an HTTPS server of the stack, spoken to in JSON.
type peer struct {
	url    string
	http   *http.Client
	bearer string
}

// refusal is an answer that is not 2xx.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return fmt.Sprintf("HTTP %d: %s", r.status, r.text) }

// isStatus says whether the error is an answer with that status.
func isStatus(err error, status int) bool {
	var r *refusal
	return errors.As(err, &r) && r.status == status
}

// trusting returns a client that trusts the stack's own CA and nobody else, and shows the certificates.
func (s *stack) trusting(certificates ...tls.Certificate) (*http.Client, error) {
	ca, err := os.ReadFile(s.path("pki", "ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("the stack was never started (dev/dev up): %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &http.Client{
		Timeout: 10 * time.Second,
		// No proxy: all of this is on 127.0.0.1.
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: certificates}},
	}, nil
}

// asAdmin speaks to the API server with every right.
func (s *stack) asAdmin() (*peer, error) {
	if s.Context != "" {
		return s.throughProxy(), nil
	}
	certificate, err := tls.LoadX509KeyPair(s.path("pki", "admin.crt"), s.path("pki", "admin.key"))
	if err != nil {
		return nil, fmt.Errorf("the stack was never started (dev/dev up): %w", err)
	}
	client, err := s.trusting(certificate)
	if err != nil {
		return nil, err
	}
	return &peer{url: s.apiURL(), http: client}, nil
}

func (p *peer) get(path string, out any) error { return p.call(http.MethodGet, path, nil, out) }

// call sends a request and reads the answer into out, unless out is nil.
func (p *peer) call(method, path string, body, out any) error {
	var sent io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return err
		}
		sent = bytes.NewReader(data)
	}
	request, err := http.NewRequest(method, p.url+path, sent)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	if p.bearer != "" {
		request.Header.Set("Authorization", "Bearer "+p.bearer)
	}
	return p.send(request, out)
}

func (p *peer) send(request *http.Request, out any) error {
	answer, err := p.http.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode/100 != 2 {
		return &refusal{answer.StatusCode, string(data[:min(len(data), 300)])}
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(data, out)
}

// createNamespace is content with one that is there.
func (p *peer) createNamespace(name string) error {
	return p.create("/api/v1/namespaces", map[string]any{"metadata": map[string]string{"name": name}})
}

// openIssuer lets everybody read the keys of service accounts, as Keycloak does.
func (p *peer) openIssuer() error {
	const group = "rbac.authorization.k8s.io"
	return p.create("/apis/"+group+"/v1/clusterrolebindings", map[string]any{
		"metadata": map[string]string{"name": "dev-issuer-discovery"},
		"roleRef":  map[string]string{"apiGroup": group, "kind": "ClusterRole", "name": "system:service-account-issuer-discovery"},
		"subjects": []map[string]string{{"apiGroup": group, "kind": "Group", "name": "system:unauthenticated"}},
	})
}

// create is content with what is there.
func (p *peer) create(place string, object map[string]any) error {
	err := p.call(http.MethodPost, place, object, nil)
	if isStatus(err, http.StatusConflict) {
		return nil
	}
	return err
}

// serviceAccountToken asks the API server for a token, as a pod's would be.
func (p *peer) serviceAccountToken(namespace, name string, life time.Duration) (string, error) {
	request := map[string]any{"spec": map[string]any{"expirationSeconds": int(life.Seconds())}}
	var answer struct {
		Status struct {
			Token string `json:"token"`
		} `json:"status"`
	}
	path := fmt.Sprintf("/api/v1/namespaces/%s/serviceaccounts/%s/token", namespace, name)
	err := p.call(http.MethodPost, path, request, &answer)
	return answer.Status.Token, err
}

// whoAmI returns the name by which the API server knows the bearer.
func (p *peer) whoAmI() (string, error) {
	review := map[string]string{"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
	var answer struct {
		Status struct {
			UserInfo struct {
				Username string `json:"username"`
			} `json:"userInfo"`
		} `json:"status"`
	}
	err := p.call(http.MethodPost, "/apis/authentication.k8s.io/v1/selfsubjectreviews", review, &answer)
	return answer.Status.UserInfo.Username, err
}
