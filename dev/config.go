package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"text/template"
)

// people can sign in to the realm; each one's password is the name.
var people = []string{"alice", "bob", "carol", "dave", "erin", "mallory"}

const (
	realmName         = "acme"
	requestNamespace  = "team-payments"
	operatorNamespace = "hallpass-system"
	operatorClient    = "hallpass"
	peopleClient      = "kube"
	adminUser         = "admin"
)

// renderRealm returns dev/keycloak/realm.json with this stack's secret for the operator's client.
func (s *stack) renderRealm() ([]byte, error) {
	text, err := os.ReadFile(s.source("dev", "keycloak", "realm.json"))
	if err != nil {
		return nil, err
	}
	secret, err := s.secret("hallpass-client")
	if err != nil {
		return nil, err
	}
	return bytes.ReplaceAll(text, []byte("@HALLPASS_CLIENT_SECRET@"), []byte(secret)), nil
}

// view is what the templates below see.
type view struct {
	*stack
	CA, Realm string
	People    []string
}

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	// A JSON text is a YAML text, whatever is in it.
	"text": func(value string) (string, error) {
		data, err := json.Marshal(value)
		return string(data), err
	},
}).Parse(`
{{define "authentication.yaml"}}apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
anonymous:
  enabled: true
  conditions:
  - {path: /livez}
  - {path: /readyz}
  - {path: /healthz}
  - {path: /.well-known/openid-configuration}
  - {path: /openid/v1/jwks}
jwt:
- issuer:
    url: {{.KeycloakURL}}/realms/{{.Realm}}
    audiences: [kube]
    certificateAuthority: {{text .CA}}
  claimMappings:
    username: {claim: preferred_username, prefix: "oidc:"}
    # Everybody who signs in is in one more group, so that people can be given rights without naming each of their groups.
    groups: {expression: "dyn(claims.?groups.orValue([])).map(g, 'oidc:' + string(g)) + ['oidc:everybody']"}
    uid: {claim: sub}
{{end}}

{{define "audit.yaml"}}apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: RequestResponse, resources: [{group: hallpass.dev}]}
- {level: Metadata, users: ["system:serviceaccount:hallpass-system:hallpass"]}
- {level: None}
{{end}}

{{define "controller-manager.kubeconfig"}}apiVersion: v1
kind: Config
clusters:
- {name: dev, cluster: {server: {{text .APIURL}}, certificate-authority: {{text (.Path "pki" "ca.crt")}}}}
users:
- name: controller-manager
  user:
    client-certificate: {{text (.Path "pki" "controller-manager.crt")}}
    client-key: {{text (.Path "pki" "controller-manager.key")}}
contexts:
- {name: dev, context: {cluster: dev, user: controller-manager}}
current-context: dev
{{end}}

{{define "kubeconfig"}}apiVersion: v1
kind: Config
clusters:
- {name: dev, cluster: {server: {{text .APIURL}}, certificate-authority: {{text (.Path "pki" "ca.crt")}}}}
users:
- name: admin
  user:
    client-certificate: {{text (.Path "pki" "admin.crt")}}
    client-key: {{text (.Path "pki" "admin.key")}}
{{- range .People}}
- name: {{.}}
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1
      command: {{text ($.Path "bin" "dev")}}
      args: [exec-credential, {{.}}]
      interactiveMode: Never
{{- end}}
contexts:
- {name: admin, context: {cluster: dev, user: admin, namespace: team-payments}}
{{- range .People}}
- {name: {{.}}, context: {cluster: dev, user: {{.}}, namespace: team-payments}}
{{- end}}
current-context: admin
{{end}}

{{define "realms"}}realms:
- name: prod
  url: {{.KeycloakURL}}
  realm: {{.Realm}}
  auth:
    clientId: hallpass
    clientSecretFile: {{text (.Path "secrets" "hallpass-client")}}
  caFile: {{text (.Path "pki" "ca.crt")}}
  identity: {usernamePrefix: "oidc:", match: username, groupPrefix: "oidc:"}
  # Far less than Keycloak needs, so that tests need not wait: nothing here is lost on a network for minutes.
  settleTime: 4s
  checkInterval: 3s
{{end}}

{{define "hallpass.yaml"}}{{template "realms" .}}{{end}}

{{define "values.yaml"}}# No pod runs in this stack: the operator is a process of its own.
replicas: 0
people:
  subjects:
  - {kind: Group, name: "oidc:everybody"}
{{template "realms" .}}{{end}}

{{define "env"}}# Source this in a shell: kubectl, helm, hallpass and dev are those of the stack in {{.Path}}.
export KUBECONFIG={{text (.Path "kubeconfig")}}
export PATH={{text (.Path "bin")}}:"$PATH"
{{end}}
`))

