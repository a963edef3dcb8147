package main

import "fmt"

// keycloakAlone stops and starts Keycloak while everything else goes on. What was in its memory is lost; its data is not.
func (s *stack) keycloakAlone(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: dev/dev keycloak start|stop|restart")
	}
	if err := s.lock(); err != nil {
		return err
	}
	switch args[0] {
	case "start":
		return s.startKeycloak()
	case "stop":
		return s.stopNamed(keycloak)
	case "restart":
		if err := s.stopNamed(keycloak); err != nil {
			return err
		}
		return s.startKeycloak()
	}
	return fmt.Errorf("unknown: keycloak %s", args[0])
}

func (s *stack) startKeycloak() error {
	d, err := s.ensureDistribution()
	if err != nil {
		return err
	}
	return s.upKeycloak(d)
}
