//! Durations counted in buckets of about 3 %, in bounded memory.
use std::time::Duration;

/// Each power of two is split into this many buckets.
const STEPS: u64 = 32;

/// Counts of durations by microseconds.
#[derive(Default)]
pub struct Histogram {
    /// Indexed by `bucket`; at most 64 × STEPS long.
    counts: Vec<u64>,
    total: u64,
    max: Duration,
}

impl Histogram {
    pub fn record(&mut self, value: Duration) {
        let index = bucket(u64::try_from(value.as_micros()).unwrap_or(u64::MAX));
        if index >= self.counts.len() {
            self.counts.resize(index + 1, 0);
        }
        self.counts[index] += 1;
        self.total += 1;
        self.max = self.max.max(value);
    }

    /// The duration that `percent` of all stay at or below, to about 3 %; zero when nothing was recorded.
    pub fn percentile(&self, percent: f64) -> Duration {
        let rank = (self.total as f64 * percent / 100.0).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank.max(1) {
                return Duration::from_micros(upper_edge(index)).min(self.max);
            }
        }
        self.max
    }

    /// The longest one, exactly.
    pub fn max(&self) -> Duration {
        self.max
    }
}

/// Values below STEPS have a bucket each; above, every power of two has STEPS.
fn bucket(value: u64) -> usize {
    let power = value.checked_ilog2().unwrap_or(0).saturating_sub(STEPS.ilog2());
    (u64::from(power) * STEPS + (value >> power)) as usize
}

/// The largest value of a bucket.
fn upper_edge(index: usize) -> u64 {
    let index = index as u64;
    let power = (index / STEPS).saturating_sub(1);
    ((index - power * STEPS + 1) << power) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_within_three_percent() {
        for value in (0..5_000).chain((5_000..10_000_000).step_by(997)) {
            let edge = upper_edge(bucket(value));
            assert!(edge >= value && (edge - value) as f64 <= value as f64 * 0.032, "{value} counted as {edge}");
        }
    }

    #[test]
    fn percentiles_of_a_known_series() {
        let mut histogram = Histogram::default();
        for milliseconds in 1..=1_000 {
            histogram.record(Duration::from_millis(milliseconds));
        }
        let about = |percent: f64| histogram.percentile(percent).as_secs_f64() * 1_000.0;
        assert!((500.0..516.0).contains(&about(50.0)), "{}", about(50.0));
        assert!((990.0..=1_000.0).contains(&about(99.0)), "{}", about(99.0));
        assert_eq!(histogram.percentile(100.0), Duration::from_secs(1));
        assert_eq!(Histogram::default().percentile(50.0), Duration::ZERO);
    }
}
