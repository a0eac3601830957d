//! Instances that are asked whether they are well, before they go into service.
use std::collections::BTreeSet;

use super::ask::{call, is_due, room};
use crate::{
    plan::{
        change::Change,
        rollout::{pod::health, run::View, time::Alarm},
    },
    snapshot::{Pod, Purpose},
};

/// Pause between rounds once the instance has failed: its application may be mended in place.
const PAUSE_AFTER_FAILURE_SECONDS: i64 = 60;

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
    due.sort_by_key(|(tries, _)| *tries);
    let due = due.into_iter().map(|(_, call)| call).chain(reference);
    due.take(room(snapshot, &[Purpose::Health, Purpose::Reference])).collect()
}
