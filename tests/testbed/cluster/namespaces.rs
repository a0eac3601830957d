//! The namespaces of a cluster: made by the supervisor, joined by `enter`.
use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::MetadataExt,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    unistd::{Pid, getegid, geteuid},
};

use super::layout::Layout;

const REFUSED: &str = "this machine refuses unprivileged user namespaces. Allow them \
    (sysctl kernel.apparmor_restrict_unprivileged_userns=0 on Ubuntu, kernel.unprivileged_userns_clone=1 on Debian, \
    user.max_user_namespaces=15000 elsewhere; in a container: --security-opt seccomp=unconfined), or run as root";

/// Moves this process into a user and a network namespace of its own; its next child becomes PID 1
/// of a new PID namespace.
///
/// The process must have one thread, and can make no further ones afterwards: the kernel refuses
/// threads to a process whose children live in another PID namespace.
pub fn unshare_all() -> Result<()> {
    let identities = Identities::prepare()?;
    match unshare(CloneFlags::CLONE_NEWUSER) {
        Ok(()) => identities.map().context(REFUSED)?,
        // Root needs no user namespace for the others.
        Err(_) if geteuid().is_root() => identities.leave()?,
        Err(Errno::EPERM | Errno::EACCES | Errno::ENOSPC | Errno::EINVAL) => bail!(REFUSED),
        Err(error) => return Err(error).context("cannot make a user namespace"),
    }
    match unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID) {
        Ok(()) => Ok(()),
        Err(Errno::EPERM) if geteuid().is_root() => {
            bail!("cannot make network and PID namespaces: root lacks CAP_SYS_ADMIN here. {REFUSED}")
        }
        Err(error) => Err(error).context("cannot make network and PID namespaces"),
    }
}

/// The same for a cluster with machines, which need the rights of the real root: without a user namespace.
pub fn unshare_as_root() -> Result<()> {
    let kinds =
        CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    unshare(kinds).context("nodes of kind kubelet need CAP_SYS_ADMIN to make namespaces")
}

/// How user and group ids of the machine appear inside.
enum Identities {
    /// Root keeps all ids as they are, or files of other users could not be written inside. Only a
    /// process that stays outside may map them: it waits for its input to end.
    All(Child),
    /// Anyone else becomes root inside, and only their own files can be told apart.
    Own { uid: u32, gid: u32 },
}

impl Identities {
    fn prepare() -> Result<Self> {
        if !geteuid().is_root() {
            return Ok(Self::Own { uid: geteuid().as_raw(), gid: getegid().as_raw() });
        }
        let script = r#"read -r _; printf '%s' "$1" >/proc/$PPID/uid_map && printf '%s' "$2" >/proc/$PPID/gid_map"#;
        let helper = Command::new("sh")
            .args(["-c", script, "sh", &same_ids("uid")?, &same_ids("gid")?])
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot run sh")?;
        Ok(Self::All(helper))
    }

    /// Call when no user namespace could be made: ends the helper before it maps anything.
    fn leave(self) -> Result<()> {
        if let Self::All(mut helper) = self {
            helper.kill()?;
            helper.wait()?;
        }
        Ok(())
    }

    /// Call after the user namespace was made.
    fn map(self) -> Result<()> {
        match self {
            Self::All(mut helper) => {
                drop(helper.stdin.take());
                let status = helper.wait()?;
                anyhow::ensure!(status.success(), "cannot map user ids ({status})");
            }
            Self::Own { uid, gid } => {
                write("/proc/self/setgroups", "deny")?; // or the kernel refuses the group map
                write("/proc/self/uid_map", &format!("0 {uid} 1"))?;
                write("/proc/self/gid_map", &format!("0 {gid} 1"))?;
            }
        }
        Ok(())
    }
}

fn write(path: &str, content: &str) -> Result<()> {
    File::options()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .with_context(|| format!("cannot write {path}"))
}

/// A map that keeps every id this user namespace knows: lines of `inside outside count`.
fn same_ids(kind: &str) -> Result<String> {
    let path = format!("/proc/self/{kind}_map");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(identity_map(&text))
}

fn identity_map(current: &str) -> String {
    let ranges = current.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let (inside, _outside, count) = (fields.next()?, fields.next()?, fields.next()?);
        Some(format!("{inside} {inside} {count}\n"))
    });
    ranges.collect()
}

/// Gives PID 1 its own view of the mounts: the /proc of its PID namespace, and an etcd folder in
/// memory that is gone with the cluster.
pub fn mount_own(layout: &Layout) -> Result<()> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("cannot make mounts private")?;
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), safe, none)
        .context("cannot mount /proc (is parts of it hidden, as in a container? then run that privileged)")?;
    mount(Some("tmpfs"), &layout.etcd(), Some("tmpfs"), safe, Some("mode=0700,size=4g"))
        .context("cannot mount a tmpfs for etcd")
}

/// The namespaces of a running process, held open: they cannot change under a reused process id.
pub struct Namespaces(Vec<(File, CloneFlags)>);

impl Namespaces {
    pub fn of(pid: Pid) -> Result<Self> {
        // The user namespace comes first: it grants the rights that the others need.
        let kinds = [
            ("user", CloneFlags::CLONE_NEWUSER),
            ("net", CloneFlags::CLONE_NEWNET),
            ("pid", CloneFlags::CLONE_NEWPID),
            ("mnt", CloneFlags::CLONE_NEWNS),
        ];
        let mut open = Vec::new();
        for (name, flag) in kinds {
            let path = format!("/proc/{pid}/ns/{name}");
            let theirs = File::open(&path).with_context(|| format!("cannot open {path}: not your cluster?"))?;
            // Joining the user namespace one is in already is an error.
            let same = fs::metadata(format!("/proc/self/ns/{name}"))?.ino() == theirs.metadata()?.ino();
            if !(same && flag == CloneFlags::CLONE_NEWUSER) {
                open.push((theirs, flag));
            }
        }
        Ok(Self(open))
    }

    /// Moves this process there, and its later children into the PID namespace. The process must have one thread.
    pub fn join(self) -> Result<()> {
        for (file, flag) in self.0 {
            setns(&file, flag).context("cannot enter the cluster's namespaces")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::identity_map;

    #[test]
    fn root_keeps_exactly_the_ids_it_has() {
        assert_eq!(identity_map("         0          0 4294967295\n"), "0 0 4294967295\n");
        assert_eq!(identity_map("0 1000 1\n1 100000 65536\n"), "0 0 1\n1 1 65536\n");
    }
}
