//! The children of PID 1: started, stopped and reaped by name.
use std::os::unix::process::CommandExt;
use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    sched::{CloneFlags, setns, unshare},
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use tokio::{sync::watch, time::timeout};

use super::{control::ProcessStatus, machine};

/// How long a process may take to end after SIGTERM before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// What children get from our environment. Not the rest: proxy settings above all would send them
/// to addresses that do not exist inside.
const KEPT_VARIABLES: [&str; 8] =
    ["PATH", "HOME", "TMPDIR", "LANG", "GOMAXPROCS", "GOGC", "RUST_LOG", "RUST_BACKTRACE"];

/// A program to run and how its end is taken.
#[derive(Clone, Debug)]
pub struct Spec {
    pub name: String,
    pub program: PathBuf,
    pub args: Vec<String>,
    /// Standard output and error are appended here.
    pub log: PathBuf,
    /// Whether the cluster ends when this does. A process node may die, as real ones do.
    pub essential: bool,
    pub place: Place,
}

/// The PID namespace that a program runs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The cluster's own.
    Cluster,
    /// A new one, of which it is PID 1: a machine.
    NewMachine,
    /// That of a machine, by its name. It ends with the machine, and runs under its mounts.
    Machine(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running(Pid),
    Ended { success: bool },
}

impl State {
    fn has_ended(self) -> bool {
        matches!(self, Self::Ended { .. })
    }
}

struct Process {
    spec: Spec,
    state: watch::Sender<State>,
    /// Its end was asked for.
    stopping: bool,
}

/// A process that ended without being asked to.
#[derive(Debug)]
pub struct Death {
    pub spec: Spec,
    /// For people: `exited with 1`, `killed by SIGKILL`.
    pub how: String,
}

/// All children by name. The lock is held from before a fork until its pid is known, so the reaper
/// can tell every child from a stranger.
#[derive(Default)]
pub struct Processes(Mutex<BTreeMap<String, Process>>);

impl Processes {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Process>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a new child.
    pub fn run(&self, spec: Spec) -> Result<()> {
        self.begin(spec, false)?;
        Ok(())
    }

    fn begin(&self, spec: Spec, stopping: bool) -> Result<watch::Receiver<State>> {
        let mut all = self.lock();
        let pid = spawn(&spec, &all)?;
        let process = Process { state: watch::Sender::new(State::Running(pid)), spec, stopping };
        let state = process.state.subscribe();
        all.insert(process.spec.name.clone(), process);
        Ok(state)
    }

    /// Runs a child that ends by itself, and returns when it has; fails when it does.
    pub async fn complete(&self, spec: Spec) -> Result<()> {
        let (name, log) = (spec.name.clone(), spec.log.clone());
        let mut state = self.begin(spec, true)?;
        let end = *state.wait_for(|state| state.has_ended()).await?;
        self.lock().remove(&name);
        anyhow::ensure!(end == State::Ended { success: true }, "{name} failed, see {}", log.display());
        Ok(())
    }

    /// Starts a child that has ended.
    pub fn start(&self, name: &str) -> Result<()> {
        let mut all = self.lock();
        let process = all.get(name).with_context(|| unknown(name))?;
        if let State::Running(pid) = *process.state.borrow() {
            bail!("{name} is running (pid {pid})");
        }
        let pid = spawn(&process.spec, &all)?;
        let process = all.get_mut(name).with_context(|| unknown(name))?;
        process.stopping = false;
        process.state.send_replace(State::Running(pid));
        Ok(())
    }

    /// Ends a child and returns when it has ended: by SIGKILL, or by SIGTERM and time to comply.
    pub async fn stop(&self, name: &str, at_once: bool) -> Result<()> {
        let mut state = self.signal(name, if at_once { Signal::SIGKILL } else { Signal::SIGTERM })?;
        if timeout(STOP_TIMEOUT, state.wait_for(|state| state.has_ended())).await.is_err() {
            self.signal(name, Signal::SIGKILL)?;
            state.wait_for(|state| state.has_ended()).await?;
        }
        Ok(())
    }

