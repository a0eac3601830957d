//! The clocks of a node: time since boot, at a rate of its own, and a time of day that people set.
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use baton::{
    agent::{boottime::Boottime, clocks::Clocks},
    operator::clock::Clock,
};
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// How fast a machine's time since boot goes, and where it began.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// It was booted so long before the beginning.
    pub booted_before: Duration,
    /// Gained in each second, in microseconds.
    pub drift_micros: i64,
}

/// A node.
#[derive(Clone)]
pub struct Machine {
    pace: Pace,
    start: Instant,
    clock: Clock,
    /// Milliseconds by which the time of day was set.
    set_by: Arc<AtomicI64>,
}

impl Machine {
    pub fn new(pace: Pace, clock: Clock, start: Instant) -> Self {
        Self { pace, start, clock, set_by: Arc::default() }
    }

    /// CLOCK_BOOTTIME.
    pub fn boottime(&self) -> Boottime {
        let elapsed = i128::try_from(self.start.elapsed().as_nanos()).unwrap_or(i128::MAX);
        let gone = elapsed + elapsed * i128::from(self.pace.drift_micros) / 1_000_000;
        Boottime(self.pace.booted_before + Duration::from_nanos(u64::try_from(gone).unwrap_or(0)))
    }

    /// The time of day.
    pub fn wall(&self) -> Timestamp {
        self.clock.now() + SignedDuration::from_millis(self.set_by.load(Ordering::Relaxed))
    }

    /// Sets the time of day by so much.
    pub fn set(&self, millis: i64) {
        self.set_by.fetch_add(millis, Ordering::Relaxed);
    }

    /// What an agent goes by.
    pub fn clocks(&self) -> Clocks {
        let (boot, wall) = (self.clone(), self.clone());
        Clocks::given(move || boot.boottime(), move || wall.wall())
    }
}
