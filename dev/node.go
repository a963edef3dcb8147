package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A node runs real Pods on this machine: containerd and runc, kubelet, kube-proxy and scheduler. A bridge carries the Pods, the
// API server and Keycloak; what comes from elsewhere is dropped. There is no DNS in the cluster, and nothing enforces a
// NetworkPolicy.
const (
	nodeName    = "dev-node"
	bridge      = "hallpass0"
	bridgeIP    = "10.213.77.1"
	podCIDR     = "10.213.77.0/24"
	firstPodIP  = "10.213.77.10"
	serviceCIDR = "10.96.0.0/24"
	serviceIP   = "10.96.0.1"

	containerd = "containerd"
	scheduler  = "kube-scheduler"
	kubelet    = "kubelet"
	kubeProxy  = "kube-proxy"

	containersOf = "k8s.io" // the kubelet's namespace in containerd
)

// nodeServers in the order in which they are started.
var nodeServers = []string{containerd, scheduler, kubelet, kubeProxy}

// host is the address of the API server and of Keycloak: Pods reach them on the bridge.
func (s *stack) host() string {
	if s.Node {
		return bridgeIP
	}
	return "127.0.0.1"
}

func (s *stack) containerdSocket() string { return s.path("node", "containerd.sock") }

// nodeMark is a file that says that what is found on this machine of a node is ours. It names what the node runs with: down has to
// find that whatever is checked out by then.
func (s *stack) nodeMark() string { return s.path("node", "runs.json") }

// nodeCommand is dev/dev node check|load.
func (s *stack) nodeCommand(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "check":
		if err := s.canRunNode(); err != nil {
			return err
		}
		say("this machine can run a node")
		return nil
	case len(args) == 2 && args[0] == "load":
		d, err := s.nodeRuns()
		if err != nil {
			return err
		}
		return step("image", func() (string, error) { return s.loadImage(d, args[1]) })
	}
	return errors.New("usage: dev/dev node check | node load NAME:TAG=FOLDER|BINARY")
}

// linkNode makes the bridge and sets what the kernel needs, after it has noted what there was.
func (s *stack) linkNode() (string, error) {
	if err := s.canRunNode(); err != nil {
		return "", err
	}
	d, err := s.nodeDistribution()
	if err != nil {
		return "", err
	}
	if err := d.noRules(); err != nil {
		if !exists(s.nodeMark()) {
			return "", fmt.Errorf("this machine runs a node already: %w", err)
		}
	}
	if err := errors.Join(s.noteKernel(), s.noteAbsent(), saveJSON(s.nodeMark(), d)); err != nil {
		return "", err
	}
	if !exists("/sys/class/net/" + bridge) {
		for _, args := range [][]string{
			{"link", "add", bridge, "type", "bridge"}, {"addr", "add", bridgeIP + "/24", "dev", bridge}, {"link", "set", bridge, "up"},
		} {
			if err := quietly("ip", args...); err != nil {
				return "", err
			}
		}
	}
	// Answers between two Pods of the bridge have to come by where Services are translated.
	for _, name := range []string{"net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables"} {
		if err := os.WriteFile("/proc/sys/"+name, []byte("1"), 0); err != nil {
			return "", err
		}
	}
	return bridge + " " + bridgeIP, d.guardBridge()
}

// upNode starts what runs Pods, and waits until the node is ready.
func (s *stack) upNode(d *nodeDistribution) (string, error) {
	if err := s.writeNodeConfig(d); err != nil {
		return "", err
	}
	if err := s.upContainerd(d); err != nil {
		return "", err
	}
	if _, err := s.loadImage(d, pauseImage+"="+d.program("pause")); err != nil {
		return "", err
	}
	var since time.Time
	for _, p := range s.nodePrograms(d) {
		started, err := s.start(p)
		if err != nil {
			return "", err
		}
		if started && p.name == kubelet {
			since = time.Now()
		}
	}
	api, err := s.asAdmin()
	if err != nil {
		return "", err
	}
	return nodeName + " is ready", s.waitFor([]string{kubelet, containerd, scheduler, kubeProxy, apiServer}, time.Minute, func() error {
		return api.nodeReady(since)
	})
}

