//! What real nodes ask of the machine they are to run on.
use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context, Result, ensure};
use nix::{
    sched::{CloneFlags, unshare},
    sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs},
    unistd::geteuid,
};

use super::{Containerd, Containerds, boot, cgroups, debian};
use crate::cluster::network;

/// Fails with one line that names what is missing.
pub fn check(bin: &Path, dir: &Path, versions: &Containerds) -> Result<()> {
    let hidden = boot::EMPTY.iter().find(|path| dir.starts_with(path));
    ensure!(hidden.is_none(), "nodes of kind kubelet cannot have their folder in {}", hidden.unwrap_or(&""));
    check_kernel()?;
    check_disk(dir)?;
    versions.0.iter().try_for_each(|version| check_programs(bin, *version))
}

/// The same where there is no cluster yet.
pub fn check_all(dir: &Path) -> Result<ExitCode> {
    check_kernel()?;
    check_disk(dir)?;
    unshare(CloneFlags::CLONE_NEWNET).context("nodes of kind kubelet need network namespaces")?;
    network::check_devices()?;
    Ok(ExitCode::SUCCESS)
}

fn check_kernel() -> Result<()> {
    ensure!(geteuid().is_root(), "nodes of kind kubelet need root");
    let systems = fs::read_to_string("/proc/filesystems").context("cannot read /proc/filesystems")?;
    let overlay = systems.lines().any(|line| line.split_whitespace().last() == Some("overlay"));
    ensure!(overlay, "nodes of kind kubelet need overlayfs, which this kernel lacks (modprobe overlay may help)");
    cgroups::check().context("nodes of kind kubelet need control groups")
}

fn check_disk(dir: &Path) -> Result<()> {
    let disk = statfs(dir).with_context(|| format!("cannot look at {}", dir.display()))?;
    let is_overlay = disk.filesystem_type() == OVERLAYFS_SUPER_MAGIC;
    ensure!(!is_overlay, "nodes of kind kubelet need a disk that overlayfs can lie on, and {} is none", dir.display());
    Ok(())
}

fn check_programs(bin: &Path, version: Containerd) -> Result<()> {
    let folder = version.folder(bin);
    let mut programs: Vec<_> = ["containerd", "containerd-shim-runc-v2", "ctr"].map(|name| folder.join(name)).into();
    programs.extend([bin.join("kubelet"), bin.join("pause"), debian(bin).join("sbin/runc")]);
    programs.extend(["bridge", "host-local", "loopback"].map(|name| debian(bin).join("lib/cni").join(name)));
    let missing: Vec<_> =
        programs.iter().filter(|program| !program.is_file()).map(|program| program.display().to_string()).collect();
    ensure!(missing.is_empty(), "nodes of kind kubelet need {}: run `make e2e-programs` first", missing.join(", "));
    Ok(())
}
