//! The status write: PUT with the resourceVersion that the decision was made from, so that two writers cannot both win.
use kube::ResourceExt;
use serde_json::json;

use super::{CallError, Calls};
use crate::api::{Rollout, RolloutStatus, names};

/// What became of a status write.
#[derive(Debug)]
pub enum StatusWrite {
    /// Written; the new resourceVersion. The old one when the API server found nothing to change.
    Done {
        /// Of the Rollout.
        resource_version: String,
    },
    /// The object changed since we looked, or is gone: decide anew.
    Stale,
    /// Not written, or not known to be.
    Failed(CallError),
}

/// Replaces the status of `rollout`, if it is still the version we looked at.
pub async fn write(calls: &Calls, rollout: &Rollout, status: &RolloutStatus) -> StatusWrite {
    let namespace = rollout.namespace().unwrap_or_default();
    let name = rollout.name_any();
    // The spec goes along because the API server wants a whole object; it takes nothing but the status from it.
    let object = json!({
        "apiVersion": format!("{}/{}", names::GROUP, names::VERSION),
        "kind": "Rollout",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": rollout.metadata.uid,
            "resourceVersion": rollout.metadata.resource_version,
        },
        "spec": rollout.spec,
        "status": status,
    });
    match calls.replace_status::<Rollout>(&namespace, &name, &object).await {
        Ok(written) => StatusWrite::Done { resource_version: written.metadata.resource_version },
        Err(error) if matches!(error.code(), 404 | 409) => StatusWrite::Stale,
        Err(error) => StatusWrite::Failed(error),
    }
}
