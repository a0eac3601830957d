//! The next batch.
use crate::{
    api::status::BatchStatus,
    plan::{
        change::{Hold, HoldReason},
        rollout::{
            run::{View, slots::Done},
            time::{Alarm, seconds},
            verdict::{
                deadline, gates, holds,
                progress::{behind, undone_in_words},
            },
        },
    },
};

/// status.batch as it should be, and what holds the next batch.
pub(crate) struct Opening {
    pub batch: Option<BatchStatus>,
    pub hold: Option<Hold>,
}

/// Opens the next batch when the opened ones are done and nothing holds it.
pub(crate) fn open_batches(view: &View<'_>, alarm: &mut Alarm) -> Opening {
    let Some(batch) = view.memory.batch.clone() else { return Opening { batch: None, hold: None } };
    if view.lineage.is_back() || view.lineage.is_first() {
        all_at_once(view, alarm, batch)
    } else {
        forward(view, alarm, batch)
    }
}

/// The way back and the first creation know no batches.
fn all_at_once(view: &View<'_>, alarm: &mut Alarm, mut batch: BatchStatus) -> Opening {
    batch.opened = view.replicas();
    let Done::Not(undone) = view.slots.done() else {
        let hold = if view.lineage.is_first() {
            holds::all_pinned(view).or_else(|| gates::completion(view))
        } else {
            gates::back(view, alarm)
        };
        return Opening { batch: Some(batch), hold };
    };
    // Before the first Pod goes back; no Pod need be left that does.
    let due = gates::due_at_once(view);
    if let Some(hold) = due.or_else(|| gates::first_creation(view, alarm)) {
        return Opening { batch: Some(batch), hold: Some(hold) };
    }
    let is_late = view.lineage.is_back() && !deadline::late(view, alarm).is_empty();
    let reason = if is_late { HoldReason::ProgressDeadline } else { HoldReason::PreviousBatchNotHealthy };
    let hold = Hold { reason, message: undone_in_words(view, &undone), until: None };
    Opening { batch: Some(batch), hold: Some(hold) }
}

fn forward(view: &View<'_>, alarm: &mut Alarm, mut batch: BatchStatus) -> Opening {
    let replicas = view.replicas();
    let batches = view.slots.batches();
    let number = |opened: i32| i32::try_from(batches.index_of(opened)).unwrap_or(i32::MAX);
    let up_to = |number: i32| usize::try_from(number).ok().and_then(|number| batches.end(number)).unwrap_or(replicas);
    batch.opened = if batch.opened > 0 { view.slots.opened() } else { 0 };
    batch.count = i32::try_from(batches.ends.len()).unwrap_or(i32::MAX);
    batch.index = number(batch.opened);
    let is_last = batch.opened == replicas && replicas > 0;
    let is_filled = (batch.opened > 0 || batch.index == 0) && batch.opened == up_to(batch.index);
    let undone = matches!(view.slots.done(), Done::Not(_));
    if is_last && !undone {
        // Nothing is left to open; the run may have to wait before it is complete.
        let hold = holds::all_pinned(view).or_else(|| gates::completion(view));
        let hold = gates::woken(hold, alarm);
        // No instance is late for it; nor is a whole set that waits for hours to be switched to.
        if hold.is_some() || view.slots.sets().is_some() {
            batch.completed_at.get_or_insert_with(|| seconds(view.now()));
        }
        return Opening { batch: Some(batch), hold: holds::failed(view).or(hold) };
    }
    // At the end of the last batch the run itself is what completes, unless it leaves failed instances behind.
    if is_filled && behind(view).is_none() && holds::failed(view).is_none() {
        batch.completed_at.get_or_insert_with(|| seconds(view.now()));
    }
    let hold = gates::open(view, alarm);
    if hold.is_none() && replicas > 0 {
        // Not filled: the first batch, or one that grew by scaling.
        batch.opened = if is_filled { up_to(batch.index + 1) } else { up_to(batch.index) };
        batch.index = number(batch.opened);
        batch.started_at = Some(seconds(view.now()));
        batch.deadline_from.clone_from(&batch.started_at);
        batch.completed_at = None;
    }
    Opening { batch: Some(batch), hold }
}
