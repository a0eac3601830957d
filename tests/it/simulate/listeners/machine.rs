//! The clocks of a node: time since boot, at a rate of its own, and a time of day that people set.
use std::{
    sync::{
        Arc, Mutex, PoisonError,
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

use super::process::StandsStill;

/// How fast a machine's time since boot goes, and where it began.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// It was booted so long before the beginning.
    pub booted_before: Duration,
    /// Gained in each second, in microseconds.
    pub drift_micros: i64,
}

/// The time that a machine has missed.
struct Pause {
    before: Duration,
    from: Instant,
    until: Instant,
}

impl Pause {
    fn missed(&self) -> Duration {
        self.before + Instant::now().min(self.until).saturating_duration_since(self.from)
    }
}

/// A node.
#[derive(Clone)]
pub struct Machine {
    pace: Pace,
    start: Instant,
    clock: Clock,
    /// Milliseconds by which the time of day was set.
    set_by: Arc<AtomicI64>,
    pause: Arc<Mutex<Pause>>,
    /// Until when its processes do nothing.
    pub stands_still: StandsStill,
}

impl Machine {
    pub fn new(pace: Pace, clock: Clock, start: Instant) -> Self {
        let pause = Pause { before: Duration::ZERO, from: start, until: start };
        let (pause, stands_still) = (Arc::new(Mutex::new(pause)), StandsStill::none());
        Self { pace, start, clock, set_by: Arc::default(), pause, stands_still }
    }

    /// CLOCK_BOOTTIME.
    pub fn boottime(&self) -> Boottime {
        let elapsed = self.start.elapsed().saturating_sub(self.missed());
        let elapsed = i128::try_from(elapsed.as_nanos()).unwrap_or(i128::MAX);
        let gone = elapsed + elapsed * i128::from(self.pace.drift_micros) / 1_000_000;
        Boottime(self.pace.booted_before + Duration::from_nanos(u64::try_from(gone).unwrap_or(0)))
    }

    /// The time of day.
    pub fn wall(&self) -> Timestamp {
        let missed = SignedDuration::try_from(self.missed()).unwrap_or_default();
        self.clock.now() - missed + SignedDuration::from_millis(self.set_by.load(Ordering::Relaxed))
    }

    /// The machine is paused, as virtual ones are when they migrate: neither of its clocks goes on. It goes on then.
    pub fn pause(&self, until: Instant) {
        let mut pause = self.pause.lock().unwrap_or_else(PoisonError::into_inner);
        *pause = Pause { before: pause.missed(), from: Instant::now(), until };
        self.stands_still.until(until);
    }

    /// It goes on now.
    pub fn wake(&self) {
        self.pause(Instant::now());
    }

    fn missed(&self) -> Duration {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner).missed()
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
