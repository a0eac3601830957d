//! Rounds of questions to applications: whether one is due, and how many there is room for.
use jiff::Timestamp;

use crate::{
    plan::{
        change::Change,
        rollout::time::{Alarm, after},
    },
    snapshot::{Pod, Purpose, Snapshot, Telling},
};

/// Instances of one Rollout that are asked at once for one end.
const ASKED_AT_ONCE_MAX: usize = 32;

/// So many more may be asked for these purposes.
pub(super) fn room(snapshot: &Snapshot, purposes: &[Purpose]) -> usize {
    let on = snapshot.calls.iter().filter(|((_, purpose), round)| round.is_on && purposes.contains(purpose)).count();
    ASKED_AT_ONCE_MAX.saturating_sub(on)
}

/// One round of questions.
pub(super) fn call(pod: &Pod, purpose: Purpose, of: Timestamp) -> Change {
    Change::CallPod { name: pod.name.clone(), uid: pod.uid.clone(), purpose, of }
}

/// The next round may begin. The end of one that is on leads to another look.
pub(super) fn is_due(round: Option<&Telling>, now: Timestamp, pause: i64, alarm: &mut Alarm) -> bool {
    match round {
        None => true,
        Some(round) if round.is_on => false,
        // A clock that was set back does not make a Pod wait.
        Some(round) => round.began_at > now || alarm.passed(after(round.began_at, pause)),
    }
}
