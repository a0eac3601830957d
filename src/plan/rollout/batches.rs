//! Where batches end: plain arithmetic.
use crate::{
    api::rollout::{Pause, Strategy},
    snapshot::Ranges,
};

/// One batch: instances `0 … up_to - 1` are at the new revision when it is done.
#[derive(Clone, Debug, PartialEq)]
pub struct Boundary {
    /// Cumulative number of instances; strictly increasing from batch to batch, the last is `replicas`.
    pub up_to: i32,
    /// Pause after it; never on the last.
    pub pause: Option<Pause>,
}

/// The batches of a rollout of `replicas` instances. A batch that adds nothing is left out, with its pause; the last
/// one ends at `replicas`. Without instances there is one batch, of none.
pub fn boundaries(strategy: &Strategy, replicas: i32) -> Vec<Boundary> {
    let replicas = replicas.max(0);
    let mut found: Vec<Boundary> = Vec::new();
    if strategy.type_.is_at_once() {
        // One batch of all.
    } else if let Some(batches) = &strategy.batches {
        for batch in batches.iter().take(crate::api::bounds::BATCHES_MAX) {
            let up_to = batch.up_to.rounded_up(replicas).min(replicas);
            if up_to > found.last().map_or(0, |last| last.up_to) {
                found.push(Boundary { up_to, pause: batch.pause.clone() });
            }
        }
    } else if let Some(size) = &strategy.batch_size {
        let size = size.rounded_up(replicas).max(1);
        let ends = (1..).map(|n: i32| n.saturating_mul(size)).take_while(|end| *end < replicas);
        found.extend(ends.map(|up_to| Boundary { up_to, pause: None }));
    }
    if found.last().map_or(0, |last| last.up_to) < replicas || found.is_empty() {
        found.push(Boundary { up_to: replicas, pause: None });
    }
    if let Some(last) = found.last_mut() {
        last.pause = None;
    }
    found
}

/// The same where some instances are in no batch: the batches count the others, in order, and end at their numbers.
pub fn boundaries_around(strategy: &Strategy, replicas: i32, left_out: &Ranges) -> Vec<Boundary> {
    if left_out.is_empty() {
        return boundaries(strategy, replicas);
    }
    let others: Vec<i32> = (0..replicas.max(0)).filter(|instance| !left_out.0.contains(instance)).collect();
    let mut found = boundaries(strategy, others.len() as i32);
    let last = found.len() - 1;
    for (number, boundary) in found.iter_mut().enumerate() {
        let end = usize::try_from(boundary.up_to - 1).ok().and_then(|at| others.get(at));
        boundary.up_to = end.filter(|_| number < last).map_or(replicas.max(0), |end| end + 1);
    }
    found
}

/// Number (from 1) of the batch in work when `opened` instances are opened: the first that ends at or after it.
pub fn index_of(boundaries: &[Boundary], opened: i32) -> usize {
    boundaries.iter().position(|boundary| boundary.up_to >= opened).unwrap_or(boundaries.len().saturating_sub(1)) + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{IntOrPercent, rollout::Batch};

    fn ends(strategy: &Strategy, replicas: i32) -> Vec<i32> {
        boundaries(strategy, replicas).iter().map(|boundary| boundary.up_to).collect()
    }

    fn sized(size: IntOrPercent) -> Strategy {
        Strategy { batch_size: Some(size), ..Strategy::default() }
    }

    #[test]
    fn equal_batches() {
        assert_eq!(ends(&sized(IntOrPercent::Percent("25%".into())), 10), [3, 6, 9, 10]);
        assert_eq!(ends(&sized(IntOrPercent::Count(3)), 8), [3, 6, 8]);
        assert_eq!(ends(&sized(IntOrPercent::Count(50)), 8), [8]);
        assert_eq!(ends(&Strategy::default(), 8), [8]);
        assert_eq!(ends(&Strategy::default(), 0), [0]);
    }

    #[test]
    fn chosen_batches_skip_empty_ones_and_end_at_all() {
        let batch = |up_to, pause| Batch { up_to, pause };
        let strategy = Strategy {
            batches: Some(vec![
                batch(IntOrPercent::Count(1), Some(Pause { seconds: None })),
                batch(IntOrPercent::Percent("10%".into()), Some(Pause { seconds: Some(5) })),
                batch(IntOrPercent::Percent("50%".into()), None),
                batch(IntOrPercent::Count(2), None),
            ]),
            ..Strategy::default()
        };
        assert_eq!(ends(&strategy, 8), [1, 4, 8]);
        assert_eq!(boundaries(&strategy, 8)[0].pause, Some(Pause { seconds: None }));
        assert_eq!(ends(&strategy, 100), [1, 10, 50, 100]);
        assert_eq!(ends(&strategy, 1), [1]);
        assert_eq!(boundaries(&strategy, 1)[0].pause, None, "nothing comes after the last batch");
    }

    #[test]
    fn batches_count_those_that_are_not_left_out() {
        let around = |strategy: &Strategy, replicas: i32, left_out: &str| -> Vec<i32> {
            let found = boundaries_around(strategy, replicas, &Ranges::parse(left_out));
            found.iter().map(|boundary| boundary.up_to).collect()
        };
        let twos = sized(IntOrPercent::Count(2));
        assert_eq!(around(&twos, 7, "0-1,5"), [4, 7]);
        assert_eq!(around(&twos, 7, "6"), [2, 4, 7]);
        assert_eq!(
            [around(&twos, 3, "0-9"), around(&twos, 0, "0"), around(&twos, 5, "")],
            [vec![3], vec![0], vec![2, 4, 5]]
        );
    }

    #[test]
    fn index_counts_from_one() {
        let found = boundaries(&sized(IntOrPercent::Count(3)), 8);
        assert_eq!([0, 1, 3, 4, 6, 7, 8, 9].map(|opened| index_of(&found, opened)), [1, 1, 1, 2, 2, 3, 3, 3]);
    }
}
