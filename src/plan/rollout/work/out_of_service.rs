//! Pods that leave service before their containers are started anew.
use std::collections::{BTreeMap, BTreeSet};

use crate::{
    plan::{
        Change,
        rollout::time::{Alarm, after},
    },
    snapshot::{Pod, Snapshot},
};

/// It has a gate, or is in nobody's service.
pub(crate) fn can_leave_service(pod: &Pod) -> bool {
    pod.in_service.is_some() || !pod.is_ready()
}

/// How long after its gate was closed a Pod is left alone: the kubelet says that it is not Ready, and those who send to it
/// hear of that.
const SETTLE_SECONDS: i64 = 2;

/// Pods whose containers are to be ended in place leave service first: those that have not done so for long enough are not
/// changed now. Returns the names of all, and what is said on Pods. A Pod without gate cannot say it.
pub(crate) fn leave_service(
    snapshot: &Snapshot,
    changes: &mut Vec<Change>,
    alarm: &mut Alarm,
) -> (BTreeSet<String>, Vec<Change>) {
    let (mut leaving, mut says) = (BTreeSet::new(), Vec::new());
    if !changes.iter().any(|change| matches!(change, Change::ChangeInPlace { .. })) {
        return (leaving, says);
    }
    let pods: BTreeMap<&str, &Pod> = snapshot.pods.iter().map(|pod| (pod.uid.as_str(), &**pod)).collect();
    changes.retain(|change| {
        let Change::ChangeInPlace { name, uid, resource_version, restarts: true, .. } = change else { return true };
        leaving.insert(name.clone());
        let Some(pod) = pods.get(uid.as_str()) else { return false };
        // A clock that was set back makes nobody wait.
        let since = pod.in_service_since.filter(|since| *since <= snapshot.now);
        let has_left = match pod.in_service {
            None => true,
            Some(true) => false,
            Some(false) => {
                let is_settled = since.is_none_or(|since| alarm.passed(after(since, SETTLE_SECONDS)));
                is_settled && pod.ready_since.is_none()
            }
        };
        if pod.in_service == Some(true) {
            says.push(Change::SetInService {
                name: name.clone(),
                uid: uid.clone(),
                resource_version: resource_version.clone(),
                in_service: false,
                session_ready: None,
            });
        }
        has_left
    });
    (leaving, says)
}
