//! Where batches end, and where a run pauses: plain arithmetic.
use crate::{
    api::{
        bounds::BATCHES_MAX,
        rollout::{Pause, Strategy},
    },
    snapshot::Ranges,
};

/// The batches of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batches {
    /// Pause before the first instance changes. It is that of batch 0.
    pub before: Option<Pause>,
    /// Where batches 1, 2, … end; never empty.
    pub ends: Vec<Boundary>,
}

/// One batch: instances `0 … up_to - 1` are at the new revision when it is done.
#[derive(Clone, Debug, PartialEq)]
pub struct Boundary {
    /// Cumulative number of instances; strictly increasing from batch to batch, the last is `replicas`.
    pub up_to: i32,
    /// Pause after it. The run is complete when that of the last batch has passed.
    pub pause: Option<Pause>,
}

impl Batches {
    /// Those of `replicas` instances. An entry of `spec.strategy.batches` that adds no instance keeps its pause: it is one with
    /// the pause of the batch before. The last batch ends at `replicas`. Without instances there is one batch, of none.
    pub fn of(strategy: &Strategy, replicas: i32) -> Self {
        let replicas = replicas.max(0);
        let mut found = Self::default();
        if strategy.type_.is_at_once() {
            // One batch of all.
        } else if let Some(batches) = &strategy.batches {
            for batch in batches.iter().take(BATCHES_MAX) {
                found.reach(batch.up_to.rounded_up(replicas).min(replicas));
                *found.last_pause() = longer(found.last_pause().take(), batch.pause.clone());
            }
        } else if let Some(size) = &strategy.batch_size {
            let size = size.rounded_up(replicas).max(1);
            let ends = (1..).map(|n: i32| n.saturating_mul(size)).take_while(|end| *end < replicas);
            found.ends.extend(ends.map(|up_to| Boundary { up_to, pause: None }));
        }
        found.reach(replicas);
        if found.ends.is_empty() {
            found.ends.push(Boundary { up_to: replicas, pause: None });
        }
        found
    }

    /// The same where some instances are in no batch: the batches count the others, in order, and end at their numbers.
    pub fn around(strategy: &Strategy, replicas: i32, left_out: &Ranges) -> Self {
        if left_out.is_empty() {
            return Self::of(strategy, replicas);
        }
        let others: Vec<i32> = (0..replicas.max(0)).filter(|instance| !left_out.0.contains(instance)).collect();
        let mut found = Self::of(strategy, others.len() as i32);
        let last = found.ends.len() - 1;
        for (number, boundary) in found.ends.iter_mut().enumerate() {
            let end = usize::try_from(boundary.up_to - 1).ok().and_then(|at| others.get(at));
            boundary.up_to = end.filter(|_| number < last).map_or(replicas.max(0), |end| end + 1);
        }
        found
    }

    /// Number of the batch in work when `opened` instances are opened: the first that ends at or after it; 0 before the first
    /// one, where there is a pause.
    pub fn index_of(&self, opened: i32) -> usize {
        if opened <= 0 && self.before.is_some() {
            return 0;
        }
        let at = self.ends.iter().position(|boundary| boundary.up_to >= opened);
        at.unwrap_or(self.ends.len().saturating_sub(1)) + 1
    }

    /// Where the batch of this number ends.
    pub fn end(&self, number: usize) -> Option<i32> {
        if number == 0 { Some(0) } else { self.ends.get(number - 1).map(|boundary| boundary.up_to) }
    }

    /// The pause after the batch of this number.
    pub fn pause(&self, number: usize) -> Option<&Pause> {
        if number == 0 { self.before.as_ref() } else { self.ends.get(number - 1)?.pause.as_ref() }
    }

    /// A batch ends here, unless one does already, or the one before goes further.
    fn reach(&mut self, up_to: i32) {
        if up_to > self.ends.last().map_or(0, |last| last.up_to) {
            self.ends.push(Boundary { up_to, pause: None });
        }
    }

    fn last_pause(&mut self) -> &mut Option<Pause> {
        self.ends.last_mut().map_or(&mut self.before, |last| &mut last.pause)
    }
}

/// Of two pauses at one place the one that holds longer: one that waits for approval, else the one of more seconds.
fn longer(one: Option<Pause>, other: Option<Pause>) -> Option<Pause> {
    let holds = |pause: &Pause| pause.seconds.map_or(i64::MAX, i64::from);
    [one, other].into_iter().flatten().max_by_key(holds)
}