// Methods that the templates call.
func (v view) KeycloakURL() string        { return v.keycloakURL() }
func (v view) APIURL() string             { return v.apiURL() }
func (v view) Path(elem ...string) string { return v.path(elem...) }

// writeConfig writes every file that servers, people and tests read.
func (s *stack) writeConfig(d *distribution) error {
	ca, err := os.ReadFile(s.path("pki", "ca.crt"))
	if err != nil {
		return err
	}
	v := view{stack: s, CA: string(ca), Realm: realmName, People: people}
	for name, path := range map[string]string{
		"authentication.yaml":           s.path("config", "authentication.yaml"),
		"audit.yaml":                    s.path("config", "audit.yaml"),
		"controller-manager.kubeconfig": s.path("config", "controller-manager.kubeconfig"),
		"values.yaml":                   s.path("config", "values.yaml"),
		"kubeconfig":                    s.path("kubeconfig"),
		"hallpass.yaml":                 s.path("hallpass.yaml"),
		"env":                           s.path("env"),
	} {
		var text bytes.Buffer
		if name == "kubeconfig" && s.Context != "" {
			continue // see reachCluster
		}
		if err := templates.ExecuteTemplate(&text, name, v); err != nil {
			return err
		}
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text.Bytes()) {
			continue
		}
		if err := save(path, text.Bytes(), 0o600); err != nil {
			return err
		}
	}
	links := map[string]string{operator: s.operatorBinary()}
	for _, tool := range []string{"kubectl", "helm"} {
		links[tool] = filepath.Join(d.servers, tool)
		if d.servers == "" {
			if links[tool], err = ownersTool(tool, s.path("bin")); err != nil {
				return err
			}
		}
	}
	for link, target := range links {
		if err := errors.Join(removeIfThere(s.path("bin", link)), os.Symlink(target, s.path("bin", link))); err != nil {
			return fmt.Errorf("link %s: %w", link, err)
		}
	}
	return s.writeDescription()
}

// ownersTool finds a program in $PATH, but not our link to it: who has sourced env has our folder in front.
func ownersTool(name, ours string) (string, error) {
	for _, folder := range filepath.SplitList(os.Getenv("PATH")) {
		if path, err := exec.LookPath(filepath.Join(folder, name)); err == nil && folder != ours {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is missing: install it", name)
}

// writeDescription tells the scenario tests what there is.
func (s *stack) writeDescription() error {
	password, err := s.secret("keycloak-admin")
	if err != nil {
		return err
	}
	return saveJSON(s.path("stack.json"), map[string]any{
		"apiServer":  s.apiURL(),
		"kubeconfig": s.path("kubeconfig"),
		"caFile":     s.path("pki", "ca.crt"),
		"kubectl":    s.path("bin", "kubectl"),
		"helm":       s.path("bin", "helm"),
		"dev":        s.path("bin", "dev"),
		"namespace":  requestNamespace,
		"auditLog":   s.path("log", "audit.log"),
		"etcd":       s.etcdURL(),
		"keycloak": map[string]string{
			"url": s.keycloakURL(), "realm": realmName, "clientId": peopleClient,
			"adminUser": adminUser, "adminPassword": password, "caFile": s.path("pki", "ca.crt"),
		},
		"operator": map[string]string{
			"kubeconfig": s.path("config", "operator.kubeconfig"), "config": s.path("hallpass.yaml"),
			"url": s.operatorURL(), "log": s.logFile(operator), "binary": s.operatorBinary(),
		},
	})
}
