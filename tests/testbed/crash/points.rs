//! Which points are run.
use crate::proxy::requests::{Fault, Point};

/// What the command line asks for.
pub struct Choice<'a> {
    pub only: &'a [Point],
    pub sample: Option<usize>,
    pub seed: Option<u64>,
}

/// Faults of the network are tried at every so many writes: none of them ends the operator, so that there is less that
/// could depend on the very write.
const NETWORK_STRIDE: usize = 8;
/// A silent watch takes a minute.
const SILENT_STRIDE: usize = 24;

impl Choice<'_> {
    /// The points for runs of so many writes, in the order in which they are run.
    pub fn among(&self, writes: usize) -> Vec<Point> {
        if !self.only.is_empty() {
            return self.only.to_vec();
        }
        let mut points = all(writes);
        let Some(sample) = self.sample else { return points };
        let seed = self.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
        println!("seed {seed}: {sample} of {} points", points.len());
        points.retain(|point| point.fault != Fault::Silent); // takes too long for a sample
        fastrand::Rng::with_seed(seed).shuffle(&mut points);
        points.truncate(sample);
        points
    }
}

fn all(writes: usize) -> Vec<Point> {
    // The slowest first.
    let faults = Fault::ALL.into_iter().rev();
    let stride = |fault: Fault| match fault {
        Fault::Silent => SILENT_STRIDE,
        fault if fault.kills() => 1,
        _ => NETWORK_STRIDE,
    };
    faults.flat_map(|fault| (1..=writes).step_by(stride(fault)).map(move |write| Point { write, fault })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_is_killed_three_times_at_every_write() {
        let points = Choice { only: &[], sample: None, seed: None }.among(50);
        let kills: Vec<_> = points.iter().filter(|point| point.fault.kills()).collect();
        assert_eq!(kills.len(), 150);
        for write in 1..=50 {
            assert_eq!(kills.iter().filter(|point| point.write == write).count(), 3);
        }
        assert!(points.iter().any(|point| point.fault == Fault::Silent && point.write > 1));
    }

    #[test]
    fn a_seed_chooses_the_same_points_again() {
        let choice = Choice { only: &[], sample: Some(12), seed: Some(7) };
        assert_eq!(choice.among(50), choice.among(50));
        assert_eq!(choice.among(50).len(), 12);
        assert_ne!(choice.among(50), Choice { seed: Some(8), ..choice }.among(50));
    }
}
