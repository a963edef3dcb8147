package main

import (
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// guarded are the objects without which the operator gives nothing. Who tries things out deletes them by hand.
var guarded = []string{
	"admissionregistration.k8s.io/v1/validatingadmissionpolicies/hallpass-identity",
	"admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/hallpass-identity",
	"admissionregistration.k8s.io/v1/validatingadmissionpolicies/hallpass-policy",
	"admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/hallpass-policy",
	"admissionregistration.k8s.io/v1/mutatingadmissionpolicies/hallpass-stamp",
	"admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings/hallpass-stamp",
	"apiextensions.k8s.io/v1/customresourcedefinitions/accesspolicies.hallpass.dev",
	"apiextensions.k8s.io/v1/customresourcedefinitions/accessrequests.hallpass.dev",
}

// installChart installs or upgrades the project's chart. helm takes seconds, so it is called only when the chart or the
// values changed, or something that it installed is not there.
func (s *stack) installChart() (string, error) {
	chart := s.source("charts", "hallpass")
	values := s.path("config", "values.yaml")
	files, err := filesIn(chart)
	if err != nil {
		return "", err
	}
	present, err := digest(strings.Join(files, "\n"), append(files, values)...)
	if err != nil {
		return "", err
	}
	mark := s.path("chart.digest")
	deployed, err := s.releaseDeployed()
	if err != nil {
		return "", err
	}
	complete, err := s.guardedPresent()
	if err != nil {
		return "", err
	}
	if installed, err := os.ReadFile(mark); err == nil && string(installed) == present && deployed && complete {
		return "unchanged", nil
	}
	cmd := exec.Command(s.path("bin", "helm"), "upgrade", "--install", operator, chart,
		"--namespace", operatorNamespace, "--create-namespace", "--values", values,
		"--kubeconfig", s.path("kubeconfig"), "--kube-context", "admin")
	// The user's own helm repositories and plugins stay out of this.
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+s.path("helm", "cache"),
		"HELM_CONFIG_HOME="+s.path("helm", "config"), "HELM_DATA_HOME="+s.path("helm", "data"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("helm failed (%w):\n%s", err, strings.TrimSpace(string(out)))
	}
	return "installed as release hallpass", save(mark, []byte(present), 0o600)
}

func filesIn(dir string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	return files, err
}

// releaseDeployed asks for the Secret in which helm keeps a release that works.
func (s *stack) releaseDeployed() (bool, error) {
	api, err := s.asAdmin()
	if err != nil {
		return false, err
	}
	var list struct {
		Items []struct{} `json:"items"`
	}
	selector := url.QueryEscape("owner=helm,status=deployed,name=" + operator)
	err = api.get("/api/v1/namespaces/"+operatorNamespace+"/secrets?labelSelector="+selector, &list)
	return len(list.Items) > 0, err
}

// guardedPresent asks whether all of them are there.
func (s *stack) guardedPresent() (bool, error) {
	api, err := s.asAdmin()
	if err != nil {
		return false, err
	}
	for _, place := range guarded {
		err := api.get("/apis/"+place, nil)
		if isStatus(err, http.StatusNotFound) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}
