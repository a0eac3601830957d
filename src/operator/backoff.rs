//! Pauses between tries that grow with each failure in a row.
use std::time::Duration;

/// Failures in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

/// Pause after the first failure.
const SHORTEST: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST: Duration = Duration::from_mins(1);

impl Backoff {
    /// One more failure; the pause after it: 1 s, 2 s, 4 s, … 60 s, each ±20 %, so that objects that failed together do not
    /// try together.
    pub fn fail(&mut self, rng: &mut fastrand::Rng) -> Duration {
        let pause = SHORTEST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        pause.mul_f64(0.8 + 0.4 * rng.f64())
    }

    /// It worked.
    pub fn succeed(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute_and_start_anew() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut backoff = Backoff::default();
        let pauses: Vec<f64> = (0..9).map(|_| backoff.fail(&mut rng).as_secs_f64()).collect();
        for (pause, expected) in pauses.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]) {
            assert!((expected * 0.8..=expected * 1.2).contains(pause), "{pauses:?}");
        }
        backoff.succeed();
        assert!(backoff.fail(&mut rng) <= Duration::from_millis(1_200));
    }
}
