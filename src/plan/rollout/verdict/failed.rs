//! Which instances of this run have failed. Only instances at the effective revision, changed in this run, count.
use super::deadline::{self, Late};
use crate::{
    api::{
        Time,
        bounds::{self, RANGES_CHARS_MAX},
        status::Failed,
    },
    plan::rollout::{
        pod::{
            agent,
            failure::{PATIENCE_SECONDS, broken_at, failure_of},
            health,
            reload::{self, refuses, stuck_at},
            resize,
            waiting::{waiting, with_reason},
        },
        policy::GoesBack,
        run::{
            View,
            revisions::{self, noted_on},
            slots::{Slot, back},
        },
        time::{Alarm, reached},
    },
    snapshot::{Pod, Ranges, Revision},
};

/// status.failed: the failed slots of this run, never fewer than before; `at` once the threshold is reached.
pub(crate) fn remember(view: &View<'_>, alarm: &mut Alarm) -> Option<Failed> {
    let before = view.memory.failed.clone();
    let Some(effective) = view.lineage.effective.filter(|_| !view.lineage.is_back() && view.memory.batch.is_some())
    else {
        return before; // on the way back it tells what went wrong
    };
    let goes_on = view.policy.goes_back == GoesBack::FailedOnly && !revisions::is_aborted(effective);
    if revisions::has_failed(view.snapshot, effective) && goes_on {
        return remember_back(view, alarm, effective);
    }
    if revisions::has_failed(view.snapshot, effective) {
        // An abort is noted there, also after failures that were tolerated.
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
    // Nothing moves any more, however many failures are tolerated.
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
        failed.at = Some(Time(revisions::failed_at(view.now(), effective)));
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
            broken_at.is_some_and(|at| alarm.passed(at)) || refuses(view.snapshot, pod, alarm)
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

/// (slot, (reason, message)) of each failed instance among the opened ones.
fn failures(view: &View<'_>, late: &Late, alarm: &mut Alarm) -> Vec<(i32, (String, String))> {
    let effective = view.lineage.effective.map(|revision| revision.name.as_str());
    let retried_at = reached(view.spec().retry_at.as_ref(), view.now());
    let opened = view.slots.unpinned().filter(|slot| slot.opened);
    let mut found = Vec::new();
    for slot in opened {
        let changed = slot.live.iter().chain(&slot.finished).filter(|pod| Some(pod.revision.as_str()) == effective);
        let mut failures = changed.filter_map(|pod| {
            let told = || {
                let reloaded = reload::failure(view.snapshot, pod).or_else(|| agent::failure(view.snapshot, pod));
                reloaded.or_else(|| health::failure(view.snapshot, pod))
            };
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
