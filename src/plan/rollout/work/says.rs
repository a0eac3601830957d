//! What Pods say of themselves: whether they are in service, and whether they are drained.
use std::collections::BTreeSet;

use crate::{
    plan::{
        change::{Change, PodAct},
        rollout::pod::health,
    },
    snapshot::{Agents, Pod, SessionState, Snapshot},
};

/// The readiness gates that say something else than what is known. A Pod without an agent is in service as soon
/// as it runs; else once its agent holds its session, until that is lost. An open gate waits for an agent that has yet to
/// start: the Rollout may have just begun to ask for one. Gates of Pods that are `changed` in place are left alone, and
/// one that was is in service again once it is known to run what it was given.
pub(super) fn in_service(snapshot: &Snapshot, changed: &BTreeSet<String>) -> Vec<Change> {
    let stays = |pod: &&std::sync::Arc<Pod>| {
        let returns = pod.in_service == Some(false) && pod.in_transit(snapshot.now).is_some();
        pod.is_live() && !returns && !changed.contains(&pod.name)
    };
    // What is in service stays there: the checks come before it.
    let is_well = |pod: &Pod, says: bool| says || health::has_passed(snapshot, pod);
    let gated = snapshot.pods.iter().filter(stays).filter_map(|pod| Some((pod, pod.in_service?)));
    let wrong = gated.filter_map(|(pod, says)| {
        let (in_service, session_ready) = match (&snapshot.agents, snapshot.agents.of(&pod.name)) {
            (Agents::Unknown, _) => return None,
            (Agents::NotAsked, _) => (is_well(pod, says), None),
            (Agents::Seen(_), agent) => match agent.map(|agent| agent.session).unwrap_or_default() {
                // It has none, and the gate for another reason.
                SessionState::Unclaimed if !pod.has_agent => (is_well(pod, says), None),
                SessionState::Unclaimed => return None,
                SessionState::Held => (is_well(pod, says), Some(true)),
                SessionState::Lost => (false, Some(false)),
            },
        };
        (says != in_service).then(|| Change::pod(pod, PodAct::SetInService { in_service, session_ready }))
    });
    wrong.collect()
}

/// What Pods that leave have yet to say of themselves: whether anything is left on them. Of others it is only taken back.
/// What is written on a Pod anyhow goes first: of two writes at once one would be in vain.
pub(super) fn drained(snapshot: &Snapshot, leaving: &BTreeSet<String>, changes: &[Change]) -> Vec<Change> {
    let found = snapshot.pods.iter().filter(|pod| !pod.is_finished()).filter_map(|pod| {
        // Only of an agent that holds its session is it known what it runs.
        let agent = snapshot.agents.of(&pod.name).filter(|agent| agent.session == SessionState::Held)?;
        let leaves = pod.deletion.is_some() || agent.draining || leaving.contains(&pod.name);
        let is_drained = agent.busy.is_empty();
        let is_wrong = if leaves { pod.drained != Some(is_drained) } else { pod.drained == Some(true) && !is_drained };
        let is_written = || changes.iter().any(|change| change.name() == pod.name);
        let busy =
            || agent.busy.iter().map(|(set, number)| format!("{number} of {set}")).collect::<Vec<_>>().join(", ");
        (is_wrong && !is_written()).then(|| Change::pod(pod, PodAct::SetDrained { busy: busy() }))
    });
    found.collect()
}
