package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// version is major, minor, patch.
type version [3]int

// Java 8 and older call themselves 1.8; nobody minds that it reads as version 1, which is too old as well.
var versionPattern = regexp.MustCompile(`(\d+)(?:\.(\d+))?(?:\.(\d+))?`)

// parseVersion finds the first version number in what a program says about itself.
func parseVersion(text string) (version, error) {
	var v version
	match := versionPattern.FindStringSubmatch(text)
	if match == nil {
		return v, fmt.Errorf("no version in %q", text)
	}
	for i, part := range match[1:] {
		if part != "" {
			v[i], _ = strconv.Atoi(part)
		}
	}
	return v, nil
}

func (v version) less(w version) bool {
	for i := range v {
		if v[i] != w[i] {
			return v[i] < w[i]
		}
	}
	return false
}

func (v version) String() string { return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]) }

// java is the program that runs Keycloak.
func java() string {
	if home := os.Getenv("JAVA_HOME"); home != "" {
		return filepath.Join(home, "bin", "java")
	}
	return "java"
}

// checkTools says everything that is missing at once, before anything slow begins. mvn is needed only while Keycloak
// is not in the cache, a Go that is new enough for the module of the servers only while they are not.
func checkTools(needMaven, needServers bool, servers string) error {
	missing := require(java(), version{17}, "install a JDK, 17 or newer (Debian: apt-get install openjdk-17-jdk-headless)", "-version")
	if needMaven {
		missing = errors.Join(missing,
			require("mvn", version{3, 6, 3}, "install Apache Maven 3.6.3 or newer (Debian: apt-get install maven)", "-version"))
	}
	if needServers {
		cmd := exec.Command("go", "list", "-m") // says so if go.mod wants a newer one
		cmd.Dir = servers
		if out, err := cmd.CombinedOutput(); err != nil {
			missing = errors.Join(missing, fmt.Errorf("%s: install that version of Go (https://go.dev/dl)", strings.TrimSpace(string(out))))
		}
	}
	return missing
}

func require(program string, least version, remedy string, args ...string) error {
	if _, err := exec.LookPath(program); err != nil {
		return fmt.Errorf("%s is missing: %s", program, remedy)
	}
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s does not run (%w): %s", program, err, remedy)
	}
	found, err := parseVersion(versionLine(string(out)))
	if err != nil || found.less(least) {
		return fmt.Errorf("%s is too old (%s): %s", program, found, remedy)
	}
	return nil
}

// versionLine skips what comes before the version: what a JVM says about its variables, Maven's colours.
func versionLine(output string) string {
	for _, before := range []string{`version "`, "Apache Maven "} {
		if _, after, found := strings.Cut(output, before); found {
			return after
		}
	}
	return output
}
