//! What docs/guarantees.md excepts from "one at a time": a process on a machine that was paused, and one whose listener was
//! given away by force. Both only for a time, after which an overlap is an accusation as any other.
use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::ledger::Key;

/// A machine's clock may be so much slower, and a guard late by so much ([`super::runner::Habits::guard_lag`]).
fn at_the_latest(time: Duration) -> Duration {
    time.mul_f64(1.03) + Duration::from_millis(500)
}

/// How long what was given away by force may run on.
const FORCED: Duration = Duration::from_secs(1);

/// Since when which overlaps may be.
#[derive(Default)]
pub struct Excuses {
    /// K, the longest in this history.
    pub kill_after: Duration,
    /// How much later an agent may learn of something while it renews its session.
    pub hears_within: Duration,
    /// Node, and when it went on.
    pauses: Vec<(usize, Instant)>,
    /// The last epoch of a listener that was assigned by force, and when.
    forced: BTreeMap<Key, (u64, Instant)>,
    /// Overlaps that these excused.
    pub count: u64,
}

impl Excuses {
    /// A node stands still until then.
    pub fn pause(&mut self, node: usize, until: Instant) {
        self.pauses.push((node, until));
    }

    /// A listener was given away by force.
    pub fn force(&mut self, key: Key, epoch: u64) {
        self.forced.insert(key, (epoch, Instant::now()));
    }

    /// Until when a process that is on this node, and was then, may not know what time it is: K after it went on.
    pub fn of_node(&self, node: usize) -> Option<Instant> {
        let pauses = self.pauses.iter().filter(|(paused, _)| *paused == node);
        pauses.map(|(_, until)| *until + at_the_latest(self.kill_after)).max()
    }

    /// Until when one that has started this epoch of a listener may run on beside whom that was given to by force.
    pub fn of_force(&self, key: &Key, epoch: u64) -> Option<Instant> {
        let (_, at) = self.forced.get(key).filter(|(forced, _)| epoch < *forced)?;
        Some(*at + at_the_latest(FORCED + self.hears_within))
    }
}
