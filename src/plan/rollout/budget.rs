//! How many Pods may be missing and how many may be too many, as in a Deployment.
use super::{after, replicas, slots::Slots};
use crate::{
    api::RolloutSpec,
    snapshot::{Pod, Snapshot},
};

/// A Terminating Pod counts in the total until its grace period is over for this long, or its node is lost: an
/// unanswering node must not block a slot for ever. Exclusive work is guarded by Leases, not by this.
pub(super) const TERMINATING_COUNTS_SECONDS: i64 = 30;

/// What may still be done now. Each permitted create or delete is taken off it.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    /// Fewest available instances, and Pods, that must remain.
    pub available_min: i32,
    /// Pods that are available.
    pub available_pods: i32,
    /// Slots below replicas with an available Pod.
    pub available_slots: i32,
    /// Most Pods at once.
    pub total_max: i32,
    /// Pods that exist, Terminating ones included while they count.
    pub total: i32,
}

impl Budget {
    pub fn new(snapshot: &Snapshot, slots: &Slots<'_>) -> Self {
        let spec = &snapshot.rollout.spec;
        let replicas = replicas(spec);
        let surge = spec.strategy.max_surge.rounded_up(replicas);
        let available = |pod: &Pod| pod.is_available(spec.min_ready_seconds, snapshot.now);
        Self {
            available_min: available_min(spec),
            available_pods: snapshot.pods.iter().filter(|pod| available(pod)).count() as i32,
            available_slots: slots.wanted().filter(|slot| slot.live.iter().any(|pod| available(pod))).count() as i32,
            total_max: replicas.saturating_add(surge),
            total: snapshot.pods.iter().filter(|pod| counts(snapshot, pod)).count() as i32,
        }
    }

    /// Takes one Pod off the number that may still be created; false when there is none.
    pub fn take_create(&mut self) -> bool {
        let free = self.total < self.total_max;
        self.total += i32::from(free);
        free
    }

    /// Takes one Ready Pod off; `last_of_slot` says that its slot (below replicas) has no other available Pod. One that
    /// is not available (yet, or by a clock that is behind) leaves the numbers as they are, and still goes only where the
    /// others suffice: by the node's clock it may be available.
    pub fn take_ready(&mut self, is_available: bool, last_of_slot: bool) -> bool {
        let cost = i32::from(is_available);
        let free = self.available_pods - cost >= self.available_min
            && (!last_of_slot || self.available_slots - cost >= self.available_min);
        if free {
            self.available_pods -= cost;
            self.available_slots -= if last_of_slot { cost } else { 0 };
        }
        free
    }
}

/// Fewest instances that must stay available while Pods are replaced.
pub fn available_min(spec: &RolloutSpec) -> i32 {
    let replicas = replicas(spec);
    let mut unavailable = spec.strategy.max_unavailable.rounded_down(replicas);
    if unavailable == 0 && spec.strategy.max_surge.rounded_up(replicas) == 0 {
        unavailable = 1; // as a Deployment: percentages that both come to nothing must not stop the rollout
    }
    replicas - unavailable.min(replicas)
}

/// Does this Pod count in the total?
fn counts(snapshot: &Snapshot, pod: &Pod) -> bool {
    match pod.deletion {
        _ if pod.is_finished() => false,
        None => true,
        Some(at) => {
            let node_lost = pod.node.as_ref().is_some_and(|node| snapshot.lost_nodes.contains(node));
            !node_lost && after(at, TERMINATING_COUNTS_SECONDS) > snapshot.now
        }
    }
}
