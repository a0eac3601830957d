//! What must hold of one act on a Pod.
use std::sync::Arc;

use proptest::prelude::*;

use super::worlds::pinned_to;
use crate::{
    plan::{Plan, PodAct, change::Seen},
    snapshot::{Pod, Snapshot},
};

/// R4, R10 of what is done to a Pod; says whether the Pod stops serving by that.
pub(super) fn check_act(snapshot: &Snapshot, planned: &Plan, seen: &Seen, act: &PodAct) -> Result<bool, TestCaseError> {
    let (name, memory) = (&seen.name, &planned.memory);
    let is_it = |pod: &&Arc<Pod>| Seen::from(&***pod) == *seen;
    let pod = snapshot.pods.iter().find(is_it);
    Ok(match act {
        PodAct::Delete { .. } => {
            let is_ours = pod.or_else(|| snapshot.specimens.iter().find(is_it)).is_some();
            prop_assert!(is_ours, "R10: {name} is deleted with preconditions of no Pod of ours");
            true
        }
        PodAct::Keep { .. } => {
            prop_assert!(pod.is_some_and(|pod| pod.deletion.is_none() && !pod.has_agent), "R10: {name} is kept");
            true
        }
        PodAct::ChangeInPlace { revision, restarts, .. } => {
            prop_assert!(pod.is_some_and(|pod| pod.is_live()), "R10: {name} is changed, and none of our Pods");
            let known = [&memory.update, &memory.stable, &memory.effective].contains(&&Some(revision.clone()));
            let is_pinned = pod.is_some_and(|pod| pinned_to(snapshot, pod.slot) == Some(revision));
            prop_assert!(known || is_pinned, "R4: {name} becomes {revision}");
            *restarts
        }
        PodAct::SetInService { in_service, .. } => !in_service,
        _ => false,
    })
}
