//! The progress deadline: when its clock runs, and who is late.
//!
//! The clock starts with a batch, and anew when a hold has ended or a batch that was done has lost an instance: the time
//! that passed before says nothing about the instances that are being changed now.
use jiff::Timestamp;

use super::{
    Alarm, View, after, agents, blue_green,
    failure::seconds,
    former, gates,
    memory::behind,
    recreate, resize,
    slots::{Done, Slot},
};
use crate::{api::status::BatchStatus, snapshot::Pod};

/// `status.batch` with the clock started, stopped, or as it was.
pub(super) fn run_clock(view: &View<'_>, alarm: &mut Alarm) -> Option<BatchStatus> {
    let mut batch = view.memory.batch.clone()?;
    if view.replicas() == 0 {
        batch.deadline_from = None; // what is asked for later has its time from then on
    }
    let Some(behind) = behind(view) else { return Some(batch) };
    if is_stopped(view, &behind, alarm) {
        batch.deadline_from = None;
    } else if batch.completed_at.is_some() || batch.deadline_from.is_none() {
        batch.deadline_from = Some(seconds(view.now()));
    } else if let (Some(from), Some(at)) = (&batch.deadline_from, agents::handed_over_at(view))
        && at >= after(from.0, seconds_allowed(view) / 2)
    {
        // An operator that has yet to hear of listeners goes by this. Not each time: a write tells everybody.
        batch.deadline_from = Some(seconds(at));
    }
    batch.completed_at = None;
    Some(batch)
}

/// Held, or waiting for a create that the API server refuses, or for its word: no instance can be blamed.
fn is_stopped(view: &View<'_>, behind: &[i32], alarm: &mut Alarm) -> bool {
    let is_missing = |slot: &Slot<'_>| behind.contains(&slot.index) && at_effective(view, slot).next().is_none();
    // A refusal is remembered until a create succeeds. Where there is no room for one, it is of the past.
    let is_refused = view.snapshot.create_refusal.is_some() && view.budget.total < view.budget.total_max;
    // Nor can one be where pinned instances that do not come up have used up what there is.
    let is_late = |slot: &Slot<'_>| slot.pin.is_some() && !slot.live.is_empty() && !view.slots.is_in_place(slot);
    let is_used_up = view.budget.total >= view.budget.total_max
        && view.budget.available_instances <= view.budget.available_min
        && view.slots.wanted().any(is_late)
        && view.slots.wanted().filter(|slot| behind.contains(&slot.index)).all(is_missing);
    let awaits_end =
        view.lineage.effective.is_some_and(|to| recreate::in_the_way(view.snapshot, &to.name).next().is_some())
            || blue_green::preview_held(view).is_some()
            || view.slots.wanted().any(|slot| blue_green::crowded(view, slot).is_some())
            || former::hold(view.snapshot).is_some();
    let is_refused = is_refused && view.slots.wanted().any(is_missing);
    gates::stop_clock(view) || is_used_up || awaits_end || is_refused || is_unanswered(view, behind, alarm)
}

/// The API server does not say of any of these whether it can have what it is to be given in place.
fn is_unanswered(view: &View<'_>, behind: &[i32], alarm: &mut Alarm) -> bool {
    let until = |slot: &Slot<'_>| resize::unanswered_until(view.snapshot, slot.live.first()?, slot.assigned?);
    let slots = behind.iter().filter_map(|slot| view.slots.wanted_at(*slot));
    let answered_by: Option<Vec<Timestamp>> = slots.map(|slot| until(slot).filter(|_| slot.live.len() == 1)).collect();
    answered_by.unwrap_or_default().into_iter().min().is_some_and(|until| !alarm.passed(until))
}

