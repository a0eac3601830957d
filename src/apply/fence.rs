//! The lease fence: a write is sent only while the controller lock certainly outlives it.
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Whether writes may be sent, and until when. Clones share it.
#[derive(Clone, Debug)]
pub struct Fence(Arc<Mutex<Option<Instant>>>);

impl Default for Fence {
    fn default() -> Self {
        Self::closed()
    }
}

impl Fence {
    /// No writes, until [`Self::extend`].
    pub fn closed() -> Self {
        Self(Arc::new(Mutex::new(None)))
    }

    /// The lock is ours until then.
    pub fn extend(&self, until: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    /// The lock is not ours any more, or may not be.
    pub fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// True when a call that begins now and lasts `duration` at most ends while the lock is still ours.
    pub fn permits(&self, duration: Duration) -> bool {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() + duration <= until)
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
}
