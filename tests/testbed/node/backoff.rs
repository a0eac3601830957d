//! The kubelet's back-off for crashing containers and failing pulls: 10 s, doubling, at most 5 min,
//! forgotten after 10 min without use.
use std::time::Duration;

use jiff::Timestamp;

const BASE: Duration = Duration::from_secs(10);
const MAX: Duration = Duration::from_mins(5);

/// How long to wait before the next try of something that failed.
#[derive(Clone, Debug, Default)]
pub struct BackOff {
    /// The wait that the latest try has earned, and when that try was.
    current: Option<(Duration, Timestamp)>,
}

impl BackOff {
    /// How long to wait from `failed_at` on; zero for a first failure.
    pub fn wait(&self, failed_at: Timestamp) -> Duration {
        match self.current {
            Some((wait, tried_at)) if !forgotten(tried_at, failed_at) => wait,
            _ => Duration::ZERO,
        }
    }

    /// Notes a try at `now` that follows a failure at `failed_at`: the next wait is twice as long.
    pub fn advance(&mut self, failed_at: Timestamp, now: Timestamp) {
        let wait = match self.current {
            Some((wait, tried_at)) if !forgotten(tried_at, failed_at) => (wait * 2).min(MAX),
            _ => BASE,
        };
        self.current = Some((wait, now));
    }
}

fn forgotten(tried_at: Timestamp, failed_at: Timestamp) -> bool {
    failed_at.duration_since(tried_at).unsigned_abs() > MAX * 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn waits_double_up_to_five_minutes() {
        let mut back_off = BackOff::default();
        let mut now = 0;
        let mut waits = Vec::new();
        for _ in 0..8 {
            let wait = back_off.wait(at(now)).as_secs() as i64;
            waits.push(wait);
            let failed = now;
            now += wait;
            back_off.advance(at(failed), at(now));
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ten_quiet_minutes_forgive() {
        let mut back_off = BackOff::default();
        back_off.advance(at(0), at(0));
        back_off.advance(at(10), at(20));
        assert_eq!(back_off.wait(at(620)).as_secs(), 20);
        assert_eq!(back_off.wait(at(621)).as_secs(), 0);
        back_off.advance(at(621), at(621));
        assert_eq!(back_off.wait(at(622)).as_secs(), 10);
    }
}
