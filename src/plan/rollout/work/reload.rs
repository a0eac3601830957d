//! HotReload: the application of a Pod that was given other labels and annotations is told so, until it answers that it has
//! reloaded them.
//!
//! That it is to be told stands on the Pod, by the write that gave it these; that it was, by a write after its answer. Between
//! the two an operator may end, or lose an answer: then the application is told once more.
use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::{
    plan::{
        change::{Change, PodAct},
        rollout::{
            pod::reload::{due_since, failure, ripe_later},
            policy::Policy,
            time::{Alarm, after},
        },
    },
    snapshot::{Snapshot, Telling},
};

/// From the beginning of a call to that of the next; the last one again and again.
const PAUSES_SECONDS: [i64; 4] = [1, 2, 5, 10];
/// The same once the instance has failed: its application may be mended in place.
const PAUSE_AFTER_FAILURE_SECONDS: i64 = 60;
/// Applications of one Rollout that are being told: those that do not answer keep no other Rollout's waiting.
const TOLD_AT_ONCE_MAX: usize = 32;

/// Applications to be told now, and what is noted of those that have answered. What is written on a Pod anyhow goes first.
pub(crate) fn tell(snapshot: &Snapshot, changes: &[Change], alarm: &mut Alarm) -> Vec<Change> {
    let Some(settings) = Policy::of(&snapshot.rollout.spec).update.hot_reload() else { return Vec::new() };
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
                found.push(Change::pod(pod, PodAct::NoteReloaded));
            }
            // A clock that was set back does not make a Pod wait.
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
