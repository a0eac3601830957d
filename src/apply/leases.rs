//! The Leases of the hand-off. Every write to one that exists is a merge patch with its uid, so that one that was deleted is
//! not made again and what others have written beside stays; with its resourceVersion too wherever something rests on what
//! was seen: a compare-and-swap.
use std::collections::BTreeMap;

use k8s_openapi::api::coordination::v1::Lease;
use kube::core::params::DeleteParams;
use serde_json::{Value, json};

use super::{
    answer::{self, is_taken},
    call::Calls,
    pods::preconditions,
};
use crate::{
    api::{names, session::SessionProfile},
    plan::{
        Applied,
        listener_set::{change::Origin, ownership::Write},
    },
    snapshot::{
        index::ObjectKey,
        lease::{self, Claim, Holder, Letter, write_inbox},
        listener::Settings,
        listener_set::SetSnapshot,
    },
};

/// The ListenerSet that changes are made for.
#[derive(Clone)]
pub(super) struct Target<'a> {
    /// [`Calls::quick`], but for creations.
    pub calls: &'a Calls,
    pub snapshot: &'a SetSnapshot,
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// What an agent is told of a listener.
pub(super) struct Config<'a> {
    pub settings: &'a Settings,
    pub hash: &'a str,
}

impl Config<'_> {
    fn annotations(&self) -> Value {
        let settings = serde_json::to_string(self.settings).unwrap_or_default();
        json!({names::ANNOTATION_CONFIG: settings, names::ANNOTATION_CONFIG_HASH: self.hash})
    }
}

/// uid and resourceVersion that a write requires.
type Version<'a> = (&'a str, &'a str);

/// Makes the session Lease of a Pod, for its agent to claim.
pub(super) async fn create_session(target: &Target<'_>, pod: &str, pod_uid: &str, profile: SessionProfile) -> Applied {
    // The planner asks for none with a longer name.
    let Some(name) = names::session_lease_name(pod) else { return Applied::NameTaken };
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": name,
            "namespace": target.namespace,
            "labels": {names::LABEL_LEASE: names::LEASE_SESSION},
            "annotations": {names::ANNOTATION_PROFILE: profile},
            "ownerReferences": [lease::pod_owner(pod, pod_uid)],
        },
        "spec": {"leaseTransitions": 0, "leaseDurationSeconds": profile.times().expire.as_secs()},
    });
    create(target, &name, &lease, |found| {
        let owners = lease::owners(found);
        if owners.iter().any(|owner| owner.uid == pod_uid) {
            Whose::Ours
        } else if owners.iter().any(lease::is_pod) {
            // Of an earlier Pod of this name: it goes with that.
            Whose::Predecessors
        } else {
            Whose::Others
        }
    })
    .await
}

/// Asks an agent for another profile.
pub(super) async fn set_profile(target: &Target<'_>, lease: &str, uid: &str, profile: SessionProfile) -> Applied {
    let patch = json!({"metadata": {"uid": uid, "annotations": {names::ANNOTATION_PROFILE: profile}}});
    merge(target, lease, &patch).await
}

/// Says that this boot may hold nothing any more. A renewal that came in between makes it fail.
pub(super) async fn fence(target: &Target<'_>, lease: &str, version: Version<'_>, holder: &Holder) -> Applied {
    let fenced = Claim::Fenced(holder.clone()).to_identity();
    let patch = json!({"metadata": metadata(version), "spec": {"holderIdentity": fenced}});
    merge(target, lease, &patch).await
}

/// Replaces a set's inbox in a session Lease (name, uid). Without the resourceVersion: the agent renews the Lease all the
/// time, and nothing rests on an inbox.
pub(super) fn set_inbox(
    calls: &Calls,
    set: &ObjectKey,
    (lease, uid): (&str, &str),
    letters: &BTreeMap<String, Letter>,
) -> impl Future<Output = Applied> + Send + use<> {
    let inbox = (!letters.is_empty()).then(|| write_inbox(letters));
    let patch = json!({"metadata": {"uid": uid, "annotations": {names::inbox_annotation(&set.name): inbox}}});
    let (calls, namespace, lease) = (calls.clone(), set.namespace.clone(), lease.to_owned());
    async move { answer::of_patch(calls.merge::<Lease>(&namespace, &lease, &patch).await) }
}

/// Makes the ownership Lease of a listener.
pub(super) async fn create_ownership(
    target: &Target<'_>,
    listener: &str,
    write: &Write,
    config: &Config<'_>,
) -> Applied {
    let name = names::listener_lease_name(&target.name, listener);
    let mut lease = holding(target, write);
    lease["apiVersion"] = json!("coordination.k8s.io/v1");
    lease["kind"] = json!("Lease");
    let metadata = &mut lease["metadata"];
    metadata["name"] = json!(name);
    metadata["namespace"] = json!(target.namespace);
    metadata["labels"][names::LABEL_LEASE] = json!(names::LEASE_LISTENER);
    metadata["labels"][names::LABEL_LISTENER_SET] = json!(target.name);
    metadata["annotations"][names::ANNOTATION_LISTENER] = json!(listener);
    extend(&mut metadata["annotations"], config.annotations());
    drop_nulls(&mut lease);
    create(target, &name, &lease, |found| match lease::controlling_set(found) {
        Some(set) if set.uid == target.uid => Whose::Ours,
        Some(set) if set.name == target.name => Whose::Predecessors,
        _ => Whose::Others,
    })
    .await
}

