package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A stack can be the guest of a cluster that somebody else runs (kind, k3d, minikube, a cloud's): then only Keycloak and the
// operator run here, the chart is installed there, and people are impersonated by who may do that. What the cluster got from us is
// taken away by down.

// clusterProxy is kubectl, which signs in to the cluster however its owner does.
const clusterProxy = "kubectl-proxy"

// cluster is where a guest is.
type cluster struct {
	Context    string `json:"context"`    // of the owner's kubeconfig
	Kubeconfig string `json:"kubeconfig"` // $KUBECONFIG of the owner; empty if unset
	Server     string `json:"server"`
}

// stanza is the part of a kubeconfig that leads to one cluster as one user.
type stanza struct {
	Clusters []struct {
		Cluster map[string]any `json:"cluster"`
	} `json:"clusters"`
	Users []struct {
		User map[string]any `json:"user"`
	} `json:"users"`
}

// visit is what we have in a cluster. It is written down before anything is made there: only what it names is taken away.
type visit struct {
	Cluster    string   `json:"cluster"`    // UID of the namespace kube-system, which nothing else has
	Namespaces []string `json:"namespaces"` // that we make
}

func (s *stack) visitFile() string { return s.path("visit.json") }

// visiting is where we are, nothing if nowhere.
func (s *stack) visiting() (*visit, error) {
	data, err := os.ReadFile(s.visitFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var v visit
	return &v, json.Unmarshal(data, &v)
}

// upGuest makes the way to the cluster, and installs what belongs there.
func (s *stack) upGuest() error {
	var v *visit
	if err := step("cluster", func() (string, error) {
		if err := s.reachCluster(); err != nil {
			return "", err
		}
		var err error
		v, err = s.begin()
		return s.Server, err
	}); err != nil {
		return err
	}
	return step("chart", func() (string, error) {
		api, err := s.asAdmin()
		if err != nil {
			return "", err
		}
		for _, name := range v.Namespaces {
			if err := api.createNamespace(name); err != nil {
				return "", err
			}
		}
		return s.installChart()
	})
}

// begin says what we have in this cluster. At first that is nothing, and it must have no Hallpass.
func (s *stack) begin() (*visit, error) {
	v, err := s.visiting()
	if err != nil {
		return nil, err
	}
	if v != nil {
		return v, s.isSame(v)
	}
	api, err := s.asAdmin()
	if err != nil {
		return nil, err
	}
	v = &visit{}
	if v.Cluster, err = api.uidOfCluster(); err != nil {
		return nil, err
	}
	places := []string{"/api/v1/namespaces/" + operatorNamespace}
	for _, place := range guarded {
		places = append(places, "/apis/"+place)
	}
	for _, place := range places {
		if err := api.get(place, nil); err == nil {
			return nil, fmt.Errorf("Hallpass is in this cluster already, or was (there is %s): the demo would change it", filepath.Base(place))
		} else if !isStatus(err, http.StatusNotFound) {
			return nil, err
		}
	}
	v.Namespaces = []string{operatorNamespace}
	err = api.get("/api/v1/namespaces/"+requestNamespace, nil)
	if isStatus(err, http.StatusNotFound) {
		v.Namespaces = append(v.Namespaces, requestNamespace)
	} else if err != nil {
		return nil, err
	}
	return v, errors.Join(removeIfThere(s.path("chart.digest")), saveJSON(s.visitFile(), v))
}

// isSame complains if the context leads to another cluster by now.
func (s *stack) isSame(v *visit) error {
	api, err := s.asAdmin()
	if err != nil {
		return err
	}
	now, err := api.uidOfCluster()
	if err == nil && now != v.Cluster {
		err = fmt.Errorf("the context %s leads to another cluster than the one that the demo is in; if that is gone, delete %s",
			s.Context, s.visitFile())
	}
	return err
}

func (p *peer) uidOfCluster() (string, error) {
	var namespace struct {
		Metadata struct {
			UID string `json:"uid"`
		} `json:"metadata"`
	}
	err := p.get("/api/v1/namespaces/kube-system", &namespace)
	return namespace.Metadata.UID, err
}

// reachCluster starts the proxy and writes the kubeconfig in which everybody of the story is somebody.
func (s *stack) reachCluster() error {
	arguments := []string{"config", "view", "--raw", "--flatten", "--minify", "--context", s.Context, "--output", "json"}
	view := exec.Command(s.path("bin", "kubectl"), arguments...)
	view.Env = s.ownersEnv()
	out, err := view.Output()
	if err != nil {
		return fmt.Errorf("there is no context %s in your kubeconfig (kubectl config get-contexts lists them): %w", s.Context, err)
	}
	var found stanza
	if err := json.Unmarshal(out, &found); err != nil {
		return fmt.Errorf("the kubeconfig: %w", err)
	}
	if len(found.Clusters) != 1 || len(found.Users) != 1 {
		return fmt.Errorf("the context %s names no cluster or no user", s.Context)
	}
	server, _ := found.Clusters[0].Cluster["server"].(string)
	encoded, _ := found.Clusters[0].Cluster["certificate-authority-data"].(string)
	ca, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(ca) == 0 || server == "" {
		return fmt.Errorf("the context %s names no server or no certificate authority, without which the operator trusts nobody", s.Context)
	}
	s.Server = server
	if err := save(s.clusterCA(), ca, 0o600); err != nil {
		return err
	}
	if err := s.writeGuestKubeconfig(found); err != nil {
		return err
	}
	proxy := program{name: clusterProxy, args: []string{
		s.path("bin", "kubectl"), "proxy", "--context", s.Context, "--unix-socket", s.proxySocket(),
	}, env: s.ownersEnv()}
	// A socket that a killed one left behind is in its way.
	if s.running(clusterProxy) == nil {
		if err := removeIfThere(s.proxySocket()); err != nil {
			return err
		}
	}
	if _, err := s.start(proxy); err != nil {
		return err
	}
	api, err := s.asAdmin()
	if err != nil {
		return err
	}
	if err := s.waitFor([]string{clusterProxy}, 30*time.Second, api.readyz); err != nil {
		return err
	}
	return saveJSON(s.path("state.json"), s.settings)
}

func (s *stack) proxySocket() string { return s.path("cluster.sock") }
func (s *stack) clusterCA() string   { return s.path("config", "cluster-ca.crt") }

// ownersEnv is the environment in which the owner's kubeconfig is found, whatever the caller sources.
func (s *stack) ownersEnv() []string {
	env := os.Environ()
	if s.Kubeconfig == "" {
		return append(env, "KUBECONFIG=")
	}
	return append(env, "KUBECONFIG="+s.Kubeconfig)
}

// throughProxy speaks to the cluster as its owner. Only who may read our folder can: the proxy has a socket there, and no port.
func (s *stack) throughProxy() *peer {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", s.proxySocket())
	}
	return &peer{url: "http://localhost", http: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: dial}}}
}

