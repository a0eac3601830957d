//! CLOCK_BOOTTIME, the clock of deadlines: it cannot be set, and it goes on while the machine sleeps.
use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since the machine was started.
pub fn now() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let nanos = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
    // It never shows less than nothing, and 64 bits last for 584 years.
    u64::try_from(nanos).unwrap_or(u64::MAX)
}
