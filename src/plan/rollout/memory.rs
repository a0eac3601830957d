//! Run, opened batches: what status must remember.
use super::{
    Alarm, View, after,
    batches::{boundaries, index_of},
    deadline,
    failure::{noted_on, seconds},
    gates,
    lineage::Lineage,
    reached, replicas,
    slots::Done,
};
use crate::{
    api::{
        RolloutStatus,
        status::{BatchStatus, Failed},
    },
    plan::change::{Hold, HoldReason, Memory},
    snapshot::Snapshot,
};

impl Memory {
    /// What status remembers.
    pub fn of(status: Option<&RolloutStatus>) -> Self {
        let Some(status) = status else { return Self::default() };
        Self {
            run: status.run.unwrap_or(0),
            update: status.update_revision.clone(),
            stable: status.current_revision.clone(),
            effective: status.effective_revision.clone(),
            batch: status.batch.clone().map(|batch| BatchStatus { updated: 0, ..batch }), // observed, not remembered
            failed: status.failed.clone(),
            attempts: status.attempts.clone(),
        }
    }

    /// Writes it into a status; what is observed there stays.
    pub fn write(&self, status: &mut RolloutStatus) {
        status.run = (self.run > 0).then_some(self.run);
        status.update_revision.clone_from(&self.update);
        status.current_revision.clone_from(&self.stable);
        status.effective_revision.clone_from(&self.effective);
        let updated = status.batch.as_ref().map_or(0, |batch| batch.updated);
        status.batch = self.batch.clone().map(|batch| BatchStatus { updated, ..batch });
        status.failed.clone_from(&self.failed);
        status.attempts.clone_from(&self.attempts);
    }
}

/// Counts a new run when the effective revision changes or a retry is acted on; ends one that is complete.
pub(super) fn begin_run(snapshot: &Snapshot, lineage: &Lineage<'_>, old: &Memory, alarm: &mut Alarm) -> Memory {
    let name = |revision: Option<&crate::snapshot::Revision>| revision.map(|r| r.name.clone());
    let mut memory = Memory {
        update: name(lineage.update).or_else(|| old.update.clone()),
        // Kept even when somebody has deleted it: that there was one decides that the run goes batch by batch.
        stable: name(lineage.stable).or_else(|| old.stable.clone()),
        effective: name(lineage.effective),
        ..old.clone()
    };
    let spec = &snapshot.rollout.spec;
    for at in [&spec.retry_at, &spec.restart_at].into_iter().flatten() {
        alarm.passed(at.0);
    }
    if lineage.effective.is_none() {
        return memory;
    }
    let retried = old
        .failed
        .as_ref()
        .and_then(|failed| failed.at.as_ref())
        .is_some_and(|failed| reached(spec.retry_at.as_ref(), snapshot.now).is_some_and(|retry| retry > failed.0))
        && !lineage.is_back();
    if old.effective == memory.effective && old.run > 0 && !retried {
        if memory.batch.is_some()
            && lineage.is_back()
            && super::View::new(snapshot, lineage, &memory).slots.done() == Done::All
        {
            memory.batch = None;
        }
        if memory.batch.is_none() && lineage.is_revert() {
            memory.failed = None; // nobody asks for what failed any more
        }
        return memory;
    }
    let lost = old.run == 0; // of a new object, or status was lost: answers to earlier runs must not fit the new one
    let answered =
        [spec.approve.as_ref().map(|a| a.run), spec.abort.as_ref().map(|a| a.run)].into_iter().flatten().max();
    memory.run = if lost { answered.unwrap_or(0).max(0) } else { old.run }.saturating_add(1);
    memory.failed = match lineage.update.filter(|_| lineage.is_back() && !lineage.is_revert()) {
        Some(update) => noted_on(update, old.run).map(|failed| Failed {
            slots: old.failed.as_ref().map(|failed| failed.slots.clone()).unwrap_or_default(),
            ..failed
        }),
        None => None,
    };
    let replicas = replicas(spec);
    let all = lineage.is_back() || lineage.is_first();
    let opened = if all {
        replicas
    } else if lost {
        observed_opened(snapshot, lineage)
    } else {
        0
    };
    memory.batch = Some(batch(snapshot, opened, all));
    memory
}

/// After a loss of status: the end of the batch of the highest slot that already runs the effective revision.
fn observed_opened(snapshot: &Snapshot, lineage: &Lineage<'_>) -> i32 {
    let effective = lineage.effective.map(|revision| revision.name.as_str());
    let spec = &snapshot.rollout.spec;
    let replicas = replicas(spec);
    let at_it = snapshot.pods.iter().filter(|pod| pod.is_live() && Some(pod.revision.as_str()) == effective);
    let Some(highest) = at_it.map(|pod| pod.slot).filter(|slot| *slot < replicas).max() else { return 0 };
    let ends = boundaries(&spec.strategy, replicas);
    ends.iter().map(|boundary| boundary.up_to).find(|end| *end > highest).unwrap_or(replicas)
}

fn batch(snapshot: &Snapshot, opened: i32, all: bool) -> BatchStatus {
    let ends = boundaries(&snapshot.rollout.spec.strategy, replicas(&snapshot.rollout.spec));
    let (index, count) = if all { (1, 1) } else { (index_of(&ends, opened) as i32, ends.len() as i32) };
    let started_at = (all || opened > 0).then(|| seconds(snapshot.now));
    BatchStatus { index, count, opened, updated: 0, deadline_from: started_at.clone(), started_at, completed_at: None }
}

