//! HotReload: the application of a Pod that was given other labels and annotations is told so, until it answers that it has
//! reloaded them.
//!
//! That it is to be told stands on the Pod, by the write that gave it these; that it was, by a write after its answer. Between
//! the two an operator may end, or lose an answer: then the application is told once more.
use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{Alarm, after, failure::Failure};
use crate::{
    api::rollout::{HotReload, UpdateMethod},
    plan::change::Change,
    snapshot::{Pod, Snapshot, Telling},
};

/// From the beginning of a call to that of the next; the last one again and again.
const PAUSES_SECONDS: [i64; 4] = [1, 2, 5, 10];
/// The same once the instance has failed: somebody may mend its application.
const PAUSE_AFTER_FAILURE_SECONDS: i64 = 60;
/// Applications of one Rollout that are being told: those that do not answer keep no other Rollout's waiting.
const TOLD_AT_ONCE_MAX: usize = 32;

fn settings(snapshot: &Snapshot) -> Option<&HotReload> {
    let strategy = &snapshot.rollout.spec.strategy;
    strategy.hot_reload.as_ref().filter(|_| strategy.update == UpdateMethod::HotReload)
}

/// Since when its application has to reload what the Pod was given; None: it has, or nobody asks.
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
pub(super) fn is_done(snapshot: &Snapshot, pod: &Pod) -> bool {
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
/// not made while others had their turn, or nobody could make them.
pub fn failure(snapshot: &Snapshot, pod: &Pod) -> Option<Failure> {
    let since = due_since(snapshot, pod)?;
    let timeout = settings(snapshot)?.timeout_seconds;
    let at = after(since, i64::from(timeout));
    let asked_at = snapshot.tellings.get(&pod.uid)?.asked_at?;
    refusal(snapshot, pod, since).filter(|_| asked_at >= at)?;
    let message = format!("{}, for {timeout} s", in_words(snapshot, pod)?);
    Some(Failure { reason: "ReloadFailed".into(), message, at: Some(at) })
}

/// Applications to be told now, and what is noted of those that have answered. What is written on a Pod anyhow goes first.
pub(super) fn tell(snapshot: &Snapshot, changes: &[Change], alarm: &mut Alarm) -> Vec<Change> {
    let Some(settings) = settings(snapshot) else { return Vec::new() };
    let written: BTreeSet<&str> = changes.iter().map(Change::name).collect();
    let (mut found, mut due) = (Vec::new(), Vec::new());
    for pod in &snapshot.pods {
        if let Some(at) = ripe_later(snapshot, pod) {
            alarm.passed(at);
        }
        let Some(since) = due_since(snapshot, pod).filter(|_| !written.contains(&*pod.name)) else { continue };
        alarm.passed(after(since, i64::from(settings.timeout_seconds)));
        // Until it has been asked after that time it is asked as often as before.
        let has_failed = failure(snapshot, pod).is_some();
        let (name, uid) = (pod.name.clone(), pod.uid.clone());
        match snapshot.tellings.get(&pod.uid).filter(|telling| telling.is_on || telling.of == since) {
            Some(Telling { is_on: true, .. }) => {} // its end leads to another look
            Some(Telling { answer: Some(Ok(())), .. }) => {
                found.push(Change::NoteReloaded { name, uid, resource_version: pod.resource_version.clone() });
            }
            // A clock that was set back makes nobody wait.
            Some(telling) if telling.began_at <= snapshot.now && !alarm.passed(again_at(telling, has_failed)) => {}
            told => due.push((told.map_or(0, |telling| telling.tries), Change::TellApplication { name, uid })),
        }
    }
    let on = snapshot.tellings.values().filter(|telling| telling.is_on).count();
    due.sort_by_key(|(tries, _)| *tries);
    found.extend(due.into_iter().map(|(_, tell)| tell).take(TOLD_AT_ONCE_MAX.saturating_sub(on)));
    found
}

fn again_at(telling: &Telling, has_failed: bool) -> Timestamp {
    let step = usize::try_from(telling.tries.saturating_sub(1)).unwrap_or(usize::MAX).min(PAUSES_SECONDS.len() - 1);
    after(telling.began_at, if has_failed { PAUSE_AFTER_FAILURE_SECONDS } else { PAUSES_SECONDS[step] })
}
