//! What a run has measured, and medians of several.
use crate::demo::writes::Writes;

use super::{census::Extremes, subject::Subject};

/// What is measured once or several times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Case {
    pub pods: usize,
    pub ready_after_seconds: u32,
    pub subject: Subject,
}

impl Case {
    /// Most Pods that may be unavailable: 25 %, rounded down.
    pub fn fewest_allowed(&self) -> usize {
        self.pods - self.pods / 4
    }
}

/// Of one roll.
#[derive(Clone, Debug)]
pub struct Figures {
    /// From the change of the workload until it says that it is done.
    pub seconds: f64,
    /// The same until the last Pod was available and the last old one gone.
    pub pods_seconds: f64,
    pub writes: Writes,
    pub controller_cpu_milliseconds: f64,
    pub apiserver_cpu_milliseconds: f64,
    pub etcd_cpu_milliseconds: f64,
    pub peak_mib: f64,
    pub resident_mib: f64,
    pub extremes: Extremes,
    /// Per minute, afterwards: (of its Lease, all others).
    pub idle_writes: Option<(f64, f64)>,
    /// Cores that processes outside this benchmark have used meanwhile.
    pub foreign_cores: f64,
}

impl Figures {
    pub fn writes_total(&self) -> u64 {
        self.writes.values().sum()
    }

    pub fn conflicts(&self) -> u64 {
        self.writes.iter().filter(|(what, _)| what.ends_with(" 409")).map(|(_, count)| count).sum()
    }
}

/// Median, least and greatest of some numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub greatest: f64,
}

impl Spread {
    /// None of no numbers.
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut all: Vec<f64> = numbers.into_iter().collect();
        all.sort_by(f64::total_cmp);
        let (least, greatest) = (*all.first()?, *all.last()?);
        let median = f64::midpoint(all[(all.len() - 1) / 2], all[all.len() / 2]);
        Some(Self { median, least, greatest })
    }

    /// `7.1`, or `7.1 (6.9–8.0)`.
    pub fn text(&self, decimals: usize) -> String {
        let Self { median, least, greatest } = self;
        let bounds = [least, greatest].map(|it| format!("{it:.decimals$}"));
        if bounds[0] == bounds[1] {
            return bounds[0].clone();
        }
        format!("{median:.decimals$} ({}–{})", bounds[0], bounds[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_reads_well() {
        let text = |numbers: &[f64]| Spread::of(numbers.iter().copied()).map(|it| it.text(1));
        assert_eq!(text(&[]), None);
        assert_eq!(text(&[2.0]).as_deref(), Some("2.0"));
        assert_eq!(text(&[3.0, 1.0, 2.0]).as_deref(), Some("2.0 (1.0–3.0)"));
        assert_eq!(text(&[1.0, 2.0]).as_deref(), Some("1.5 (1.0–2.0)"));
    }
}
