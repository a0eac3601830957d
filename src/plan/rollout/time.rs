//! Time within a plan. No clock is read here: the snapshot says when it is, and a step asks for a later plan by [`Alarm`].
use jiff::{SignedDuration, Timestamp};

use crate::api::{RolloutSpec, Time};

/// The time of `spec.restartAt` or `spec.retryAt`, once it is reached.
pub(crate) fn reached(at: Option<&Time>, now: Timestamp) -> Option<Timestamp> {
    at.map(|at| at.0).filter(|at| *at <= now)
}

/// What a Pod that is made now remembers as [`crate::snapshot::Pod::restarted_at`].
pub(crate) fn restarted_at(spec: &RolloutSpec, now: Timestamp) -> Option<Timestamp> {
    [&spec.restart_at, &spec.retry_at].into_iter().filter_map(|at| reached(at.as_ref(), now)).max()
}

/// The earliest time at which something changes without an event.
pub(crate) struct Alarm {
    now: Timestamp,
    pub(crate) at: Option<Timestamp>,
}

impl Alarm {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { now, at: None }
    }

    /// Wakes at `at`, unless that has passed; says whether it has.
    pub(crate) fn passed(&mut self, at: Timestamp) -> bool {
        if at <= self.now {
            return true;
        }
        self.at = Some(self.at.map_or(at, |earlier| earlier.min(at)));
        false
    }
}

/// `at` + `seconds`, saturating.
pub(crate) fn after(at: Timestamp, seconds: i64) -> Timestamp {
    at.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(at)
}

/// `at` as the API stores it: whole seconds.
pub(crate) fn seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}
