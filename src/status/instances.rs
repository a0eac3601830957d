//! Instances and Pods in words: what is wrong with them, most important first.
use jiff::Timestamp;

use crate::{
    api::{
        Time, bounds,
        status::{Failed, InstanceException},
    },
    plan::{
        Memory,
        rollout::{
            CONTAINERS_NOT_READY, GATES_NOT_READY, Slot, Slots, failure_of, health, reload, waiting, with_reason,
        },
    },
    snapshot::{Pod, Ranges, RefusalReason, Snapshot},
};

use super::text::{clip, seconds};

/// State of an instance, or Pod, that is not as it should be; most important first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It has failed, and the run with it once there are enough of them.
    Failed,
    /// Its Pod is there and not ready, for a reason other than its youth.
    NotReady,
    /// It has no Pod: lost, or not created yet.
    Missing,
    /// Its Pod is ending.
    Terminating,
    /// Its Pod is starting, or not ready for minReadySeconds yet.
    Starting,
    /// It serves, and its application has yet to reload what its Pod was given.
    Reloading,
    /// It is well, and runs another revision than it should. Not an exception: it awaits its turn.
    Outdated,
}

impl State {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "Failed",
            Self::Missing => "Missing",
            Self::NotReady => "NotReady",
            Self::Terminating => "Terminating",
            Self::Starting => "Starting",
            Self::Reloading => "Reloading",
            Self::Outdated => "Outdated",
        }
    }
}

/// What keeps an instance from being done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Slot number.
    pub instance: i32,
    /// State of the instance.
    pub state: State,
    /// One CamelCase word, Kubernetes' own where there is one; may be empty.
    pub reason: String,
    /// A sentence; may be empty.
    pub message: String,
}

impl Trouble {
    fn new(instance: i32, state: State, reason: &str, message: &str) -> Self {
        Self { instance, state, reason: clip(reason, 64), message: clip(message, bounds::MESSAGE_CHARS_MAX) }
    }

    /// The reason, else the state: one word for people.
    pub fn word(&self) -> &str {
        if self.reason.is_empty() { self.state.as_str() } else { &self.reason }
    }
}

/// Troubles of all instances, most important first, then by number.
pub(super) fn troubles(snapshot: &Snapshot, slots: &Slots<'_>, memory: &Memory) -> Vec<Trouble> {
    let mut found: Vec<Trouble> = slots.wanted().filter_map(|slot| trouble_of(snapshot, slots, slot)).collect();
    if let Some(failed) = memory.failed.as_ref().filter(|failed| failed.run == memory.run) {
        let counted = Ranges::parse(&failed.slots);
        let is_back = |slot: i32| slots.wanted_at(slot).is_some_and(|slot| has_gone_back(snapshot, slot, failed));
        let has_failed = |trouble: &&mut Trouble| counted.0.contains(&trouble.instance) && !is_back(trouble.instance);
        for trouble in found.iter_mut().filter(has_failed) {
            // Its Pod of that revision says why, also once the slot is to run another one.
            let mut pods = slots.wanted_at(trouble.instance).into_iter().flat_map(Slot::all_live);
            let pod = pods.find(|pod| pod.revision == failed.revision);
            if let Some((state, reason, message)) = pod.and_then(|pod| pod_state(snapshot, pod)) {
                *trouble = Trouble::new(trouble.instance, state, &reason, &message);
            }
            // It only came too late: that says more than how far it has come.
            let says_less = failed.reason == "ProgressDeadlineExceeded" || trouble.reason.is_empty();
            if trouble.state != State::Failed && says_less {
                // What its Pod waits for stays said.
                trouble.message = clip(&with_reason(&trouble.reason, &trouble.message), bounds::MESSAGE_CHARS_MAX);
                trouble.reason.clone_from(&failed.reason);
            }
            trouble.state = State::Failed;
        }
    }
    // What the kubelet can name comes before what it cannot.
    found.sort_by_key(|trouble| (trouble.state, says_little(&trouble.reason), trouble.instance));
    found
}

/// It runs no more what has failed in it (onFailure RollbackFailed), and has all that it was given in place for that: what is
/// wrong with it since is another matter.
pub(super) fn has_gone_back(snapshot: &Snapshot, slot: &Slot<'_>, failed: &Failed) -> bool {
    let is_there =
        |pod: &Pod, to: &str| pod.revision == to && pod.resize.is_none() && reload::due_since(snapshot, pod).is_none();
    slot.assigned.is_some_and(|to| to != failed.revision && slot.live.iter().all(|pod| is_there(pod, to)))
}

/// Whether a reason only says that a Pod is not ready.
pub fn says_little(reason: &str) -> bool {
    [CONTAINERS_NOT_READY, GATES_NOT_READY].contains(&reason)
}

fn trouble_of(snapshot: &Snapshot, slots: &Slots<'_>, slot: &Slot<'_>) -> Option<Trouble> {
    if slots.is_done(slot) {
        return None;
    }
    let trouble =
        |(state, reason, message): (State, String, String)| Trouble::new(slot.index, state, &reason, &message);
    let Some(best) = slot.live.first() else {
        let leaving = slot.terminating.first().or(slot.finished.first());
        return Some(trouble(leaving.map_or_else(|| missing(snapshot), |pod| leaving_state(pod, snapshot.now))));
    };
    if let Some(problem) = pod_state(snapshot, best) {
        return Some(trouble(problem));
    }
    if !slot.opened && slot.pin.is_none() {
        return None; // changes when its batch comes
    }
    let message = if slot.fresh && slot.live.len() > 1 {
        "its old Pod has yet to leave".into()
    } else if slot.fresh {
        "its listeners have yet to run".into()
    } else if slots.is_renewal_due(best) {
        "yet to be restarted".into()
    } else {
        format!("still runs {}", slots.called_of(best))
    };
    Some(trouble((State::Outdated, String::new(), message)))
}