/// status.batch as it should be, and what holds the next batch.
pub(super) struct Opening {
    pub batch: Option<BatchStatus>,
    pub hold: Option<Hold>,
}

/// Opens the next batch when the opened ones are done and nothing holds it.
pub(super) fn open_batches(view: &View<'_>, alarm: &mut Alarm) -> Opening {
    let unchanged = |hold| Opening { batch: view.memory.batch.clone(), hold };
    let Some(mut batch) = view.memory.batch.clone() else { return unchanged(None) };
    let replicas = view.replicas();
    if view.lineage.is_back() || view.lineage.is_first() {
        batch.opened = replicas;
        let hold = match view.slots.done() {
            Done::Not(undone) => Some(not_healthy(view, alarm, &batch, &undone)),
            _ => None,
        };
        return Opening { batch: Some(batch), hold };
    }
    let ends = boundaries(&view.spec().strategy, replicas);
    batch.opened = batch.opened.min(replicas);
    batch.count = ends.len() as i32;
    batch.index = index_of(&ends, batch.opened) as i32;
    let current = &ends[(batch.index - 1).clamp(0, ends.len() as i32 - 1) as usize];
    let done = view.slots.done();
    let open = |to: i32, mut batch: BatchStatus| {
        batch.opened = to;
        batch.index = index_of(&ends, to) as i32;
        batch.started_at = Some(seconds(view.now()));
        batch.deadline_from.clone_from(&batch.started_at);
        batch.completed_at = None;
        Opening { batch: Some(batch), hold: None }
    };
    if let Some(hold) = gates::failed(view) {
        return Opening { batch: Some(batch), hold: Some(hold) };
    }
    if let Some(behind) = behind(view) {
        let hold = not_healthy(view, alarm, &batch, &behind);
        return Opening { batch: Some(batch), hold: Some(hold) };
    }
    if batch.opened == replicas && replicas > 0 {
        let hold = match &done {
            Done::Not(undone) => {
                batch.completed_at.get_or_insert_with(|| seconds(view.now()));
                Some(Hold { reason: HoldReason::ProgressDeadline, ..not_healthy(view, alarm, &batch, undone) })
            }
            _ => None,
        };
        return Opening { batch: Some(batch), hold };
    }
    let held = |batch: BatchStatus, hold: Hold| Opening { batch: Some(batch), hold: Some(hold) };
    if let Some(hold) = gates::forward(view, alarm) {
        return held(batch, hold);
    }
    if batch.opened < current.up_to {
        return open(current.up_to, batch); // the first batch, or one that grew by scaling
    }
    if replicas == 0 {
        return Opening { batch: Some(batch), hold: None };
    }
    let completed_at = batch.completed_at.get_or_insert_with(|| seconds(view.now())).0;
    let approved = |index: i32| {
        view.spec().approve.as_ref().is_some_and(|a| a.run == view.memory.run && (a.batch == -1 || a.batch >= index))
    };
    let next = ends.get(batch.index as usize).map_or(replicas, |boundary| boundary.up_to);
    let what = |batch: &BatchStatus| format!("batch {}/{} is done", batch.index, batch.count);
    match current.pause.as_ref().filter(|_| !approved(batch.index)).map(|pause| pause.seconds) {
        Some(None) => {
            let message = format!(
                "{}; waiting for approval: set spec.approve to {{run: {}, batch: {}}}",
                what(&batch),
                view.memory.run,
                batch.index
            );
            held(batch, Hold { reason: HoldReason::AwaitingApproval, message, until: None })
        }
        Some(Some(pause_seconds)) if !alarm.passed(after(completed_at, i64::from(pause_seconds))) => {
            let until = after(completed_at, i64::from(pause_seconds));
            let message = format!("{}; pause until {}", what(&batch), seconds(until).0);
            held(batch, Hold { reason: HoldReason::PauseTimer, message, until: Some(until) })
        }
        _ => open(next, batch),
    }
}

/// The opened slots that are not done, when more of them are not than the batch may leave behind.
pub(super) fn behind(view: &View<'_>) -> Option<Vec<i32>> {
    match view.slots.done() {
        Done::Not(undone) if !within_threshold(view, &undone) => Some(undone),
        _ => None,
    }
}

/// A batch may leave behind failed instances, fewer than the threshold.
fn within_threshold(view: &View<'_>, undone: &[i32]) -> bool {
    let failed = view.memory.failed.as_ref().filter(|failed| failed.at.is_none());
    let slots = failed.map(|failed| crate::snapshot::Ranges::parse(&failed.slots)).unwrap_or_default();
    undone.iter().all(|slot| slots.0.contains(slot))
}

/// The opened batches are not done: names the first instance that is not, and what is wrong with it.
fn not_healthy(view: &View<'_>, alarm: &mut Alarm, batch: &BatchStatus, undone: &[i32]) -> Hold {
    let late = view.lineage.is_back() && !deadline::late(view, alarm).is_empty();
    let rollout = view.snapshot.rollout.metadata.name.as_deref().unwrap_or_default();
    let first = undone.first().copied().unwrap_or(0);
    let state =
        view.slots.wanted().find(|slot| slot.index == first).map_or_else(String::new, |slot| view.slots.state(slot));
    let others = if undone.len() > 1 { format!(" and {} more", undone.len() - 1) } else { String::new() };
    let name = crate::api::names::instance_name(rollout, first);
    let message = format!("batch {}/{}: {name} ({state}){others}", batch.index, batch.count);
    let reason = if late { HoldReason::ProgressDeadline } else { HoldReason::PreviousBatchNotHealthy };
    Hold { reason, message, until: None }
}
