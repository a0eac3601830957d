//! The lines of `kubectl rollout status`, for a Rollout.
use crate::{
    api::{ConditionStatus, ConditionType, Rollout},
    view::{Tone, rollout::state},
};

/// Where a Rollout stands, in kubectl's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It gets on: the line, and what a person or a clock must open, if anything.
    Going(String, Option<String>),
    /// It is done: the last line.
    Done(String),
    /// It will not get on without a person: why.
    Stalled(String),
}

/// Read off spec and status alone.
pub fn progress(rollout: &Rollout) -> Progress {
    let name = rollout.metadata.name.as_deref().unwrap_or_default();
    let status = rollout.status.clone().unwrap_or_default();
    if status.observed_generation < rollout.metadata.generation {
        return Progress::Going("Waiting for rollout spec update to be observed...".into(), None);
    }
    let (tone, reason, message) = state(&status, rollout.metadata.generation);
    match tone {
        Tone::Good => return Progress::Done(format!("rollout \"{name}\" successfully rolled out")),
        Tone::Bad => return Progress::Stalled(format!("rollout \"{name}\" is stalled ({reason}): {message}")),
        Tone::Working | Tone::Waiting | Tone::Neutral => {}
    }
    let going_back = status.conditions.iter().any(|condition| {
        condition.type_ == ConditionType::Reconciling
            && condition.status == ConditionStatus::True
            && condition.reason == "RollingBack"
    });
    let (wanted, updated) = (rollout.spec.replicas, status.updated_replicas);
    let what = if going_back {
        format!("{updated} out of {wanted} replicas are back at {}...", version_of(&status))
    } else if updated < wanted {
        format!("{updated} out of {wanted} new replicas have been updated...")
    } else if status.replicas > updated {
        format!("{} old replicas are pending termination...", status.replicas - updated)
    } else if status.available_replicas < updated {
        format!("{} of {updated} updated replicas are available...", status.available_replicas)
    } else {
        message.clone()
    };
    let line = format!("Waiting for rollout \"{name}\" to finish: {what}");
    Progress::Going(line, (tone == Tone::Waiting).then(|| format!("rollout \"{name}\" waits: {message}")))
}

/// The version that is worked towards, as the display says it.
fn version_of(status: &crate::api::RolloutStatus) -> String {
    let display = status.display.clone().unwrap_or_default();
    display.version.rsplit(" → ").next().unwrap_or_default().to_owned()
}
