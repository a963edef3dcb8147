package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/CycloneDX/cyclonedx-go"
)

// crate is a package that is compiled into the binary.
type crate struct {
	ID, Name, Version, License, Repository string
	ManifestPath                           string   `json:"manifest_path"`
	LicenseFile                            string   `json:"license_file"`
	Targets                                []target `json:"targets"`
	checksum                               string
	uses                                   []string
}

type target struct{ Kind []string }

// metadata is what cargo says (format version 1).
type metadata struct {
	Packages []*crate
	Resolve  struct {
		Root  string
		Nodes []struct {
			ID   string
			Deps []struct {
				Pkg      string
				DepKinds []struct{ Kind *string } `json:"dep_kinds"`
			}
		}
	}
}

// inside lists the packages of the binary, the project's own first, then by name. What only builds or tests it is not inside.
func inside(triple string) ([]*crate, error) {
	cmd := exec.Command("cargo", "metadata", "--locked", "--format-version=1", "--filter-platform="+triple)
	cmd.Stderr = os.Stderr
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("cargo metadata: %w", err)
	}
	var m metadata
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, fmt.Errorf("cargo metadata: %w", err)
	}
	checksums, err := checksums()
	if err != nil {
		return nil, err
	}
	all := map[string]*crate{}
	for _, c := range m.Packages {
		c.checksum = checksums[c.Name+" "+c.Version]
		all[c.ID] = c
	}
	uses := map[string][]string{}
	for _, node := range m.Resolve.Nodes {
		for _, dep := range node.Deps {
			normal := slices.ContainsFunc(dep.DepKinds, func(k struct{ Kind *string }) bool { return k.Kind == nil })
			if normal && !slices.ContainsFunc(all[dep.Pkg].Targets, func(t target) bool { return slices.Contains(t.Kind, "proc-macro") }) {
				uses[node.ID] = append(uses[node.ID], dep.Pkg)
			}
		}
	}
	seen, next := map[string]bool{m.Resolve.Root: true}, []string{m.Resolve.Root}
	var found []*crate
	for len(next) > 0 {
		id := next[0]
		next = next[1:]
		c := all[id]
		c.uses = slices.Sorted(slices.Values(uses[id]))
		found = append(found, c)
		for _, used := range c.uses {
			if !seen[used] {
				seen[used] = true
				next = append(next, used)
			}
		}
	}
	slices.SortFunc(found[1:], func(a, b *crate) int { return strings.Compare(a.Name+" "+a.Version, b.Name+" "+b.Version) })
	return found, nil
}

// other is something in the image that is no package of cargo's.
type other struct {
	name, version, licence, words string
	kind                          cyclonedx.ComponentType
}

// besides is what the binary and the image have from the machine that builds them.
func besides() ([]other, error) {
	rust, err := said("rustc", "--version")
	if err != nil {
		return nil, err
	}
	libc, err := said("getconf", "GNU_LIBC_VERSION")
	if err != nil {
		return nil, err
	}
	roots := "unknown"
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range build.Deps {
			if dep.Path == "golang.org/x/crypto/x509roots/fallback" {
				roots = dep.Version
			}
		}
	}
	return []other{
		{"rust-std", strings.TrimPrefix(rust, "rustc "), "MIT OR Apache-2.0", "https://www.rust-lang.org", cyclonedx.ComponentTypeLibrary},
		{"glibc", strings.TrimPrefix(libc, "glibc "), "LGPL-2.1-or-later",
			"It is linked statically. Its source and licence: https://www.gnu.org/software/libc. release/build in Hallpass's " +
				"source links the binary anew, with any version of it.", cyclonedx.ComponentTypeLibrary},
		{"mozilla-ca-certificates", roots, "MPL-2.0",
			"As golang.org/x/crypto/x509roots/fallback has them: /etc/ssl/certs/ca-certificates.crt. https://www.mozilla.org/MPL/2.0",
			cyclonedx.ComponentTypeData},
	}, nil
}

func said(program string, arguments ...string) (string, error) {
	text, err := exec.Command(program, arguments...).Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", program, err)
	}
	return strings.TrimSpace(string(text)), nil
}

var locked = regexp.MustCompile(`(?m)^name = "(.+)"\nversion = "(.+)"\n(?:source = .+\n)?checksum = "([0-9a-f]{64})"`)

// checksums are those of Cargo.lock.
func checksums() (map[string]string, error) {
	text, err := os.ReadFile("Cargo.lock")
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, match := range locked.FindAllStringSubmatch(string(text), -1) {
		all[match[1]+" "+match[2]] = match[3]
	}
	return all, nil
}

