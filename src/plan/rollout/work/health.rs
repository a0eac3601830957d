//! Instances that are asked whether they are well, before they go into service.
use std::collections::BTreeSet;

use crate::{
    plan::{
        change::Change,
        rollout::{
            pod::health,
            run::View,
            time::{Alarm, after},
        },
    },
    snapshot::{Pod, Purpose, Telling},
};

/// Pause between rounds once the instance has failed: its application may be mended in place.
const PAUSE_AFTER_FAILURE_SECONDS: i64 = 60;
/// Instances of one Rollout that are asked at once.
const ASKED_AT_ONCE_MAX: usize = 32;

/// Rounds of questions that are due. Of a Pod that is written to anyhow, and of one that leaves, nothing is asked.
pub(crate) fn ask(view: &View<'_>, leaving: &BTreeSet<String>, changes: &[Change], alarm: &mut Alarm) -> Vec<Change> {
    let Some(settings) = &view.spec().health else { return Vec::new() };
    let snapshot = view.snapshot;
    let written: BTreeSet<&str> = changes.iter().map(Change::name).collect();
    let stays = |pod: &&Pod| !written.contains(&*pod.name) && !leaving.contains(&pod.name);
    let mut due = Vec::new();
    let mut reference_for = None;
    for pod in snapshot.pods.iter().map(|pod| &**pod).filter(stays) {
        let Some(of) = health::due_since(snapshot, pod) else { continue };
        if pod.in_transit(snapshot.now).is_some() || health::has_passed(snapshot, pod) {
            continue;
        }
        let is_out = health::failure(snapshot, pod).is_some() || health::is_unreachable(snapshot, pod);
        let pause = if is_out { PAUSE_AFTER_FAILURE_SECONDS } else { i64::from(settings.period_seconds) };
        if health::is_unreachable(snapshot, pod) {
            reference_for = reference_for.max(Some(of));
        }
        let round = snapshot.calls.get(&(pod.uid.clone(), Purpose::Health)).filter(|round| round.of == of);
        if is_due(round, snapshot.now, pause, alarm) {
            let tries = round.map_or(0, |round| round.tries);
            due.push((tries, call(pod, Purpose::Health, of)));
        }
    }
    // One that nobody reaches may be well: an instance that serves is asked the same.
    let reference = reference_for.and_then(|of| {
        let is_stable = |pod: &&Pod| view.lineage.is_stable(&pod.revision) && pod.is_ready();
        let pod = snapshot.pods.iter().map(|pod| &**pod).filter(stays).find(is_stable)?;
        let round = snapshot.calls.get(&(pod.uid.clone(), Purpose::Reference)).filter(|round| round.of >= of);
        is_due(round, snapshot.now, PAUSE_AFTER_FAILURE_SECONDS, alarm).then(|| call(pod, Purpose::Reference, of))
    });
    let is_ours = |purpose: Purpose| matches!(purpose, Purpose::Health | Purpose::Reference);
    let on = snapshot.calls.iter().filter(|((_, purpose), round)| round.is_on && is_ours(*purpose)).count();
    due.sort_by_key(|(tries, _)| *tries);
    let due = due.into_iter().map(|(_, call)| call).chain(reference);
    due.take(ASKED_AT_ONCE_MAX.saturating_sub(on)).collect()
}

fn call(pod: &Pod, purpose: Purpose, of: jiff::Timestamp) -> Change {
    Change::CallPod { name: pod.name.clone(), uid: pod.uid.clone(), purpose, of }
}

/// The next round may begin. The end of one that is on leads to another look.
pub(super) fn is_due(round: Option<&Telling>, now: jiff::Timestamp, pause: i64, alarm: &mut Alarm) -> bool {
    match round {
        None => true,
        Some(round) if round.is_on => false,
        // A clock that was set back does not make a Pod wait.
        Some(round) => round.began_at > now || alarm.passed(after(round.began_at, pause)),
    }
}
