package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// nonroot is the user of the image. Kubernetes wants a number to see that it is not root.
const nonroot = 65532

// memory has what is large while it is read given back at once: by default glibc keeps some pages of the first list of requests for good,
// some three MiB. dev/operator.go runs the operator with the same.
const memory = "GLIBC_TUNABLES=glibc.malloc.mmap_threshold=131072:glibc.malloc.trim_threshold=131072"

type imageOptions struct {
	binary, arch, version, revision string
	created                         time.Time
}

type file struct {
	name string
	mode int64
	data []byte
}

// writeImage writes an OCI layout with one image, from scratch. The answer is its digest.
func writeImage(o imageOptions, bom, licences []byte, out string) (string, error) {
	binary, err := os.ReadFile(o.binary)
	if err != nil {
		return "", err
	}
	licence, err := os.ReadFile("LICENSE")
	if err != nil {
		return "", err
	}
	roots, err := authorities()
	if err != nil {
		return "", err
	}
	layer, err := pack([]file{
		{"etc/passwd", 0o644, fmt.Appendf(nil, "nonroot:x:%d:%[1]d:nonroot:/:/none\n", nonroot)},
		{"etc/ssl/certs/ca-certificates.crt", 0o644, roots},
		{"hallpass", 0o755, binary},
		{"licenses/LICENSE", 0o644, licence},
		{"licenses/third-party.txt", 0o644, licences},
		{"licenses/sbom.cdx.json", 0o644, bom},
	}, o.created)
	if err != nil {
		return "", err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.Append(image, mutate.Addendum{
		Layer: layer, MediaType: types.OCILayer,
		History: v1.History{CreatedBy: "release image", Created: v1.Time{Time: o.created}},
	})
	if err != nil {
		return "", err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return "", err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", o.arch, v1.Time{Time: o.created}
	config.Config = v1.Config{
		Entrypoint: []string{"/hallpass"}, User: fmt.Sprintf("%d:%[1]d", nonroot), WorkingDir: "/",
		Env: []string{"SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt", memory},
		Labels: map[string]string{
			"org.opencontainers.image.title":       "hallpass",
			"org.opencontainers.image.description": "Just-in-time access in Keycloak, asked for and approved in Kubernetes",
			"org.opencontainers.image.source":      "https://github.com/hallpass-dev/hallpass",
			"org.opencontainers.image.licenses":    "Apache-2.0",
			"org.opencontainers.image.version":     o.version,
			"org.opencontainers.image.revision":    o.revision,
		},
	}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return "", err
	}
	if err := os.RemoveAll(out); err != nil {
		return "", err
	}
	folder, err := layout.Write(out, empty.Index)
	if err != nil {
		return "", err
	}
	err = folder.AppendImage(image,
		layout.WithPlatform(v1.Platform{OS: "linux", Architecture: o.arch}),
		layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": o.version}))
	if err != nil {
		return "", err
	}
	digest, err := image.Digest()
	return digest.String(), err
}

// pack makes a layer. Nothing of this machine is in it.
func pack(files []file, created time.Time) (v1.Layer, error) {
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	made := map[string]bool{}
	for _, f := range files {
		for i, c := range f.name {
			if folder := f.name[:i] + "/"; c == '/' && !made[folder] {
				made[folder] = true
				h := &tar.Header{Name: folder, Mode: 0o755, Typeflag: tar.TypeDir, ModTime: created, Format: tar.FormatUSTAR}
				if err := w.WriteHeader(h); err != nil {
					return nil, err
				}
			}
		}
		h := &tar.Header{
			Name: f.name, Mode: f.mode, Size: int64(len(f.data)), Typeflag: tar.TypeReg, ModTime: created, Format: tar.FormatUSTAR,
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(packed.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithCompressionLevel(gzip.BestCompression), tarball.WithMediaType(types.OCILayer))
}

// authorities are Mozilla's, as Go ships them: the version is in go.sum. Those with limits that PEM cannot say are left out.
func authorities() ([]byte, error) {
	var text bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint != nil {
			continue
		}
		if err := pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}); err != nil {
			return nil, err
		}
	}
	if strings.Count(text.String(), "BEGIN") < 50 {
		return nil, fmt.Errorf("these cannot be all certificate authorities")
	}
	return text.Bytes(), nil
}
