//! All that the parts of status look at.
use super::{
    instances::{self, State, Trouble},
    text::{clip, seconds},
};
use crate::{
    api::{RolloutSpec, RolloutStatus, Time, bounds, names},
    plan::{
        HoldReason, Memory, Outcome, Plan, revision,
        rollout::{Done, Slot, Slots},
    },
    snapshot::{CreateRefusal, Pod, Revision, Snapshot},
};

pub(super) struct Look<'a> {
    pub snapshot: &'a Snapshot,
    pub plan: &'a Plan,
    pub outcomes: &'a [Outcome],
    /// Status as last written.
    pub before: &'a RolloutStatus,
    pub slots: Slots<'a>,
    /// With strategy BlueGreen: the revision that clients get, as far as is known.
    pub active: Option<String>,
    /// Instances that are not as they should be, most important first.
    pub troubles: Vec<Trouble>,
    /// The ControllerRevision of the present spec exists and is what status calls `updateRevision`.
    pub is_recorded: bool,
}

impl<'a> Look<'a> {
    pub fn new(snapshot: &'a Snapshot, plan: &'a Plan, outcomes: &'a [Outcome], before: &'a RolloutStatus) -> Self {
        let slots = crate::plan::rollout::slots(snapshot, &plan.memory);
        let troubles = instances::troubles(snapshot, &slots, &plan.memory);
        let active = slots.sets().and_then(|sets| sets.told).map(str::to_owned);
        let update = snapshot.revisions.iter().find(|known| Some(&known.name) == plan.memory.update.as_ref());
        let is_recorded = update.is_some_and(|update| update.data == revision::data(&snapshot.rollout.spec));
        Self { snapshot, plan, outcomes, before, slots, active, troubles, is_recorded }
    }

    /// An instance has a Pod that clients use, of which this is true.
    pub fn serves(&self, slot: &Slot<'_>, is: impl Fn(&Pod) -> bool) -> bool {
        slot.all_live().any(|pod| self.slots.is_told_in_use(pod) && is(pod))
    }

    /// The refusal of creates that keeps anything waiting now: it is remembered until a create succeeds.
    pub fn refusal(&self) -> Option<&CreateRefusal> {
        let is_held = self.plan.hold.as_ref().is_some_and(|hold| hold.reason == HoldReason::CreateRefused);
        let is_missing = || self.troubles.iter().any(|trouble| trouble.state == State::Missing);
        self.snapshot.create_refusal.as_ref().filter(|_| is_held || is_missing())
    }

    pub fn spec(&self) -> &'a RolloutSpec {
        &self.snapshot.rollout.spec
    }

    pub fn memory(&self) -> &'a Memory {
        &self.plan.memory
    }

    pub fn now(&self) -> Time {
        seconds(self.snapshot.now)
    }

    pub fn replicas(&self) -> i32 {
        self.spec().replicas.clamp(0, bounds::REPLICAS_MAX)
    }

    pub fn instance(&self, slot: i32) -> String {
        names::instance_name(self.snapshot.rollout.metadata.name.as_deref().unwrap_or_default(), slot)
    }

    pub fn revision(&self, name: Option<&String>) -> Option<&'a Revision> {
        self.snapshot.revisions.iter().find(|revision| Some(&revision.name) == name)
    }

    /// Version for people of the revision of this name, told apart from others of that version; the name itself when it is gone.
    pub fn version(&self, name: Option<&String>) -> String {
        let version = name.and_then(|name| self.slots.called(name));
        clip(&version.or_else(|| name.cloned()).unwrap_or_default(), 128)
    }

    /// The same within a sentence, where a bare number would be read as a count.
    pub fn version_in_words(&self, name: Option<&String>) -> String {
        let version = self.version(name);
        let bare = version.split_once(' ').map_or(version.as_str(), |(bare, _)| bare);
        if bare.bytes().all(|byte| byte.is_ascii_digit()) { format!("version {version}") } else { version }
    }

    /// The wanted revision failed or was aborted: another one is worked towards.
    pub fn is_given_up(&self) -> bool {
        self.memory().effective.is_some() && self.memory().effective != self.memory().update
    }

    /// Nothing new is tried: what is worked towards has completed before.
    pub fn is_back(&self) -> bool {
        self.memory().effective.is_some() && self.memory().effective == self.memory().stable
    }

    /// No instance is asked for, and none is left, before any has shown that what is worked towards works.
    pub fn is_unproven(&self) -> bool {
        let is_forward = self.memory().batch.is_some() && self.memory().effective.is_some() && !self.is_back();
        let none_is_left = || self.slots.all().all(|slot| slot.others.is_empty()) && self.slots.are_unwanted_gone();
        is_forward && self.replicas() == 0 && none_is_left()
    }

    /// Every instance is observed at its target and available, and no Pod is left over.
    pub fn is_settled(&self) -> bool {
        self.is_run_settled() && self.slots.are_pins_done()
    }

    /// The same of those that are not pinned.
    pub fn is_run_settled(&self) -> bool {
        self.memory().effective.is_some() && self.slots.done() == Done::All
    }

    /// No run is on, and all Pods are there that should be. Listeners that move between these, or start again, are their
    /// ListenerSet's matter: a Rollout that has completed stays so.
    pub fn is_at_rest(&self) -> bool {
        self.is_back()
            && self.memory().batch.is_none()
            && self.slots.wanted().all(|slot| self.slots.is_in_place(slot))
            && self.slots.are_unwanted_gone()
    }

    /// An instance runs, or still runs beside its new Pod, what it should not: another revision, or a Pod to be restarted.
    pub fn is_changing(&self) -> bool {
        let is_due = |slot: &&Slot<'_>| slot.opened || slot.pin.is_some();
        if let Some(sets) = self.slots.sets() {
            return !sets.is_switched() || self.slots.all().any(|slot| !slot.others.is_empty());
        }
        self.slots.wanted().filter(is_due).any(|slot| {
            let stays = |pod: &Pod| Some(pod.revision.as_str()) == slot.assigned && !self.slots.is_renewal_due(pod);
            slot.live.iter().any(|pod| !stays(pod))
        })
    }
}