func (s *stack) upContainerd(d *nodeDistribution) error {
	if _, err := s.start(program{
		name: containerd, args: []string{d.program(containerd), "--config", s.path("config", "containerd.toml")},
		env: []string{"PATH=" + d.Built + ":" + d.paths() + ":" + os.Getenv("PATH")},
	}); err != nil {
		return err
	}
	return s.waitFor([]string{containerd}, 30*time.Second, func() error { return s.ctr(d, "version") })
}

// nodeReady is content with a node whose kubelet has said so since it was started: for some seconds the API tells of the time before.
func (p *peer) nodeReady(since time.Time) error {
	var node struct {
		Status struct {
			Conditions []struct {
				Type, Status, Message string
				LastHeartbeatTime     time.Time
			}
		}
	}
	if err := p.get("/api/v1/nodes/"+nodeName, &node); err != nil {
		return err
	}
	for _, c := range node.Status.Conditions {
		if c.Type == "Ready" && c.Status == "True" && !c.LastHeartbeatTime.Before(since.Truncate(time.Second)) {
			return nil
		} else if c.Type == "Ready" {
			return errors.New(c.Message)
		}
	}
	return errors.New("the kubelet has not said anything yet")
}

func (s *stack) nodePrograms(d *nodeDistribution) []program {
	schedulerConfig := s.path("config", "scheduler.kubeconfig")
	return []program{
		{name: scheduler, args: []string{
			d.program(scheduler), "--kubeconfig=" + schedulerConfig, "--authentication-kubeconfig=" + schedulerConfig,
			"--authorization-kubeconfig=" + schedulerConfig, "--bind-address=127.0.0.1", "--leader-elect=false",
		}},
		{name: kubelet, args: []string{
			d.program(kubelet), "--config=" + s.path("config", "kubelet.yaml"), "--kubeconfig=" + s.path("config", "kubelet.kubeconfig"),
			"--hostname-override=" + nodeName, "--node-ip=" + bridgeIP, "--root-dir=" + s.path("node", "kubelet"),
		}},
		{name: kubeProxy, args: []string{d.program(kubeProxy), "--config=" + s.path("config", "proxy.yaml")}, env: []string{
			"PATH=" + d.paths() + ":" + os.Getenv("PATH"), "LD_LIBRARY_PATH=" + d.libraries(),
		}},
	}
}

// ctr speaks to containerd.
func (s *stack) ctr(d *nodeDistribution, args ...string) error {
	return quietly(d.program("ctr"), s.ctrArgs(args)...)
}

func (s *stack) ctrArgs(args []string) []string {
	return append([]string{"--address", s.containerdSocket(), "--namespace", containersOf}, args...)
}

