//! I11: The lease fence: a write is sent only while the controller lock certainly outlives it.
//!
//! The lock goes on ageing while this machine sleeps, but tokio's clock stands still then; so the fence also reads one that
//! does not. A hypervisor that stops a machine and hides it from its clocks is beyond both: there only the next renewal, at
//! most two seconds later, and the preconditions of each write help.
use std::{
    ops::Add,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Whether writes may be sent, and until when. Clones share it.
#[derive(Clone, Debug)]
pub struct Fence {
    state: Arc<Mutex<State>>,
    time_since_boot: fn() -> Duration,
}

#[derive(Debug, Default)]
struct State {
    /// End of the lock as far as we know; None: not ours.
    until: Option<Moment>,
    /// No write ever again.
    sealed: bool,
}

/// A moment, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// By tokio's, which a test can pause.
    awake: Instant,
    /// By the one that counts sleep.
    since_boot: Duration,
}

impl Moment {
    /// Not later than `other` by either clock.
    fn is_by(self, other: Self) -> bool {
        self.awake <= other.awake && self.since_boot <= other.since_boot
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self { awake: self.awake + duration, since_boot: self.since_boot + duration }
    }
}

impl Fence {
    /// No writes, until [`Self::extend`]; by tokio's clock alone.
    pub fn closed() -> Self {
        Self::with_clock(|| Duration::ZERO)
    }

    /// As [`Self::closed`], by a clock that counts sleep as well.
    pub fn with_clock(time_since_boot: fn() -> Duration) -> Self {
        Self { state: Arc::default(), time_since_boot }
    }

    /// Now; [`Self::extend`] counts from such a moment.
    pub fn now(&self) -> Moment {
        Moment { awake: Instant::now(), since_boot: (self.time_since_boot)() }
    }

    /// The lock is ours until then.
    pub fn extend(&self, until: Moment) {
        self.state().until = Some(until);
    }

    /// The lock is not ours any more, or may not be.
    pub fn close(&self) {
        self.state().until = None;
    }

    /// No write ever again, also while the lock is held: this process is ending.
    pub fn seal(&self) {
        self.state().sealed = true;
    }

    /// True when a call that begins now and lasts `duration` at most ends while the lock is still ours.
    pub fn permits(&self, duration: Duration) -> bool {
        let end = self.now() + duration;
        let state = self.state();
        !state.sealed && state.until.is_some_and(|until| end.is_by(until))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_must_end_before_the_lock_may() {
        let fence = Fence::closed();
        assert!(!fence.permits(Duration::ZERO));
        fence.extend(fence.now() + Duration::from_secs(15));
        assert!(fence.permits(Duration::from_secs(10)));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert!(!fence.permits(Duration::from_secs(10)));
        assert!(fence.permits(Duration::from_secs(9)));
        fence.close();
        assert!(!fence.permits(Duration::ZERO));
    }

    /// Time asleep counts, though tokio's clock does not tell of it.
    #[tokio::test(start_paused = true)]
    async fn the_lock_ages_while_the_machine_sleeps() {
        static SECONDS: AtomicU64 = AtomicU64::new(1_000);
        let fence = Fence::with_clock(|| Duration::from_secs(SECONDS.load(Ordering::Relaxed)));
        fence.extend(fence.now() + Duration::from_secs(15));
        SECONDS.fetch_add(6, Ordering::Relaxed);
        assert!(fence.permits(Duration::from_secs(9)));
        assert!(!fence.permits(Duration::from_secs(10)));
        fence.extend(fence.now() + Duration::from_secs(15));
        assert!(fence.permits(Duration::from_secs(15)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_does_not_open_what_is_sealed() {
        let fence = Fence::closed();
        fence.seal();
        fence.extend(fence.now() + Duration::from_secs(15));
        assert!(!fence.permits(Duration::ZERO));
    }
}
