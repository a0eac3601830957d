//! How many instances may be missing and how many Pods may be too many, as in a Deployment; with the difference that
//! here Pods belong to instances: a Pod that leaves beside an available one of its instance costs no availability.
use super::slots::Slots;
use crate::{
    api::keep_failed::KeepFailed,
    plan::rollout::{pod::counts::counts, policy::Policy},
    snapshot::{Pod, Snapshot},
};

/// What may still be done now. Each permitted create or delete is taken off it.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
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
    pub fn new(policy: &Policy<'_>, snapshot: &Snapshot, slots: &Slots<'_>) -> Self {
        let spec = &snapshot.rollout.spec;
        let available = |pod: &Pod| pod.is_available(spec.min_ready_seconds, snapshot.now);
        Self {
            // All old ones leave at once.
            available_min: if policy.is_one_at_a_time() { 0 } else { policy.room.available_min },
            available_min_in_place: policy.room.available_min_in_place,
            available_pods: snapshot.pods.iter().filter(|pod| available(pod) && slots.is_in_use(pod)).count() as i32,
            available_instances: slots.wanted().filter(|slot| slot.live.iter().any(|pod| available(pod))).count()
                as i32,
            total_max: policy.room.total_max.saturating_add(beyond(policy, slots)),
            total: snapshot.pods.iter().filter(|pod| counts(snapshot, pod)).count() as i32
                + kept_beyond(policy, snapshot),
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

/// With strategy BlueGreen: Pods beyond replicas that clients use, and that wait until the others suffice; or used a moment ago.
/// They take no room from the sets: where the others never suffice, the one that is to come is the remedy.
fn beyond(policy: &Policy<'_>, slots: &Slots<'_>) -> i32 {
    let waits = |pod: &Pod| pod.is_ready() && (slots.is_in_use(pod) || slots.was_in_use(pod));
    let unwanted = slots.unwanted().filter(|_| policy.switched().is_some());
    unwanted.flat_map(|slot| &slot.live).filter(|pod| waits(pod)).count() as i32
}

/// Those that take room from the Pods of slots: more than may be kept.
fn kept_beyond(policy: &Policy<'_>, snapshot: &Snapshot) -> i32 {
    let most = policy.keeps_failed.map_or(0, KeepFailed::most);
    let there = snapshot.specimens.iter().filter(|pod| counts(snapshot, pod)).count();
    i32::try_from(there.saturating_sub(most)).unwrap_or(i32::MAX)
}
