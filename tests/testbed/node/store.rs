//! What the node keeps on disk, so that Pods outlive it:
//! ```text
//! STATE/pods/UID/pod.json                       the Pod as last seen
//!               /address                        its address
//!               /volumes/NAME/                  its volumes
//!               /containers/NAME/N/             the N-th start of a container:
//!                   spec.json                     what to run
//!                   record.json                   the attempt as the API is told of it
//!                   started.json                  written by the shim: the process
//!                   exit.json                     written by the shim, or by the node in its place: how the process ended
//!                   alive                         a FIFO that the shim holds open until then
//!                   root/                         mount point of the container's root
//!               /logs/NAME/N.log                standard output and error
//! ```
use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::model::{self, Attempt, End};

/// Of every container this many starts are kept, for `kubectl logs --previous`.
const KEPT_ATTEMPTS: usize = 2;

/// The folder of one Pod.
#[derive(Clone, Debug)]
pub struct PodDir(PathBuf);

/// The folder of one start of a container.
#[derive(Clone, Debug)]
pub struct AttemptDir(PathBuf);

/// The process of a container, as the node's PID namespace numbers it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Started {
    pub pid: i32,
    pub at: Timestamp,
    /// Its own PID namespace, as `/proc` names it: another process of this number is of another one.
    pub namespace: PathBuf,
}

/// The PID namespace of a process; none where there is no such process.
pub fn pid_namespace(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

/// Every Pod folder below the node's state folder.
pub fn pods(state: &Path) -> Result<Vec<PodDir>> {
    let folder = state.join("pods");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder)? {
        found.push(PodDir(entry?.path()));
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(found)
}

/// The Pod of this name and its folder. Of two, as when one was deleted by force and its processes go on, the newer:
/// it was created after the other one's last change, so where both were created in the same second, the version tells.
pub fn find(state: &Path, namespace: &str, name: &str) -> Result<Option<(Pod, PodDir)>> {
    let named = pods(state)?.into_iter().filter_map(|dir| Some((dir.read_pod().ok()?, dir)));
    let named = named.filter(|(pod, _)| model::namespace(pod) == namespace && model::name(pod) == name);
    Ok(named.max_by_key(|(pod, _)| {
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let version = pod.metadata.resource_version.as_ref().and_then(|version| version.parse::<u64>().ok());
        (created, version)
    }))
}

impl PodDir {
    pub fn new(state: &Path, uid: &str) -> Self {
        Self(state.join("pods").join(uid))
    }

    pub fn read_pod(&self) -> Result<Pod> {
        read(&self.0.join("pod.json"))
    }

    pub fn write_pod(&self, pod: &Pod) -> Result<()> {
        fs::create_dir_all(&self.0)?;
        write(&self.0.join("pod.json"), pod)
    }

    pub fn address_file(&self) -> PathBuf {
        self.0.join("address")
    }

    pub fn volume(&self, name: &str) -> PathBuf {
        self.0.join("volumes").join(name)
    }

    /// A file or folder that the node makes for the Pod: its hosts file, say.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn log(&self, container: &str, number: u32) -> PathBuf {
        self.0.join("logs").join(container).join(format!("{number}.log"))
    }

    pub fn attempt(&self, container: &str, number: u32) -> AttemptDir {
        AttemptDir(self.0.join("containers").join(container).join(number.to_string()))
    }

    /// The starts of a container that are kept, oldest first.
    pub fn attempts(&self, container: &str) -> Vec<u32> {
        let entries = fs::read_dir(self.0.join("containers").join(container));
        let names = entries.into_iter().flatten().flatten().map(|entry| entry.file_name());
        let mut numbers: Vec<u32> = names.filter_map(|name| name.to_str()?.parse().ok()).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Forgets all but the latest starts of a container, and those whose processes live on.
    pub fn prune(&self, container: &str) -> io::Result<()> {
        let attempts = self.attempts(container);
        for number in &attempts[..attempts.len().saturating_sub(KEPT_ATTEMPTS)] {
            if self.attempt(container, *number).orphan().is_some() {
                continue;
            }
            fs::remove_dir_all(&self.attempt(container, *number).0)?;
            let log = self.log(container, *number);
            for file in [rotated(&log), log] {
                remove_if_there(&file)?;
            }
        }
        Ok(())
    }

    /// Ends the processes that have outlived their shims, and with each all others of its PID namespace.
    pub fn end_orphans(&self) {
        let entries = fs::read_dir(self.0.join("containers")).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let starts = names.flat_map(|name| self.attempts(&name).into_iter().map(move |number| (name.clone(), number)));
        for pid in starts.filter_map(|(name, number)| self.attempt(&name, number).orphan()) {
            if let Err(error) = kill(Pid::from_raw(pid), Signal::SIGKILL) {
                tracing::error!("cannot end process {pid}, which has outlived its shim: {error}");
            }
        }
    }

    /// Forgets the Pod.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl AttemptDir {
    /// The folder at this path.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Makes the folder anew.
    pub fn create(&self) -> Result<()> {
        let make = || {
            remove_dir_if_there(&self.0)?;
            fs::create_dir_all(self.root())?;
            fs::write(self.termination_message(), "")
        };
        make().with_context(|| format!("cannot make {}", self.0.display()))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn spec(&self) -> PathBuf {
        self.0.join("spec.json")
    }

    pub fn alive(&self) -> PathBuf {
        self.0.join("alive")
    }

    pub fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    /// What the container may write its last words to.
    pub fn termination_message(&self) -> PathBuf {
        self.0.join("termination-message")
    }

    pub fn record(&self) -> Result<Attempt> {
        read(&self.0.join("record.json"))
    }

    pub fn write_record(&self, attempt: &Attempt) -> Result<()> {
        write(&self.0.join("record.json"), attempt)
    }

    /// Nothing as long as the process has not been made.
    pub fn started(&self) -> Option<Started> {
        read(&self.0.join("started.json")).ok()
    }

    pub fn write_started(&self, started: &Started) -> Result<()> {
        write(&self.0.join("started.json"), started)
    }

    /// Nothing as long as the process lives.
    pub fn exit(&self) -> Option<End> {
        read(&self.0.join("exit.json")).ok()
    }

    pub fn write_exit(&self, end: &End) -> Result<()> {
        write(&self.0.join("exit.json"), end)
    }

    /// The process of a container that counts as ended, and lives.
    fn orphan(&self) -> Option<i32> {
        let started = self.started().filter(|_| self.exit().is_some())?;
        (pid_namespace(started.pid)? == started.namespace).then_some(started.pid)
    }
}

/// Where a log goes when it has grown too long.
pub fn rotated(log: &Path) -> PathBuf {
    log.with_extension("log.1")
}

pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("cannot read {}", path.display()))
}

