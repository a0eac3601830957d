//! What counts as failed. Only instances at the effective revision, changed in this run; Pods that somebody else ended
//! are replaced and count for nothing.
use jiff::Timestamp;

use super::{
    Alarm, View, after, agents,
    deadline::{self, Late},
    lineage, package, reached, reload, resize,
    slots::Slot,
    waiting::{waiting, with_reason},
};
use crate::{
    api::{
        Time,
        bounds::{self, RANGES_CHARS_MAX},
        rollout::OnFailure,
        status::Failed,
    },
    snapshot::{ContainerState, Pod, PodPhase, Ranges, Revision, Snapshot},
};

/// How long an image may be unpullable, a ConfigMap or Secret missing, or a container's creation or start fail, before the
/// instance counts as failed: registries blink, container runtimes are restarted, and what is applied together need not arrive
/// in order. And how long a Pod that no batch waits for may
/// take to get ready.
pub(super) const PATIENCE_SECONDS: i64 = 60;
/// Restarts since creation, or since a change in place, at which an instance counts as failed, even while it happens to run.
const RESTARTS_MAX: i32 = 3;

/// A Pod is, or at `at` will be, failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// One CamelCase word, Kubernetes' own where there is one.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// From when on it counts; None = at once.
    pub at: Option<Timestamp>,
}

impl Failure {
    /// The Pod is failed by now.
    pub fn counts(&self, now: Timestamp) -> bool {
        self.at.is_none_or(|at| at <= now)
    }
}

/// What is wrong with this Pod by itself (deadlines of the run aside).
pub fn failure_of(pod: &Pod) -> Option<Failure> {
    if pod.phase == PodPhase::Failed {
        let reason = pod.reason.clone().unwrap_or_else(|| "PodFailed".into());
        let message = pod.message.clone().unwrap_or_else(|| exit_of(pod).unwrap_or_else(|| "the Pod failed".into()));
        let failure = package::failure(pod).unwrap_or(Failure { reason, message, at: None });
        return (!ended_by_others(pod)).then_some(failure);
    }
    if !pod.is_live() {
        return None;
    }
    if let Some(failure) = package::failure(pod) {
        return Some(failure); // its container only says that it has ended
    }
    pod.containers.iter().find_map(|container| {
        let at_once = |reason: &str, message: String| Some(Failure { reason: reason.into(), message, at: None });
        // What went wrong before it was given another image says nothing of that. The kubelet tells of it for as long as the
        // other one is pulled; but what it says of an image names it.
        if pod.may_be_of_before(container) && !tells_of(&container.state, &container.given) {
            return None;
        }
        let named = |text: &str| format!("container {}: {text}", container.name);
        if let ContainerState::Waiting { reason, message } = &container.state {
            match reason.as_str() {
                "ErrImagePull"
                | "ImagePullBackOff"
                | "CreateContainerConfigError"
                | "CreateContainerError"
                | "RunContainerError" => {
                    // Containers are started one after the other, and again after each end.
                    let begun = if container.init { pod.started_at } else { pod.initialized_at.or(pod.started_at) };
                    let begun = begun.unwrap_or(pod.created).max(pod.containers_changed_at.unwrap_or(pod.created));
                    let at = Some(after(pod.swapped_at().map_or(begun, |at| at.max(begun)), PATIENCE_SECONDS));
                    return Some(Failure { reason: reason.clone(), message: named(message), at });
                }
                "InvalidImageName" => return at_once(reason, named(message)),
                "CrashLoopBackOff" => {
                    let exit = container.last_exit.as_ref().map(ToString::to_string);
                    return at_once(reason, named(exit.as_deref().unwrap_or(message)));
                }
                _ => {}
            }
        }
        // An init container that had to try more than once (until its database was there) and came through is fine.
        let came_through =
            container.init && matches!(&container.state, ContainerState::Terminated(exit) if exit.code == 0);
        let restarts = pod.restarts_of(container);
        if restarts >= RESTARTS_MAX && !came_through {
            let exit = container.last_exit.as_ref().map(|exit| format!(", last {exit}")).unwrap_or_default();
            return at_once("Restarting", named(&format!("{restarts} restarts{exit}")));
        }
        None
    })
}

/// A container waits for this image.
fn tells_of(state: &ContainerState, image: &str) -> bool {
    const OF_IMAGES: [&str; 3] = ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"];
    let ContainerState::Waiting { reason, message } = state else { return false };
    OF_IMAGES.contains(&reason.as_str()) && message.contains(image)
}

