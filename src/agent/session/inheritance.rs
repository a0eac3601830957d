//! What the boot before has held, taken back by this one, so that no operator is needed where only the agent's container was
//! started again.
use std::time::Duration;

use futures::{StreamExt, stream};

use super::{
    api::Leases,
    leases::{ListenerLease, Stopped, Transfer},
};
use crate::{agent::clocks::Clocks, api::names, plan::listener_set::ownership, snapshot::lease::Holder};

/// Longest time for one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two tries.
const RETRY: Duration = Duration::from_secs(1);
/// Tries: an API server that was away for a minute. What is left then the operator gives to a Pod.
const TRIES: u32 = 60;
/// Writes on their way at once: a Pod may have had a thousand listeners.
const WRITES_MAX: usize = 16;

/// A boot that has claimed its session, and the one before it.
pub struct Inheritance {
    /// A client of this boot.
    pub leases: Leases,
    /// Of this machine.
    pub clocks: Clocks,
    /// Of the boot before nothing runs.
    pub from: Holder,
    /// This boot.
    pub me: Holder,
    /// This Pod's revision.
    pub revision: String,
}

impl Inheritance {
    /// Writes this boot into each Lease that names the one before. The watch on what is ours tells of them. If
    /// another writes one of them first, that one has it.
    pub async fn take(self) {
        for _ in 0..TRIES {
            match self.once().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!(error, "cannot list what the boot before held"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Whether nothing is left that another try could write.
    async fn once(&self) -> Result<bool, String> {
        let selector = format!("{}={}", names::LABEL_HOLDER, names::holder_label(&self.from.to_string()));
        let found = self.leases.list(&selector, CALL_TIMEOUT).await.map_err(|error| error.message())?;
        let left = found.iter().filter_map(ListenerLease::read);
        let written = stream::iter(left).map(|lease| self.write(lease)).buffer_unordered(WRITES_MAX);
        // Each of them, also after one that failed.
        Ok(written.fold(true, |all, is_over| async move { all && is_over }).await)
    }

    /// Whether it is done, or never will be.
    async fn write(&self, seen: ListenerLease) -> bool {
        let Some(write) = ownership::inherit(&seen.ownership, &self.me) else { return true };
        let transfer = Transfer {
            seen: &seen,
            write: &write,
            me: &self.me,
            revision: &self.revision,
            state: None,
            stopped: Stopped::Forget,
            now: self.clocks.timestamp(),
        };
        // The owner references name the Pod, which stays.
        match self.leases.merge(&seen.name, &transfer.patch(false), CALL_TIMEOUT).await {
            Ok(_) => {
                tracing::info!(listener = seen.listener, epoch = write.epoch, "took back what the boot before held");
                true
            }
            Err(error) => {
                tracing::warn!(listener = seen.listener, error = error.message(), "cannot take back a listener");
                // It has been deleted, or is none any more. Else it is listed anew: it may have been annotated meanwhile.
                matches!(error.code(), 404 | 422)
            }
        }
    }
}
