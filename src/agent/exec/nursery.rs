//! Everyone below the agent: its guards, and what dead guards leave behind.
//!
//! While a guard lives, a process below it that loses its parent becomes the guard's child, not the agent's. So a direct child
//! of the agent that is none of its guards was left by a guard that died, and is killed on sight. Which guard that was cannot be
//! known; therefore a lost guard's listener counts as ended only when there are no such children at all.
use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    process::{Command, Stdio, id},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::{sys::prctl::set_child_subreaper, unistd::Pid};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use super::{
    Spec,
    children::{self, Exit, Reaped},
};

/// Between two rounds of killing orphans.
const ROUND: Duration = Duration::from_millis(5);
/// The same while /proc cannot be read.
const ROUND_BLIND: Duration = Duration::from_secs(1);

/// See the module.
pub struct Nursery {
    program: PathBuf,
    /// Guards that are not reaped. Held while one is started, so that it is not taken for an orphan.
    guards: Mutex<BTreeMap<Pid, oneshot::Sender<Exit>>>,
}

impl Nursery {
    /// Makes this process the subreaper of everyone below, and begins to reap. Within a tokio runtime.
    pub fn start(program: PathBuf) -> io::Result<Arc<Self>> {
        set_child_subreaper(true)?;
        let mut child_ended = signal(SignalKind::child())?;
        let nursery = Arc::new(Self { program, guards: Mutex::default() });
        let weak = Arc::downgrade(&nursery);
        tokio::spawn(async move {
            while child_ended.recv().await.is_some() {
                let Some(nursery) = weak.upgrade() else { return };
                nursery.clear().await;
            }
        });
        Ok(nursery)
    }

    /// Starts a guard whose standard input is `control`; `reads`: with a file for that of its child. The receiver tells when
    /// it was reaped.
    pub fn start_guard(
        &self,
        spec: &Spec,
        control: OwnedFd,
        reads: bool,
    ) -> io::Result<(Pid, oneshot::Receiver<Exit>)> {
        let mut command = Command::new(&self.program);
        command
            .args(["guard", "--agent", &id().to_string()])
            .args(reads.then_some("--reads"))
            .arg("--")
            .args(&spec.command)
            .envs(spec.environment.variables())
            .stdin(Stdio::from(control));
        let (sender, reaped) = oneshot::channel();
        let mut guards = self.lock();
        let pid = Pid::from_raw(command.spawn()?.id() as i32);
        guards.insert(pid, sender);
        Ok((pid, reaped))
    }

    /// Kills a guard, unless it is reaped already.
    pub fn kill_guard(&self, guard: Pid) {
        if self.lock().contains_key(&guard) {
            children::kill_child(guard);
        }
    }

    /// Kills and reaps orphans until there are none. Only then is a dead guard's listener proven to have ended: when the
    /// guard was reaped, all that was left of it had already come to this process.
    pub async fn clear(&self) {
        let mut told = false;
        loop {
            let pause = match self.sweep() {
                Ok(0) => return,
                Ok(orphans) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(orphans, "killing what a dead guard has left behind");
                    }
                    ROUND
                }
                Err(error) => {
                    tracing::error!(%error, "cannot look for what a dead guard has left behind");
                    ROUND_BLIND
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// One round: reaps, then kills orphans; how many there were.
    fn sweep(&self) -> io::Result<usize> {
        let mut guards = self.lock();
        while let Reaped::Child(pid, exit) = children::reap()? {
            if let Some(reaped) = guards.remove(&pid) {
                let _ = reaped.send(exit); // or the receiver is gone
            }
        }
        let mut orphans = children::direct()?;
        orphans.retain(|child| !guards.contains_key(child));
        orphans.iter().copied().for_each(children::kill_child);
        Ok(orphans.len())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Pid, oneshot::Sender<Exit>>> {
        // What is inside is right at any time.
        self.guards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
