//! How long a run may still take: only where that can be said honestly.
use crate::{
    api::{RolloutStatus, status::BatchStatus},
    plan::rollout::Slots,
    snapshot::Snapshot,
};

/// Instances of the present batch that must be done before their pace is believed.
const DONE_MIN: i64 = 2;
/// Seconds they must have taken: times are told in whole seconds.
const ELAPSED_SECONDS_MIN: i64 = 5;

/// Seconds to the end at the present batch's pace, with the timed pauses that lie ahead. None while something holds or
/// has failed, when a person must approve on the way, and as long as too little of the batch is done to tell.
pub(super) fn eta_seconds(snapshot: &Snapshot, status: &RolloutStatus, slots: &Slots<'_>) -> Option<i64> {
    let batch = status.batch.as_ref()?;
    if status.failed.is_some() || status.target_revision == status.current_revision {
        return None;
    }
    let index = usize::try_from(batch.index).ok()?;
    let ahead = (index..=slots.batches().ends.len()).filter_map(|number| slots.batches().pause(number));
    let seconds: Option<Vec<i64>> = ahead.map(|pause| pause.seconds.map(|seconds| i64::from(seconds.max(0)))).collect();
    let pauses: i64 = seconds?.iter().sum();
    let (done, elapsed) = pace(snapshot, batch, slots)?;
    let members = slots.unpinned().filter(|slot| !slot.joins_later);
    let left = members.filter(|slot| !slot.opened || !slots.is_done(slot)).count() as i64;
    Some(elapsed.saturating_mul(left) / done + pauses)
}

/// `(instances done since the batch was opened, seconds they took)`.
fn pace(snapshot: &Snapshot, batch: &BatchStatus, slots: &Slots<'_>) -> Option<(i64, i64)> {
    if batch.completed_at.is_some() {
        return None;
    }
    let opened = batch.started_at.as_ref()?.0;
    let min_ready_seconds = snapshot.rollout.spec.min_ready_seconds;
    let done = slots.unpinned().filter(|slot| slot.opened && slots.is_done(slot));
    let done: Vec<_> = done.filter_map(|slot| slot.live[0].available_at(min_ready_seconds)).collect();
    let since: Vec<_> = done.into_iter().filter(|at| *at >= opened).collect();
    let newest = since.iter().max()?;
    let (count, elapsed) = (since.len() as i64, newest.as_second() - opened.as_second());
    (count >= DONE_MIN && elapsed >= ELAPSED_SECONDS_MIN).then_some((count, elapsed))
}
