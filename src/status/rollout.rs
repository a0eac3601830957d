//! `status` of a Rollout.
use super::{conditions, display, history, instances, look::Look, text::clip, verdict};
use crate::{
    api::{RolloutStatus, bounds},
    plan::{Outcome, Plan},
    snapshot::Snapshot,
};

/// The whole status, as it should be written: what the plan wants remembered, and what is observed in the snapshot that
/// the plan was made from. `outcomes` are those of the plan's changes, in any order; none is needed.
pub fn status(snapshot: &Snapshot, plan: &Plan, outcomes: &[Outcome]) -> RolloutStatus {
    let before = snapshot.rollout.status.clone().unwrap_or_default();
    let look = Look::new(snapshot, plan, outcomes, &before);
    let verdict = verdict::of(&look);
    let (exceptions, exceptions_omitted) = instances::exceptions(&look.troubles, &before.exceptions, &look.now());
    let history = history::history(&look, &verdict);
    let (versions, versions_omitted) = display::versions(&look);
    // A pin that means nothing is waited for in vain.
    let pins = || conditions::pins(&look).map(|(_, message)| message).unwrap_or_default();
    let waiting_for = if verdict.reason == "Complete" { pins() } else { verdict.message.clone() };
    let mut status = RolloutStatus {
        observed_generation: snapshot.rollout.metadata.generation,
        selector: display::selector(&look),
        active_revision: look.active.clone(),
        versions,
        versions_omitted,
        exceptions,
        exceptions_omitted,
        waiting_for: clip(&waiting_for, bounds::MESSAGE_CHARS_MAX),
        display: Some(display::display(&look)),
        conditions: conditions::conditions(&look, &verdict, &history),
        history,
        ..RolloutStatus::default()
    };
    plan.memory.write(&mut status);
    status.batch = display::batch(&look);
    display::counts(&look, &mut status);
    status
}
