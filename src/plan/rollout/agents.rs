//! Rollout and listeners as one: a Pod that holds listeners leaves only once others have taken them over, a batch is done only
//! when its listeners run, and a listener that fails on new Pods fails their batch.
use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::failure::Failure;
use crate::{
    plan::change::{Change, Hold, HoldReason},
    snapshot::{AgentSeen, Agents, Pod, SessionState, Snapshot},
};

/// Failed starts in a row of one listener at which its instance counts as failed: its next Pod would fail as well, and each
/// try may cost one of a few connections that its service allows a day.
const LISTENER_FAILURES_MAX: u32 = 3;

/// Every listener that this Pod holds is known to run.
pub(super) fn are_listeners_settled(snapshot: &Snapshot, pod: &Pod) -> bool {
    snapshot.agents.of(&pod.name).is_none_or(|agent| agent.running >= agent.held)
}

/// How far a node's clock may be ahead of ours: what it says of later is not believed.
const AHEAD_MAX: SignedDuration = SignedDuration::from_secs(60);

/// When any Pod was last handed a listener. Listeners move one by one, and at the pace of a start budget thousands of them take
/// hours: each that arrives is progress.
pub(super) fn handed_over_at(snapshot: &Snapshot) -> Option<Timestamp> {
    let now = snapshot.now;
    let gained = snapshot.agents.seen().filter_map(|(_, agent)| agent.last_gained);
    gained.filter(|at| at.duration_since(now) <= AHEAD_MAX).map(|at| at.min(now)).max()
}

/// A listener that this Pod cannot get to run.
pub(super) fn failure(snapshot: &Snapshot, pod: &Pod) -> Option<Failure> {
    let (failures, listener, why) = snapshot.agents.of(&pod.name)?.failing.as_ref()?;
    let message = format!("listener {listener} has failed {failures} times in a row: {why}");
    let is_live = pod.is_live() && *failures >= LISTENER_FAILURES_MAX;
    is_live.then(|| Failure { reason: "ListenerFailed".into(), message, at: None })
}

/// Takes out the deletions of Pods that hold listeners while there is a Pod that could take these; returns the Pods' names.
/// One that is not Ready does not wait: its agent, if it has one that works, hands over when it is told to end.
pub(super) fn hold_back(snapshot: &Snapshot, changes: &mut Vec<Change>) -> BTreeSet<String> {
    let Agents::Seen(agents) = &snapshot.agents else { return BTreeSet::new() };
    let deleted: BTreeSet<String> = changes.iter().filter_map(deleted_by).map(str::to_owned).collect();
    let is_heir = |pod: &Pod| {
        let is_fit = |agent: &AgentSeen| agent.session == SessionState::Held && !agent.draining;
        pod.is_ready() && !deleted.contains(&pod.name) && agents.get(&pod.name).is_some_and(is_fit)
    };
    if !snapshot.pods.iter().any(|pod| is_heir(pod)) {
        return BTreeSet::new();
    }
    let holds = |pod: &Pod| pod.is_ready() && agents.get(&pod.name).is_some_and(|agent| agent.held > 0);
    let pods = snapshot.pods.iter().filter(|pod| deleted.contains(&pod.name) && holds(pod));
    let leaving: BTreeSet<String> = pods.map(|pod| pod.name.clone()).collect();
    changes.retain(|change| deleted_by(change).is_none_or(|name| !leaving.contains(name)));
    leaving
}

/// What people read while Pods wait to leave.
pub(super) fn hold(snapshot: &Snapshot, leaving: &BTreeSet<String>) -> Option<Hold> {
    let first = leaving.first()?;
    let held: u32 = snapshot.agents.seen().filter(|(pod, _)| leaving.contains(*pod)).map(|(_, a)| a.held).sum();
    let more = if leaving.len() > 1 { format!(" and {} other Pods", leaving.len() - 1) } else { String::new() };
    let message = format!("{first}{more} leaves once others have taken over its listeners ({held} to move)");
    Some(Hold { reason: HoldReason::HandingOver, message, until: None })
}

pub(super) fn deleted_by(change: &Change) -> Option<&str> {
    if let Change::DeletePod { name, .. } = change { Some(name) } else { None }
}

/// The readiness gates that say something else than what is known. A Pod whose agent nobody asks for is in service as soon
/// as it runs; else once its agent holds its session, until that is lost. An open gate waits for an agent that has yet to
/// start: somebody may have just begun to ask for one.
pub(super) fn in_service(snapshot: &Snapshot) -> Vec<Change> {
    let gated = snapshot.pods.iter().filter(|pod| pod.is_live()).filter_map(|pod| Some((pod, pod.in_service?)));
    let wrong = gated.filter_map(|(pod, says)| {
        let (in_service, session_ready) = match (&snapshot.agents, snapshot.agents.of(&pod.name)) {
            (Agents::Unknown, _) => return None,
            (Agents::NotAsked, _) => (true, None),
            (Agents::Seen(_), agent) => match agent.map(|agent| agent.session).unwrap_or_default() {
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
pub(super) fn drained(snapshot: &Snapshot, leaving: &BTreeSet<String>, changes: &[Change]) -> Vec<Change> {
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
