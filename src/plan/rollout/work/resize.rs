//! What is still to be written on Pods that were given other resources.
use std::collections::BTreeSet;

use crate::{
    plan::{
        Change, PodAct, Question,
        rollout::{
            pod::{failure::failure_of, resize::refusal},
            time::Alarm,
        },
    },
    snapshot::{Pod, Resize, Snapshot},
};

/// Pods that are out of service, and about which the API server is asked: a new operator does not know what it has said before,
/// and who has left for a change is not to come back for a moment.
pub(crate) fn asked_outside(snapshot: &Snapshot, changes: &[Change]) -> Vec<String> {
    let asked = changes.iter().filter(|change| matches!(change, Change::Ask(Question::Resize { .. })));
    let asked: BTreeSet<&str> = asked.map(Change::name).collect();
    let outside = snapshot.pods.iter().filter(|pod| pod.in_service == Some(false));
    outside.filter(|pod| asked.contains(pod.name.as_str())).map(|pod| pod.name.clone()).collect()
}

/// The next write for each Pod that nothing else is written on now.
pub(crate) fn carry_on(snapshot: &Snapshot, changes: &mut Vec<Change>, alarm: &mut Alarm) {
    let written: BTreeSet<&str> = changes.iter().map(Change::name).collect();
    let due = snapshot.pods.iter().filter(|pod| pod.is_live() && !written.contains(pod.name.as_str()));
    let found: Vec<Change> = due.filter_map(|pod| next(snapshot, pod, alarm)).collect();
    changes.extend(found);
}

fn next(snapshot: &Snapshot, pod: &Pod, alarm: &mut Alarm) -> Option<Change> {
    let stage = pod.resize.as_ref()?;
    if let Some(refusal) = refusal(snapshot, pod, &pod.revision) {
        alarm.passed(refusal.retry_at);
        return None;
    }
    for at in pod.resize_fails_at().into_iter().chain(failure_of(pod).and_then(|failure| failure.at)) {
        alarm.passed(at);
    }
    match stage {
        Resize::Due => Some(Change::pod(pod, PodAct::Resize { revision: pod.revision.clone() })),
        Resize::Awaited { .. } => None,
        Resize::Done => Some(Change::pod(pod, PodAct::NoteResized)),
    }
}
