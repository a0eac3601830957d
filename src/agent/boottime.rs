//! The clock of deadlines: CLOCK_BOOTTIME, the same in every process of the machine, which cannot be set and which goes on
//! while the machine sleeps. It does not count a pause of the whole virtual machine: see [`may_have_stood_still`].
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    time::{Duration, SystemTime},
};

use nix::{
    errno::Errno,
    sys::{
        time::TimeSpec,
        timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
};
use tokio::io::unix::AsyncFd;

pub use crate::plan::listener_set::session::Boottime;

/// What those who decide may not do: look at the clock.
impl Boottime {
    /// Now.
    pub fn now() -> Self {
        // Known since Linux 2.6.39. Should it fail all the same, every deadline has passed: the safe side.
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map(Duration::from);
        Self(now.unwrap_or(Duration::MAX))
    }
}

/// Both clocks, read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Since boot.
    pub boot: Boottime,
    /// Wall clock, since 1970.
    pub wall: Duration,
}

impl Reading {
    /// Now.
    pub fn now() -> Self {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { boot: Boottime::now(), wall }
    }

    /// What the wall clock would show at another time, had it not been set since.
    pub fn wall_at(self, boot: Boottime) -> Duration {
        self.wall.saturating_add(boot.since(self.boot))
    }
}

/// By how much the wall clock has gone ahead of the time since boot between two readings: zero where it has not.
///
/// A virtual machine that was paused or migrated does not notice on CLOCK_BOOTTIME; its wall clock is set anew afterwards. So
/// the machine may have stood still for that long, which others have counted. A person who sets the wall clock forward
/// looks the same. One who sets it back does not: nothing follows from that.
pub fn may_have_stood_still(earlier: Reading, later: Reading) -> Duration {
    let boot = nanos(later.boot.0) - nanos(earlier.boot.0);
    let wall = nanos(later.wall) - nanos(earlier.wall);
    Duration::from_nanos(u64::try_from((wall - boot).max(0)).unwrap_or(u64::MAX))
}

/// Signed, and far from both ends: a duration has at most 94 bits of them.
fn nanos(duration: Duration) -> i128 {
    duration.as_nanos() as i128
}

/// A timer at a point in time, readable from then on.
#[derive(Debug)]
pub struct Timer(TimerFd);

impl Timer {
    /// One that is not set.
    ///
    /// # Errors
    /// Too many open files.
    pub fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        Ok(Self(TimerFd::new(ClockId::CLOCK_BOOTTIME, flags)?))
    }

    /// Sets it anew. A time that has passed makes it readable at once.
    ///
    /// # Errors
    /// None is known for a timer that is open.
    pub fn set(&self, at: Boottime) -> io::Result<()> {
        // Zero would switch it off, and seconds are signed.
        let at = Duration::from_nanos(at.as_nanos().clamp(1, i64::MAX as u64));
        Ok(self.0.set(Expiration::OneShot(TimeSpec::from_duration(at)), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?)
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// A [`Timer`] to wait for within tokio, whose own sleep stands still while the machine sleeps.
#[derive(Debug)]
pub struct Alarm(AsyncFd<Timer>);

impl Alarm {
    /// One that is not set.
    ///
    /// # Errors
    /// Too many open files.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new() -> io::Result<Self> {
        #[expect(
            deprecated,
            reason = "its successor is unsafe, as it must trust AsRawFd; ours is the one of what it owns"
        )]
        let timer = AsyncFd::new(Timer::new()?)?;
        Ok(Self(timer))
    }

    /// Returns once it is `at` or later. Cancel-safe; the next call sets the alarm anew.
    ///
    /// # Errors
    /// As [`Timer::set`].
    pub async fn at(&mut self, at: Boottime) -> io::Result<()> {
        while Boottime::now() < at {
            self.0.get_ref().set(at)?;
            let mut ready = self.0.readable().await?;
            match ready.get_inner().0.wait() {
                Ok(()) => {}
                // An event of an earlier setting: go on waiting.
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reading(boot_millis: u64, wall_millis: u64) -> Reading {
        Reading { boot: Boottime(Duration::from_millis(boot_millis)), wall: Duration::from_millis(wall_millis) }
    }

    /// H2: only a wall clock that went ahead says that the machine may have stood still.
    #[test]
    fn a_wall_clock_that_went_ahead_tells_of_a_pause() {
        let gone = |from, to| may_have_stood_still(from, to).as_millis();
        assert_eq!(gone(reading(1_000, 5_000), reading(4_000, 8_000)), 0);
        assert_eq!(gone(reading(1_000, 5_000), reading(4_000, 9_001)), 1_001, "the machine was paused");
        assert_eq!(gone(reading(1_000, 5_000), reading(4_000, 6_999)), 0, "set back");
        assert_eq!(gone(reading(1_000, 5_000), reading(1_000, 0)), 0);
        assert!(gone(Reading::now(), Reading::now()) < 900);
    }

    proptest! {
        #[test]
        fn pauses_add_up_to_any_length(boot in 0_u64..1 << 40, gone in 0_u64..1 << 40, jump in -5_000_i64..5_000) {
            let wall = 1 << 41;
            let later = reading(boot + gone, (wall + gone).saturating_add_signed(jump));
            let stood = may_have_stood_still(reading(boot, wall), later);
            prop_assert_eq!(stood, Duration::from_millis(jump.max(0).unsigned_abs()));
        }
    }

    #[test]
    fn arithmetic_stays_in_range() {
        let now = Boottime::now();
        assert_eq!(now.after(Duration::MAX).as_nanos(), u64::MAX);
        assert_eq!(now.since(now.after(Duration::from_secs(1))), Duration::ZERO);
        assert_eq!(now.after(Duration::from_secs(2)).since(now), Duration::from_secs(2));
    }

    #[tokio::test]
    async fn an_alarm_rings_when_it_is_time_and_can_be_set_again() {
        let mut alarm = Alarm::new().unwrap();
        let begin = Boottime::now();
        alarm.at(begin).await.unwrap(); // has passed
        let far = alarm.at(begin.after(Duration::from_hours(1)));
        assert!(tokio::time::timeout(Duration::from_millis(5), far).await.is_err());
        for wait in [20, 40] {
            let at = begin.after(Duration::from_millis(wait));
            alarm.at(at).await.unwrap();
            assert!(Boottime::now() >= at);
        }
        assert!(Boottime::now().since(begin) < Duration::from_mins(1), "the far one was replaced");
    }

    #[tokio::test]
    async fn an_alarm_far_beyond_the_range_of_timers_does_not_ring() {
        let mut alarm = Alarm::new().unwrap();
        let never = alarm.at(Boottime::from_nanos(u64::MAX));
        assert!(tokio::time::timeout(Duration::from_millis(5), never).await.is_err());
    }
}