/// Replaces the file at once: a reader sees the old or the new content.
pub fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let new = path.with_extension("new");
    let replace = || -> io::Result<()> {
        fs::write(&new, serde_json::to_vec(value)?)?;
        fs::rename(&new, path)
    };
    replace().with_context(|| format!("cannot write {}", path.display()))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn remove_dir_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_whose_process_has_outlived_its_shim_is_kept() {
        let state = tempfile::tempdir().unwrap();
        let dir = PodDir::new(state.path(), "a");
        let pid = std::process::id() as i32;
        let at = Timestamp::UNIX_EPOCH;
        let end = End { exit_code: 255, signal: None, reason: "Error".into(), message: None, finished_at: at };
        for number in 0..4 {
            let attempt = dir.attempt("main", number);
            attempt.create().unwrap();
            let namespace = if number == 0 { pid_namespace(pid).unwrap() } else { PathBuf::new() };
            attempt.write_started(&Started { pid, at, namespace }).unwrap();
            attempt.write_exit(&end).unwrap();
        }
        dir.prune("main").unwrap();
        assert_eq!(dir.attempts("main"), [0, 2, 3]);
    }

    #[test]
    fn of_two_pods_of_one_name_the_newer_is_found() {
        let state = tempfile::tempdir().unwrap();
        let add = |uid: &str, name: &str, second: u32, version: &str| {
            let metadata = serde_json::json!({
                "name": name, "namespace": "shop", "uid": uid, "resourceVersion": version,
                "creationTimestamp": format!("2026-11-21T12:00:0{second}Z"),
            });
            let pod: Pod = serde_json::from_value(serde_json::json!({ "metadata": metadata })).unwrap();
            PodDir::new(state.path(), uid).write_pod(&pod).unwrap();
        };
        add("a", "web", 2, "70");
        add("b", "web", 1, "90");
        add("c", "api", 1, "900");
        add("d", "api", 1, "1000");
        add("e", "api", 1, "950");
        let found =
            |namespace, name| find(state.path(), namespace, name).unwrap().and_then(|(pod, _)| pod.metadata.uid);
        assert_eq!(found("shop", "web").as_deref(), Some("a"));
        assert_eq!(found("shop", "api").as_deref(), Some("d"));
        assert_eq!(found("other", "web"), None);
    }
}