// writeGuestKubeconfig gives each person a context that impersonates them, with the groups that they have in Keycloak.
func (s *stack) writeGuestKubeconfig(found stanza) error {
	groups, err := s.groupsOf()
	if err != nil {
		return err
	}
	type named map[string]any
	config := map[string]any{"apiVersion": "v1", "kind": "Config", "current-context": "admin"}
	users := []named{{"name": "admin", "user": found.Users[0].User}}
	contexts := []named{{"name": "admin", "context": named{"cluster": "dev", "user": "admin", "namespace": requestNamespace}}}
	for _, name := range people {
		user := named{"as": "oidc:" + name, "as-groups": append(groups[name], "oidc:everybody", "system:authenticated")}
		for key, value := range found.Users[0].User {
			user[key] = value
		}
		users = append(users, named{"name": name, "user": user})
		contexts = append(contexts, named{"name": name, "context": named{"cluster": "dev", "user": name, "namespace": requestNamespace}})
	}
	config["clusters"] = []named{{"name": "dev", "cluster": found.Clusters[0].Cluster}}
	config["users"], config["contexts"] = users, contexts
	return saveJSON(s.path("kubeconfig"), config)
}

// groupsOf says which groups people have, as the API server would name them.
func (s *stack) groupsOf() (map[string][]string, error) {
	text, err := s.renderRealm()
	if err != nil {
		return nil, err
	}
	var realm struct {
		Users []struct {
			Username string   `json:"username"`
			Groups   []string `json:"groups"`
		} `json:"users"`
	}
	if err := json.Unmarshal(text, &realm); err != nil {
		return nil, err
	}
	groups := map[string][]string{}
	for _, user := range realm.Users {
		for _, group := range user.Groups {
			groups[user.Username] = append(groups[user.Username], "oidc:"+group)
		}
	}
	return groups, nil
}

// leave ends what was lent, and takes away what is in the cluster because of us.
func (s *stack) leave() error {
	v, err := s.visiting()
	if err != nil {
		return err
	}
	if v == nil {
		if s.Context == "" {
			return nil
		}
		return removeIfThere(s.path("kubeconfig")) // it has the owner's credentials
	}
	return step("cluster", func() (string, error) {
		if err := errors.Join(s.reachCluster(), s.isSame(v)); err != nil {
			return "", err
		}
		commands := [][]string{
			{"hallpass", "drain", "--timeout", "1m"},
			{"helm", "uninstall", operator, "--namespace", operatorNamespace, "--kube-context", "admin", "--ignore-not-found"},
			{"kubectl", "--context", "admin", "delete", "crd", "accessrequests.hallpass.dev", "accesspolicies.hallpass.dev", "--ignore-not-found"},
		}
		for _, name := range v.Namespaces {
			commands = append(commands, []string{"kubectl", "--context", "admin", "delete", "namespace", name, "--ignore-not-found"})
		}
		for _, command := range commands {
			cmd := exec.Command(s.path("bin", command[0]), command[1:]...)
			cmd.Env = append(os.Environ(), "KUBECONFIG="+s.path("kubeconfig"))
			if out, err := cmd.CombinedOutput(); err != nil {
				return "", fmt.Errorf("%s: %w: %s\n(what was lent is taken away by the operator; dev/dev up --context %s starts it, and Keycloak)",
					strings.Join(command, " "), err, strings.TrimSpace(string(out)), s.Context)
			}
		}
		return "as it was before", errors.Join(
			removeIfThere(s.path("kubeconfig")), removeIfThere(s.path("chart.digest")), removeIfThere(s.visitFile()))
	})
}
