package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// ports are chosen once and kept: the issuer's URL, which tokens and configuration carry, stays the same from up to up.
type ports struct {
	Etcd               int `json:"etcd"`
	EtcdPeer           int `json:"etcdPeer"`
	API                int `json:"api"`
	ControllerManager  int `json:"controllerManager"`
	Keycloak           int `json:"keycloak"`
	KeycloakManagement int `json:"keycloakManagement"`
	Operator           int `json:"operator"`
}

// portUse says which server listens on a port.
type portUse struct {
	port   *int
	server string
}

func (p *ports) uses() []portUse {
	return []portUse{
		{&p.Etcd, etcd}, {&p.EtcdPeer, etcd}, {&p.API, apiServer}, {&p.ControllerManager, controllerManager},
		{&p.Keycloak, keycloak}, {&p.KeycloakManagement, keycloak}, {&p.Operator, operator},
	}
}

// settlePorts keeps the remembered ports, unless somebody else listens on one by now. A server that still runs was told
// the old port of its neighbours, so a new port means that all of ours are started again.
func (s *stack) settlePorts() error {
	changed := false
	chosen := map[int]bool{}
	for _, use := range s.Ports.uses() {
		if *use.port != 0 && (s.running(use.server) != nil || free(*use.port)) {
			chosen[*use.port] = true
			continue
		}
		port, err := freePort(chosen)
		if err != nil {
			return err
		}
		*use.port, chosen[port], changed = port, true, true
	}
	if changed {
		if err := s.stopServers(); err != nil {
			return err
		}
	}
	return saveJSON(s.path("state.json"), s.settings)
}

// freePort picks below the range from which Linux takes ports for outgoing connections: one of those could be in use
// for a while whenever the stack is started again.
func freePort(taken map[int]bool) (int, error) {
	for range 1000 {
		port := 20000 + rand.IntN(10000)
		if !taken[port] && free(port) {
			return port, nil
		}
	}
	return 0, errors.New("no free port between 20000 and 30000 on 127.0.0.1")
}

func free(port int) bool {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return false
	}
	return l.Close() == nil
}
