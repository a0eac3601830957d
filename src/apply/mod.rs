//! I/O out: one function per [`Change`] of a Rollout's plan and per [`SetChange`] of a ListenerSet's, each answering with what became of it.
//!
//! Every call has a time-out, is sent once, and only while the controller lock outlives it ([`fence`]); at most
//! [`call::IN_FLIGHT_MAX`] are in flight. Deletes and marks carry uid and resourceVersion as preconditions; a create whose
//! name is taken looks whose it is. Nothing here decides: what an answer leads to is planned with the next look.
//! Applications in Pods are called beside all that ([`applications`]), and agents are written letters so ([`letters`]).
#[cfg(test)]
mod adoption_tests;
mod answer;
pub mod applications;
pub mod asks;
pub mod call;
pub mod event;
pub mod fence;
mod hooks;
#[cfg(test)]
mod lease_tests;
mod leases;
pub mod letters;
pub mod overlap;
mod overtake;
mod pods;
mod post;
mod resize;
mod revisions;
mod services;
mod sets;
mod shares;
#[cfg(test)]
mod specimen_tests;
pub mod status;
#[cfg(test)]
mod status_tests;
mod target;
#[cfg(test)]
mod tests;

use futures::future::{join, join_all};
use k8s_openapi::api::{apps::v1::ControllerRevision, batch::v1::Job, coordination::v1::Lease, core::v1::Pod};
use kube::{Resource, ResourceExt};
use serde_json::json;

use self::{call::Written, target::Target};
pub use self::{
    call::{CallError, Calls},
    fence::Fence,
    leases::delete as delete_lease,
    pods::overtake as overtake_pod,
    services::{is_latest as is_latest_service, overtake as overtake_service},
    sets::apply as apply_set,
};
use crate::{
    api::{ListenerSet, Rollout},
    plan::{Applied, Change, Outcome, PodAct, Question, RevisionAct, Seen, revision::owner_reference},
    snapshot::{Snapshot, index::Kind},
};

/// (uid, resourceVersion) of an object as it is now, past every cache. None when it does not exist.
///
/// # Errors
/// Without an answer, or with one that says neither.
pub async fn version_of(
    calls: &Calls,
    kind: Kind,
    namespace: &str,
    name: &str,
) -> Result<Option<(String, String)>, CallError> {
    match kind {
        Kind::Rollout => version::<Rollout>(calls, namespace, name).await,
        Kind::Pod | Kind::AgentPod => version::<Pod>(calls, namespace, name).await,
        Kind::Revision => version::<ControllerRevision>(calls, namespace, name).await,
        Kind::ListenerSet => version::<ListenerSet>(calls, namespace, name).await,
        Kind::Lease => version::<Lease>(calls, namespace, name).await,
        Kind::Job => version::<Job>(calls, namespace, name).await,
    }
}

