//! The clocks of the machine that an agent runs on: the time since boot, for deadlines, and the time of day.
use std::{io, sync::Arc, time::Duration};

use jiff::Timestamp;

use super::boottime::{self, Boottime, Reading};

/// Clocks, and alarms by them. Clones are the same ones.
///
/// A guard, which is a process of its own, always goes by the machine's.
#[derive(Clone, Default)]
pub struct Clocks(Kind);

#[derive(Clone, Default)]
enum Kind {
    #[default]
    System,
    Given(Given),
}

/// Clocks of a simulated machine.
#[derive(Clone)]
struct Given {
    boot: Arc<dyn Fn() -> Boottime + Send + Sync>,
    day: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl Clocks {
    /// The machine's: `CLOCK_BOOTTIME`, and alarms that ring also when the machine has slept meanwhile.
    pub fn system() -> Self {
        Self::default()
    }

    /// Clocks for simulations and benchmarks, whose alarms are tokio's: they stand still where tokio's time does. Nothing
    /// on the command line leads here, as such alarms miss the time for which a machine sleeps.
    pub fn given(
        boot: impl Fn() -> Boottime + Send + Sync + 'static,
        day: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> Self {
        Self(Kind::Given(Given { boot: Arc::new(boot), day: Arc::new(day) }))
    }

    /// Time since boot.
    pub fn boottime(&self) -> Boottime {
        match &self.0 {
            Kind::System => Boottime::now(),
            Kind::Given(given) => (given.boot)(),
        }
    }

    /// Time of day.
    pub fn timestamp(&self) -> Timestamp {
        match &self.0 {
            Kind::System => Timestamp::now(),
            Kind::Given(given) => (given.day)(),
        }
    }

    /// Both, read together.
    pub fn reading(&self) -> Reading {
        match &self.0 {
            Kind::System => Reading::now(),
            Kind::Given(given) => {
                let wall = Duration::try_from((given.day)().as_duration()).unwrap_or_default();
                Reading { boot: (given.boot)(), wall }
            }
        }
    }

    /// An alarm that is not set.
    ///
    /// # Errors
    /// Too many open files.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn alarm(&self) -> io::Result<Alarm> {
        Ok(match &self.0 {
            Kind::System => Alarm::System(boottime::Alarm::new()?),
            Kind::Given(given) => Alarm::Given(given.boot.clone()),
        })
    }
}

/// Rings at a time since boot.
pub enum Alarm {
    /// A timer of the kernel.
    System(boottime::Alarm),
    /// Tokio's sleep, until this clock shows the time.
    Given(Arc<dyn Fn() -> Boottime + Send + Sync>),
}

impl Alarm {
    /// Returns once it is `at` or later. Cancel-safe; the next call sets the alarm anew.
    ///
    /// # Errors
    /// As [`boottime::Timer::set`].
    pub async fn at(&mut self, at: Boottime) -> io::Result<()> {
        match self {
            Self::System(alarm) => alarm.at(at).await,
            Self::Given(boot) => {
                // More than once where that clock goes slower than tokio's.
                while boot() < at {
                    tokio::time::sleep(at.since(boot())).await;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_given_alarm_rings_when_its_clock_shows_the_time() {
        let start = Instant::now();
        let at_half_speed = move || Boottime(start.elapsed() / 2);
        let clocks = Clocks::given(at_half_speed, || Timestamp::UNIX_EPOCH);
        let mut alarm = clocks.alarm().unwrap();
        alarm.at(Boottime(Duration::from_secs(10))).await.unwrap();
        let took = start.elapsed();
        assert!(took >= Duration::from_secs(20) && took < Duration::from_millis(20_100), "{took:?}");
        alarm.at(Boottime(Duration::from_secs(1))).await.unwrap(); // has passed
        assert_eq!(start.elapsed(), took);
        let never = alarm.at(Boottime(Duration::MAX));
        assert!(tokio::time::timeout(Duration::from_hours(1), never).await.is_err());
    }

    #[tokio::test]
    async fn the_machines_clocks_go_together() {
        let clocks = Clocks::system();
        let (before, begin) = (clocks.reading(), Boottime::now());
        clocks.alarm().unwrap().at(begin.after(Duration::from_millis(5))).await.unwrap();
        assert!(clocks.boottime().since(begin) >= Duration::from_millis(5));
        assert!(boottime::may_have_stood_still(before, clocks.reading()) < Duration::from_millis(900));
        let apart = Timestamp::now().duration_since(clocks.timestamp());
        assert!(apart.abs() < jiff::SignedDuration::from_secs(1), "{apart}");
    }

    #[test]
    fn a_time_of_day_before_1970_counts_as_1970() {
        let day = || Timestamp::from_second(-5).unwrap();
        let clocks = Clocks::given(Boottime::default, day);
        assert_eq!(clocks.reading(), Reading { boot: Boottime::default(), wall: Duration::ZERO });
        assert_eq!(clocks.timestamp(), day());
    }
}