/// From when on a Pod that no batch waits for counts as broken: deadlines are those of a batch, so one that has never
/// become ready has so many seconds, whatever keeps it. One that blinks is left alone. None: it is not broken, as far as
/// one can see.
pub fn broken_at(pod: &Pod, patience_seconds: i64) -> Option<Timestamp> {
    let failure = failure_of(pod).map(|failure| failure.at.unwrap_or(pod.created));
    let never_ready = has_never_been_ready(pod).then(|| after(pod.given_at(), patience_seconds));
    failure.into_iter().chain(never_ready).min()
}

/// From when on an instance that goes back by itself counts as stuck on its way: broken, or without what it is given in place.
pub fn stuck_at(snapshot: &Snapshot, pod: &Pod, patience_seconds: i64) -> Option<Timestamp> {
    let told = reload::failure(snapshot, pod).and_then(|failure| failure.at);
    let resized = pod.resize.as_ref().map(|_| after(pod.given_at(), patience_seconds));
    broken_at(pod, patience_seconds).into_iter().chain(told).chain(resized).min()
}

/// Its application has refused for too long what the Pod was given.
pub(super) fn refuses(view: &View<'_>, pod: &Pod, alarm: &mut Alarm) -> bool {
    let told = reload::failure(view.snapshot, pod);
    told.is_some_and(|failure| failure.at.is_none_or(|at| alarm.passed(at)))
}

/// The Ready condition still says what it said when the node took the Pod, by the node's own clock; or no node has.
fn has_never_been_ready(pod: &Pod) -> bool {
    /// Between startTime and the first conditions, which are written one after the other in whole seconds.
    const FIRST_STATUS_SECONDS: i64 = 5;
    let since = pod.unready_since.zip(pod.started_at);
    pod.is_live()
        && !pod.is_ready()
        && since.is_none_or(|(since, started)| {
            // One that was changed in place left service for that: by the operator's clock, or by when the node started it anew.
            let anew = pod.swapped_at().map(|at| pod.first_started_at().map_or(at, |first| first.max(at)));
            since <= after(anew.map_or(started, |at| at.max(started)), FIRST_STATUS_SECONDS)
        })
}

fn exit_of(pod: &Pod) -> Option<String> {
    pod.containers.iter().find_map(|container| match &container.state {
        ContainerState::Terminated(exit) if exit.code != 0 => Some(format!("container {}: {exit}", container.name)),
        _ => None,
    })
}

/// Evicted, preempted, refused by its node, lost with it: not the revision's fault.
pub(super) fn ended_by_others(pod: &Pod) -> bool {
    const REASONS: [&str; 9] = [
        "Evicted",
        "Preempting",
        "Terminated",
        "NodeShutdown",
        "NodeAffinity",
        "NodeLost",
        "UnexpectedAdmissionError",
        "Shutdown",
        "DeletionByTaintManager",
    ];
    pod.disruption.is_some()
        || pod.deletion.is_some()
        || pod.reason.as_deref().is_some_and(|reason| REASONS.contains(&reason) || reason.starts_with("OutOf"))
}

/// status.failed: the failed slots of this run, never fewer than before; `at` once the threshold is reached.
pub(super) fn remember(view: &View<'_>, alarm: &mut Alarm) -> Option<Failed> {
    let before = view.memory.failed.clone();
    let Some(effective) = view.lineage.effective.filter(|_| !view.lineage.is_back() && view.memory.batch.is_some())
    else {
        return before; // on the way back it tells what went wrong
    };
    let goes_on = view.spec().strategy.on_failure == OnFailure::RollbackFailed && !lineage::is_aborted(effective);
    if lineage::has_failed(view.snapshot, effective) && goes_on {
        return remember_back(view, alarm, effective);
    }
    if lineage::has_failed(view.snapshot, effective) {
        // An abort is noted there, whatever failures were tolerated before.
        return match before {
            Some(reached) if reached.at.is_some() => Some(reached),
            tolerated => noted_on(effective, view.memory.run)
                .map(|noted| Failed { slots: tolerated.map(|failed| failed.slots).unwrap_or_default(), ..noted }),
        };
    }
    let before = before.filter(|failed| failed.run == view.memory.run && failed.revision == effective.name);
    let mut slots = before.as_ref().map(|failed| Ranges::parse(&failed.slots)).unwrap_or_default();
    let mut newest = None;
    let late = deadline::late(view, alarm);
    for (slot, failure) in failures(view, &late, alarm) {
        if slots.0.insert(slot) && newest.is_none() {
            newest = Some(failure);
        }
    }
    slots.0.retain(|slot| *slot < view.replicas());
    // Nothing moves any more, whatever is tolerated.
    let blocked = late.waiting.first().map(|slot| not_given(view, *slot, effective));
    let was_blocked = before.as_ref().is_some_and(|failed| failed.at.is_some() && failed.slots.is_empty());
    if slots.is_empty() && blocked.is_none() && !was_blocked {
        return None;
    }
    let mut failed = before.unwrap_or_else(|| Failed {
        revision: effective.name.clone(),
        run: view.memory.run,
        ..Failed::default()
    });
    let is_blocked = blocked.is_some();
    if let Some((reason, message)) = newest.or(blocked).filter(|_| failed.reason.is_empty()) {
        failed.reason = reason;
        failed.message = message;
    }
    let threshold = usize::try_from(view.spec().strategy.failure_threshold.max(1)).unwrap_or(1);
    // More than there are would never be reached, and a run that leads nowhere never given up.
    let mut members = view.slots.unpinned().filter(|slot| !slot.joins_later).peekable();
    let all_have =
        members.peek().is_some() && members.all(|slot| slots.0.contains(&slot.index) && !view.slots.is_done(slot));
    if (slots.0.len() >= threshold || all_have || is_blocked) && failed.at.is_none() {
        failed.at = Some(Time(lineage::failed_at(view.now(), effective)));
        if goes_on {
            let is_untouched = |slot: &&Slot<'_>| slot.opened && !was_given(slot, &effective.name);
            let spared = view.slots.unpinned().filter(is_untouched).map(|slot| slot.index).collect();
            tell_back(view, &mut failed, slots, spared);
            return Some(failed);
        }
    }
    if !(goes_on && failed.at.is_some()) {
        failed.slots = slots.within(RANGES_CHARS_MAX);
    }
    Some(failed)
}

