//! A Pod that holds listeners leaves only once others have taken them over; and what Pods say of themselves meanwhile.
use std::collections::BTreeSet;

use crate::{
    plan::{
        change::{Change, Hold, HoldReason},
        rollout::pod::agent::{holds, is_heir},
    },
    snapshot::{Agents, Pod, SessionState, Snapshot},
};

/// Takes out what ends the containers of Pods that hold listeners while there is a Pod that could take these; returns the Pods'
/// names. One that is not Ready does not wait: its agent, if it has one that works, hands over when it is told to end.
pub(crate) fn hold_back(snapshot: &Snapshot, changes: &mut Vec<Change>) -> BTreeSet<String> {
    let deleted: BTreeSet<String> = changes.iter().filter_map(ended_by).map(str::to_owned).collect();
    if !snapshot.pods.iter().any(|pod| !deleted.contains(&pod.name) && is_heir(snapshot, pod)) {
        return BTreeSet::new();
    }
    let pods = snapshot.pods.iter().filter(|pod| deleted.contains(&pod.name) && holds(snapshot, pod));
    let leaving: BTreeSet<String> = pods.map(|pod| pod.name.clone()).collect();
    changes.retain(|change| ended_by(change).is_none_or(|name| !leaving.contains(name)));
    leaving
}

/// What people read while Pods wait to leave.
pub(crate) fn hold(snapshot: &Snapshot, leaving: &BTreeSet<String>) -> Option<Hold> {
    let first = leaving.first()?;
    let held: u32 = snapshot.agents.seen().filter(|(pod, _)| leaving.contains(*pod)).map(|(_, a)| a.held).sum();
    let more = if leaving.len() > 1 { format!(" and {} other Pods", leaving.len() - 1) } else { String::new() };
    let message =
        format!("{first}{more} leaves, or is changed, once others have taken over its listeners ({held} to move)");
    Some(Hold { reason: HoldReason::HandingOver, message, until: None })
}

/// The Pod of which a change ends containers.
pub(crate) fn ended_by(change: &Change) -> Option<&str> {
    match change {
        Change::DeletePod { name, .. } | Change::ChangeInPlace { name, restarts: true, .. } => Some(name),
        _ => None,
    }
}

/// The readiness gates that say something else than what is known. A Pod whose agent nobody asks for is in service as soon
/// as it runs; else once its agent holds its session, until that is lost. An open gate waits for an agent that has yet to
/// start: somebody may have just begun to ask for one. Those that are `changed` in place are none of this one's business, and
/// one that was is in service again once it is known to run what it was given.
pub(crate) fn in_service(snapshot: &Snapshot, changed: &BTreeSet<String>) -> Vec<Change> {
    let stays = |pod: &&std::sync::Arc<Pod>| {
        let returns = pod.in_service == Some(false) && pod.in_transit(snapshot.now).is_some();
        pod.is_live() && !returns && !changed.contains(&pod.name)
    };
    let gated = snapshot.pods.iter().filter(stays).filter_map(|pod| Some((pod, pod.in_service?)));
    let wrong = gated.filter_map(|(pod, says)| {
        let (in_service, session_ready) = match (&snapshot.agents, snapshot.agents.of(&pod.name)) {
            (Agents::Unknown, _) => return None,
            (Agents::NotAsked, _) => (true, None),
            (Agents::Seen(_), agent) => match agent.map(|agent| agent.session).unwrap_or_default() {
                // It has none, and the gate for another reason.
                SessionState::Unclaimed if !pod.has_agent => (true, None),
                SessionState::Unclaimed => return None,
                SessionState::Held => (true, Some(true)),
                SessionState::Lost => (false, Some(false)),
            },
        };
        (says != in_service).then(|| Change::SetInService {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            resource_version: pod.resource_version.clone(),
            in_service,
            session_ready,
        })
    });
    wrong.collect()
}

/// What Pods that leave have yet to say of themselves: whether anything is left on them. Of others it is only taken back.
/// What is written on a Pod anyhow goes first: of two writes at once one would be in vain.
pub(crate) fn drained(snapshot: &Snapshot, leaving: &BTreeSet<String>, changes: &[Change]) -> Vec<Change> {
    let found = snapshot.pods.iter().filter(|pod| !pod.is_finished()).filter_map(|pod| {
        // Only of an agent that holds its session is it known what it runs.
        let agent = snapshot.agents.of(&pod.name).filter(|agent| agent.session == SessionState::Held)?;
        let leaves = pod.deletion.is_some() || agent.draining || leaving.contains(&pod.name);
        let is_drained = agent.busy.is_empty();
        let is_wrong = if leaves { pod.drained != Some(is_drained) } else { pod.drained == Some(true) && !is_drained };
        let is_written = || changes.iter().any(|change| change.name() == pod.name);
        (is_wrong && !is_written()).then(|| Change::SetDrained {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            resource_version: pod.resource_version.clone(),
            busy: agent.busy.iter().map(|(set, number)| format!("{number} of {set}")).collect::<Vec<_>>().join(", "),
        })
    });
    found.collect()
}