func (c *crate) purl() string { return "pkg:cargo/" + c.Name + "@" + c.Version }

// describe makes the list of what is inside, as CycloneDX.
func describe(packages []*crate, besides []other) *cyclonedx.BOM {
	purls := map[string]string{}
	for _, c := range packages {
		purls[c.ID] = c.purl()
	}
	var components []cyclonedx.Component
	var dependencies []cyclonedx.Dependency
	for _, c := range packages {
		component := cyclonedx.Component{
			BOMRef: c.purl(), Type: cyclonedx.ComponentTypeLibrary, Name: c.Name, Version: c.Version, PackageURL: c.purl(),
			Licenses: &cyclonedx.Licenses{{Expression: strings.ReplaceAll(c.License, "/", " OR ")}},
		}
		if c.checksum != "" {
			component.Hashes = &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: c.checksum}}
		}
		if c.Repository != "" {
			component.ExternalReferences = &[]cyclonedx.ExternalReference{{Type: cyclonedx.ERTypeVCS, URL: c.Repository}}
		}
		components = append(components, component)
		var used []string
		for _, id := range c.uses {
			used = append(used, purls[id])
		}
		dependencies = append(dependencies, cyclonedx.Dependency{Ref: c.purl(), Dependencies: &used})
	}
	for _, o := range besides {
		components = append(components, cyclonedx.Component{
			BOMRef: o.name, Type: o.kind, Name: o.name, Version: o.version,
			Licenses: &cyclonedx.Licenses{{Expression: o.licence}},
		})
	}
	own, rest := components[0], components[1:]
	own.Type = cyclonedx.ComponentTypeApplication
	bom := cyclonedx.NewBOM()
	bom.SerialNumber = ""
	bom.Metadata = &cyclonedx.Metadata{Component: &own}
	bom.Components, bom.Dependencies = &rest, &dependencies
	return bom
}

func encode(bom *cyclonedx.BOM) ([]byte, error) {
	var text bytes.Buffer
	err := cyclonedx.NewBOMEncoder(&text, cyclonedx.BOMFileFormatJSON).SetPretty(true).Encode(bom)
	return text.Bytes(), err
}

// licences is the text of every licence of what is inside, each once, with those whom it is about.
func licences(packages []*crate, besides []other) ([]byte, error) {
	type text struct {
		of   []string
		body []byte
	}
	var texts []*text
	known := map[[32]byte]*text{}
	for _, c := range packages[1:] {
		folder := filepath.Dir(c.ManifestPath)
		names, err := licenceFiles(folder, c.LicenseFile)
		if err != nil {
			return nil, err
		}
		// A text that others have in their packages will do where it has nobody's name in it.
		if len(names) == 0 && c.License != "Apache-2.0" {
			return nil, fmt.Errorf("%s %s (%s) has no file with its licence", c.Name, c.Version, c.License)
		}
		for _, name := range names {
			body, err := os.ReadFile(filepath.Join(folder, name))
			if err != nil {
				return nil, err
			}
			body = bytes.TrimSpace(bytes.ReplaceAll(body, []byte("\r"), nil))
			sum := sha256.Sum256(body)
			if known[sum] == nil {
				known[sum] = &text{body: body}
				texts = append(texts, known[sum])
			}
			known[sum].of = append(known[sum].of, c.Name+" "+c.Version)
		}
	}
	var out bytes.Buffer
	fmt.Fprintln(&out, "Hallpass contains these packages:")
	for _, c := range packages[1:] {
		fmt.Fprintf(&out, "  %s %s: %s\n", c.Name, c.Version, c.License)
	}
	fmt.Fprintln(&out, "and besides:")
	for _, o := range besides {
		fmt.Fprintf(&out, "  %s %s: %s. %s\n", o.name, o.version, o.licence, o.words)
	}
	for _, t := range texts {
		fmt.Fprintf(&out, "\n%s\n%s\n\n%s\n", strings.Repeat("=", 80), strings.Join(slices.Compact(t.of), ", "), t.body)
	}
	return out.Bytes(), nil
}

var licenceName = regexp.MustCompile(`(?i)^(licen[cs]e|copying|copyright|notice|unlicense)`)

func licenceFiles(folder, named string) ([]string, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		if entry.Type().IsRegular() && (licenceName.MatchString(entry.Name()) || entry.Name() == named) {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}
