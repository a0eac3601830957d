//! How a Rollout decides. What an earlier Rollout of its name left behind is adopted before all else ([`super::adoption`]). Then the
//! layers, each of which imports only those before it:
//! - [`time`], [`policy`]: when it is; what `spec.strategy` comes to;
//! - [`pod`]: facts about one Pod;
//! - [`run`]: which revision the spec asks for, which is stable, which is worked towards; which Pods stand in which slot, and what
//!   each slot is assigned;
//! - [`verdict`]: what holds each class of work; which instances of this run have failed, or will have at a known time;
//! - [`memory`]: run, opened batches and the deadline's clock, as status must remember them;
//! - [`work`]: Pods to create, delete and change within the budget, what comes before a Pod ends, revisions and Services.
//!
//! When what must be remembered differs from what status says, nothing else is done: the write comes first, what
//! follows from it with the next plan.
pub mod fold;
mod memory;
mod pod;
mod policy;
mod run;
#[cfg(test)]
pub(crate) mod tests;
mod time;
mod verdict;
mod work;

pub use self::{
    pod::{
        failure::{Failure, broken_at, failure_of},
        health,
        reload::{self, stuck_at},
        waiting::{CONTAINERS_NOT_READY, GATES_NOT_READY, waiting, with_reason},
    },
    policy::{GoesBack, Policy},
    run::{
        batches,
        recreate::unconfirmed,
        sets::Sets,
        slots::{Done, Slot, Slots, back},
    },
    verdict::holds::HOOK_FAILED,
};

use self::{
    run::{View, pins::Pins, released_services, revisions},
    time::Alarm,
    verdict::failed,
};
use super::{
    adoption,
    change::{Change, Hold, HoldReason, Memory, Plan, PodAct, PodReason, RevisionAct, RevisionMark},
};
use crate::snapshot::{Ranges, Snapshot};

/// The next changes for this Rollout. Pure and total.
pub fn plan(snapshot: &Snapshot) -> Plan {
    let remembered = Memory::of(snapshot.rollout.status.as_ref());
    if snapshot.rollout.metadata.deletion_timestamp.is_some() {
        let hold = Hold { reason: HoldReason::Deleting, message: "being deleted".into(), until: None };
        return Plan { memory: remembered, hold: Some(hold), ..Plan::default() };
    }
    let adoptions = adoption::changes(snapshot);
    if !adoptions.is_empty() {
        // Which Pods are missing, and which revisions there are, is known once these count.
        return Plan { memory: remembered, changes: adoptions, ..Plan::default() };
    }
    let lineage = revisions::trace(snapshot, &remembered);
    let mut alarm = Alarm::new(snapshot.now);
    let mut view = View::new(snapshot, &lineage, memory::begin_run(snapshot, &lineage, &remembered, &mut alarm));
    let observed = memory::hooks::observe(&view, &mut alarm);
    (view.memory.hooks, view.memory.failed) = (observed.hooks, observed.failed);
    let watched = memory::soak::watch(&view, &mut alarm);
    (view.memory.soak, view.memory.failed) = (watched.soak, watched.failed);
    view.remember_batch(memory::run_clock(&view, &mut alarm));
    view.memory.failed = failed::remember(&view, &mut alarm);
    let opening = memory::open_batches(&view, &mut alarm);
    view.remember_batch(opening.batch);
    let switch = work::switch::switch(&view, &mut alarm);
    let work = work::pods(&view, &mut alarm);
    view.memory.attempts = work.attempts;
    // The order of the gates says which hooks are due, and nothing else.
    let due = [&opening.hold, &switch.hold, &work.hold].into_iter().flatten().find_map(|hold| hold.reason.due_point());
    if let Some(point) = due {
        view.memory.hooks = memory::hooks::begin(&view, point);
    }

    let soaks = opening.hold.as_ref().is_some_and(|hold| hold.reason == HoldReason::Soaking);
    if soaks && !verdict::soak::is_of_run(&view) {
        view.memory.soak = memory::soak::begin(&view);
    }

    let mut changes = work::revisions::changes(&lineage, snapshot, &view.memory);
    changes.extend(work::provenance::packages(snapshot, &changes));
    changes.extend(memory::conclude(&view).filter(|end| !changes.iter().any(|change| change.name() == end.name())));
    changes.extend(work::provenance::images(snapshot, &changes));
    changes.extend(switch.changes);
    changes.extend(work::hooks::changes(&view, &mut alarm));
    changes.extend(work.changes);
    let (mut leaving, mut not_in_place) = (Some(work.leaving), work.not_in_place);
    if view.memory != remembered {
        // What follows from new memory waits until status holds it; the revision of a new spec does not follow from it.
        changes.retain(|change| {
            matches!(
                change,
                Change::CreateRevision { .. }
                    | Change::Revision { act: RevisionAct::Mark(RevisionMark::Wanted { .. }), .. }
            )
        });
        (leaving, not_in_place) = (None, None);
    }
    let left = released_services::hold(snapshot);
    if left.is_some() {
        // A Pod that has ended serves no client, and its name is needed for the next one.
        let has_ended = |change: &Change| {
            matches!(change, Change::Pod { act: PodAct::Delete { reason: PodReason::Finished, .. }, .. })
        };
        changes.retain(|change| !change.interrupts() || has_ended(change));
        // What follows from what they select now is remembered first.
        changes.extend(work::switch::let_go(snapshot).into_iter().filter(|_| view.memory == remembered));
        (leaving, not_in_place) = (None, None);
    }
    // What cannot be read may be anything, also what serves best.
    let is_unreadable = |name: &str| snapshot.pods.iter().any(|pod| pod.is_unreadable && pod.name == name);
    changes.retain(|change| !is_unreadable(change.name()));
    // "waits for the budget" says less than what the batch waits for, and this less than which Pods have yet to end.
    let waits_for_batch = opening.hold.as_ref().is_none_or(|hold| hold.reason == HoldReason::PreviousBatchNotHealthy);
    let (urgent, for_budget) = match work.hold {
        Some(hold) if hold.reason == HoldReason::Budget => (None, Some(hold)),
        Some(hold) if hold.reason == HoldReason::OldPods && !waits_for_batch => (None, Some(hold)),
        other => (other, None),
    };
    let hold = left.or(urgent).or(opening.hold).or(switch.hold).or(work.aside).or(for_budget);
    // What has just begun is told of as that.
    let hold = hold.map(|hold| match hold.reason {
        HoldReason::Soaking => verdict::soak::soaking(&view).unwrap_or(hold),
        _ => verdict::hooks::told_anew(&view, hold),
    });
    let drained_late = work.drained_late;
    Plan { memory: view.memory, changes, leaving, not_in_place, drained_late, hold, wake_at: alarm.at }
}

/// The slots as [`plan`] sees them when status holds `memory`: for those who tell people about them.
pub fn slots<'a>(snapshot: &'a Snapshot, memory: &Memory) -> Slots<'a> {
    Slots::new(snapshot, &revisions::trace(snapshot, memory), memory)
}

/// What is wrong with `spec.pins`: a word and a sentence for each.
pub fn pin_problems(snapshot: &Snapshot) -> Vec<(&'static str, String)> {
    Pins::of(snapshot).problems(snapshot)
}

/// Slots that a pin names.
pub fn pinned(snapshot: &Snapshot) -> Ranges {
    Pins::of(snapshot).slots()
}
