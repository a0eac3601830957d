//! ControllerRevisions: create, mark, delete.
use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::core::params::DeleteParams;
use serde_json::{Value, json};

use super::{
    answer::{self, is_taken},
    pods::preconditions,
    target::Target,
};
use crate::{
    api::names,
    plan::{Applied, RevisionMark, Seen, adoption, revision::owner_reference},
    snapshot::wire,
};

/// Content of a new ControllerRevision.
pub(super) struct New<'a> {
    pub name: &'a str,
    pub hash: &'a str,
    pub number: i64,
    pub data: &'a Value,
    pub change_cause: Option<&'a str>,
}

/// Creates it.
pub(super) async fn create(target: &Target<'_>, new: &New<'_>) -> Applied {
    let annotations = new.change_cause.map(|cause| json!({names::ANNOTATION_CHANGE_CAUSE: cause}));
    let object = json!({
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": new.name,
            "namespace": target.namespace,
            "labels": {names::LABEL_ROLLOUT: target.name, names::LABEL_REVISION_HASH: new.hash},
            "annotations": annotations.unwrap_or_else(|| json!({})),
            "ownerReferences": [owner_reference(&target.name, &target.uid)],
        },
        "data": new.data,
        "revision": new.number,
    });
    match target.calls.create::<ControllerRevision>(&target.namespace, &object).await {
        Ok(written) => Applied::Done { resource_version: written.metadata.resource_version },
        Err(error) if is_taken(&error) => found(target, new).await,
        Err(error) => answer::of_create(&error),
    }
}

/// The name is taken: by our own revision of the same content, or by another object?
async fn found(target: &Target<'_>, new: &New<'_>) -> Applied {
    match target.calls.get::<ControllerRevision, ControllerRevision>(&target.namespace, new.name).await {
        Ok(object) => {
            let is_ours = wire::owner(&object.metadata).is_some_and(|owner| owner.uid == target.uid);
            let is_left = target.left_behind(&object.metadata);
            let is_same = object.data.0 == *new.data;
            let known = wire::revision(object.into());
            match is_ours && is_same {
                true => Applied::Done { resource_version: known.resource_version },
                // The watch will show that an earlier Rollout of this name has left it: then it is adopted.
                false if is_left && adoption::is_adoptable_revision(target.snapshot, &known) => Applied::Stale,
                false => Applied::NameTaken,
            }
        }
        Err(error) => answer::of_change(&error),
    }
}

/// Writes a durable fact on it, if it is still the one we looked at: uid and resourceVersion in a patch are preconditions.
pub(super) async fn mark(target: &Target<'_>, seen: &Seen, mark: &RevisionMark) -> Applied {
    let mut patch = json!({"metadata": {"uid": seen.uid, "resourceVersion": seen.resource_version}});
    match mark {
        RevisionMark::Wanted { number, change_cause } => {
            patch["revision"] = json!(number);
            patch["metadata"]["annotations"] = json!({
                names::ANNOTATION_FAILED_AT: null,
                names::ANNOTATION_FAILED_REASON: null,
                names::ANNOTATION_CHANGE_CAUSE: change_cause,
            });
        }
        RevisionMark::Completed { at } => {
            patch["metadata"]["annotations"] = json!({names::ANNOTATION_COMPLETED_AT: at.to_string()});
        }
        RevisionMark::Failed { at, reason } => {
            patch["metadata"]["annotations"] =
                json!({names::ANNOTATION_FAILED_AT: at.to_string(), names::ANNOTATION_FAILED_REASON: reason});
        }
        RevisionMark::Fetched { sha256 } => {
            patch["metadata"]["annotations"] = json!({names::ANNOTATION_PACKAGE_SHA256: sha256});
        }
        RevisionMark::Backup { backup, run } => {
            patch["metadata"]["annotations"] = json!({names::ANNOTATION_BACKUP: backup.note(*run)});
        }
        RevisionMark::Ran { images } => {
            patch["metadata"]["annotations"] = json!({names::ANNOTATION_IMAGE_DIGESTS: json!(images).to_string()});
        }
    }
    answer::of_patch(target.calls.merge::<ControllerRevision>(&target.namespace, &seen.name, &patch).await)
}

/// Deletes it, if it is still the one we looked at.
pub(super) async fn delete(target: &Target<'_>, seen: &Seen) -> Applied {
    let params = DeleteParams {
        preconditions: Some(preconditions(&seen.uid, &seen.resource_version)),
        ..DeleteParams::default()
    };
    match target.calls.delete::<ControllerRevision>(&target.namespace, &seen.name, &params).await {
        Ok(()) => Applied::Done { resource_version: String::new() },
        Err(error) => answer::of_change(&error),
    }
}
