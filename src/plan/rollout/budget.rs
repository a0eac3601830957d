//! How many instances may be missing and how many Pods may be too many, as in a Deployment; with the difference that
//! here Pods belong to instances: a Pod that leaves beside an available one of its instance costs no availability.
use super::{after, in_place, recreate, replicas, slots::Slots, specimens};
use crate::{
    api::{RolloutSpec, rollout::StrategyType},
    snapshot::{Pod, Snapshot},
};

/// A Terminating Pod counts in the total until its grace period is over for this long, or its node is lost: an
/// unanswering node must not block a slot for ever. Exclusive work is guarded by Leases, not by this.
pub(super) const TERMINATING_COUNTS_SECONDS: i64 = 30;

/// What may still be done now. Each permitted create or delete is taken off it.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    /// Fewest available instances that must remain; Pods, while any are retired beyond replicas.
    pub available_min: i32,
    /// The same while one is changed in place.
    pub available_min_in_place: i32,
    /// Pods that are available; with strategy BlueGreen those that clients use.
    pub available_pods: i32,
    /// Instances that are available: slots below replicas with an available Pod. A surge Pod beside one adds nothing.
    pub available_instances: i32,
    /// Most Pods at once.
    pub total_max: i32,
    /// Pods that exist, Terminating ones included while they count.
    pub total: i32,
}

impl Budget {
    pub fn new(snapshot: &Snapshot, slots: &Slots<'_>) -> Self {
        let spec = &snapshot.rollout.spec;
        let available = |pod: &Pod| pod.is_available(spec.min_ready_seconds, snapshot.now);
        Self {
            // All old ones leave at once.
            available_min: if recreate::is_asked_for(snapshot) { 0 } else { available_min(spec) },
            available_min_in_place: in_place::available_min(spec),
            available_pods: snapshot.pods.iter().filter(|pod| available(pod) && slots.is_in_use(pod)).count() as i32,
            available_instances: slots.wanted().filter(|slot| slot.live.iter().any(|pod| available(pod))).count()
                as i32,
            total_max: total_max(spec).saturating_add(beyond(snapshot, slots)),
            total: snapshot.pods.iter().filter(|pod| counts(snapshot, pod)).count() as i32
                + specimens::beyond(snapshot),
        }
    }

    /// Takes one Pod off the number that may still be created; false when there is none.
    pub fn take_create(&mut self) -> bool {
        let free = self.total < self.total_max;
        self.total += i32::from(free);
        free
    }

    /// Takes the last Ready Pod of a slot below replicas off: an instance becomes unavailable. A Pod that is not available
    /// (yet, or by a clock that is behind) leaves the numbers as they are, and still goes only where the others suffice:
    /// by the node's clock it may be available.
    pub fn take_instance(&mut self, is_available: bool) -> bool {
        self.take_down_to(self.available_min, is_available)
    }

    /// The same for one that is changed in place.
    pub fn take_instance_in_place(&mut self, is_available: bool) -> bool {
        self.take_down_to(self.available_min_in_place, is_available)
    }

    fn take_down_to(&mut self, available_min: i32, is_available: bool) -> bool {
        let cost = i32::from(is_available);
        let free = self.available_instances - cost >= available_min;
        if free {
            self.available_instances -= cost;
            self.available_pods -= cost;
        }
        free
    }

    /// Takes a Ready Pod of a slot beyond replicas off: it goes where enough other Pods are available, whosever they are.
    pub fn take_beyond(&mut self, is_available: bool) -> bool {
        let cost = i32::from(is_available);
        let free = self.available_pods - cost >= self.available_min;
        self.available_pods -= if free { cost } else { 0 };
        free
    }

    /// Notes that a Pod leaves beside a better, available one: its instance stays available, so it is always free. With
    /// maxUnavailable 0 one broken instance elsewhere would else keep every change from its end.
    pub fn leave_beside(&mut self, is_available: bool) {
        self.available_pods -= i32::from(is_available);
    }
}

/// Most Pods at once.
pub fn total_max(spec: &RolloutSpec) -> i32 {
    let replicas = replicas(spec);
    match spec.strategy.type_ {
        StrategyType::Batched => replicas.saturating_add(spec.strategy.max_surge.rounded_up(replicas)),
        StrategyType::Recreate => replicas,
        StrategyType::BlueGreen => replicas.saturating_mul(2),
    }
}

/// With strategy BlueGreen: Pods beyond replicas that clients use, and that wait until the others suffice; or used a moment ago.
/// They take no room from the sets: where the others never suffice, the one that is to come is the remedy.
fn beyond(snapshot: &Snapshot, slots: &Slots<'_>) -> i32 {
    let waits = |pod: &Pod| pod.is_ready() && (slots.is_in_use(pod) || slots.was_in_use(pod));
    let unwanted = slots.unwanted().filter(|_| snapshot.rollout.spec.strategy.type_ == StrategyType::BlueGreen);
    unwanted.flat_map(|slot| &slot.live).filter(|pod| waits(pod)).count() as i32
}

/// Fewest instances that are to be available, and with strategy Batched stay so while Pods are replaced.
pub fn available_min(spec: &RolloutSpec) -> i32 {
    let replicas = replicas(spec);
    if spec.strategy.type_.is_at_once() {
        return replicas;
    }
    let mut unavailable = spec.strategy.max_unavailable.rounded_down(replicas);
    if unavailable == 0 && spec.strategy.max_surge.rounded_up(replicas) == 0 {
        unavailable = 1; // as a Deployment: percentages that both come to nothing must not stop the rollout
    }
    replicas - unavailable.min(replicas)
}

/// The same, also where Pods are changed in place: what people are told.
pub fn fewest_available(spec: &RolloutSpec) -> i32 {
    let of_replacements = available_min(spec);
    if in_place::is_chosen(&spec.strategy) && spec.strategy.update.restarts() {
        of_replacements.min(in_place::available_min(spec))
    } else {
        of_replacements
    }
}

/// Does this Pod count in the total?
pub(super) fn counts(snapshot: &Snapshot, pod: &Pod) -> bool {
    match pod.deletion {
        _ if pod.is_finished() => false,
        None => true,
        Some(_) if mutant!(TerminatingNotCounted) => false,
        Some(at) => {
            let node_lost = pod.node.as_ref().is_some_and(|node| snapshot.lost_nodes.contains(node));
            !node_lost && after(at, TERMINATING_COUNTS_SECONDS) > snapshot.now
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::rollout::tests::fixture::{Fixture, at};

    /// A Terminating Pod blocks its slot until its grace period is over for 30 s, or its node is lost.
    #[test]
    fn which_pods_count() {
        let mut snapshot = Fixture::new("a a- ax", 'a', json!({})).snapshot;
        let counted = |snapshot: &Snapshot| -> Vec<i32> {
            snapshot.pods.iter().filter(|pod| counts(snapshot, pod)).map(|pod| pod.slot).collect()
        };
        assert_eq!(counted(&snapshot), [0, 1], "what has finished does not count");
        snapshot.now = at(39); // its grace period ended at 10
        assert_eq!(counted(&snapshot), [0, 1]);
        snapshot.now = at(40);
        assert_eq!(counted(&snapshot), [0]);
        snapshot.now = at(0);
        snapshot.lost_nodes.insert("node-1".into());
        assert_eq!(counted(&snapshot), [0], "a Pod that is to stay counts wherever it is");
        snapshot.pod_mut(1).node = None;
        assert_eq!(counted(&snapshot), [0, 1], "bound to no node that could be lost");
    }
}