/// Gives a listener to a boot, or leaves it unowned.
pub(super) async fn assign(
    target: &Target<'_>,
    listener: &str,
    version: Version<'_>,
    write: &Write,
    from: &Origin,
) -> Applied {
    let mut patch = holding(target, write);
    extend(&mut patch["metadata"], metadata(version));
    let annotations = &mut patch["metadata"]["annotations"];
    if let Origin::Dead(holder, _) | Origin::Force(holder, _) = from {
        annotations[names::ANNOTATION_FROM] = json!(holder.to_string());
    }
    if let Origin::Force(_, asked_at) = from {
        annotations[names::ANNOTATION_FORCED_AT] = json!(asked_at.to_string());
    }
    if *from != Origin::Unowned {
        // It was not handed over; what stands there is of a move long ago.
        annotations[names::ANNOTATION_STOPPED_AT] = Value::Null;
    }
    merge(target, &names::listener_lease_name(&target.name, listener), &patch).await
}

/// Writes settings; owner and epoch stay.
pub(super) async fn configure(
    target: &Target<'_>,
    listener: &str,
    version: Version<'_>,
    config: &Config<'_>,
) -> Applied {
    let mut patch = json!({"metadata": metadata(version)});
    patch["metadata"]["annotations"] = config.annotations();
    merge(target, &names::listener_lease_name(&target.name, listener), &patch).await
}

/// Writes label and owner references anew; owner and epoch are those that were seen.
pub(super) async fn mend(target: &Target<'_>, listener: &str, version: Version<'_>, write: &Write) -> Applied {
    let mut patch = lease::naming(write.holder.as_ref(), write.epoch);
    extend(&mut patch["metadata"], metadata(version));
    patch["metadata"]["ownerReferences"] = owners(target, write.holder.as_ref());
    merge(target, &names::listener_lease_name(&target.name, listener), &patch).await
}

/// Deletes the ownership Lease of a listener that is no more.
pub(super) async fn retire(target: &Target<'_>, listener: &str, version: Version<'_>) -> Applied {
    delete(target.calls, &target.namespace, &names::listener_lease_name(&target.name, listener), version).await
}

/// Deletes a Lease, if it is still the one that was looked at.
pub async fn delete(calls: &Calls, namespace: &str, name: &str, (uid, resource_version): Version<'_>) -> Applied {
    let params = DeleteParams { preconditions: Some(preconditions(uid, resource_version)), ..DeleteParams::default() };
    match calls.delete::<Lease>(namespace, name, &params).await {
        Ok(()) => Applied::Done { resource_version: String::new() },
        Err(error) => answer::of_change(&error),
    }
}

/// All that says who holds an ownership Lease: it is written together, always. Null removes what was there.
fn holding(target: &Target<'_>, write: &Write) -> Value {
    let holder = write.holder.as_ref();
    let session = holder.and_then(|holder| target.snapshot.sessions.get(&holder.pod));
    let revision = session.map(|session| &session.info.revision).filter(|revision| !revision.is_empty());
    let mut naming = lease::naming(holder, write.epoch);
    naming["metadata"]["annotations"] = json!({names::ANNOTATION_REVISION: revision});
    naming["metadata"]["ownerReferences"] = owners(target, holder);
    naming["spec"]["acquireTime"] = json!(holder.map(|_| format!("{:.6}", target.snapshot.now)));
    naming
}

/// The set, and the Pod that holds it.
fn owners(target: &Target<'_>, holder: Option<&Holder>) -> Value {
    let mut owners = vec![json!({
        "apiVersion": format!("{}/{}", names::GROUP, names::VERSION),
        "kind": "ListenerSet",
        "name": target.name,
        "uid": target.uid,
        "controller": true,
        "blockOwnerDeletion": false,
    })];
    owners.extend(holder.map(|holder| json!(lease::pod_owner(&holder.pod, &holder.uid))));
    json!(owners)
}

fn metadata((uid, resource_version): Version<'_>) -> Value {
    json!({"uid": uid, "resourceVersion": resource_version})
}

/// Adds the fields of an object to another.
fn extend(object: &mut Value, fields: Value) {
    if let (Value::Object(object), Value::Object(fields)) = (object, fields) {
        object.extend(fields);
    }
}

/// What a patch removes, a new object does not have.
fn drop_nulls(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.retain(|_, field| !field.is_null());
        fields.values_mut().for_each(drop_nulls);
    }
}

async fn merge(target: &Target<'_>, lease: &str, patch: &Value) -> Applied {
    answer::of_patch(target.calls.merge::<Lease>(&target.namespace, lease, patch).await)
}

/// Whose a Lease is whose name was taken.
enum Whose {
    /// We made it ourselves, a moment ago.
    Ours,
    /// Of an object of the same name that is gone; the garbage collector is about to take it.
    Predecessors,
    Others,
}

async fn create(target: &Target<'_>, name: &str, lease: &Value, whose: impl FnOnce(&Lease) -> Whose) -> Applied {
    let error = match target.calls.create::<Lease>(&target.namespace, lease).await {
        Ok(written) => return Applied::Done { resource_version: written.metadata.resource_version },
        Err(error) => error,
    };
    if !is_taken(&error) {
        return answer::of_create(&error);
    }
    let found = match target.calls.get::<Lease, Lease>(&target.namespace, name).await {
        Ok(found) => found,
        // Gone again: what to do about that, the next look decides.
        Err(error) => return answer::of_change(&error),
    };
    // One without our label is not watched: it would never be seen.
    let label = |labels: &BTreeMap<String, String>| labels.get(names::LABEL_LEASE).cloned();
    let is_watched = found.metadata.labels.as_ref().and_then(label).as_deref()
        == lease["metadata"]["labels"][names::LABEL_LEASE].as_str();
    match whose(&found) {
        Whose::Ours if is_watched => {
            Applied::Done { resource_version: found.metadata.resource_version.unwrap_or_default() }
        }
        Whose::Predecessors => Applied::Stale,
        Whose::Ours | Whose::Others => Applied::NameTaken,
    }
}