fn missing(snapshot: &Snapshot) -> (State, String, String) {
    let (reason, message) = snapshot.create_refusal.as_ref().map_or(("", ""), |refusal| {
        let reason = match refusal.reason {
            RefusalReason::QuotaExceeded => "QuotaExceeded",
            RefusalReason::FailedCreate => "FailedCreate",
        };
        (reason, refusal.message.as_str())
    });
    (State::Missing, reason.into(), message.into())
}

/// A Pod that ends, or has ended.
fn leaving_state(pod: &Pod, now: Timestamp) -> (State, String, String) {
    if let Some(deletion) = pod.deletion {
        let reason = pod.disruption.clone().or_else(|| pod.reason.clone()).unwrap_or_default();
        let verb = if deletion > now { "has" } else { "had" };
        return (State::Terminating, reason, format!("{} {verb} until {} to end", pod.name, seconds(deletion).0));
    }
    if let Some(failure) = failure_of(pod) {
        return (State::Failed, failure.reason, failure.message);
    }
    let reason = pod.reason.clone().or_else(|| pod.disruption.clone()).unwrap_or_else(|| "PodFinished".into());
    (State::Missing, reason, pod.message.clone().unwrap_or_default())
}

/// `(state, reason, message)` of a Pod that is not available, has yet to get its resources, or whose application has yet to reload;
/// None when it is well.
pub fn pod_state(snapshot: &Snapshot, pod: &Pod) -> Option<(State, String, String)> {
    let (min_ready_seconds, now) = (snapshot.rollout.spec.min_ready_seconds, snapshot.now);
    if !pod.is_live() {
        return Some(leaving_state(pod, now));
    }
    if let Some(failure) = failure_of(pod) {
        let state = if failure.counts(now) { State::Failed } else { State::NotReady };
        return Some((state, failure.reason, failure.message));
    }
    let failure = reload::failure(snapshot, pod).or_else(|| health::failure(snapshot, pod));
    if let Some(failure) = failure.filter(|failure| failure.counts(now)) {
        return Some((State::Failed, failure.reason, failure.message));
    }
    if let Some(message) = &pod.unschedulable {
        return Some((State::NotReady, "Unschedulable".into(), message.clone()));
    }
    if let Some((reason, message)) = pod.resizing() {
        return Some((State::Starting, reason, message));
    }
    if let Some(transit) = pod.in_transit(now) {
        let message = format!("container {} has yet to run its new image", transit.container);
        return Some((State::Starting, "ChangedInPlace".into(), message));
    }
    if let Some(message) = reload::in_words(snapshot, pod).filter(|_| pod.is_ready()) {
        return Some((State::Reloading, String::new(), message));
    }
    if let Some(message) = health::in_words(snapshot, pod) {
        return Some((State::Starting, "HealthCheck".into(), message));
    }
    match pod.available_later(min_ready_seconds, now).or_else(|| reload::ripe_later(snapshot, pod)) {
        Some(at) => Some((State::Starting, "MinReadySeconds".into(), format!("ready; available at {}", seconds(at).0))),
        None if pod.is_ready() => None,
        None => Some(not_ready(snapshot, pod)),
    }
}

/// Live, and not ready.
fn not_ready(snapshot: &Snapshot, pod: &Pod) -> (State, String, String) {
    let waiting = waiting(pod);
    if [GATES_NOT_READY, CONTAINERS_NOT_READY].contains(&waiting.reason.as_str())
        && let Some(node) = pod.node.as_ref().filter(|node| snapshot.lost_nodes.contains(*node))
    {
        return (State::NotReady, "NodeNotReady".into(), format!("node {node} is not ready, or gone"));
    }
    let state = if waiting.is_starting { State::Starting } else { State::NotReady };
    (state, waiting.reason, waiting.message)
}

/// `status.exceptions` and the number of those left out; `since` is kept while state and reason stay.
pub(super) fn exceptions(
    troubles: &[Trouble],
    before: &[InstanceException],
    now: &Time,
) -> (Vec<InstanceException>, i32) {
    let real: Vec<&Trouble> = troubles.iter().filter(|trouble| trouble.state != State::Outdated).collect();
    let shown = real.iter().take(bounds::EXCEPTIONS_MAX).map(|trouble| {
        let (state, reason) = (trouble.state.as_str(), &trouble.reason);
        let known = before.iter().find(|e| e.instance == trouble.instance && e.state == state && e.reason == *reason);
        InstanceException {
            instance: trouble.instance,
            state: state.into(),
            reason: reason.clone(),
            message: trouble.message.clone(),
            since: known.and_then(|known| known.since.clone()).or_else(|| Some(now.clone())),
        }
    });
    let omitted = real.len().saturating_sub(bounds::EXCEPTIONS_MAX);
    (shown.collect(), i32::try_from(omitted).unwrap_or(i32::MAX))
}
