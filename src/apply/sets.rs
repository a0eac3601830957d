//! The changes of a ListenerSet's plan.
use futures::future::join_all;
use kube::ResourceExt;

use super::{
    Calls,
    leases::{self, Target},
    pods,
};
use crate::{
    plan::{Applied, Outcome, Seen, listener_set::change::SetChange},
    snapshot::{index::ObjectKey, listener_set::SetSnapshot},
};

/// Makes the changes of a plan for the ListenerSet of `snapshot`, the first of them first; answers in their order. One that
/// fails stops no other. Letters are begun only: see [`super::letters`].
pub async fn apply(calls: &Calls, snapshot: &SetSnapshot, changes: &[SetChange]) -> Vec<Outcome<SetChange>> {
    let quick = calls.quick();
    let target = Target {
        calls: &quick,
        snapshot,
        namespace: snapshot.set.namespace().unwrap_or_default(),
        name: snapshot.set.name_any(),
        uid: snapshot.set.uid().unwrap_or_default(),
    };
    let results = join_all(changes.iter().map(|change| perform(&target, calls, change))).await;
    changes.iter().cloned().zip(results).map(|(change, result)| Outcome { change, result }).collect()
}

/// Leases quickly, Pods by `calls`.
async fn perform(target: &Target<'_>, calls: &Calls, change: &SetChange) -> Applied {
    match change {
        SetChange::CreateSession { pod, pod_uid, profile } => {
            leases::create_session(target, pod, pod_uid, *profile).await
        }
        SetChange::SetProfile { lease, uid, profile } => leases::set_profile(target, lease, uid, *profile).await,
        SetChange::Fence { lease, uid, resource_version, holder, .. } => {
            leases::fence(target, lease, (uid, resource_version), holder).await
        }
        SetChange::SetInbox { lease, uid, letters } => {
            let key = ObjectKey { namespace: target.namespace.clone(), name: target.name.clone() };
            let write = leases::set_inbox(target.calls, &key, (lease, uid), letters);
            target.calls.letters().send(key, (lease, uid), letters, write);
            Applied::Done { resource_version: String::new() }
        }
        SetChange::CreateOwnership { listener, write, settings, config_hash } => {
            // What may yet be made is waited for: nothing overtakes it, as a write of what exists is overtaken by the next.
            let patient = Target { calls, ..target.clone() };
            leases::create_ownership(&patient, listener, write, &leases::Config { settings, hash: config_hash }).await
        }
        SetChange::Assign { listener, uid, resource_version, write, from } => {
            leases::assign(target, listener, (uid, resource_version), write, from).await
        }
        SetChange::Configure { listener, uid, resource_version, settings, config_hash } => {
            let config = leases::Config { settings, hash: config_hash };
            leases::configure(target, listener, (uid, resource_version), &config).await
        }
        SetChange::Mend { listener, uid, resource_version, write } => {
            leases::mend(target, listener, (uid, resource_version), write).await
        }
        SetChange::Retire { listener, uid, resource_version } => {
            leases::retire(target, listener, (uid, resource_version)).await
        }
        SetChange::KillPod { pod, uid, resource_version, .. } => {
            let (name, uid, resource_version) = (pod.clone(), uid.clone(), resource_version.clone());
            pods::delete(calls, &target.namespace, &Seen { name, uid, resource_version }).await
        }
    }
}
