package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// nodeDistribution is what a node needs: programs that are compiled from dev/node, and a few of Debian's.
type nodeDistribution struct {
	Built   string `json:"built"`  // folder with kubelet, kube-proxy, kube-scheduler, containerd, its shim, ctr and pause
	Debian  string `json:"debian"` // folder with unpacked packages, which may be missing
	Runc    string `json:"runc"`
	Nft     string `json:"nft"`
	Plugins string `json:"plugins"` // folder with CNI plug-ins
}

func (d *nodeDistribution) program(name string) string { return filepath.Join(d.Built, name) }

// paths are where runc and nft are looked for.
func (d *nodeDistribution) paths() string { return filepath.Dir(d.Nft) + ":" + filepath.Dir(d.Runc) }

// libraries are what unpacked programs are linked to.
func (d *nodeDistribution) libraries() string {
	triplet := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[runtime.GOARCH]
	return filepath.Join(d.Debian, "usr", "lib", triplet) + ":" + filepath.Join(d.Debian, "lib", triplet)
}

// nodeDistribution returns what a node needs; what is not there yet is built or fetched.
func (s *stack) nodeDistribution() (*nodeDistribution, error) {
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	build, err := s.nodeBuild()
	if err != nil {
		return nil, err
	}
	if err := build.ensure(cache); err != nil {
		return nil, err
	}
	d := &nodeDistribution{Built: filepath.Join(cache, build.key), Debian: filepath.Join(cache, "debian")}
	if d.find() != nil {
		packages := cachedBuild{"runc, nft, CNI plug-ins", "debian", s.unpackDebian}
		if err := packages.ensure(cache); err != nil {
			return nil, err
		}
	}
	return d, d.find()
}

// find looks for Debian's programs, in the machine's folders and then in ours.
func (d *nodeDistribution) find() error {
	look := func(paths ...string) (string, error) {
		for _, root := range []string{"/", d.Debian} {
			for _, path := range paths {
				if found := filepath.Join(root, path); exists(found) {
					return found, nil
				}
			}
		}
		return "", fmt.Errorf("a node needs %s (Debian: apt-get install runc nftables containernetworking-plugins)", paths[0])
	}
	var runc, nft, plugin error
	var bridgePlugin string
	d.Runc, runc = look("/usr/sbin/runc", "/usr/bin/runc", "/usr/local/sbin/runc")
	d.Nft, nft = look("/usr/sbin/nft", "/usr/bin/nft")
	bridgePlugin, plugin = look("/usr/lib/cni/bridge", "/opt/cni/bin/bridge")
	d.Plugins = filepath.Dir(bridgePlugin)
	return errors.Join(runc, nft, plugin)
}

// unpackDebian fetches packages, and what they depend on and is not installed, and unpacks them into the folder. Nothing of the
// machine changes.
func (s *stack) unpackDebian(folder string) error {
	for _, program := range []string{"apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(program); err != nil {
			return errors.New("this is no Debian: install runc, nftables and the CNI plug-ins yourself")
		}
	}
	lists, archives := filepath.Join(folder, "lists"), filepath.Join(folder, "archives")
	for _, dir := range []string{lists + "/partial", archives + "/partial"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	options := []string{
		"--option=Dir::State::Lists=" + lists, "--option=Dir::Cache::Archives=" + archives,
		"--option=Dir::Cache::pkgcache=", "--option=Dir::Cache::srcpkgcache=", "--option=APT::Sandbox::User=root",
	}
	if err := s.logged("fetch-debian", s.dir, "apt-get", append(slices.Clone(options), "update")...); err != nil {
		return err
	}
	install := append(slices.Clone(options), "install", "--download-only", "--yes", "--no-install-recommends",
		"runc", "nftables", "containernetworking-plugins")
	if err := s.logged("fetch-debian", s.dir, "apt-get", install...); err != nil {
		return err
	}
	packages, err := filepath.Glob(archives + "/*.deb")
	if err != nil {
		return err
	}
	for _, deb := range packages {
		if err := s.logged("fetch-debian", s.dir, "dpkg-deb", "--extract", deb, folder); err != nil {
			return err
		}
	}
	return errors.Join(os.RemoveAll(lists), os.RemoveAll(archives))
}

// nodeBuild compiles dev/node. What it shares with dev/servers is compiled once.
func (s *stack) nodeBuild() (*cachedBuild, error) {
	module := s.source("dev", "node")
	flags, err := versionFlags(filepath.Join(module, "go.mod"))
	if err != nil {
		return nil, err
	}
	flags = append(flags, "-tags", "no_btrfs,no_devmapper,no_zfs")
	key, err := digest(strings.Join(flags, " ")+runtime.GOARCH, filepath.Join(module, "go.mod"), filepath.Join(module, "go.sum"),
		filepath.Join(module, "main.go"), filepath.Join(module, "pause", "main.go"))
	if err != nil {
		return nil, err
	}
	return &cachedBuild{"kubelet, containerd", "node-" + key, func(folder string) error {
		say("  building the node's programs: some minutes on two cores, the first time only")
		compile := func(output string, what ...string) error {
			args := append(append([]string{"build"}, flags...), "-o", filepath.Join(folder, output))
			return s.logged("build-node", module, "go", append(args, what...)...)
		}
		if err := compile("node", "."); err != nil {
			return err
		}
		for _, name := range []string{kubelet, kubeProxy, scheduler} {
			if err := os.Symlink("node", filepath.Join(folder, name)); err != nil {
				return err
			}
		}
		const commands = "github.com/containerd/containerd/v2/cmd/"
		return errors.Join(
			compile("", commands+containerd, commands+"containerd-shim-runc-v2", commands+"ctr"),
			compile("pause", "./pause"),
		)
	}}, nil
}

// rules are nft's commands about a table of ours and those of kube-proxy.
func (d *nodeDistribution) rules(commands string) (string, error) {
	nft := exec.Command(d.Nft, "--file", "-")
	nft.Env = []string{"LD_LIBRARY_PATH=" + d.libraries()}
	nft.Stdin = strings.NewReader(commands)
	out, err := nft.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("nft: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return string(out), err
}

// noRules complains about tables of a kube-proxy.
func (d *nodeDistribution) noRules() error {
	tables, err := d.rules("list tables\n")
	if err == nil && strings.Contains(tables, kubeProxy) {
		err = errors.New("the kernel has tables of a kube-proxy")
	}
	return err
}

// guardBridge drops what comes to the bridge's network from elsewhere: Linux would take it on any interface.
func (d *nodeDistribution) guardBridge() error {
	_, err := d.rules(fmt.Sprintf(`table ip hallpass-dev
delete table ip hallpass-dev
table ip hallpass-dev {
	chain prerouting {
		type filter hook prerouting priority raw; policy accept;
		ip daddr %s iifname != { "lo", "%s" } drop
	}
}
`, podCIDR, bridge))
	return err
}

// dropRules removes our table and those that kube-proxy has left.
func (d *nodeDistribution) dropRules() error {
	var commands string
	for _, table := range []string{"ip hallpass-dev", "ip kube-proxy", "ip6 kube-proxy"} {
		commands += fmt.Sprintf("table %[1]s\ndelete table %[1]s\n", table) // made first: deleting what is not there is an error
	}
	_, err := d.rules(commands)
	return err
}
