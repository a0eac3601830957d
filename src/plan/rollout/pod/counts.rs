//! Which Pods count in the total of a Rollout.
use crate::{
    plan::rollout::time::after,
    snapshot::{Pod, Snapshot},
};

/// A Terminating Pod counts in the total until its grace period is over for this long, or its node is lost: an
/// unanswering node must not block a slot for ever. Exclusive work is guarded by Leases, not by this.
pub(crate) const TERMINATING_COUNTS_SECONDS: i64 = 30;

/// Does this Pod count in the total?
pub(crate) fn counts(snapshot: &Snapshot, pod: &Pod) -> bool {
    match pod.deletion {
        _ if pod.is_finished() => false,
        None => true,
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
