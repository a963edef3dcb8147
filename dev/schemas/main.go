// Says whether manifests are what Kubernetes of some versions knows: no field that is not there, or of another type. The schemas are
// those that client-go of that version carries for server-side apply, which are made from the API's OpenAPI. An API server drops
// fields that it does not know, and says so in a warning at the most.
//
//	helm template … | go run . v0.32.13
//
// What is not of Kubernetes itself, as CustomResourceDefinitions are not for client-go, is named and left out.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/structured-merge-diff/v6/typed"
	"sigs.k8s.io/yaml/goyaml.v3"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: schemas VERSION-OF-CLIENT-GO < MANIFESTS")
		os.Exit(2)
	}
	if err := check(os.Args[1], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func check(version string, manifests io.Reader, out io.Writer) error {
	types, err := schemas(version)
	if err != nil {
		return err
	}
	var known int
	var problems []error
	var others []string
	for decoder := yaml.NewDecoder(manifests); ; {
		var object map[string]any
		if err := decoder.Decode(&object); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		if object == nil {
			continue
		}
		type_ := types.Type(typeName(object))
		if !type_.IsValid() {
			others = append(others, fmt.Sprintf("%v %v", object["apiVersion"], object["kind"]))
			continue
		}
		known++
		if _, err := type_.FromUnstructured(object); err != nil {
			metadata, _ := object["metadata"].(map[string]any)
			problems = append(problems, fmt.Errorf("%v %v: %w", object["kind"], metadata["name"], err))
		}
	}
	slices.Sort(others)
	fmt.Fprintf(out, "%s: %d objects are known; not looked at: %s\n", version, known, strings.Join(slices.Compact(others), ", "))
	if known == 0 {
		problems = append(problems, errors.New("there is no object that it knows"))
	}
	return errors.Join(problems...)
}

// typeName is what the schemas call the type of an object, and nothing that they know for a group that is not Kubernetes' own.
func typeName(object map[string]any) string {
	apiVersion, _ := object["apiVersion"].(string)
	kind, _ := object["kind"].(string)
	group, version, ok := strings.Cut(apiVersion, "/")
	if !ok {
		group, version = "core", apiVersion
	}
	if strings.Contains(group, ".") && !strings.HasSuffix(group, ".k8s.io") {
		return ""
	}
	group, _, _ = strings.Cut(group, ".")
	return fmt.Sprintf("io.k8s.api.%s.%s.%s", group, version, kind)
}

// schemas are those of a version of client-go, which is downloaded if it is not there.
func schemas(version string) (*typed.Parser, error) {
	download := exec.Command("go", "mod", "download", "-json", "k8s.io/client-go@"+version)
	download.Stderr = os.Stderr
	said, err := download.Output()
	var module struct{ Dir, Error string }
	if json.Unmarshal(said, &module) == nil && module.Error != "" {
		return nil, errors.New(module.Error)
	}
	if err != nil {
		return nil, fmt.Errorf("%v: %w", download.Args, err)
	}
	text, err := schemaText(filepath.Join(module.Dir, "applyconfigurations", "internal", "internal.go"))
	if err != nil {
		return nil, err
	}
	return typed.NewParser(typed.YAMLObject(text))
}

// schemaText is the string in a Go file: `var schemaYAML = typed.YAMLObject("…")`.
func schemaText(file string) (string, error) {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		return "", err
	}
	var text string
	ast.Inspect(parsed, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok || len(spec.Names) != 1 || spec.Names[0].Name != "schemaYAML" || len(spec.Values) != 1 {
			return true
		}
		if call, ok := spec.Values[0].(*ast.CallExpr); ok && len(call.Args) == 1 {
			if literal, ok := call.Args[0].(*ast.BasicLit); ok {
				text, err = strconv.Unquote(literal.Value)
			}
		}
		return false
	})
	if err == nil && text == "" {
		err = fmt.Errorf("%s: there is no schemaYAML", file)
	}
	return text, err
}
