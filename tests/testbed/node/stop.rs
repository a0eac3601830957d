//! The end of a container: preStop hook, SIGTERM, and SIGKILL when the time is up.
use std::time::Duration;

use futures::future::join_all;
use nix::sys::signal::Signal;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{hooks::Hook, process::Process};

/// However little is left of the grace period, a container that was told to end gets this long.
pub const MINIMUM: Duration = Duration::from_secs(2);

/// How a container is to end.
pub struct Stop {
    pub process: Process,
    pub hook: Option<Hook>,
    /// When the grace period ends; may be moved.
    pub deadline: watch::Receiver<Instant>,
    /// Processes that end first, if they do so within the grace period: a sidecar waits for those it serves.
    pub after: Vec<Process>,
}

impl Stop {
    /// Returns when the process has ended, with what went wrong with the hook.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        if let Some(hook) = self.hook.take() {
            let limit = self.deadline.borrow().saturating_duration_since(Instant::now());
            tokio::select! {
                hooked = hook.run(limit) => outcome = hooked,
                () = reached(&mut self.deadline, Instant::now()) => {}
                _ = self.process.end() => return Ok(()),
            }
        }
        let earliest = Instant::now() + MINIMUM;
        let predecessors = std::mem::take(&mut self.after);
        tokio::select! {
            _ = join_all(predecessors.iter().map(Process::end)) => {}
            () = reached(&mut self.deadline, earliest) => {}
            _ = self.process.end() => return outcome,
        }
        self.process.signal(Signal::SIGTERM)?;
        tokio::select! {
            _ = self.process.end() => return outcome,
            () = reached(&mut self.deadline, earliest) => {}
        }
        self.process.signal(Signal::SIGKILL)?;
        self.process.end().await;
        outcome
    }
}

/// Returns when the deadline is over, wherever it is moved meanwhile, but not before `earliest`.
async fn reached(deadline: &mut watch::Receiver<Instant>, earliest: Instant) {
    loop {
        let until = (*deadline.borrow_and_update()).max(earliest);
        tokio::select! {
            () = sleep_until(until) => return,
            // A deadline whose owner is gone stays where it is.
            Ok(()) = deadline.changed() => {}
        }
    }
}
