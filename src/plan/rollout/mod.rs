//! How a Rollout decides. What an earlier Rollout of its name left behind is adopted before all else ([`super::adoption`]). Then the
//! steps, in the order of [`plan`]:
//! 1. [`lineage`]: which revision the spec asks for, which is stable, which is worked towards;
//! 2. [`slots`]: which Pods stand in which slot, and what each slot is assigned; [`pins`]: by whom chosen one by one;
//! 3. [`failure`], [`deadline`]: which instances of this run have failed, or will have at a known time; [`waiting`]: what a Pod
//!    that is not ready waits for;
//! 4. [`memory`]: run, opened batches and attempts, as status must remember them;
//! 5. [`gates`]: what holds each class of work;
//! 6. [`work`]: Pods to create, delete and change within the budget; [`in_place`]: what a Pod can be given as it is;
//!    [`resize`]: how it comes to other resources; [`recreate`]: never beside another revision; [`blue_green`]: a whole second
//!    set, and the switch of a Service to it; [`former`]: what the spec names no more selects Pods of any revision again;
//! 7. [`digests`], [`package`]: what a revision came to when it first ran, for those that run it later;
//! 8. [`agents`]: which of these first hand their listeners over, and which Pods are in service;
//! 9. [`reload`]: which applications are told that their Pods were changed;
//! 10. [`specimens`]: which failed Pods are kept for a look instead of deleted.
//!
//! When what must be remembered differs from what status says, nothing else is done: the write comes first, what
//! follows from it with the next look.
mod agents;
mod attempts;
pub mod batches;
mod blue_green;
mod budget;
mod deadline;
mod digests;
mod failure;
pub mod fold;
mod former;
mod gates;
mod in_place;
mod lineage;
mod memory;
mod package;
mod pins;
mod recreate;
pub mod reload;
mod resize;
mod slots;
mod specimens;
#[cfg(test)]
pub(crate) mod tests;
mod waiting;
mod work;

pub use blue_green::Sets;
pub use budget::{fewest_available, total_max};
pub use failure::{Failure, back, broken_at, failure_of, stuck_at};
pub use recreate::unconfirmed;
pub use slots::{Done, Slot, Slots};
pub use waiting::{CONTAINERS_NOT_READY, GATES_NOT_READY, waiting, with_reason};

use jiff::{SignedDuration, Timestamp};

use self::{budget::Budget, lineage::Lineage};
use super::{
    adoption,
    change::{Change, Hold, HoldReason, Memory, Plan, PodReason, RevisionMark},
};
use crate::{
    api::{RolloutSpec, Time, status::BatchStatus},
    snapshot::{Ranges, Snapshot},
};

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
    let lineage = lineage::trace(snapshot, &remembered);
    let mut alarm = Alarm::new(snapshot.now);
    let mut view = View::new(snapshot, &lineage, memory::begin_run(snapshot, &lineage, &remembered, &mut alarm));
    view.remember_batch(deadline::run_clock(&view, &mut alarm));
    view.memory.failed = failure::remember(&view, &mut alarm);
    let opening = memory::open_batches(&view, &mut alarm);
    view.remember_batch(opening.batch);
    let switch = blue_green::switch(&view, &mut alarm);
    let work = work::pods(&view, &mut alarm);
    view.memory.attempts = work.attempts;

    let mut changes = lineage.changes(snapshot, &view.memory);
    changes.extend(digests::packages(snapshot, &changes));
    changes.extend(lineage.conclude(&view).filter(|end| !changes.iter().any(|change| change.name() == end.name())));
    changes.extend(digests::images(snapshot, &changes));
    changes.extend(switch.changes);
    changes.extend(work.changes);
    let (mut leaving, mut not_in_place) = (Some(work.leaving), work.not_in_place);
    if view.memory != remembered {
        // What follows from new memory waits until status holds it; the revision of a new spec does not follow from it.
        changes.retain(|change| {
            matches!(
                change,
                Change::CreateRevision { .. } | Change::MarkRevision { mark: RevisionMark::Wanted { .. }, .. }
            )
        });
        (leaving, not_in_place) = (None, None);
    }
    let left = former::hold(snapshot);
    if left.is_some() {
        // What has ended serves nobody, and stands in the way of what comes back.
        let has_ended = |change: &Change| matches!(change, Change::DeletePod { reason: PodReason::Finished, .. });
        changes.retain(|change| !change.interrupts() || has_ended(change));
        // What follows from what they select now is remembered first.
        changes.extend(former::let_go(snapshot).into_iter().filter(|_| view.memory == remembered));
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
    Plan { memory: view.memory, changes, leaving, not_in_place, hold, wake_at: alarm.at }
}