// quietly runs a program that says something only if it fails.
func quietly(command string, args ...string) error {
	if out, err := exec.Command(command, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", filepath.Base(command), strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// downNode stops the node's servers and the Pods, and takes back what they did to the machine. The bridge stays: the API server
// listens on it, see unlinkNode. It goes on past what fails, and tells all of it.
func (s *stack) downNode() error {
	if !exists(s.nodeMark()) {
		return nil
	}
	d, err := s.nodeRuns()
	if err != nil {
		return err
	}
	all := errors.Join(s.stopNamed(kubeProxy), s.stopNamed(kubelet), s.stopNamed(scheduler))
	// Containers outlive a containerd that died.
	if exists(s.path("config", "containerd.toml")) {
		all = errors.Join(all, s.upContainerd(d), s.endPods(d))
	}
	return errors.Join(all, s.stopNamed(containerd), s.unmount(), endCgroups(), d.dropRules())
}

// nodeRuns is what the node was started with.
func (s *stack) nodeRuns() (*nodeDistribution, error) {
	data, err := os.ReadFile(s.nodeMark())
	if err != nil {
		return nil, errors.New("this stack has no node: dev/dev up --node starts one")
	}
	var d nodeDistribution
	return &d, json.Unmarshal(data, &d)
}

// endPods kills every container, as a machine that is switched off would.
func (s *stack) endPods(d *nodeDistribution) error {
	list := func(what string) ([]string, error) {
		out, err := exec.Command(d.program("ctr"), s.ctrArgs([]string{what, "list", "--quiet"})...).Output()
		return strings.Fields(string(out)), err
	}
	tasks, err := list("task")
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	for _, task := range tasks {
		err = errors.Join(err, s.ctr(d, "task", "delete", "--force", task))
	}
	containers, listed := list("container")
	for _, container := range containers {
		err = errors.Join(err, s.ctr(d, "container", "delete", container))
	}
	return errors.Join(err, listed)
}

// unmount takes away what containers and Pods had mounted below our folder, the innermost first.
func (s *stack) unmount() error {
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(mounts)), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		place := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\134`, `\`).Replace(strings.Fields(lines[i])[1])
		if strings.HasPrefix(place, s.path("node")+"/") {
			err = errors.Join(err, quietly("umount", place))
		}
	}
	return err
}

// endCgroups removes the kubelet's cgroups, the innermost first. There are no processes in them any more.
func endCgroups() error {
	var all error
	for _, root := range kubeletCgroups() {
		var found []string
		err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				found = append(found, path)
			}
			return err
		})
		for i := len(found) - 1; i >= 0; i-- {
			err = errors.Join(err, os.Remove(found[i]))
		}
		all = errors.Join(all, err)
	}
	return all
}

// kubeletCgroups are where a kubelet keeps its Pods: version 1 has a tree per controller, of which some go by two names.
func kubeletCgroups() []string {
	var found []string
	for _, pattern := range []string{"/sys/fs/cgroup/kubepods*", "/sys/fs/cgroup/*/kubepods*"} {
		paths, _ := filepath.Glob(pattern) // the pattern is right
		for _, path := range paths {
			if real, err := filepath.EvalSymlinks(path); err == nil && !slices.Contains(found, real) {
				found = append(found, real)
			}
		}
	}
	return found
}

// unlinkNode takes back what linkNode and the kubelet set, once nobody listens on the bridge any more.
func (s *stack) unlinkNode() error {
	if !exists(s.nodeMark()) {
		return nil
	}
	err := errors.Join(s.restoreKernel(), s.removeAbsent())
	if exists("/sys/class/net/" + bridge) {
		err = errors.Join(err, quietly("ip", "link", "delete", bridge))
	}
	if err != nil {
		return err
	}
	return os.RemoveAll(s.path("node"))
}

// kernelSettings are what linkNode changes, and, from the third on, the kubelet.
var kernelSettings = []string{
	"net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables",
	"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
}

func (s *stack) kernelNote(name string) string {
	return s.path("node", "kernel", strings.ReplaceAll(name, "/", "."))
}

// noteKernel writes down what the settings were. What is written down already was there before us.
func (s *stack) noteKernel() error {
	for _, name := range kernelSettings {
		value, err := os.ReadFile("/proc/sys/" + name)
		if err != nil {
			return err
		}
		if note := s.kernelNote(name); !exists(note) {
			if err := save(note, value, 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

// besides are folders in which containerd and the kubelet leave things, wherever they are told to work.
var besides = []string{"/opt/containerd", "/run/containerd", "/var/lib/cni", "/var/lib/kubelet", "/var/log/containers", "/var/log/pods"}

func (s *stack) absentNote() string { return s.path("node", "absent.json") }

// noteAbsent writes down which of these folders are not there.
func (s *stack) noteAbsent() error {
	if exists(s.absentNote()) {
		return nil
	}
	return saveJSON(s.absentNote(), slices.DeleteFunc(slices.Clone(besides), exists))
}

// removeAbsent removes those that have come since.
func (s *stack) removeAbsent() error {
	data, err := os.ReadFile(s.absentNote())
	if err != nil {
		return err
	}
	var absent []string
	if err := json.Unmarshal(data, &absent); err != nil {
		return err
	}
	for _, folder := range absent {
		if slices.Contains(besides, folder) {
			err = errors.Join(err, os.RemoveAll(folder))
		}
	}
	return err
}

func (s *stack) restoreKernel() error {
	var all error
	for _, name := range kernelSettings {
		if value, err := os.ReadFile(s.kernelNote(name)); err == nil {
			all = errors.Join(all, os.WriteFile("/proc/sys/"+name, value, 0))
		}
	}
	return all
}

// canRunNode says what this machine lacks, by trying it.
func (s *stack) canRunNode() error {
	if os.Geteuid() != 0 {
		return errors.New("a node needs root")
	}
	for _, program := range []string{"ip", "umount", "mount"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("a node needs the program %s", program)
		}
	}
	if exists(s.nodeMark()) {
		return nil // it could, and what is found now is ours
	}
	if err := noOtherNode(); err != nil {
		return fmt.Errorf("this machine runs a node already, or something like it: %w (of another stack? dev/dev down there)", err)
	}
	for _, name := range kernelSettings {
		value, err := os.ReadFile("/proc/sys/" + name)
		if err == nil {
			err = os.WriteFile("/proc/sys/"+name, value, 0)
		}
		if err != nil {
			return fmt.Errorf("a node needs kernel settings that it can write: %w", err)
		}
	}
	if err := tryCgroup(); err != nil {
		return fmt.Errorf("a node needs cgroups that it can write: %w", err)
	}
	const probe = "hallpass-probe"
	if err := errors.Join(quietly("ip", "link", "add", probe, "type", "bridge"), quietly("ip", "link", "delete", probe)); err != nil {
		return fmt.Errorf("a node needs bridges: %w", err)
	}
	if err := errors.Join(quietly("ip", "netns", "add", probe), quietly("ip", "netns", "delete", probe)); err != nil {
		return fmt.Errorf("a node needs network namespaces: %w", err)
	}
	return s.tryOverlay()
}

// noOtherNode complains about what a node of somebody else's would have, or what is in the way of ours.
func noOtherNode() error {
	if cgroups := kubeletCgroups(); len(cgroups) > 0 {
		return fmt.Errorf("there is the cgroup %s", cgroups[0])
	}
	if link := "/sys/class/net/" + bridge; exists(link) {
		return fmt.Errorf("there is %s", link)
	}
	// A kubelet that starts deletes what is there.
	const plugins = "/var/lib/kubelet/device-plugins/kubelet.sock"
	if answers, err := net.Dial("unix", plugins); err == nil {
		answers.Close()
		return fmt.Errorf("a kubelet answers at %s", plugins)
	}
	for _, port := range []string{"10248", "10249", "10250", "10256", "10259"} {
		l, err := net.Listen("tcp", ":"+port)
		if err != nil {
			return fmt.Errorf("port %s: %w", port, err)
		}
		l.Close()
	}
	_, ours, err := net.ParseCIDR(podCIDR)
	if err != nil {
		return err
	}
	addresses, err := net.InterfaceAddrs()
	for _, address := range addresses {
		if other, isNet := address.(*net.IPNet); isNet && (other.Contains(ours.IP) || ours.Contains(other.IP)) {
			return fmt.Errorf("this machine has the address %s", other)
		}
	}
	return err
}

func tryCgroup() error {
	for _, root := range []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup"} {
		limit := filepath.Join(root, "hallpass-probe")
		if err := os.Mkdir(limit, 0o755); err != nil {
			continue
		}
		_, one := os.Stat(filepath.Join(limit, "memory.limit_in_bytes"))
		controllers, two := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
		if err := os.Remove(limit); err != nil {
			return err
		}
		if one == nil || two == nil && strings.Contains(string(controllers), "memory") {
			return nil
		}
	}
	return errors.New("none with the memory controller below /sys/fs/cgroup")
}

func (s *stack) tryOverlay() error {
	dir, err := os.MkdirTemp(s.dir, "overlay-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, part := range []string{"lower", "upper", "work", "all"} {
		if err := os.Mkdir(filepath.Join(dir, part), 0o700); err != nil {
			return err
		}
	}
	all := filepath.Join(dir, "all")
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir)
	err = quietly("mount", "-t", "overlay", "overlay", "-o", options, all)
	if err == nil {
		err = quietly("umount", all)
	}
	if err != nil {
		return fmt.Errorf("a node needs overlay mounts in %s: %w", s.dir, err)
	}
	return nil
}