/// With onFailure RollbackFailed, once the revision has failed: those that fail later go back, too.
fn remember_back(view: &View<'_>, alarm: &mut Alarm, effective: &Revision) -> Option<Failed> {
    let noted = || noted_on(effective, view.memory.run);
    let before = view.memory.failed.clone();
    let mut failed = before.filter(|failed| failed.run == view.memory.run && failed.at.is_some()).or_else(noted)?;
    // Where status was lost, nothing else has brought opened ones to the stable revision.
    let has_gone_back = |slot: &&Slot<'_>| slot.live.iter().any(|pod| view.lineage.is_stable(&pod.revision));
    let opened = || view.slots.unpinned().filter(|slot| slot.opened);
    let mut slots = Ranges::parse(&failed.slots);
    let mut spared = Ranges::parse(&failed.spared);
    if back(&failed).is_empty() {
        spared = opened().filter(has_gone_back).map(|slot| slot.index).collect();
    }
    let late = deadline::late(view, alarm);
    // One that was lost since is not late.
    let has_changed = |slot: &i32| {
        let slot = view.slots.wanted_at(*slot);
        slot.is_some_and(|slot| slot.live.iter().any(|pod| pod.revision == effective.name))
    };
    slots.0.extend(failures(view, &late, alarm).into_iter().map(|(slot, _)| slot).filter(has_changed));
    // Nothing goes forward any more: what was broken in a version before this one would stay so.
    let mut is_left = |slot: &&Slot<'_>| {
        let best = slot.live.first().filter(|pod| pod.revision != effective.name);
        best.is_some_and(|pod| {
            let is_available = pod.is_available(view.spec().min_ready_seconds, view.now());
            let broken_at = broken_at(pod, PATIENCE_SECONDS).filter(|_| !is_available);
            broken_at.is_some_and(|at| alarm.passed(at)) || refuses(view, pod, alarm)
        })
    };
    // One that had yet to be given it stays where it is.
    let is_untouched =
        |slot: &Slot<'_>| !slots.0.contains(&slot.index) && has_gone_back(&slot) && !was_given(slot, &effective.name);
    spared.0.extend(opened().filter(|slot| is_left(slot) || is_untouched(slot)).map(|slot| slot.index));
    // Status tells of one that does not come up there either, or keeps others from it.
    let is_away = |pod: &&&Pod| !pod.is_available(view.spec().min_ready_seconds, view.now());
    for pod in view.slots.wanted().filter_map(|slot| slot.live.first().filter(is_away)) {
        stuck_at(view.snapshot, pod, i64::from(view.spec().progress_deadline_seconds)).map(|at| alarm.passed(at));
    }
    tell_back(view, &mut failed, slots, spared);
    Some(failed)
}

/// A Pod of the slot has, or had, this revision, as far as it is still there.
fn was_given(slot: &Slot<'_>, revision: &str) -> bool {
    slot.live.iter().chain(&slot.finished).chain(&slot.terminating).any(|pod| pod.revision == revision)
}

/// Instances that are at, or go to, the stable revision where only those go back that have failed.
pub fn back(failed: &Failed) -> Ranges {
    let mut back = Ranges::parse(&failed.slots);
    back.0.extend(Ranges::parse(&failed.spared).0);
    back
}

