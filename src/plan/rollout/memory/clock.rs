//! The clock of the progress deadline.
//!
//! The clock starts with a batch, and anew when a hold has ended or a batch that was done has lost an instance: the time
//! that passed before says nothing about the instances that are being changed now.
use jiff::Timestamp;

use crate::{
    api::status::BatchStatus,
    plan::rollout::{
        pod::resize,
        run::{View, recreate, released_services, slots::Slot},
        time::{Alarm, after, seconds},
        verdict::{
            deadline::{at_effective, handed_over_at, seconds_allowed},
            gates,
            progress::behind,
            sets,
        },
    },
};

/// `status.batch` with the clock started, stopped, or as it was.
pub(crate) fn run_clock(view: &View<'_>, alarm: &mut Alarm) -> Option<BatchStatus> {
    let mut batch = view.memory.batch.clone()?;
    if view.replicas() == 0 {
        batch.deadline_from = None; // what is asked for later has its time from then on
    }
    let Some(behind) = behind(view) else { return Some(batch) };
    if is_stopped(view, &behind, alarm) {
        batch.deadline_from = None;
    } else if batch.completed_at.is_some() || batch.deadline_from.is_none() {
        batch.deadline_from = Some(seconds(view.now()));
    } else if let (Some(from), Some(at)) = (&batch.deadline_from, handed_over_at(view))
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
            || sets::preview_held(view).is_some()
            || view.slots.wanted().any(|slot| sets::crowded(view, slot).is_some())
            || released_services::hold(view.snapshot).is_some();
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
