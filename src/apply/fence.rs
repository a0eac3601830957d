//! The lease fence: a write is sent only while the controller lock certainly outlives it.
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Whether writes may be sent, and until when. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Fence(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// End of the lock as far as we know; None: not ours.
    until: Option<Instant>,
    /// No write ever again.
    sealed: bool,
}

impl Fence {
    /// No writes, until [`Self::extend`].
    pub fn closed() -> Self {
        Self::default()
    }

    /// The lock is ours until then.
    pub fn extend(&self, until: Instant) {
        self.state().until = Some(until);
    }

    /// The lock is not ours any more, or may not be.
    pub fn close(&self) {
        self.state().until = None;
    }

    /// No write ever again, whoever holds the lock: this process is ending.
    pub fn seal(&self) {
        self.state().sealed = true;
    }

    /// True when a call that begins now and lasts `duration` at most ends while the lock is still ours.
    pub fn permits(&self, duration: Duration) -> bool {
        let state = self.state();
        !state.sealed && state.until.is_some_and(|until| Instant::now() + duration <= until)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_must_end_before_the_lock_may() {
        let fence = Fence::closed();
        assert!(!fence.permits(Duration::ZERO));
        fence.extend(Instant::now() + Duration::from_secs(15));
        assert!(fence.permits(Duration::from_secs(10)));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert!(!fence.permits(Duration::from_secs(10)));
        assert!(fence.permits(Duration::from_secs(9)));
        fence.close();
        assert!(!fence.permits(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_does_not_open_what_is_sealed() {
        let fence = Fence::closed();
        fence.seal();
        fence.extend(Instant::now() + Duration::from_secs(15));
        assert!(!fence.permits(Duration::ZERO));
    }
}