/// Writes down which instances go back. One that is left out would go forward again: what has no room among the failed ones is
/// among the spared ones.
fn tell_back(view: &View<'_>, failed: &mut Failed, mut slots: Ranges, mut spared: Ranges) {
    slots.0.retain(|slot| *slot < view.replicas());
    spared.0.retain(|slot| *slot < view.replicas());
    failed.slots = slots.within(RANGES_CHARS_MAX / 2);
    let told = Ranges::parse(&failed.slots);
    spared.0.extend(slots.0.difference(&told.0));
    failed.spared = spared.covering(RANGES_CHARS_MAX / 2);
}

/// What the revision's annotations know of its failure: all there is after an abort, or a loss of status.
pub(super) fn noted_on(revision: &Revision, run: i64) -> Option<Failed> {
    let (reason, message) = revision.failed_reason.as_deref().unwrap_or("Failed: ").split_once(": ")?;
    Some(Failed {
        revision: revision.name.clone(),
        run,
        reason: reason.into(),
        message: message.into(),
        at: revision.failed_at.map(Time),
        ..Failed::default()
    })
}

/// (slot, (reason, message)) of each failed instance among the opened ones.
fn failures(view: &View<'_>, late: &Late, alarm: &mut Alarm) -> Vec<(i32, (String, String))> {
    let effective = view.lineage.effective.map(|revision| revision.name.as_str());
    let retried_at = reached(view.spec().retry_at.as_ref(), view.now());
    let opened = view.slots.unpinned().filter(|slot| slot.opened);
    let mut found = Vec::new();
    for slot in opened {
        let changed = slot.live.iter().chain(&slot.finished).filter(|pod| Some(pod.revision.as_str()) == effective);
        let mut failures = changed.filter_map(|pod| {
            let told = || reload::failure(view.snapshot, pod).or_else(|| agents::failure(view.snapshot, pod));
            // What a container does with less than it is given says nothing of its version.
            let failure = failure_of(pod).filter(|_| !resize::is_replaced_for(view.snapshot, pod)).or_else(told)?;
            let forgiven = retried_at.is_some_and(|at| pod.runs_since_before(at)); // it is being replaced
            let counts = !forgiven && failure.at.is_none_or(|at| alarm.passed(at));
            counts.then_some((slot.index, (failure.reason, named(view, slot.index, &failure.message))))
        });
        found.extend(failures.next());
    }
    let is_known = |slot: &i32| found.binary_search_by_key(slot, |(known, _)| *known).is_ok();
    let late: Vec<_> =
        late.given.iter().filter(|slot| !is_known(slot)).map(|slot| (*slot, too_late(view, *slot))).collect();
    found.extend(late);
    found
}

const TOO_LATE: &str = "ProgressDeadlineExceeded";

/// An instance has the version and is not available in time: with what its Pod waits for.
fn too_late(view: &View<'_>, index: i32) -> (String, String) {
    let why = view.slots.wanted_at(index).and_then(|slot| {
        let pod = slot.live.first()?;
        let named = || slot.cause().map(|(reason, message)| with_reason(&reason, &message));
        let is_on_its_way = pod.is_ready() || pod.in_transit(view.now()).is_some();
        Some(named().unwrap_or_else(|| if is_on_its_way { view.slots.state(slot) } else { waiting(pod).to_string() }))
    });
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    let message = format!("not available within {} s{why}", view.spec().progress_deadline_seconds);
    (TOO_LATE.into(), named(view, index, &message))
}

/// An instance could not be given the version in time: with what keeps it from that.
fn not_given(view: &View<'_>, index: i32, to: &Revision) -> (String, String) {
    let is_available =
        |slot: &&Slot<'_>| slot.live.iter().any(|pod| pod.is_available(view.spec().min_ready_seconds, view.now()));
    let why = match view.slots.wanted_at(index).filter(|slot| slot.live.is_empty()) {
        Some(slot) => view.slots.state(slot),
        None => match view.slots.wanted().find(|slot| slot.index != index && !is_available(slot)) {
            Some(other) => {
                let rollout = view.snapshot.rollout.metadata.name.as_deref().unwrap_or_default();
                let name = crate::api::names::instance_name(rollout, other.index);
                format!("waits for {name} ({})", view.slots.state(other))
            }
            None => format!("there are {} Pods of at most {}", view.budget.total, view.budget.total_max),
        },
    };
    let seconds = view.spec().progress_deadline_seconds;
    let version = crate::plan::revision::version(&to.data);
    (TOO_LATE.into(), named(view, index, &format!("was not given {version} within {seconds} s: {why}")))
}

fn named(view: &View<'_>, slot: i32, message: &str) -> String {
    let rollout = view.snapshot.rollout.metadata.name.as_deref().unwrap_or_default();
    let text = format!("{}: {message}", crate::api::names::instance_name(rollout, slot));
    text.chars().take(bounds::FAILURE_CHARS_MAX).collect()
}

/// `at` as the API stores it: whole seconds.
pub(super) fn seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}
