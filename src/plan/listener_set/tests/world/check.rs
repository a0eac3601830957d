//! What holds for every plan.
use std::collections::BTreeSet;

use crate::{
    api::names,
    plan::listener_set::change::{SetChange, SetPlan},
    snapshot::{
        lease::Order,
        listener_set::{Course, SetSnapshot},
    },
};

/// One write of each object at most, and L6.
pub fn check(snapshot: &SetSnapshot, planned: &SetPlan) {
    let mut targets = BTreeSet::new();
    for change in &planned.changes {
        let name = format!("{change:?}");
        let target = match change {
            SetChange::CreateSession { pod, .. } | SetChange::KillPod { pod, .. } => format!("pod {pod}"),
            SetChange::SetProfile { lease, .. } | SetChange::SetInbox { lease, .. } => {
                format!("{} {lease}", change.verb())
            }
            SetChange::Fence { lease, .. } => format!("Fence {lease}"),
            SetChange::CreateOwnership { listener, .. }
            | SetChange::Assign { listener, .. }
            | SetChange::Configure { listener, .. }
            | SetChange::Mend { listener, .. }
            | SetChange::Retire { listener, .. } => format!("lease {listener}"),
        };
        assert!(targets.insert(target), "two writes of one object: {name}");
        // L6: to Pods that are ready and stay.
        if let SetChange::Assign { write, .. } | SetChange::CreateOwnership { write, .. } = change
            && let Some(to) = &write.holder
        {
            let pod = snapshot.pods.iter().find(|pod| pod.uid == to.uid).expect("L6: one of the set's Pods");
            assert!(pod.is_ready && !pod.is_terminating && pod.course != Course::Leaves, "L6: {name}");
        }
        if let SetChange::SetInbox { letters, lease, .. } = change {
            let orders = letters.values().map(|letter| &letter.order);
            let heirs = orders.filter_map(|order| if let Order::Release(to) = order { to.as_ref() } else { None });
            // One that names its reader is a permit to go on.
            for to in heirs.filter(|to| names::session_lease_name(&to.pod).as_ref() != Some(lease)) {
                let pod = snapshot.pods.iter().find(|pod| pod.uid == to.uid).expect("L6: one of the set's Pods");
                assert!(pod.is_ready && !pod.is_terminating && pod.course != Course::Leaves, "L6: {name}");
            }
        }
    }
}
