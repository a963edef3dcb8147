package main

import (
	"bytes"
	"text/template"
)

const pauseImage = "localhost/pause:dev"

// nodeView is what the templates of the node see.
type nodeView struct {
	view
	Runc, Plugins string
	Node, Bridge  string
	BridgeIP      string
	PodCIDR       string
	FirstPodIP    string
	PauseImage    string
	User          string // of a kubeconfig
}

var nodeTemplates = template.Must(template.Must(templates.Clone()).Parse(`
{{define "cni.conflist"}}{
  "cniVersion": "1.0.0", "name": "dev", "plugins": [{
    "type": "bridge", "bridge": {{text .Bridge}}, "isGateway": true, "isDefaultGateway": true, "hairpinMode": true, "ipMasq": false,
    "ipam": {
      "type": "host-local", "dataDir": {{text (.Path "node" "addresses")}},
      "ranges": [[{"subnet": {{text .PodCIDR}}, "rangeStart": {{text .FirstPodIP}}, "gateway": {{text .BridgeIP}}}]]
    }
  }]
}
{{end}}

{{define "containerd.toml"}}version = 3
root = {{text (.Path "node" "containerd" "root")}}
state = {{text (.Path "node" "containerd" "state")}}
disabled_plugins = [
  "io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs", "io.containerd.internal.v1.opt",
]
[grpc]
  address = {{text (.Path "node" "containerd.sock")}}
[ttrpc]
  address = {{text (.Path "node" "containerd.sock.ttrpc")}}
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = {{text .PauseImage}}
[plugins.'io.containerd.cri.v1.runtime']
  # Works without CAP_SYS_RESOURCE.
  restrict_oom_score_adj = true
  # So that they are found by where they are mounted.
  netns_mounts_under_state_dir = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = [{{text .Plugins}}]
    conf_dir = {{text (.Path "config" "cni")}}
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = "runc"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        BinaryName = {{text .Runc}}
        Root = {{text (.Path "node" "runc")}}
        SystemdCgroup = false
{{end}}

{{define "kubelet.yaml"}}apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: {{.BridgeIP}}
healthzBindAddress: 127.0.0.1
readOnlyPort: 0
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: {{text (.Path "pki" "ca.crt")}}}
authorization: {mode: Webhook}
tlsCertFile: {{text (.Path "pki" "kubelet.crt")}}
tlsPrivateKeyFile: {{text (.Path "pki" "kubelet.key")}}
containerRuntimeEndpoint: {{text (printf "unix://%s" (.Path "node" "containerd.sock"))}}
podLogsDir: {{text (.Path "node" "pod-logs")}}
cgroupDriver: cgroupfs
failCgroupV1: false
enforceNodeAllocatable: []
failSwapOn: false
makeIPTablesUtilChains: false
resolvConf: ""
clusterDomain: cluster.local
# The machine's disk and memory are its owner's matter.
evictionHard: {memory.available: "0%", nodefs.available: "0%", imagefs.available: "0%", nodefs.inodesFree: "0%"}
imageGCHighThresholdPercent: 100
{{end}}

{{define "proxy.yaml"}}apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: {{.Node}}
clusterCIDR: {{.PodCIDR}}
clientConnection: {kubeconfig: {{text (.Path "config" "proxy.kubeconfig")}}}
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
nodePortAddresses: ["{{.BridgeIP}}/32"]
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
{{end}}

{{define "user.kubeconfig"}}apiVersion: v1
kind: Config
clusters:
- {name: dev, cluster: {server: {{text .APIURL}}, certificate-authority: {{text (.Path "pki" "ca.crt")}}}}
users:
- name: {{.User}}
  user:
    client-certificate: {{text (.Path "pki" (printf "%s.crt" .User))}}
    client-key: {{text (.Path "pki" (printf "%s.key" .User))}}
contexts:
- {name: dev, context: {cluster: dev, user: {{.User}}}}
current-context: dev
{{end}}
`))

// writeNodeConfig writes what the node's servers read.
func (s *stack) writeNodeConfig(d *nodeDistribution) error {
	v := nodeView{
		view: view{stack: s}, Runc: d.Runc, Plugins: d.Plugins, Node: nodeName, Bridge: bridge, BridgeIP: bridgeIP,
		PodCIDR: podCIDR, FirstPodIP: firstPodIP, PauseImage: pauseImage,
	}
	write := func(template, path string) error {
		var text bytes.Buffer
		if err := nodeTemplates.ExecuteTemplate(&text, template, v); err != nil {
			return err
		}
		return save(path, text.Bytes(), 0o600)
	}
	for _, name := range []string{"containerd.toml", "kubelet.yaml", "proxy.yaml"} {
		if err := write(name, s.path("config", name)); err != nil {
			return err
		}
	}
	if err := write("cni.conflist", s.path("config", "cni", "10-dev.conflist")); err != nil {
		return err
	}
	for _, user := range []string{"scheduler", "kubelet", "proxy"} {
		v.User = user
		if err := write("user.kubeconfig", s.path("config", user+".kubeconfig")); err != nil {
			return err
		}
	}
	return nil
}
