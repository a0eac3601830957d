use jiff::Timestamp;

use super::{budget::Budget, revisions::Lineage, slots::Slots};
use crate::{
    api::{RolloutSpec, status::BatchStatus},
    plan::{change::Memory, rollout::policy::Policy},
    snapshot::Snapshot,
};

/// All that the steps after the beginning of a run look at.
pub(crate) struct View<'a> {
    pub policy: Policy<'a>,
    pub snapshot: &'a Snapshot,
    pub lineage: &'a Lineage<'a>,
    pub memory: Memory,
    pub slots: Slots<'a>,
    pub budget: Budget,
}

impl<'a> View<'a> {
    pub fn new(snapshot: &'a Snapshot, lineage: &'a Lineage<'a>, memory: Memory) -> Self {
        let policy = Policy::of(&snapshot.rollout.spec);
        let slots = Slots::new(snapshot, lineage, &memory);
        let budget = Budget::new(&policy, snapshot, &slots);
        Self { policy, snapshot, lineage, memory, slots, budget }
    }

    /// What the slots are assigned follows from the number of opened ones and nothing else that may change here.
    pub fn remember_batch(&mut self, batch: Option<BatchStatus>) {
        let opened = |batch: &Option<BatchStatus>| batch.as_ref().map(|batch| batch.opened);
        let is_reassigned = opened(&batch) != opened(&self.memory.batch);
        self.memory.batch = batch;
        if is_reassigned {
            self.slots = Slots::new(self.snapshot, self.lineage, &self.memory);
            self.budget = Budget::new(&self.policy, self.snapshot, &self.slots);
        }
    }

    pub fn spec(&self) -> &'a RolloutSpec {
        &self.snapshot.rollout.spec
    }

    pub fn now(&self) -> Timestamp {
        self.snapshot.now
    }

    pub fn replicas(&self) -> i32 {
        self.policy.replicas
    }
}
