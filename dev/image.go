package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

// loadImage gives the node an image: NAME:TAG=FOLDER, an OCI layout as make image writes it, or NAME:TAG=BINARY, a program that
// is put into an image with the libraries that it is linked to.
func (s *stack) loadImage(d *nodeDistribution, nameAndSource string) (string, error) {
	name, source, found := strings.Cut(nameAndSource, "=")
	if !found {
		return "", errors.New("an image is given as NAME:TAG=FOLDER or NAME:TAG=BINARY, not " + nameAndSource)
	}
	info, err := os.Stat(source)
	if err != nil {
		return "", err
	}
	file := s.path("node", "image.tar")
	defer os.Remove(file)
	pack := imageOf
	if info.IsDir() {
		pack = layoutOf
	}
	image, err := pack(name, source)
	if err != nil {
		return "", err
	}
	if err := save(file, image, 0o600); err != nil {
		return "", err
	}
	return name, s.ctr(d, "image", "import", "--local", file)
}

type packed struct {
	name string
	mode int64
	data []byte
}

// layoutOf packs an OCI layout, in which its one image has this name and no other: containerd would make one up of the layout's
// own, and a Pod could be given that one.
func layoutOf(name, folder string) ([]byte, error) {
	var files []packed
	err := filepath.WalkDir(folder, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		inside, err := filepath.Rel(folder, path)
		if err == nil && inside == "index.json" {
			data, err = named(name, data)
		}
		files = append(files, packed{inside, 0o644, data})
		return err
	})
	if err != nil {
		return nil, err
	}
	return archive(files)
}

// named gives the one image of a layout's index a name for containerd.
func named(name string, index []byte) ([]byte, error) {
	var content map[string]any
	if err := json.Unmarshal(index, &content); err != nil {
		return nil, err
	}
	manifests, _ := content["manifests"].([]any)
	if len(manifests) != 1 {
		return nil, fmt.Errorf("the index has %d images, not one", len(manifests))
	}
	manifest, ok := manifests[0].(map[string]any)
	if !ok {
		return nil, errors.New("the index's image is no object")
	}
	manifest["annotations"] = map[string]string{"io.containerd.image.name": name}
	return json.Marshal(content)
}

// imageOf makes an image with one program, as docker save would write it.
func imageOf(name, binary string) ([]byte, error) {
	program, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	inside := "/" + filepath.Base(binary)
	files := []packed{{inside[1:], 0o755, program}, {"etc/passwd", 0o644, []byte("nonroot:x:65532:65532::/:\n")}}
	libraries, err := librariesOf(binary)
	if err != nil {
		return nil, err
	}
	for _, library := range libraries {
		data, err := os.ReadFile(library)
		if err != nil {
			return nil, err
		}
		files = append(files, packed{library[1:], 0o755, data})
	}
	layer, err := archive(files)
	if err != nil {
		return nil, err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": []string{inside}, "User": "65532:65532", "WorkingDir": "/"},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
	})
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{name}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return nil, err
	}
	return archive([]packed{{"layer.tar", 0o644, layer}, {"config.json", 0o644, config}, {"manifest.json", 0o644, manifest}})
}

func archive(files []packed) ([]byte, error) {
	var written bytes.Buffer
	w := tar.NewWriter(&written)
	for _, f := range files {
		header := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.data)), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return written.Bytes(), err
}

var lddLine = regexp.MustCompile(`(?m)^\s*(?:\S+ => )?(/\S+) \(0x`)

// librariesOf lists what the dynamic linker would load, itself included; nothing for a static program.
func librariesOf(binary string) ([]string, error) {
	out, err := exec.Command("ldd", binary).CombinedOutput()
	if err != nil {
		if strings.Contains(string(out), "not a dynamic executable") {
			return nil, nil
		}
		return nil, fmt.Errorf("ldd %s: %w: %s", binary, err, strings.TrimSpace(string(out)))
	}
	var found []string
	for _, match := range lddLine.FindAllStringSubmatch(string(out), -1) {
		found = append(found, match[1])
	}
	return found, nil
}