async fn version<K: Resource<DynamicType = ()>>(
    calls: &Calls,
    namespace: &str,
    name: &str,
) -> Result<Option<(String, String)>, CallError> {
    match calls.get::<K, Written>(namespace, name).await {
        Ok(object) => Ok(Some((object.metadata.uid, object.metadata.resource_version))),
        Err(error) if error.code() == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes the Rollout the controller of an object, if that is still what was seen: without a controller. References to other
/// owners stay, because the patch merges the list by their uids.
async fn adopt<K: Resource<DynamicType = ()>>(
    target: &Target<'_>,
    Seen { name, uid, resource_version }: &Seen,
) -> Applied {
    let owner = owner_reference(&target.name, &target.uid);
    let metadata = json!({"uid": uid, "resourceVersion": resource_version, "ownerReferences": [owner]});
    let patch = json!({"metadata": metadata});
    answer::of_patch(target.calls.merge_lists::<K>(&target.namespace, name, &patch).await)
}

/// Makes the changes of a plan for the Rollout of `snapshot`; answers in their order. Changes are independent: one that
/// fails stops no other, except that creates of Pods start slowly (1, 2, 4, …) and stop at the first batch with a refusal,
/// so that an exhausted quota is asked once and not a thousand times. Creates that were not tried have no outcome.
pub async fn apply(calls: &Calls, snapshot: &Snapshot, changes: &[Change]) -> Vec<Outcome> {
    let target = Target {
        calls,
        snapshot,
        namespace: snapshot.rollout.namespace().unwrap_or_default(),
        name: snapshot.rollout.name_any(),
        uid: snapshot.rollout.uid().unwrap_or_default(),
    };
    let numbered = || changes.iter().enumerate();
    let creates: Vec<_> = numbered().filter(|(_, change)| matches!(change, Change::CreatePod { .. })).collect();
    let others = numbered().filter(|(_, change)| !matches!(change, Change::CreatePod { .. }));
    let (others, creates) = join(
        join_all(others.map(|(number, change)| numbered_outcome(&target, number, change))),
        slow_start(&target, &creates),
    )
    .await;
    let mut outcomes: Vec<(usize, Outcome)> = others.into_iter().chain(creates).collect();
    outcomes.sort_by_key(|(number, _)| *number);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Batches of 1, 2, 4, …, as the ReplicaSet controller creates Pods.
async fn slow_start(target: &Target<'_>, creates: &[(usize, &Change)]) -> Vec<(usize, Outcome)> {
    let mut outcomes = Vec::new();
    let (mut rest, mut size) = (creates, 1);
    while !rest.is_empty() {
        let (batch, later) = rest.split_at(size.min(rest.len()));
        let done = join_all(batch.iter().map(|(number, change)| numbered_outcome(target, *number, change))).await;
        let refused = done.iter().any(|(_, outcome)| {
            matches!(outcome.result, Applied::Refused { .. } | Applied::Unknown { .. } | Applied::Fenced)
        });
        outcomes.extend(done);
        if refused {
            break;
        }
        (rest, size) = (later, size * 2);
    }
    outcomes
}

async fn numbered_outcome(target: &Target<'_>, number: usize, change: &Change) -> (usize, Outcome) {
    let result = perform(target, change).await;
    (number, Outcome { change: change.clone(), result })
}

async fn perform(target: &Target<'_>, change: &Change) -> Applied {
    match change {
        Change::CreateRevision { name, hash, number, data, change_cause } => {
            let change_cause = change_cause.as_deref();
            revisions::create(target, &revisions::New { name, hash, number: *number, data, change_cause }).await
        }
        Change::CreatePod { name, slot, revision, restarted_at, .. } => {
            pods::create(target, name, *slot, revision, *restarted_at).await
        }
        Change::Revision { seen, act } => match act {
            RevisionAct::Mark(mark) => revisions::mark(target, seen, mark).await,
            RevisionAct::Delete => revisions::delete(target, seen).await,
            RevisionAct::Adopt => adopt::<ControllerRevision>(target, seen).await,
        },
        Change::Pod { seen, act } => perform_on_pod(target, seen, act).await,
        Change::CreateHook { name, job, .. } => hooks::create(target, name, job).await,
        Change::DeleteHook { seen, .. } => hooks::delete(target, seen).await,
        Change::Service { seen, select } => services::switch(target, seen, select).await,
        Change::Ask(Question::Template { revision }) => pods::check(target, revision).await,
        Change::Ask(Question::Resize { pod, revision }) => resize::check(target, &pod.uid, revision).await,
        Change::CallPod { uid, purpose, of, .. } => {
            target.calls.applications().ask(target.snapshot, uid, *purpose, *of)
        }
        Change::TellApplication { uid, .. } => target.calls.applications().tell(target.snapshot, uid),
    }
}

async fn perform_on_pod(target: &Target<'_>, seen: &Seen, act: &PodAct) -> Applied {
    match act {
        PodAct::Adopt => adopt::<Pod>(target, seen).await,
        PodAct::Delete { .. } => pods::delete(target.calls, &target.namespace, seen).await,
        PodAct::Keep { until, run } => pods::keep(target, &seen.uid, *until, *run).await,
        PodAct::ChangeInPlace { revision, .. } => pods::change_in_place(target, &seen.uid, revision).await,
        PodAct::Resize { .. } => resize::perform(target, &seen.uid).await,
        PodAct::NoteResized => resize::note_done(target, &seen.uid).await,
        PodAct::SetInService { in_service, session_ready } => {
            let says = pods::Service { in_service: *in_service, session_ready: *session_ready };
            pods::set_in_service(target, seen, says).await
        }
        PodAct::NoteReloaded => pods::note_reloaded(target, seen).await,
        PodAct::SetDrained { busy } => pods::set_drained(target, seen, busy).await,
    }
}
