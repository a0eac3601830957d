//! Jobs of hooks: create, delete with their Pods.
use k8s_openapi::api::batch::v1::Job;
use kube::core::params::{DeleteParams, PropagationPolicy};
use serde_json::Value;

use super::{
    answer::{self, is_taken},
    pods::preconditions,
    target::Target,
};
use crate::{
    api::names::{ANNOTATION_HOOK_KEY, LABEL_ATTEMPT, LABEL_HOOK, LABEL_RUN},
    plan::{Applied, Seen},
    snapshot::{
        hook,
        wire::{self, JobView},
    },
};

/// Creates it.
pub(super) async fn create(target: &Target<'_>, name: &str, job: &Value) -> Applied {
    match target.calls.create::<Job>(&target.namespace, job).await {
        Ok(written) => Applied::Done { resource_version: written.metadata.resource_version },
        Err(error) if is_taken(&error) => found(target, name, job).await,
        Err(error) => answer::of_create(&error),
    }
}

/// The name is taken: by our own Job of the same attempt, or by another object?
async fn found(target: &Target<'_>, name: &str, job: &Value) -> Applied {
    match target.calls.get::<Job, JobView>(&target.namespace, name).await {
        Ok(view) => {
            let is_ours = wire::owner(&view.metadata).is_some_and(|owner| owner.uid == target.uid);
            let known = hook::job(view);
            let metadata = &job["metadata"];
            let labels = [
                (LABEL_HOOK, known.hook.clone()),
                (LABEL_RUN, known.run.to_string()),
                (LABEL_ATTEMPT, known.attempt.to_string()),
            ];
            let is_same = metadata["annotations"][ANNOTATION_HOOK_KEY] == known.key.as_str()
                && labels.iter().all(|(label, value)| metadata["labels"][label] == value.as_str());
            if is_ours && is_same {
                Applied::Done { resource_version: known.resource_version }
            } else {
                Applied::NameTaken
            }
        }
        Err(error) => answer::of_change(&error),
    }
}

/// Deletes it, if it is still the one we looked at, and has its Pods deleted with it: without that word the API server leaves the
/// Pods of a Job behind (batch/v1 orphans by default).
pub(super) async fn delete(target: &Target<'_>, seen: &Seen) -> Applied {
    let params = DeleteParams {
        preconditions: Some(preconditions(&seen.uid, &seen.resource_version)),
        propagation_policy: Some(PropagationPolicy::Background),
        ..DeleteParams::default()
    };
    match target.calls.delete::<Job>(&target.namespace, &seen.name, &params).await {
        Ok(()) => Applied::Done { resource_version: String::new() },
        Err(error) => answer::of_change(&error),
    }
}
