//! When to look again.
use std::time::Duration;

/// The earliest moment at which something changes without an event, on the operator's own clock.
pub(super) struct Alarm {
    now: Duration,
    at: Option<Duration>,
}

impl Alarm {
    pub fn new(now: Duration) -> Self {
        Self { now, at: None }
    }

    /// Wakes at `moment`, unless that has passed; says whether it is yet to come.
    pub fn is_ahead(&mut self, moment: Duration) -> bool {
        if moment <= self.now {
            return false;
        }
        self.at = Some(self.at.map_or(moment, |earlier| earlier.min(moment)));
        true
    }

    /// How long until then.
    pub fn after(&self) -> Option<Duration> {
        Some(self.at?.saturating_sub(self.now))
    }
}

/// A time of the spec.
pub(super) fn seconds(seconds: i32) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
