//! HotReload: whether the application of a Pod that was given other labels and annotations has reloaded them.
use jiff::Timestamp;

use super::failure::{Failure, broken_at};
use crate::{
    api::rollout::HotReload,
    plan::rollout::{
        policy::Policy,
        time::{Alarm, after},
    },
    snapshot::{Pod, Snapshot},
};

fn settings(snapshot: &Snapshot) -> Option<&HotReload> {
    Policy::of(&snapshot.rollout.spec).update.hot_reload()
}

/// Since when its application has to reload what the Pod was given; None: it has, or no reload is asked for.
pub fn due_since(snapshot: &Snapshot, pod: &Pod) -> Option<Timestamp> {
    settings(snapshot)?;
    pod.untold_since().filter(|_| pod.is_live())
}

/// When an application that has reloaded has done well with that for minReadySeconds, where that is later than now. Where
/// these are 0 no clock is asked.
pub fn ripe_later(snapshot: &Snapshot, pod: &Pod) -> Option<Timestamp> {
    let min_ready_seconds = i64::from(snapshot.rollout.spec.min_ready_seconds);
    let told_at = pod.told_at().filter(|_| min_ready_seconds > 0 && settings(snapshot).is_some())?;
    Some(after(told_at, min_ready_seconds)).filter(|at| *at > snapshot.now)
}

/// Its application runs what the Pod was given, as far as that is asked.
pub(crate) fn is_done(snapshot: &Snapshot, pod: &Pod) -> bool {
    due_since(snapshot, pod).is_none() && ripe_later(snapshot, pod).is_none()
}

/// What the last call about this change gave, if it was not that the application has reloaded.
fn refusal<'a>(snapshot: &'a Snapshot, pod: &Pod, since: Timestamp) -> Option<&'a str> {
    let telling = snapshot.tellings.get(&pod.uid).filter(|telling| telling.of == since)?;
    telling.answer.as_ref()?.as_ref().err().map(String::as_str)
}

/// What its application has yet to do, in words: it has not reloaded what the Pod was given.
pub fn in_words(snapshot: &Snapshot, pod: &Pod) -> Option<String> {
    let since = due_since(snapshot, pod)?;
    let to = &settings(snapshot)?.http_post;
    let answer = refusal(snapshot, pod, since).map(|answer| format!(": {answer}")).unwrap_or_default();
    Some(format!("its application has yet to answer POST :{}{} with 200{answer}", to.port, to.path))
}

/// An application that has not reloaded in time: that was asked after it, and has not. It is not to blame for calls that were
/// not made while others had their turn, or could not be made.
pub fn failure(snapshot: &Snapshot, pod: &Pod) -> Option<Failure> {
    let since = due_since(snapshot, pod)?;
    let timeout = settings(snapshot)?.timeout_seconds;
    let at = after(since, i64::from(timeout));
    let asked_at = snapshot.tellings.get(&pod.uid)?.asked_at?;
    refusal(snapshot, pod, since).filter(|_| asked_at >= at)?;
    let message = format!("{}, for {timeout} s", in_words(snapshot, pod)?);
    Some(Failure { reason: "ReloadFailed".into(), message, at: Some(at) })
}

/// Its application has refused for too long what the Pod was given.
pub(crate) fn refuses(snapshot: &Snapshot, pod: &Pod, alarm: &mut Alarm) -> bool {
    let told = failure(snapshot, pod);
    told.is_some_and(|failure| failure.at.is_none_or(|at| alarm.passed(at)))
}

/// From when on an instance that goes back by itself counts as stuck on its way: broken, or without what it is given in place.
pub fn stuck_at(snapshot: &Snapshot, pod: &Pod, patience_seconds: i64) -> Option<Timestamp> {
    let told = failure(snapshot, pod).and_then(|failure| failure.at);
    let resized = pod.resize.as_ref().map(|_| after(pod.given_at(), patience_seconds));
    broken_at(pod, patience_seconds).into_iter().chain(told).chain(resized).min()
}
