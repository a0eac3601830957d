//! The beginning of a run.
use crate::{
    api::{
        bounds::INSTANCES_CHARS_MAX,
        hooks::HooksStatus,
        status::{BatchStatus, Failed},
    },
    plan::{
        change::Memory,
        rollout::{
            policy::Policy,
            run::{
                batches::Batches,
                released_services,
                revisions::{Lineage, noted_on},
                slots::{Done, Slots},
            },
            time::{Alarm, reached, seconds},
            verdict::hooks::is_restoring,
        },
    },
    snapshot::{Ranges, Snapshot},
};

/// Counts a new run when the effective revision changes or a retry is acted on; ends one that is complete.
pub(crate) fn begin_run(snapshot: &Snapshot, lineage: &Lineage<'_>, old: &Memory, alarm: &mut Alarm) -> Memory {
    let name = |revision: Option<&crate::snapshot::Revision>| revision.map(|r| r.name.clone());
    let mut memory = Memory {
        update: name(lineage.update).or_else(|| old.update.clone()),
        // Kept even if it was deleted: because there was one, the run goes batch by batch.
        stable: name(lineage.stable).or_else(|| old.stable.clone()),
        effective: name(lineage.effective),
        services: released_services::services(snapshot),
        ..old.clone()
    };
    let spec = &snapshot.rollout.spec;
    let replicas = Policy::of(spec).replicas;
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
        // A hook of the run that is taken back may end well yet, and is taken back then.
        let has_hook = memory.hooks.current.is_some() || is_restoring(&spec.hooks, &memory.hooks, memory.run);
        if memory.batch.is_some()
            && lineage.is_back()
            && !has_hook
            && Slots::new(snapshot, lineage, &memory).done() == Done::All
        {
            memory.batch = None;
        }
        if let Some(batch) = memory.batch.as_mut().filter(|batch| batch.opened == 0) {
            batch.pinned = lineage.pins.slots().within(INSTANCES_CHARS_MAX); // no batch rests on it yet
        }
        if memory.batch.as_ref().is_some_and(|old| !lineage.is_back() && is_deserted(lineage, old, replicas)) {
            memory.batch = Some(batch(snapshot, lineage, 0, false));
        }
        if memory.batch.as_ref().is_some_and(|old| old.opened > 0 && released_services::was_preview(snapshot, lineage))
        {
            memory.batch = Some(batch(snapshot, lineage, 0, false));
        }
        if memory.batch.is_none() && lineage.is_revert() {
            memory.failed = None; // what failed is not asked for any more
        }
        return memory;
    }
    let lost = old.run == 0; // of a new object, or status was lost: answers to earlier runs must not fit the new one
    let aborted = spec.abort.as_ref().map(|abort| abort.run).filter(|_| lost);
    // Nor may an approval that was given before the run began.
    let answered = spec.approve.as_ref().map(|approve| approve.run).max(aborted);
    memory.run = old.run.max(answered.unwrap_or(0)).saturating_add(1);
    // Jobs of hooks tell of the runs that status has forgotten.
    if let Some((run, hooks)) = super::hooks::recover(snapshot, lineage).filter(|_| lost) {
        memory.run = run.max(memory.run);
        memory.hooks = if memory.run == run {
            hooks
        } else {
            HooksStatus { restore: hooks.restore, run: memory.run, ..HooksStatus::default() }
        };
    }
    memory.failed = match lineage.update.filter(|_| lineage.is_back() && !lineage.is_revert()) {
        Some(update) => noted_on(update, old.run).map(|failed| Failed {
            slots: old.failed.as_ref().map(|failed| failed.slots.clone()).unwrap_or_default(),
            ..failed
        }),
        None => None,
    };
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
    let replicas = Policy::of(spec).replicas;
    let pods = snapshot.pods.iter().filter(|pod| pod.is_live() && lineage.pins.get(pod.slot).is_none());
    let at_it = pods.filter(|pod| Some(pod.revision.as_str()) == effective);
    let Some(highest) = at_it.map(|pod| pod.slot).filter(|slot| *slot < replicas).max() else { return 0 };
    let batches = Batches::around(&spec.strategy, replicas, &lineage.pins.slots());
    batches.ends.iter().map(|boundary| boundary.up_to).find(|end| *end > highest).unwrap_or(replicas)
}

fn batch(snapshot: &Snapshot, lineage: &Lineage<'_>, opened: i32, all: bool) -> BatchStatus {
    let spec = &snapshot.rollout.spec;
    let pinned = lineage.pins.slots();
    let batches = Batches::around(&spec.strategy, Policy::of(spec).replicas, &pinned);
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
