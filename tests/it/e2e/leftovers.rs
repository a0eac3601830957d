//! What is left of a cluster with real nodes: nothing.
use std::{fs, path::Path};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::equipment::containerd;
use crate::cluster::support::{TestCluster, eventually, output_of, processes_of};

/// What a machine has of its own and could leave behind.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    mounts: Vec<String>,
    interfaces: Vec<String>,
    groups: Vec<String>,
    settings: Vec<String>,
    folders: Vec<bool>,
}

fn traces() -> Traces {
    let names = |folder: &str| -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    let hierarchies = names("/sys/fs/cgroup").into_iter().map(|name| format!("/sys/fs/cgroup/{name}"));
    let groups = hierarchies.chain(["/sys/fs/cgroup".into()]).flat_map(|folder| names(&folder));
    let settings = ["vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops"];
    let folders = ["/var/lib/kubelet", "/var/lib/containerd", "/var/log/pods", "/opt/containerd", "/run/containerd"];
    Traces {
        mounts: mounts(),
        interfaces: names("/sys/class/net"),
        groups: groups.filter(|name| name.starts_with("baton-testbed-")).collect(),
        settings: settings.iter().map(|it| fs::read_to_string(Path::new("/proc/sys").join(it)).unwrap()).collect(),
        folders: folders.iter().map(|it| Path::new(it).exists()).collect(),
    }
}

fn mounts() -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    mounts.lines().map(str::to_owned).collect()
}

/// Starts a cluster with a Pod in it, ends it in this way, and compares the machine with what it was before.
fn nothing_is_left(name: &str, end: impl FnOnce(&mut TestCluster)) {
    // Other clusters have groups meanwhile.
    let ours = |traces: Traces, others: &[String]| {
        let groups = traces.groups.into_iter().filter(|group| !others.contains(group)).collect();
        Traces { groups, ..traces }
    };
    let before = traces();
    let others = before.groups.clone();
    let before = ours(before, &others);
    let mut cluster = TestCluster::start_with(name, "kubelet", &["--containerd", &containerd()]);
    cluster.kubectl(&["run", "pause", "--image=example.local/pause:1"]);
    cluster.kubectl(&["wait", "pod/pause", "--for=condition=Ready", "--timeout=60s"]);
    let new = ours(traces(), &others);
    assert_eq!((new.mounts, new.interfaces), (before.mounts.clone(), before.interfaces.clone()), "seen outside");
    end(&mut cluster);
    let dir = cluster.dir.clone();
    eventually(30, "the end of all processes", || processes_of(&dir).is_empty());
    eventually(10, "the machine to be as it was", || ours(traces(), &others) == before);
}

#[ignore = "needs real nodes: make e2e"]
#[test]
fn nothing_is_left_of_a_cluster_that_ends() {
    nothing_is_left("e2e-down", |cluster| {
        output_of(
            std::process::Command::new(crate::cluster::support::TESTBED)
                .args(["cluster", "down", "--dir"])
                .arg(&cluster.dir),
        );
    });
}

#[ignore = "needs real nodes: make e2e"]
#[test]
fn nothing_is_left_of_a_cluster_that_is_killed() {
    nothing_is_left("e2e-killed", |cluster| {
        kill(Pid::from_raw(cluster.supervisor.id().cast_signed()), Signal::SIGKILL).unwrap();
    });
}
