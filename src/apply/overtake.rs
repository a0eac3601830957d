//! Writes that no earlier one can come after.
use kube::Resource;
use serde_json::json;

use super::call::{CallError, Calls, Written};
use crate::api::names;

/// Gives an object that is still what was seen, by uid and resourceVersion, another version. A write that named the old one, and
/// whose answer was lost, cannot be done after that: it would come on top of what is planned since, as if that had not been.
pub(super) async fn overtake<K: Resource<DynamicType = ()>>(
    calls: &Calls,
    namespace: &str,
    name: &str,
    (uid, resource_version): (&str, &str),
) -> Result<Written, CallError> {
    let annotations = json!({names::ANNOTATION_OVERTAKEN: resource_version});
    let metadata = json!({"uid": uid, "resourceVersion": resource_version, "annotations": annotations});
    calls.merge::<K>(namespace, name, &json!({"metadata": metadata})).await
}
