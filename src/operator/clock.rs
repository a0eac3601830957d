//! The wall clock, in one place where a test can put its own. Durations and timers are tokio's, which tests can pause; only
//! the lease fence asks how long the machine slept.
use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

/// Tells the time of day.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The machine's.
    pub fn system() -> Self {
        Self::new(Timestamp::now)
    }

    /// Another.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

/// Time since the machine's boot, sleep included. Where there is no such clock: always zero.
pub fn time_since_boot() -> Duration {
    #[cfg(target_os = "linux")]
    // Known since Linux 2.6.39: it does not fail.
    return nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    #[cfg(not(target_os = "linux"))]
    return Duration::ZERO;
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn time_since_boot_goes_on() {
        let before = time_since_boot();
        std::thread::sleep(Duration::from_millis(2));
        assert!(before > Duration::ZERO && time_since_boot() >= before + Duration::from_millis(2));
    }
}
