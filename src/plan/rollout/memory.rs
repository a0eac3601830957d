//! Run, opened batches: what status must remember.
use super::{
    Alarm, View,
    batches::Batches,
    deadline,
    failure::{noted_on, seconds},
    former, gates,
    lineage::Lineage,
    reached, replicas,
    slots::Done,
};
use crate::{
    api::{
        RolloutStatus,
        bounds::INSTANCES_CHARS_MAX,
        status::{BatchStatus, Failed},
    },
    plan::change::{Hold, HoldReason, Memory},
    snapshot::{Ranges, Snapshot},
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
            services: status.services.clone(),
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
        status.services.clone_from(&self.services);
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
        services: former::services(snapshot),
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
            && super::slots::Slots::new(snapshot, lineage, &memory).done() == Done::All
        {
            memory.batch = None;
        }
        if let Some(batch) = memory.batch.as_mut().filter(|batch| batch.opened == 0) {
            batch.pinned = lineage.pins.slots().within(INSTANCES_CHARS_MAX); // no batch rests on it yet
        }
        if memory.batch.as_ref().is_some_and(|old| !lineage.is_back() && is_deserted(lineage, old, replicas(spec))) {
            memory.batch = Some(batch(snapshot, lineage, 0, false));
        }
        if memory.batch.as_ref().is_some_and(|old| old.opened > 0 && former::was_preview(snapshot, lineage)) {
            memory.batch = Some(batch(snapshot, lineage, 0, false));
        }
        if memory.batch.is_none() && lineage.is_revert() {
            memory.failed = None; // nobody asks for what failed any more
        }
        return memory;
    }
    let lost = old.run == 0; // of a new object, or status was lost: answers to earlier runs must not fit the new one
    let aborted = spec.abort.as_ref().map(|abort| abort.run).filter(|_| lost);
    // Nor may an approval that was given before the run began, whatever run its giver had in mind.
    let answered = spec.approve.as_ref().map(|approve| approve.run).max(aborted);
    memory.run = old.run.max(answered.unwrap_or(0)).saturating_add(1);
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
    memory.batch = Some(batch(snapshot, lineage, opened, all));
    memory
}

/// All that its batches were made of are pinned by now, and others are not any more: its batches begin anew, with these.
fn is_deserted(lineage: &Lineage<'_>, batch: &BatchStatus, replicas: i32) -> bool {
    let left_out = Ranges::parse(&batch.pinned).0;
    let mut unpinned = (0..replicas).filter(|slot| lineage.pins.get(*slot).is_none()).peekable();
    unpinned.peek().is_some() && unpinned.all(|slot| left_out.contains(&slot))
}

/// After a loss of status: the end of the batch of the highest slot that already runs the effective revision.
fn observed_opened(snapshot: &Snapshot, lineage: &Lineage<'_>) -> i32 {
    let effective = lineage.effective.map(|revision| revision.name.as_str());
    let spec = &snapshot.rollout.spec;
    let replicas = replicas(spec);
    let pods = snapshot.pods.iter().filter(|pod| pod.is_live() && lineage.pins.get(pod.slot).is_none());
    let at_it = pods.filter(|pod| Some(pod.revision.as_str()) == effective);
    let Some(highest) = at_it.map(|pod| pod.slot).filter(|slot| *slot < replicas).max() else { return 0 };
    let batches = Batches::around(&spec.strategy, replicas, &lineage.pins.slots());
    batches.ends.iter().map(|boundary| boundary.up_to).find(|end| *end > highest).unwrap_or(replicas)
}

fn batch(snapshot: &Snapshot, lineage: &Lineage<'_>, opened: i32, all: bool) -> BatchStatus {
    let spec = &snapshot.rollout.spec;
    let pinned = lineage.pins.slots();
    let batches = Batches::around(&spec.strategy, replicas(spec), &pinned);
    let (index, count) = if all { (1, 1) } else { (batches.index_of(opened) as i32, batches.ends.len() as i32) };
    let started_at = (all || opened > 0).then(|| seconds(snapshot.now));
    // Where all are assigned it at once, those that are unpinned in between are, too.
    let pinned = if all { String::new() } else { pinned.within(INSTANCES_CHARS_MAX) };
    BatchStatus {
        index,
        count,
        opened,
        pinned,
        updated: 0,
        deadline_from: started_at.clone(),
        started_at,
        completed_at: None,
    }
}

/// status.batch as it should be, and what holds the next batch.
pub(super) struct Opening {
    pub batch: Option<BatchStatus>,
    pub hold: Option<Hold>,
}

/// Opens the next batch when the opened ones are done and nothing holds it.
pub(super) fn open_batches(view: &View<'_>, alarm: &mut Alarm) -> Opening {
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
        let hold = gates::all_pinned(view).filter(|_| view.lineage.is_first());
        return Opening { batch: Some(batch), hold };
    };
    if let Some(hold) = gates::first_creation(view, alarm) {
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
        let hold = gates::all_pinned(view).or_else(|| gates::completion(view));
        let hold = gates::woken(hold, alarm);
        // Nobody is late for it; nor is a set that is whole, and waits for hours to be switched to.
        if hold.is_some() || view.slots.sets().is_some() {
            batch.completed_at.get_or_insert_with(|| seconds(view.now()));
        }
        return Opening { batch: Some(batch), hold: gates::failed(view).or(hold) };
    }
    // At the end of the last batch the run itself is what completes, unless it leaves failed instances behind.
    if is_filled && behind(view).is_none() && gates::failed(view).is_none() {
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
    let slots = failed.map(|failed| Ranges::parse(&failed.slots)).unwrap_or_default();
    undone.iter().all(|slot| slots.0.contains(slot))
}

/// `batch 2/3: web-3 (not ready) and 2 more`: the first of the instances that are not done, and what is wrong with it.
pub(super) fn undone_in_words(view: &View<'_>, undone: &[i32]) -> String {
    let rollout = view.snapshot.rollout.metadata.name.as_deref().unwrap_or_default();
    let first = undone.first().copied().unwrap_or(0);
    let state = view.slots.wanted_at(first).map_or_else(String::new, |slot| view.slots.state(slot));
    let others = if undone.len() > 1 { format!(" and {} more", undone.len() - 1) } else { String::new() };
    let name = crate::api::names::instance_name(rollout, first);
    let batch = view.memory.batch.as_ref().map(|batch| format!("batch {}/{}: ", batch.index, batch.count));
    format!("{}{name} ({state}){others}", batch.unwrap_or_default())
}
