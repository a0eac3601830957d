//! What the agent of a Pod has said of its listeners.
use super::failure::Failure;
use crate::snapshot::{AgentSeen, Pod, SessionState, Snapshot};

/// Failed starts in a row of one listener at which its instance counts as failed: its next Pod would fail as well, and each
/// try may cost one of a few connections that its service allows a day.
const LISTENER_FAILURES_MAX: u32 = 3;

/// Every listener that this Pod holds is known to run.
pub(crate) fn are_listeners_settled(snapshot: &Snapshot, pod: &Pod) -> bool {
    snapshot.agents.of(&pod.name).is_none_or(|agent| agent.running >= agent.held)
}

/// It has listeners that it could hand over.
pub(crate) fn holds(snapshot: &Snapshot, pod: &Pod) -> bool {
    pod.is_ready() && snapshot.agents.of(&pod.name).is_some_and(|agent| agent.held > 0)
}

/// It could take them.
pub(crate) fn is_heir(snapshot: &Snapshot, pod: &Pod) -> bool {
    let is_fit = |agent: &AgentSeen| agent.session == SessionState::Held && !agent.draining;
    pod.is_ready() && snapshot.agents.of(&pod.name).is_some_and(is_fit)
}

/// A listener that this Pod cannot get to run.
pub(crate) fn failure(snapshot: &Snapshot, pod: &Pod) -> Option<Failure> {
    let (failures, listener, why) = snapshot.agents.of(&pod.name)?.failing.as_ref()?;
    let message = format!("listener {listener} has failed {failures} times in a row: {why}");
    let is_live = pod.is_live() && *failures >= LISTENER_FAILURES_MAX;
    is_live.then(|| Failure { reason: "ListenerFailed".into(), message, at: None })
}