    fn signal(&self, name: &str, signal: Signal) -> Result<watch::Receiver<State>> {
        let mut all = self.lock();
        let process = all.get_mut(name).with_context(|| unknown(name))?;
        if let State::Running(pid) = *process.state.borrow() {
            process.stopping = true;
            // The reaper runs under the same lock, so the pid is still this child's.
            kill(pid, signal).with_context(|| format!("cannot signal {name}"))?;
        }
        Ok(process.state.subscribe())
    }

    /// Collects every child that has ended, strangers too: orphans become children of PID 1.
    pub fn reap(&self) -> Vec<Death> {
        let mut all = self.lock();
        let mut deaths = Vec::new();
        loop {
            match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return deaths,
                Ok(status) => deaths.extend(ended(&mut all, status)),
                Err(_) => {} // interrupted
            }
        }
    }

    pub fn status(&self) -> Vec<ProcessStatus> {
        let all = self.lock();
        let row = |process: &Process| ProcessStatus {
            name: process.spec.name.clone(),
            pid: match *process.state.borrow() {
                State::Running(pid) => Some(pid.as_raw()),
                State::Ended { .. } => None,
            },
        };
        all.values().map(row).collect()
    }

    /// The log of a child, or nothing if there is no such child.
    pub fn log_of(&self, name: &str) -> Option<PathBuf> {
        self.lock().get(name).map(|process| process.spec.log.clone())
    }
}

fn unknown(name: &str) -> String {
    format!("no component or process node is called {name:?}; `baton-testbed cluster status` lists them")
}

fn ended(all: &mut BTreeMap<String, Process>, status: WaitStatus) -> Option<Death> {
    let pid = status.pid()?;
    let process = all.values_mut().find(|process| *process.state.borrow() == State::Running(pid))?;
    process.state.send_replace(State::Ended { success: matches!(status, WaitStatus::Exited(_, 0)) });
    let how = match status {
        WaitStatus::Exited(_, code) => format!("exited with {code}"),
        WaitStatus::Signaled(_, signal, _) => format!("was killed by {signal}"),
        other => format!("ended ({other:?})"),
    };
    (!process.stopping).then(|| Death { spec: process.spec.clone(), how })
}

/// The child is PID 1's own, wherever it runs: signals go to it directly, and its end is told here.
fn spawn(spec: &Spec, all: &BTreeMap<String, Process>) -> Result<Pid> {
    let here = || spawn_here(&spec.program, &spec.args, &spec.log);
    match &spec.place {
        Place::Cluster => here(),
        Place::NewMachine => elsewhere(|| unshare(CloneFlags::CLONE_NEWPID), here),
        Place::Machine(machine) => {
            let pid = running(all, machine)?;
            let theirs = File::open(format!("/proc/{pid}/ns/pid"))?;
            let (program, args) = machine::inside(pid, spec)?;
            elsewhere(|| setns(theirs, CloneFlags::CLONE_NEWPID), || spawn_here(&program, &args, &spec.log))
        }
    }
}

fn running(all: &BTreeMap<String, Process>, name: &str) -> Result<Pid> {
    let process = all.get(name).with_context(|| unknown(name))?;
    match *process.state.borrow() {
        State::Running(pid) => Ok(pid),
        State::Ended { .. } => bail!("{name} does not run: start it first"),
    }
}

/// Makes a child in another PID namespace; later ones are in this process's own again.
fn elsewhere(go: impl FnOnce() -> nix::Result<()>, child: impl FnOnce() -> Result<Pid>) -> Result<Pid> {
    let own = File::open("/proc/self/ns/pid")?;
    go().context("cannot enter a PID namespace")?;
    let child = child();
    setns(own, CloneFlags::CLONE_NEWPID).context("cannot come back from a PID namespace")?;
    child
}

fn spawn_here(program: &Path, args: &[String], log: &Path) -> Result<Pid> {
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot open {}", log.display()))?;
    let kept = KEPT_VARIABLES.iter().filter_map(|name| Some((name, env::var_os(name)?)));
    let child = Command::new(program)
        .args(args)
        .env_clear()
        .envs(kept)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    // Dropping the handle neither ends nor waits for the child: the reaper collects it.
    Ok(Pid::from_raw(child.id() as i32))
}