/// The slots as [`plan`] sees them when status holds `memory`: for those who tell people about them.
pub fn slots<'a>(snapshot: &'a Snapshot, memory: &Memory) -> Slots<'a> {
    Slots::new(snapshot, &lineage::trace(snapshot, memory), memory)
}

/// What is wrong with `spec.pins`: a word and a sentence for each.
pub fn pin_problems(snapshot: &Snapshot) -> Vec<(&'static str, String)> {
    pins::Pins::of(snapshot).problems(snapshot)
}

/// Slots that a pin names.
pub fn pinned(snapshot: &Snapshot) -> Ranges {
    pins::Pins::of(snapshot).slots()
}

/// All that the steps after [`memory::begin_run`] look at.
struct View<'a> {
    snapshot: &'a Snapshot,
    lineage: &'a Lineage<'a>,
    memory: Memory,
    slots: Slots<'a>,
    budget: Budget,
}

impl<'a> View<'a> {
    fn new(snapshot: &'a Snapshot, lineage: &'a Lineage<'a>, memory: Memory) -> Self {
        let slots = Slots::new(snapshot, lineage, &memory);
        let budget = Budget::new(snapshot, &slots);
        Self { snapshot, lineage, memory, slots, budget }
    }

    /// What the slots are assigned follows from the number of opened ones and nothing else that may change here.
    fn remember_batch(&mut self, batch: Option<BatchStatus>) {
        let opened = |batch: &Option<BatchStatus>| batch.as_ref().map(|batch| batch.opened);
        let is_reassigned = opened(&batch) != opened(&self.memory.batch);
        self.memory.batch = batch;
        if is_reassigned {
            self.slots = Slots::new(self.snapshot, self.lineage, &self.memory);
            self.budget = Budget::new(self.snapshot, &self.slots);
        }
    }

    fn spec(&self) -> &'a RolloutSpec {
        &self.snapshot.rollout.spec
    }

    fn now(&self) -> Timestamp {
        self.snapshot.now
    }

    fn replicas(&self) -> i32 {
        replicas(self.spec())
    }
}

/// The time of `spec.restartAt` or `spec.retryAt`, once it is reached.
fn reached(at: Option<&Time>, now: Timestamp) -> Option<Timestamp> {
    at.map(|at| at.0).filter(|at| *at <= now)
}

/// What a Pod that is made now remembers as [`crate::snapshot::Pod::restarted_at`].
fn restarted_at(spec: &RolloutSpec, now: Timestamp) -> Option<Timestamp> {
    [&spec.restart_at, &spec.retry_at].into_iter().filter_map(|at| reached(at.as_ref(), now)).max()
}

/// Wanted instances, within the bounds even when the CRD was bypassed.
fn replicas(spec: &RolloutSpec) -> i32 {
    spec.replicas.clamp(0, crate::api::bounds::REPLICAS_MAX)
}

/// The earliest time at which something changes without an event.
struct Alarm {
    now: Timestamp,
    at: Option<Timestamp>,
}

impl Alarm {
    fn new(now: Timestamp) -> Self {
        Self { now, at: None }
    }

    /// Wakes at `at`, unless that has passed; says whether it has.
    fn passed(&mut self, at: Timestamp) -> bool {
        if at <= self.now {
            return true;
        }
        self.at = Some(self.at.map_or(at, |earlier| earlier.min(at)));
        false
    }
}

/// `at` + `seconds`, saturating.
fn after(at: Timestamp, seconds: i64) -> Timestamp {
    at.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(at)
}
