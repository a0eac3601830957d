//! What kubelet, containerd and the network plugins are told.
use std::path::Path;

use serde_json::{Value, json};

use super::{Containerd, Machine, debian, images::PAUSE};

/// The kubelet's configuration. What differs from a usual one says why.
pub fn kubelet(machine: Machine, state: &Path, group: &str) -> String {
    let file = |name: &str| state.join(name).display().to_string();
    let configuration = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": machine.address(),
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": false },
            "x509": { "clientCAFile": file("ca.crt") },
        },
        "authorization": { "mode": "AlwaysAllow" },
        "tlsCertFile": file("serving.crt"),
        "tlsPrivateKeyFile": file("serving.key"),
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins", // the usual one is outside what a machine has of its own
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": group,
        "enforceNodeAllocatable": ["pods"],
        "failCgroupV1": false,
        "failSwapOn": false,
        "oomScoreAdj": 0, // to lower it takes a right that root in a container lacks
        "makeIPTablesUtilChains": false, // there is no kube-proxy
        "resolvConf": "", // and no DNS
        "healthzPort": 0, // machines share their loopback
        "maxPods": 200,
        "serializeImagePulls": false,
        // A silent node is to be noticed in seconds, see `NodesSpec::grace_period_seconds`.
        "nodeLeaseDurationSeconds": 8,
        "nodeStatusUpdateFrequency": "2s",
        // All machines are on the disk of this one, which may well be full to nine tenths.
        "evictionHard": {
            "memory.available": "100Mi", "nodefs.available": "1%", "nodefs.inodesFree": "1%", "imagefs.available": "1%",
        },
        "imageGCHighThresholdPercent": 99,
        "imageGCLowThresholdPercent": 98,
    });
    configuration.to_string()
}

/// The network of a machine's Pods.
pub fn network(machine: Machine) -> String {
    let subnet = format!("10.244.{}.0/24", machine.network);
    let bridge = json!({
        "type": "bridge", "bridge": machine.bridge(), "isGateway": true, "ipMasq": false, "hairpinMode": true,
        "ipam": { "type": "host-local", "ranges": [[{ "subnet": subnet }]], "routes": [{ "dst": "0.0.0.0/0" }] },
    });
    json!({ "cniVersion": "0.4.0", "name": "pods", "plugins": [bridge] }).to_string()
}

/// containerd's configuration. JSON strings are strings of TOML too.
pub(super) fn containerd(bin: &Path, plugins: &Path, version: Containerd) -> String {
    let text = |path: &Path| Value::from(path.display().to_string());
    let (programs, plugins) = (text(&debian(bin).join("lib/cni")), text(plugins));
    let runc = text(&debian(bin).join("sbin/runc"));
    match version {
        Containerd::One => format!(
            r#"version = 2
[plugins."io.containerd.internal.v1.opt"]
path = "/var/lib/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
disable_apparmor = true
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = {programs}
conf_dir = {plugins}
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
BinaryName = {runc}
"#
        ),
        Containerd::Two => format!(
            r#"version = 3
[plugins."io.containerd.internal.v1.opt"]
path = "/var/lib/containerd/opt"
[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE}"
[plugins."io.containerd.cri.v1.runtime"]
disable_apparmor = true
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = [{programs}]
conf_dir = {plugins}
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = false
BinaryName = {runc}
"#
        ),
    }
}
