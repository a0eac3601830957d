//! The status write: PUT with the resourceVersion that the decision was made from, so that two writers cannot both win.
use kube::{Resource, ResourceExt, core::object::HasSpec};
use serde::Serialize;
use serde_json::json;

use super::{CallError, Calls};

/// What became of a status write.
#[derive(Debug)]
pub enum StatusWrite {
    /// Written; the new resourceVersion. The old one when the API server found nothing to change.
    Done {
        /// Of the object.
        resource_version: String,
    },
    /// The object changed since we looked, or is gone: decide anew.
    Stale,
    /// Not written, or not known to be.
    Failed(CallError),
}

/// Replaces the status of `object`, if it is still the version we looked at.
pub async fn write<K>(calls: &Calls, object: &K, status: &impl Serialize) -> StatusWrite
where
    K: Resource<DynamicType = ()> + HasSpec<Spec: Serialize>,
{
    let namespace = object.namespace().unwrap_or_default();
    let name = object.name_any();
    // The spec goes along because the API server wants a whole object; it takes nothing but the status from it.
    let whole = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": object.uid(),
            "resourceVersion": object.resource_version(),
        },
        "spec": object.spec(),
        "status": status,
    });
    match calls.replace_status::<K>(&namespace, &name, &whole).await {
        Ok(written) => StatusWrite::Done { resource_version: written.metadata.resource_version },
        Err(error) if matches!(error.code(), 404 | 409) => StatusWrite::Stale,
        Err(error) => StatusWrite::Failed(error),
    }
}