/// What is odd about `spec.strategy.batches` with so many instances, in a sentence: an entry that asks for fewer than one before
/// it. Counts alone the CRD compares.
pub fn warning(strategy: &Strategy, replicas: i32) -> Option<String> {
    let replicas = replicas.max(0);
    let mut most = (0, 0);
    for (number, batch) in strategy.batches.iter().flatten().take(BATCHES_MAX).enumerate() {
        let up_to = batch.up_to.rounded_up(replicas).min(replicas);
        if up_to < most.1 {
            let (earlier, count) = most;
            return Some(format!(
                "spec.strategy.batches[{number}].upTo is {up_to} of {replicas} instances, fewer than the {count} of \
                 batches[{earlier}]: it counts as {count}; write the entries in rising order"
            ));
        }
        most = if up_to > most.1 { (number, up_to) } else { most };
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::IntOrPercent;

    fn ends(strategy: &Strategy, replicas: i32) -> Vec<i32> {
        Batches::of(strategy, replicas).ends.iter().map(|boundary| boundary.up_to).collect()
    }

    fn sized(size: IntOrPercent) -> Strategy {
        Strategy { batch_size: Some(size), ..Strategy::default() }
    }

    fn chosen(batches: serde_json::Value) -> Strategy {
        Strategy { batches: serde_json::from_value(batches).unwrap(), ..Strategy::default() }
    }

    /// `0p 4 8p60`: where a run stops, and the pause there.
    fn stops(batches: serde_json::Value, replicas: i32) -> String {
        let found = Batches::of(&chosen(batches), replicas);
        let word = |number: usize| {
            let seconds = |pause: &Pause| pause.seconds.map(|seconds| seconds.to_string()).unwrap_or_default();
            let pause = found.pause(number).map(|pause| format!("p{}", seconds(pause)));
            format!("{}{}", found.end(number).unwrap(), pause.unwrap_or_default())
        };
        let first = usize::from(found.before.is_none());
        (first..=found.ends.len()).map(word).collect::<Vec<_>>().join(" ")
    }

    fn timed(ends: [i32; 2], seconds: [i32; 2]) -> serde_json::Value {
        json!([0, 1].map(|at| json!({"upTo": ends[at], "pause": {"seconds": seconds[at]}})))
    }

    #[test]
    fn equal_batches() {
        assert_eq!(ends(&sized(IntOrPercent::Percent("25%".into())), 10), [3, 6, 9, 10]);
        assert_eq!(ends(&sized(IntOrPercent::Count(3)), 8), [3, 6, 8]);
        assert_eq!(ends(&sized(IntOrPercent::Count(50)), 8), [8]);
        assert_eq!(ends(&Strategy::default(), 8), [8]);
        assert_eq!(ends(&Strategy::default(), 0), [0]);
    }

    /// R21: however few instances there are, no pause gets lost.
    #[test]
    fn a_pause_holds_where_it_stands() {
        let batches = json!([
            {"upTo": 1, "pause": {}}, {"upTo": "10%", "pause": {"seconds": 5}}, {"upTo": "50%"}, {"upTo": 2},
        ]);
        assert_eq!(stops(batches.clone(), 100), "1p 10p5 50 100");
        assert_eq!(stops(batches.clone(), 8), "1p 4 8", "what waits for approval outlives what has an end");
        assert_eq!(stops(batches.clone(), 1), "1p");
        assert_eq!(stops(batches, 0), "0p 0");
        assert_eq!(stops(json!([{"upTo": "100%", "pause": {}}]), 3), "3p");
        assert_eq!(stops(json!([{"upTo": 100, "pause": {"seconds": 9}}]), 3), "3p9");
        assert_eq!(stops(json!([{"upTo": 0, "pause": {}}, {"upTo": "0%", "pause": {"seconds": 3}}]), 3), "0p 3");
        assert_eq!(stops(timed([2, 2], [3, 7]), 3), "2p7 3");
        assert_eq!(stops(timed([2, 1], [7, 3]), 3), "2p7 3");
        assert_eq!(stops(json!([{"upTo": 2}, {"upTo": 1, "pause": {}}]), 3), "2p 3", "it counts as what was reached");
    }

    #[test]
    fn batches_count_those_that_are_not_left_out() {
        let around = |strategy: &Strategy, replicas: i32, left_out: &str| -> Vec<i32> {
            let found = Batches::around(strategy, replicas, &Ranges::parse(left_out));
            found.ends.iter().map(|boundary| boundary.up_to).collect()
        };
        let twos = sized(IntOrPercent::Count(2));
        assert_eq!(around(&twos, 7, "0-1,5"), [4, 7]);
        assert_eq!(around(&twos, 7, "6"), [2, 4, 7]);
        assert_eq!(
            [around(&twos, 3, "0-9"), around(&twos, 0, "0"), around(&twos, 5, "")],
            [vec![3], vec![0], vec![2, 4, 5]]
        );
        let canary = chosen(json!([{"upTo": 1, "pause": {}}]));
        let found = Batches::around(&canary, 4, &Ranges::parse("0-2"));
        assert_eq!((found.end(1), found.pause(1)), (Some(4), Some(&Pause::default())), "the only one that is left");
    }

    #[test]
    fn index_counts_from_one() {
        let found = Batches::of(&sized(IntOrPercent::Count(3)), 8);
        assert_eq!([0, 1, 3, 4, 6, 7, 8, 9].map(|opened| found.index_of(opened)), [1, 1, 1, 2, 2, 3, 3, 3]);
        let held = Batches::of(&chosen(json!([{"upTo": 0, "pause": {}}, {"upTo": 3}])), 8);
        assert_eq!([0, 1, 3, 4, 8].map(|opened| held.index_of(opened)), [0, 1, 1, 2, 2]);
    }

    #[test]
    fn batches_that_do_not_rise_are_told() {
        let of = |batches: serde_json::Value, replicas| warning(&chosen(batches), replicas);
        let mixed = json!([{"upTo": 1}, {"upTo": "50%"}, {"upTo": 3}]);
        assert_eq!(of(mixed.clone(), 6), None);
        assert_eq!(
            of(mixed, 8).unwrap(),
            "spec.strategy.batches[2].upTo is 3 of 8 instances, fewer than the 4 of batches[1]: it counts as 4; write the \
             entries in rising order"
        );
        assert!(of(json!([{"upTo": "50%"}, {"upTo": "10%"}]), 8).is_some());
        assert_eq!(of(json!([{"upTo": 5, "pause": {}}, {"upTo": "100%"}]), 1), None, "a copy with fewer instances");
    }
}
