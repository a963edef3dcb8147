package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"
)

// Certificates outlive every stack, so that none has to be renewed under running servers.
const certificateLife = 10 * 365 * 24 * time.Hour

type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// ensurePKI makes keys and certificates once. They appear under their final name only when all are there.
func (s *stack) ensurePKI() error {
	if exists(s.path("pki", "kubelet.key")) { // the one that was added last
		return nil
	}
	if err := errors.Join(s.stopServers(), os.RemoveAll(s.path("pki"))); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(s.dir, ".pki-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := makePKI(tmp); err != nil {
		return fmt.Errorf("make certificates: %w", err)
	}
	return os.Rename(tmp, s.path("pki"))
}

func makePKI(dir string) error {
	ca, err := newAuthority(dir, "ca", "hallpass-dev-ca")
	if err != nil {
		return err
	}
	// The aggregation layer's CA: no certificate of it is ever issued, but without it the controller manager keeps
	// complaining in its log.
	if _, err := newAuthority(dir, "front-proxy-ca", "hallpass-dev-front-proxy-ca"); err != nil {
		return err
	}
	addresses := []net.IP{net.IPv4(127, 0, 0, 1), net.ParseIP(bridgeIP), net.ParseIP(serviceIP)}
	leaves := []struct {
		name     string
		template x509.Certificate
	}{
		{"apiserver", x509.Certificate{
			Subject:     pkix.Name{CommonName: "kube-apiserver"},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
			DNSNames:    []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"},
			IPAddresses: addresses,
		}},
		{"keycloak", x509.Certificate{
			Subject:     pkix.Name{CommonName: "keycloak"},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
			DNSNames:    []string{"localhost"},
			IPAddresses: addresses,
		}},
		{"admin", forClient("dev-admin", "system:masters")},
		{"controller-manager", forClient("system:kube-controller-manager")},
		{"scheduler", forClient("system:kube-scheduler")},
		{"etcd", x509.Certificate{
			Subject:     pkix.Name{CommonName: "etcd"},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
			IPAddresses: addresses,
		}},
		{"proxy", forClient("system:kube-proxy")},
		{"apiserver-kubelet", forClient("kube-apiserver-kubelet-client", "system:masters")},
		{"kubelet", x509.Certificate{
			Subject:     pkix.Name{CommonName: "system:node:" + nodeName, Organization: []string{"system:nodes"}},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
			DNSNames:    []string{nodeName},
			IPAddresses: addresses,
		}},
	}
	for _, leaf := range leaves {
		if err := ca.issue(dir, leaf.name, leaf.template); err != nil {
			return fmt.Errorf("%s: %w", leaf.name, err)
		}
	}
	return makeServiceAccountKey(dir)
}

// forClient is what somebody shows to the API server.
func forClient(name string, groups ...string) x509.Certificate {
	return x509.Certificate{
		Subject:     pkix.Name{CommonName: name, Organization: groups},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
}

func newAuthority(dir, file, name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	self := authority{cert: &template, key: key}
	der, err := self.sign(&template, key.Public())
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	// The CA's key is not written down: nothing is issued later.
	return &authority{cert: cert, key: key}, writePEM(dir, file+".crt", "CERTIFICATE", der)
}

func (a *authority) issue(dir, name string, template x509.Certificate) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.BasicConstraintsValid = true
	der, err := a.sign(&template, key.Public())
	if err != nil {
		return err
	}
	if err := writePEM(dir, name+".crt", "CERTIFICATE", der); err != nil {
		return err
	}
	return writeKey(dir, name+".key", key)
}

func (a *authority) sign(template *x509.Certificate, public crypto.PublicKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = template.NotBefore.Add(certificateLife)
	return x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
}

// makeServiceAccountKey makes the key that service account tokens are signed with.
func makeServiceAccountKey(dir string) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	if err := writePEM(dir, "service-accounts.pub", "PUBLIC KEY", public); err != nil {
		return err
	}
	return writeKey(dir, "service-accounts.key", key)
}

func writeKey(dir, name string, key any) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(dir, name, "PRIVATE KEY", der)
}

func writePEM(dir, name, kind string, der []byte) error {
	return save(dir+"/"+name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
