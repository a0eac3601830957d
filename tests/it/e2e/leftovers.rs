//! What is left of a cluster with real nodes: nothing.
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::equipment::{alone, containerds};
use crate::cluster::support::{TESTBED, TestCluster, eventually, output_of, processes, processes_of};

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
    let settings = [
        "vm/overcommit_memory",
        "vm/panic_on_oom",
        "kernel/panic",
        "kernel/panic_on_oops",
        "kernel/keys/root_maxkeys",
        "kernel/keys/root_maxbytes",
        "net/ipv4/ip_forward",
    ];
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

/// The living processes that are in none of these PID namespaces: process id and when it began.
fn processes_outside(known: &BTreeSet<PathBuf>) -> BTreeSet<(u32, String)> {
    let outside = |(pid, _): (u32, _)| {
        let namespace = fs::read_link(format!("/proc/{pid}/ns/pid")).ok()?;
        (!known.contains(&namespace)).then(|| Some((pid, began(pid)?)))?
    };
    processes().into_iter().filter_map(outside).collect()
}

fn pid_namespaces() -> BTreeSet<PathBuf> {
    processes().into_iter().filter_map(|(pid, _)| fs::read_link(format!("/proc/{pid}/ns/pid")).ok()).collect()
}

/// In ticks since the machine's start.
fn began(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.split(' ').nth(19)?.to_owned())
}

/// Starts a cluster with a Pod in it, ends it in this way, and compares the machine with what it was before.
fn nothing_is_left(name: &str, end: impl FnOnce(&mut TestCluster)) {
    let (before, namespaces) = (traces(), pid_namespaces());
    let mut cluster = TestCluster::start_with(name, "kubelet:2", &["--containerd", &containerds()]);
    cluster.kubectl(&["run", "pause", "--image=example.local/pause:1"]);
    cluster.kubectl(&["wait", "pod/pause", "--for=condition=Ready", "--timeout=60s"]);
    let new = traces();
    assert_eq!((new.mounts, new.interfaces), (before.mounts.clone(), before.interfaces.clone()), "seen outside");
    let ours = processes_outside(&namespaces);
    assert!(ours.len() > 5, "control plane, kubelet, containerd, shim, pause: {ours:?}");
    end(&mut cluster);
    let dir = cluster.dir.clone();
    eventually(30, "the end of all processes", || processes_of(&dir).is_empty());
    eventually(10, "the end of what ran in Pods", || {
        ours.iter().all(|(pid, since)| began(*pid).as_ref() != Some(since))
    });
    eventually(10, "the machine to be as it was", || traces() == before);
}

/// The first process of the cluster's PID namespace.
fn first_process(cluster: &TestCluster) -> Pid {
    let is_init =
        |args: &[String]| args.iter().any(|arg| arg == "init") && args.iter().any(|arg| Path::new(arg) == cluster.dir);
    let found = processes().into_iter().find(|(_, args)| is_init(args)).expect("PID 1 of the cluster");
    Pid::from_raw(found.0.cast_signed())
}

fn killed(pid: Pid) {
    kill(pid, Signal::SIGKILL).unwrap();
}

#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_cluster_that_ends() {
    let _only = alone().await;
    tokio::task::block_in_place(|| {
        nothing_is_left("e2e-down", |cluster| {
            output_of(Command::new(TESTBED).args(["cluster", "down", "--dir"]).arg(&cluster.dir));
        });
    });
}

#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_cluster_that_is_killed() {
    let _only = alone().await;
    tokio::task::block_in_place(|| {
        nothing_is_left("e2e-killed", |cluster| killed(Pid::from_raw(cluster.supervisor.id().cast_signed())));
        nothing_is_left("e2e-killed", |cluster| killed(first_process(cluster)));
    });
}