/// When the opened instances should be available at the latest, if they are not: counted from the start of the clock, the
/// newest available instance, or the last listener that was handed over. None while the clock stands still.
fn deadline(view: &View<'_>) -> Option<Timestamp> {
    let from = view.memory.batch.as_ref()?.deadline_from.as_ref()?.0;
    let min_ready_seconds = view.spec().min_ready_seconds;
    let opened = || view.slots.unpinned().filter(|slot| slot.opened);
    let told =
        opened().flat_map(|slot| at_effective(view, slot)).filter_map(Pod::told_at).filter(|at| *at <= view.now());
    let progress = opened()
        .flat_map(|slot| at_effective(view, slot))
        .filter(|pod| pod.in_transit(view.now()).is_none())
        .filter_map(|pod| pod.available_at(min_ready_seconds).filter(|at| *at <= view.now()))
        .chain(agents::handed_over_at(view))
        .chain(told)
        .max();
    Some(after(progress.map_or(from, |at| at.max(from)), seconds_allowed(view)))
}

/// Seconds. `creationTimestamp` has whole seconds, so two Pods created at once may seem one second apart. They fail together:
/// otherwise the run ends with the first, and the second is not named although it hangs as well.
const CREATION_GRAIN: i64 = 1;

/// Opened slots that are not done when the deadline has passed.
#[derive(Default)]
pub(super) struct Late {
    /// Their Pods have the version, and are not available in time.
    pub given: Vec<i32>,
    /// They have yet to be given it: not their fault, nor that of the version in them. Empty while another slot has time left, as
    /// what it holds may become free.
    pub waiting: Vec<i32>,
}

impl Late {
    pub fn is_empty(&self) -> bool {
        self.given.is_empty() && self.waiting.is_empty()
    }
}

/// The opened slots that are late. A Pod has this time from its own creation, or change in place, on, whatever became of the one
/// before it, and a slot whose old Pod is ending has it from that end on; who runs on a lost node is not late but lost.
pub(super) fn late(view: &View<'_>, alarm: &mut Alarm) -> Late {
    let mut late = Late::default();
    let Done::Not(undone) = view.slots.done() else { return late };
    if !deadline(view).is_some_and(|at| alarm.passed(at)) {
        return late;
    }
    let mut has_time_left = false;
    let mut as_old = Vec::new();
    for slot in view.slots.wanted().filter(|slot| undone.binary_search(&slot.index).is_ok()) {
        if is_lost(view, slot) {
            continue;
        }
        let is_given = mutant!(BlamesWaiting) || at_effective(view, slot).next().is_some();
        match late_at(view, slot) {
            Some(at) if !alarm.passed(at) => {
                has_time_left = true;
                if is_given && at <= after(view.now(), CREATION_GRAIN) {
                    as_old.push(slot.index);
                }
            }
            _ if is_given => late.given.push(slot.index),
            _ => late.waiting.push(slot.index),
        }
    }
    if has_time_left {
        late.waiting.clear();
    }
    if !late.given.is_empty() {
        late.given.extend(as_old);
        late.given.sort_unstable();
    }
    late
}

fn is_lost(view: &View<'_>, slot: &Slot<'_>) -> bool {
    let is_lost = |node: &String| view.snapshot.lost_nodes.contains(node);
    at_effective(view, slot).any(|pod| pod.node.as_ref().is_some_and(is_lost))
}

/// When the time of this slot is over: counted from its newest Pod of the version, or from the end of the old one. None for a
/// slot that has neither.
fn late_at(view: &View<'_>, slot: &Slot<'_>) -> Option<Timestamp> {
    let created = at_effective(view, slot).map(Pod::given_at);
    let ended = slot.terminating.iter().filter(|_| slot.live.is_empty()).filter_map(|pod| pod.deletion);
    created.chain(ended).max().map(|since| after(since, seconds_allowed(view)))
}

fn at_effective<'v>(view: &'v View<'_>, slot: &'v Slot<'_>) -> impl Iterator<Item = &'v Pod> {
    let effective = view.lineage.effective.map(|revision| revision.name.as_str());
    slot.live.iter().copied().filter(move |pod| Some(pod.revision.as_str()) == effective)
}

fn seconds_allowed(view: &View<'_>) -> i64 {
    i64::from(view.spec().progress_deadline_seconds)
}
