package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// The names of the servers: of their processes, logs and programs.
const (
	etcd              = "etcd"
	apiServer         = "kube-apiserver"
	controllerManager = "kube-controller-manager"
	keycloak          = "keycloak"
	operator          = "hallpass"
)

func (s *stack) apiURL() string      { return fmt.Sprintf("https://127.0.0.1:%d", s.Ports.API) }
func (s *stack) keycloakURL() string { return fmt.Sprintf("https://127.0.0.1:%d", s.Ports.Keycloak) }
func (s *stack) operatorURL() string { return fmt.Sprintf("http://127.0.0.1:%d", s.Ports.Operator) }

func (s *stack) etcdProgram(d *distribution) program {
	client := fmt.Sprintf("http://127.0.0.1:%d", s.Ports.Etcd)
	peer := fmt.Sprintf("http://127.0.0.1:%d", s.Ports.EtcdPeer)
	return program{name: etcd, args: []string{
		filepath.Join(d.servers, etcd), "--name=dev", "--data-dir=" + s.path("etcd"), "--unsafe-no-fsync",
		"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=dev=" + peer,
		"--log-level=warn",
	}}
}

func (s *stack) apiServerProgram(d *distribution) program {
	return program{name: apiServer, args: []string{
		filepath.Join(d.servers, apiServer),
		fmt.Sprintf("--etcd-servers=http://127.0.0.1:%d", s.Ports.Etcd),
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", s.Ports.API),
		"--tls-cert-file=" + s.path("pki", "apiserver.crt"), "--tls-private-key-file=" + s.path("pki", "apiserver.key"),
		"--client-ca-file=" + s.path("pki", "ca.crt"),
		"--requestheader-client-ca-file=" + s.path("pki", "front-proxy-ca.crt"),
		"--requestheader-allowed-names=front-proxy-client",
		"--authentication-config=" + s.path("config", "authentication.yaml"),
		"--authorization-mode=RBAC",
		"--service-account-issuer=" + s.apiURL(),
		"--service-account-signing-key-file=" + s.path("pki", "service-accounts.key"),
		"--service-account-key-file=" + s.path("pki", "service-accounts.pub"),
		"--service-cluster-ip-range=10.96.0.0/24",
		"--endpoint-reconciler-type=none", // a loopback address is no valid endpoint
		"--audit-policy-file=" + s.path("config", "audit.yaml"), "--audit-log-path=" + s.path("log", "audit.log"),
	}}
}

func (s *stack) controllerManagerProgram(d *distribution) program {
	config := s.path("config", "controller-manager.kubeconfig")
	return program{name: controllerManager, args: []string{
		filepath.Join(d.servers, controllerManager),
		"--kubeconfig=" + config, "--authentication-kubeconfig=" + config, "--authorization-kubeconfig=" + config,
		"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", s.Ports.ControllerManager),
		"--leader-elect=false", "--use-service-account-credentials=true",
		"--service-account-private-key-file=" + s.path("pki", "service-accounts.key"),
		"--root-ca-file=" + s.path("pki", "ca.crt"),
	}}
}

// keycloakProgram runs Java without kc.sh, whose shell stays between us and the server: killing it would leave the
// server behind. The home folder is the stack's own (see prepareKeycloak).
func (s *stack) keycloakProgram(adminPassword string) program {
	home := s.path("keycloak")
	args := []string{
		java(),
		// The first tier of the compiler only: starting is what we wait for.
		"-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xms256m", "-Xmx512m", "-XX:MaxMetaspaceSize=256m",
		"-XX:+ExitOnOutOfMemoryError", "-Dfile.encoding=UTF-8", "-Duser.language=en", "-Duser.country=US",
	}
	for _, opened := range []string{"java.util", "java.util.concurrent", "java.security", "java.lang"} {
		args = append(args, "--add-opens=java.base/"+opened+"=ALL-UNNAMED")
	}
	args = append(args,
		"--enable-native-access=ALL-UNNAMED",
		"-Dkc.home.dir="+home, "-Djboss.server.config.dir="+filepath.Join(home, "conf"),
		"-Djava.util.logging.manager=org.jboss.logmanager.LogManager", "-Dpicocli.disable.closures=true",
		"-Dquarkus-log-max-startup-records=10000",
		"-Djava.util.concurrent.ForkJoinPool.common.threadFactory=io.quarkus.bootstrap.forkjoin.QuarkusForkJoinWorkerThreadFactory",
		"-cp", filepath.Join(home, "lib", "quarkus-run.jar"), "io.quarkus.bootstrap.runner.QuarkusEntryPoint",
		"start", "--optimized", "--import-realm",
		"--cache=local", // anything else opens cluster ports
		"--http-host=127.0.0.1", fmt.Sprintf("--https-port=%d", s.Ports.Keycloak),
		fmt.Sprintf("--http-management-port=%d", s.Ports.KeycloakManagement), "--hostname="+s.keycloakURL(),
		// It reads the keys of the API server's service accounts.
		"--truststore-paths="+s.path("pki", "ca.crt"),
		"--https-certificate-file="+s.path("pki", "keycloak.crt"), "--https-certificate-key-file="+s.path("pki", "keycloak.key"),
		"--log-level=INFO,io.smallrye.health:WARN", // else each look at its health is a line
	)
	return program{name: keycloak, args: args, env: []string{
		"KC_BOOTSTRAP_ADMIN_USERNAME=admin", "KC_BOOTSTRAP_ADMIN_PASSWORD=" + adminPassword,
	}}
}

// prepareKeycloak gives the stack a home folder that shares the built server with other stacks and has data of its own.
// The data is made anew when realm.json says something else than what was imported (Keycloak imports a realm only when
// it is not there yet), and when Keycloak ended in the middle of its first start.
func (s *stack) prepareKeycloak(d *distribution) error {
	realm, err := s.renderRealm()
	if err != nil {
		return err
	}
	home := s.path("keycloak")
	imported := filepath.Join(home, "data", "import", "acme-realm.json")
	old, err := os.ReadFile(imported)
	complete := exists(s.keycloakMark()) || s.running(keycloak) != nil
	if err != nil || string(old) != string(realm) || !complete {
		if err := s.stop(keycloak); err != nil {
			return err
		}
		if err := os.RemoveAll(home); err != nil {
			return err
		}
		if err := save(imported, realm, 0o600); err != nil {
			return err
		}
	}
	for _, part := range []string{"lib", "conf", "providers", "themes"} {
		link, target := filepath.Join(home, part), filepath.Join(d.keycloak, part)
		if old, err := os.Readlink(link); err == nil && old == target {
			continue
		}
		// Another build of Keycloak: the running one must not find its files changed.
		if err := errors.Join(s.stop(keycloak), os.RemoveAll(link), os.Symlink(target, link)); err != nil {
			return err
		}
	}
	return nil
}

// keycloakMark is a file that says that the data is complete.
func (s *stack) keycloakMark() string { return s.path("keycloak", "data", "complete") }
