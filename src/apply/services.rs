//! Services that a Rollout switches: one key of the selector, and what is noted of it.

use k8s_openapi::api::core::v1::Service as ApiService;
use serde_json::json;

use super::{
    answer,
    call::{CallError, Calls},
    overtake,
    target::Target,
};
use crate::{
    api::names,
    plan::{Applied, Seen, Selection},
    snapshot::{Service, Switched},
};

/// Has a Service select the Pods of this revision, or those of any, if it is still the one we looked at.
pub(super) async fn switch(
    target: &Target<'_>,
    seen: &Seen,
    Selection { revision, labels, switched }: &Selection,
) -> Applied {
    let mut patch = json!({
        "metadata": {"uid": seen.uid, "resourceVersion": seen.resource_version},
        "spec": {"selector": labels},
    });
    patch["spec"]["selector"][names::LABEL_REVISION] = json!(revision);
    let noted = switched.as_ref().map(|Switched { from, at }| (from, at.to_string()));
    if noted.is_some() || revision.is_none() {
        let (from, at) = noted.unzip();
        patch["metadata"]["annotations"] =
            json!({names::ANNOTATION_SWITCHED_FROM: from, names::ANNOTATION_SWITCHED_AT: at});
    }
    answer::of_patch(target.calls.merge::<ApiService>(&target.namespace, &seen.name, &patch).await)
}

/// What was sent to this Service before cannot be done after this. False where it is no more what was seen.
///
/// # Errors
/// Without an answer.
pub async fn overtake(calls: &Calls, namespace: &str, seen: &Service) -> Result<bool, CallError> {
    let version = (seen.uid.as_str(), seen.resource_version.as_str());
    match overtake::overtake::<ApiService>(calls, namespace, &seen.name, version).await {
        Ok(_) => Ok(true),
        Err(error) => match answer::of_change(&error) {
            Applied::Stale => Ok(false),
            // A policy keeps us from writing to it: a read must do.
            Applied::Refused { .. } => is_latest(calls, namespace, seen).await,
            _ => Err(error),
        },
    }
}

/// Whether this Service is still what was seen, past every cache.
///
/// # Errors
/// Without an answer.
pub async fn is_latest(calls: &Calls, namespace: &str, seen: &Service) -> Result<bool, CallError> {
    let latest = super::version::<ApiService>(calls, namespace, &seen.name).await?;
    Ok(latest.is_some_and(|(uid, resource_version)| uid == seen.uid && resource_version == seen.resource_version))
}
