//! A machine starts: mounts of its own, then PID 1 of its PID namespace, which only reaps.
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{
        prctl::set_pdeathsig,
        signal::{SigSet, Signal},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use super::{super::init::ensure_first_process, cgroups};

/// A folder of a machine's disk, and where it is seen inside.
pub struct Folder {
    pub name: &'static str,
    at: &'static str,
}

/// Where kubelet, containerd and the network plugins keep things, so that the machine's own stay as they are.
pub const FOLDERS: [Folder; 5] = [
    Folder { name: "kubelet", at: "/var/lib/kubelet" },
    Folder { name: "containerd", at: "/var/lib/containerd" },
    Folder { name: "cni", at: "/var/lib/cni" },
    Folder { name: "pods", at: "/var/log/pods" },
    Folder { name: "containers", at: "/var/log/containers" },
];

/// In memory, empty with every start, and nothing of it outside. The folders above are mounted in the last two.
pub const EMPTY: [&str; 3] = ["/run", "/var/lib", "/var/log"];

/// What the kubelet would set for the whole of the real machine; it leaves alone what reads as it wants already.
const SETTINGS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// There once a machine has all its mounts. In memory, so that none is left of an earlier start.
pub const BOOTED: &str = "/run/booted";

/// Arguments of `baton-testbed cluster machine`.
#[derive(clap::Args)]
pub struct Args {
    /// The machine's disk.
    #[arg(long)]
    state: PathBuf,
    /// Its control group.
    #[arg(long)]
    group: PathBuf,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    ensure_first_process()?;
    set_pdeathsig(Signal::SIGKILL)?;
    // Read, not delivered: as PID 1 it would feel none otherwise.
    let signals: SigSet = [Signal::SIGCHLD, Signal::SIGTERM].into_iter().collect();
    signals.thread_block()?;
    cgroups::clear(&args.group)?; // as they are in a machine that was just switched on
    mount_own(&args.state)?;
    fs::write(BOOTED, "")?;
    while signals.wait()? != Signal::SIGTERM {
        reap();
    }
    Ok(ExitCode::SUCCESS)
}

fn reap() {
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
            _ => {}
        }
    }
}

fn mount_own(state: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
    propagate(MsFlags::MS_PRIVATE)?;
    // The kubelet wants what it mounts to be seen in containers.
    propagate(MsFlags::MS_SHARED)?;
    mount_kernel(state)?;
    for path in EMPTY {
        fill("tmpfs", Path::new(path), MsFlags::MS_NOSUID, Some("mode=0755"))?;
    }
    for folder in FOLDERS {
        fs::create_dir_all(folder.at)?;
        bind(&state.join(folder.name), Path::new(folder.at), MsFlags::empty())?;
    }
    for (setting, value) in SETTINGS {
        let stand_in = Path::new("/run").join(setting.replace('/', "."));
        fs::write(&stand_in, format!("{value}\n"))?;
        bind(&stand_in, &Path::new("/proc/sys").join(setting), MsFlags::empty())?;
    }
    Ok(())
}

fn propagate(how: MsFlags) -> Result<()> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | how, none).context("cannot set how mounts propagate")
}

/// /proc of the PID namespace, and /sys of the network namespace with the cgroups that there were.
fn mount_kernel(state: &Path) -> Result<()> {
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    fill("proc", Path::new("/proc"), safe, None)?;
    let sys = state.join("sys");
    fs::create_dir_all(&sys)?;
    fill("sysfs", &sys, safe, None)?;
    bind(Path::new("/sys/fs/cgroup"), &sys.join("fs/cgroup"), MsFlags::MS_REC)?;
    bind(&sys, Path::new("/sys"), MsFlags::MS_REC)
}

fn fill(kind: &str, at: &Path, flags: MsFlags, options: Option<&str>) -> Result<()> {
    mount(Some(kind), at, Some(kind), flags, options).with_context(|| format!("cannot mount {}", at.display()))
}

fn bind(from: &Path, at: &Path, flags: MsFlags) -> Result<()> {
    let none = None::<&str>;
    let told = || format!("cannot mount {} at {}", from.display(), at.display());
    mount(Some(from), at, none, MsFlags::MS_BIND | flags, none).with_context(told)
}
