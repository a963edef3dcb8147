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

func (s *stack) apiURL() string {
	if s.Context != "" {
		return s.Server
	}
	return fmt.Sprintf("https://%s:%d", s.host(), s.Ports.API)
}

// apiCA is the authority of the API server's certificate.
func (s *stack) apiCA() string {
	if s.Context != "" {
		return s.clusterCA()
	}
	return s.path("pki", "ca.crt")
}

func (s *stack) keycloakURL() string { return fmt.Sprintf("https://%s:%d", s.host(), s.Ports.Keycloak) }
func (s *stack) operatorURL() string { return fmt.Sprintf("http://127.0.0.1:%d", s.Ports.Operator) }

func (s *stack) etcdProgram(d *distribution) program {
	client, peer := s.etcdURL(), fmt.Sprintf("http://127.0.0.1:%d", s.Ports.EtcdPeer)
	var shown []string
	if s.Node {
		peer = fmt.Sprintf("https://127.0.0.1:%d", s.Ports.EtcdPeer)
		for _, prefix := range []string{"--", "--peer-"} {
			shown = append(shown, prefix+"client-cert-auth", prefix+"trusted-ca-file="+s.path("pki", "ca.crt"),
				prefix+"cert-file="+s.path("pki", "etcd.crt"), prefix+"key-file="+s.path("pki", "etcd.key"))
		}
		shown = append(shown, "--peer-cert-allowed-cn=etcd")
	}
	return program{name: etcd, args: append([]string{
		filepath.Join(d.servers, etcd), "--name=dev", "--data-dir=" + s.path("etcd"), "--unsafe-no-fsync",
		"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=dev=" + peer,
		"--log-level=warn",
	}, shown...)}
}

// etcdURL is where etcd listens: for everybody on this machine, but with a node only for who has a certificate. Whoever can write to
// it commands a kubelet that is root.
func (s *stack) etcdURL() string {
	scheme := "http"
	if s.Node {
		scheme = "https"
	}
	return fmt.Sprintf("%s://127.0.0.1:%d", scheme, s.Ports.Etcd)
}

func (s *stack) apiServerProgram(d *distribution) program {
	reconciler := "none" // a loopback address is no valid endpoint
	if s.Node {
		reconciler = "lease"
	}
	return program{name: apiServer, args: []string{
		filepath.Join(d.servers, apiServer),
		"--etcd-servers=" + s.etcdURL(), "--etcd-cafile=" + s.path("pki", "ca.crt"),
		"--etcd-certfile=" + s.path("pki", "etcd.crt"), "--etcd-keyfile=" + s.path("pki", "etcd.key"),
		"--bind-address=" + s.host(), "--advertise-address=" + s.host(), fmt.Sprintf("--secure-port=%d", s.Ports.API),
		"--tls-cert-file=" + s.path("pki", "apiserver.crt"), "--tls-private-key-file=" + s.path("pki", "apiserver.key"),
		"--client-ca-file=" + s.path("pki", "ca.crt"),
		"--requestheader-client-ca-file=" + s.path("pki", "front-proxy-ca.crt"),
		"--requestheader-allowed-names=front-proxy-client",
		"--authentication-config=" + s.path("config", "authentication.yaml"),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--kubelet-client-certificate=" + s.path("pki", "apiserver-kubelet.crt"),
		"--kubelet-client-key=" + s.path("pki", "apiserver-kubelet.key"),
		"--kubelet-certificate-authority=" + s.path("pki", "ca.crt"), "--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=" + s.apiURL(),
		"--service-account-signing-key-file=" + s.path("pki", "service-accounts.key"),
		"--service-account-key-file=" + s.path("pki", "service-accounts.pub"),
		"--service-cluster-ip-range=" + serviceCIDR, "--endpoint-reconciler-type=" + reconciler,
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
		"--http-host="+s.host(), fmt.Sprintf("--https-port=%d", s.Ports.Keycloak),
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
