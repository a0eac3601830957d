//! Whether an instance has passed the checks that come before it goes into service.
use jiff::Timestamp;

use super::failure::Failure;
use crate::{
    api::health::Health,
    snapshot::{Pod, Purpose, Snapshot, Telling},
};

/// Since when a Pod waits for its checks: its containers are ready, and its gate is closed. None: nothing is asked of it.
pub(crate) fn due_since(snapshot: &Snapshot, pod: &Pod) -> Option<Timestamp> {
    snapshot.rollout.spec.health.as_ref()?;
    pod.containers_ready_since.filter(|_| pod.is_live() && pod.in_service == Some(false))
}

/// The round of questions about these containers.
fn round<'s>(snapshot: &'s Snapshot, pod: &Pod, since: Timestamp) -> Option<&'s Telling> {
    snapshot.calls.get(&(pod.uid.clone(), Purpose::Health)).filter(|round| round.of == since)
}

/// It may go into service: all checks have passed, or none are asked for.
pub(crate) fn has_passed(snapshot: &Snapshot, pod: &Pod) -> bool {
    if snapshot.rollout.spec.health.is_none() {
        return true;
    }
    let round = due_since(snapshot, pod).and_then(|since| round(snapshot, pod, since));
    round.is_some_and(|round| round.answer == Some(Ok(())))
}

/// What the last round said, if not that all is well.
fn refusal<'s>(snapshot: &'s Snapshot, pod: &Pod) -> Option<(&'s Telling, &'s str)> {
    let round = round(snapshot, pod, due_since(snapshot, pod)?)?;
    let said = round.answer.as_ref()?.as_ref().err()?;
    Some((round, said))
}

/// What keeps it out of service, in words.
pub fn in_words(snapshot: &Snapshot, pod: &Pod) -> Option<String> {
    due_since(snapshot, pod)?;
    match refusal(snapshot, pod) {
        Some((_, said)) => Some(format!("health check {said}")),
        None if has_passed(snapshot, pod) => None,
        None => Some("its health checks have yet to pass".into()),
    }
}

fn settings(snapshot: &Snapshot) -> Option<&Health> {
    snapshot.rollout.spec.health.as_ref()
}

/// Every attempt has failed, and none was answered at all: the network may be at fault, not the version.
pub(crate) fn is_unreachable(snapshot: &Snapshot, pod: &Pod) -> bool {
    refusal(snapshot, pod).is_some_and(|(round, _)| is_out_of_attempts(snapshot, round) && round.is_unreachable)
}

fn is_out_of_attempts(snapshot: &Snapshot, round: &Telling) -> bool {
    settings(snapshot).is_some_and(|health| i64::from(round.tries) >= i64::from(health.attempts))
}

/// The checks of this instance have failed as often as they may. Where no application was reached that is held against the
/// instance only if one of the stable version is reached.
pub fn failure(snapshot: &Snapshot, pod: &Pod) -> Option<Failure> {
    let (round, said) = refusal(snapshot, pod).filter(|(round, _)| is_out_of_attempts(snapshot, round))?;
    let is_told = !round.is_unreachable || is_reference_reached(snapshot, round.of) == Some(true);
    let message = format!("health check {said}");
    is_told.then(|| Failure { reason: "HealthCheckFailed".into(), message, at: None })
}

/// Whether an instance of the stable version was reached since then. None: none has been asked yet, or there is none.
pub(crate) fn is_reference_reached(snapshot: &Snapshot, since: Timestamp) -> Option<bool> {
    let of_reference = snapshot.calls.iter().filter(|((_, purpose), _)| *purpose == Purpose::Reference);
    let asked = of_reference.map(|(_, round)| round).filter(|round| round.of >= since);
    let answered = asked.filter_map(|round| Some((round.answer.as_ref()?, round.is_unreachable)));
    answered.map(|(_, is_unreachable)| !is_unreachable).max()
}
