//! The children of PID 1: started, stopped and reaped by name.
use std::os::unix::process::CommandExt;
use std::{
    collections::BTreeMap,
    env, fs,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use tokio::{sync::watch, time::timeout};

use super::control::ProcessStatus;

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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running(Pid),
    Ended,
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
        let mut all = self.lock();
        let pid = spawn(&spec)?;
        let process = Process { state: watch::Sender::new(State::Running(pid)), spec, stopping: false };
        all.insert(process.spec.name.clone(), process);
        Ok(())
    }

    /// Starts a child that has ended.
    pub fn start(&self, name: &str) -> Result<()> {
        let mut all = self.lock();
        let process = all.get_mut(name).with_context(|| unknown(name))?;
        if let State::Running(pid) = *process.state.borrow() {
            bail!("{name} is running (pid {pid})");
        }
        let pid = spawn(&process.spec)?;
        process.stopping = false;
        process.state.send_replace(State::Running(pid));
        Ok(())
    }

    /// Ends a child and returns when it has ended: by SIGKILL, or by SIGTERM and time to comply.
    pub async fn stop(&self, name: &str, at_once: bool) -> Result<()> {
        let mut state = self.signal(name, if at_once { Signal::SIGKILL } else { Signal::SIGTERM })?;
        if timeout(STOP_TIMEOUT, state.wait_for(|state| *state == State::Ended)).await.is_err() {
            self.signal(name, Signal::SIGKILL)?;
            state.wait_for(|state| *state == State::Ended).await?;
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
                State::Ended => None,
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
    process.state.send_replace(State::Ended);
    let how = match status {
        WaitStatus::Exited(_, code) => format!("exited with {code}"),
        WaitStatus::Signaled(_, signal, _) => format!("was killed by {signal}"),
        other => format!("ended ({other:?})"),
    };
    (!process.stopping).then(|| Death { spec: process.spec.clone(), how })
}

fn spawn(spec: &Spec) -> Result<Pid> {
    let log = fs::OpenOptions::new().create(true).append(true).open(&spec.log);
    let log = log.with_context(|| format!("cannot open {}", spec.log.display()))?;
    let kept = KEPT_VARIABLES.iter().filter_map(|name| Some((name, env::var_os(name)?)));
    let child = Command::new(&spec.program)
        .args(&spec.args)
        .env_clear()
        .envs(kept)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", spec.program.display()))?;
    // Dropping the handle neither ends nor waits for the child: the reaper collects it.
    Ok(Pid::from_raw(child.id() as i32))
}
