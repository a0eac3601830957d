//! The control groups of a cluster's machines: one of its own in each hierarchy, with one a machine in it.
//!
//! Nothing ends with a control group, so the kernel does not take it away as it does mounts and processes: whoever
//! outlives the machines removes it, and a later cluster of that folder does so first.
use std::{
    fs, io,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

const ROOT: &str = "/sys/fs/cgroup";
/// What the kubelet cannot do without. Each is a folder of the first version, or named by the second.
const CONTROLLERS: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];
/// A group cannot be removed while a process in it is still ending.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// The group of the cluster in `dir`: no two clusters of a machine share it.
pub fn name(dir: &Path) -> String {
    let hash = Sha256::digest(dir.as_os_str().as_encoded_bytes());
    format!("baton-testbed-{:02x}{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2], hash[3])
}

/// Fails when a controller is missing.
pub fn check() -> Result<()> {
    let of_two = fs::read_to_string(Path::new(ROOT).join("cgroup.controllers")).unwrap_or_default();
    let is_there = |name: &&str| of_two.split_whitespace().any(|it| it == *name) || Path::new(ROOT).join(name).is_dir();
    let missing: Vec<&str> = CONTROLLERS.into_iter().filter(|name| !is_there(name)).collect();
    ensure!(missing.is_empty(), "no cgroup controller {} in {ROOT}", missing.join(", "));
    Ok(())
}

/// Makes the group of the cluster in `dir` with one in it for each of `machines`.
pub fn make(dir: &Path, machines: &[String]) -> Result<()> {
    for hierarchy in hierarchies()? {
        let group = hierarchy.join(name(dir));
        enable(&hierarchy);
        make_one(&hierarchy, &group)?;
        enable(&group);
        for machine in machines {
            make_one(&group, &group.join(machine))?;
        }
    }
    Ok(())
}

/// The root of the second version, or each hierarchy of the first and what stands beside them.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let root = PathBuf::from(ROOT);
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root]);
    }
    let entries = fs::read_dir(&root).with_context(|| format!("cannot read {ROOT}"))?.flatten();
    // `cpu` may be a link to `cpu,cpuacct`.
    Ok(entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect())
}

/// Hands controllers on to the groups below (the second version; no such file in the first).
fn enable(group: &Path) {
    for controller in CONTROLLERS.into_iter().chain(["io"]) {
        // One that cannot be had is missed by who needs it.
        let _ = fs::OpenOptions::new()
            .write(true)
            .open(group.join("cgroup.subtree_control"))
            .and_then(|mut file| io::Write::write_all(&mut file, format!("+{controller}").as_bytes()));
    }
}

fn make_one(parent: &Path, group: &Path) -> Result<()> {
    fs::create_dir_all(group).with_context(|| format!("cannot make {}", group.display()))?;
    // In the first version a group has no processors and no memory until it is given some.
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if let Ok(value) = fs::read_to_string(parent.join(file))
            && !parent.join("cgroup.controllers").exists()
        {
            fs::write(group.join(file), value).with_context(|| format!("cannot set {file}"))?;
        }
    }
    Ok(())
}

/// Removes the group of the cluster in `dir`, whose processes have ended or are about to.
pub fn remove(dir: &Path) -> Result<()> {
    let deadline = Instant::now() + REMOVE_TIMEOUT;
    for hierarchy in hierarchies().unwrap_or_default() {
        let group = hierarchy.join(name(dir));
        while let Err(error) = remove_tree(&group) {
            ensure!(Instant::now() < deadline, "cannot remove {}: {error}", group.display());
            sleep(POLL);
        }
    }
    Ok(())
}

/// Removes what a machine that has ended left in its group.
pub fn clear(group: &Path) -> Result<()> {
    let deadline = Instant::now() + REMOVE_TIMEOUT;
    for group in hierarchies()?.into_iter().map(|hierarchy| hierarchy.join(group)) {
        while let Err(error) = remove_below(&group) {
            ensure!(Instant::now() < deadline, "cannot clear {}: {error}", group.display());
            sleep(POLL);
        }
    }
    Ok(())
}

fn remove_tree(group: &Path) -> io::Result<()> {
    remove_below(group)?;
    match fs::remove_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

fn remove_below(group: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&entry.path())?;
    }
    Ok(())
}
