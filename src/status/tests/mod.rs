//! Looks of single worlds, stories of whole rollouts, and properties of all.
mod kept;
mod looks;
mod notes;
mod others;
mod proofs;
mod properties;
mod scale;
mod stories;

use crate::{
    api::{ConditionStatus, ConditionType, RolloutStatus},
    plan::rollout::plan,
    snapshot::Snapshot,
    status::rollout::status,
};

/// Status of this world, with nothing tried yet.
fn status_of(snapshot: &Snapshot) -> RolloutStatus {
    status(snapshot, &plan(snapshot), &[])
}

/// (status, reason) of a condition.
fn condition(status: &RolloutStatus, type_: ConditionType) -> Option<(ConditionStatus, &str)> {
    let found = status.conditions.iter().find(|condition| condition.type_ == type_)?;
    Some((found.status, &found.reason))
}

/// `Current Complete: `, `InProgress RollingOut: batch 1/3: …`, `Failed RolledBack: …`.
fn state(status: &RolloutStatus) -> String {
    let is = |type_, wanted| condition(status, type_).is_some_and(|(status, _)| status == wanted);
    let kinds = [
        ("Current", is(ConditionType::Ready, ConditionStatus::True)),
        ("InProgress", is(ConditionType::Reconciling, ConditionStatus::True)),
        ("Failed", is(ConditionType::Stalled, ConditionStatus::True)),
    ];
    let kinds: Vec<&str> = kinds.iter().filter(|(_, is)| *is).map(|(kind, _)| *kind).collect();
    let reason = condition(status, ConditionType::Ready).map_or("", |(_, reason)| reason);
    format!("{} {reason}: {}", kinds.join("+"), status.waiting_for)
}
