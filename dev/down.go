package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"time"
)

// servers in the order in which status shows them.
var servers = []string{etcd, apiServer, controllerManager, keycloak, operator}

// stopAll stops in the reverse order of starting; Keycloak, which nobody else needs by then, beside the others.
func (s *stack) stopAll() error {
	if err := s.leave(); err != nil {
		return err
	}
	return s.stopServers()
}

func (s *stack) stopServers() error {
	// What one of them does not do must not keep the others.
	err := errors.Join(s.stopNamed(operator), s.downNode(), together(
		func() error { return s.stopNamed(keycloak) },
		func() error {
			return errors.Join(s.stopNamed(clusterProxy), s.stopNamed(controllerManager), s.stopNamed(apiServer), s.stopNamed(etcd))
		},
	))
	if err != nil {
		return err
	}
	return s.unlinkNode()
}

func (s *stack) stopNamed(name string) error {
	if s.running(name) == nil {
		return s.stop(name) // forgets what is left of it
	}
	return step(name, func() (string, error) { return "stopped", s.stop(name) })
}

func (s *stack) down(clean bool) error {
	if err := s.lock(); err != nil {
		return err
	}
	if err := s.stopAll(); err != nil {
		return err
	}
	if clean {
		return os.RemoveAll(s.dir)
	}
	return nil
}

func (s *stack) status() error {
	fmt.Println("state: " + s.dir)
	where := map[string]string{
		etcd:      s.etcdURL(),
		apiServer: s.apiURL(), controllerManager: fmt.Sprintf("https://127.0.0.1:%d", s.Ports.ControllerManager),
		keycloak: s.keycloakURL() + "/admin/master/console/#/" + realmName, operator: s.operatorURL(),
	}
	shown := servers
	switch {
	case s.Node:
		shown = slices.Concat(servers, nodeServers)
	case s.Context != "":
		shown = []string{clusterProxy, keycloak, operator}
		where[clusterProxy] = s.apiURL()
	}
	for _, name := range shown {
		p := s.running(name)
		if p == nil {
			fmt.Printf("  %-24s not running\n", name)
			continue
		}
		fmt.Printf("  %-24s pid %-8d up %-10s %s\n", name, p.PID, time.Since(p.Since).Round(time.Second), where[name])
	}
	return nil
}

// logs lists the logs, or shows one.
func (s *stack) logs(args []string) error {
	if len(args) == 0 {
		entries, err := os.ReadDir(s.path("log"))
		if err != nil {
			return errors.New("no logs yet")
		}
		for _, e := range entries {
			fmt.Println(s.path("log", e.Name()))
		}
		return nil
	}
	path := s.logFile(args[0])
	if !exists(path) {
		return fmt.Errorf("no %s; dev/dev logs lists what there is", path)
	}
	follow, err := onlyFlag(args[1:], "-f")
	if err != nil {
		return err
	}
	arguments := []string{"-n", "100", path}
	if follow {
		arguments = append([]string{"-F"}, arguments...)
	}
	cmd := exec.Command("tail", arguments...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}
