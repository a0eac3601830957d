//! How fast a session is renewed, and how fast a silent one is given up.
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounds::FAST_PODS_MAX;

/// How fast sessions are renewed, and how fast a lost Pod is noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SessionProfile {
    /// Renewed every 3 s; a lost Pod's listeners are free after 15 s.
    #[default]
    Default,
    /// Renewed every 10 s; free after 90 s. Rides out an API server that is away for 45 s.
    Calm,
    /// Renewed every second; free after 5 s. For at most 200 Pods.
    Fast,
}

impl SessionProfile {
    /// What a ListenerSet with so many Pods gets that asks for this: many Pods that renew every second would be too much for
    /// the API server.
    #[must_use]
    pub const fn affordable(self, pods: usize) -> Self {
        match self {
            Self::Fast if pods > FAST_PODS_MAX => Self::Default,
            other => other,
        }
    }

    /// The times of this profile.
    pub const fn times(self) -> SessionTimes {
        // Constants, so that the compiler refuses a profile whose times are unsound.
        const DEFAULT: SessionTimes = SessionTimes::of_seconds(3, 10, 15);
        const CALM: SessionTimes = SessionTimes::of_seconds(10, 60, 90);
        const FAST: SessionTimes = SessionTimes::of_seconds(1, 3, 5);
        match self {
            Self::Default => DEFAULT,
            Self::Calm => CALM,
            Self::Fast => FAST,
        }
    }
}

/// Times of a session, all from *before* the renewal was sent that was last acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionTimes {
    /// R: the next renewal.
    pub renew: Duration,
    /// S: the holder stops its listeners.
    pub stop: Duration,
    /// K: the holder kills what still runs.
    pub kill: Duration,
    /// D: others may take the listeners; on their own clock, from when they saw the renewal.
    pub expire: Duration,
}

/// The longest time between S and K, where D leaves room for it.
const STOP_MARGIN_MILLIS: u64 = 2_000;

impl SessionTimes {
    /// The times of R, S and D in whole seconds; K = S + min(2 s, (D - S) / 2).
    ///
    /// # Panics
    /// Where they are unsound. Only for constants, where that is an error of the compiler.
    const fn of_seconds(renew: u64, stop: u64, expire: u64) -> Self {
        let times = Self::derived(renew, stop, expire);
        assert!(times.is_sound(), "unsound times of a session");
        times
    }

    const fn derived(renew: u64, stop: u64, expire: u64) -> Self {
        let half = expire.saturating_sub(stop) * 1_000 / 2;
        let margin = if half < STOP_MARGIN_MILLIS { half } else { STOP_MARGIN_MILLIS };
        Self {
            renew: Duration::from_secs(renew),
            stop: Duration::from_secs(stop),
            kill: Duration::from_millis(stop * 1_000 + margin),
            expire: Duration::from_secs(expire),
        }
    }

    /// 0 < R < S < K <= 0.8 D. The last fifth of D is for clocks that run at different speeds: a holder whose clock is
    /// slow must be dead before another one's clock says D.
    const fn is_sound(&self) -> bool {
        let (renew, stop) = (self.renew.as_millis(), self.stop.as_millis());
        let (kill, expire) = (self.kill.as_millis(), self.expire.as_millis());
        0 < renew && renew < stop && stop < kill && kill * 10 <= expire * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_have_the_agreed_times() {
        let of_seconds = |[renew, stop, kill, expire]: [u64; 4]| SessionTimes {
            renew: Duration::from_secs(renew),
            stop: Duration::from_secs(stop),
            kill: Duration::from_secs(kill),
            expire: Duration::from_secs(expire),
        };
        assert_eq!(SessionProfile::Default.times(), of_seconds([3, 10, 12, 15]));
        assert_eq!(SessionProfile::Calm.times(), of_seconds([10, 60, 62, 90]));
        assert_eq!(SessionProfile::Fast.times(), of_seconds([1, 3, 4, 5]));
    }

    #[test]
    fn times_that_leave_no_room_for_a_slow_clock_are_unsound() {
        assert!(SessionTimes::derived(3, 10, 15).is_sound());
        // K = 9.5 of D = 10, and K = 0.8 D to the millisecond.
        assert!(!SessionTimes::derived(3, 9, 10).is_sound());
        assert!(SessionTimes::derived(1, 6, 10).is_sound());
        assert!(!SessionTimes::derived(10, 10, 15).is_sound(), "no renewal before it stops");
        assert!(!SessionTimes::derived(0, 10, 15).is_sound(), "renewed all the time");
        assert!(!SessionTimes::derived(3, 15, 15).is_sound(), "stops when it expires");
        assert!(!SessionTimes::derived(3, 20, 15).is_sound(), "stops after it expired");
        let times = SessionTimes::derived(3, 10, 15);
        let equal = SessionTimes { kill: times.expire, ..times };
        assert!(!equal.is_sound(), "killed when it expires");
        assert!(!SessionTimes { kill: times.stop, ..times }.is_sound(), "killed without time to stop");
    }
}
