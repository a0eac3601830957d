//! The scale subresource: spec.replicas under another name.
use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    State,
    object::{Object, meta_text},
    refusal::Refusal,
    write::{Caller, Edit, Target, apply},
};

/// Selector of a Rollout, as its status tells it.
const SELECTOR: &str = "selector";

/// An object as a Scale.
pub fn of(object: &Object) -> Value {
    let metadata = &object["metadata"];
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"], "creationTimestamp": metadata["creationTimestamp"]},
        "spec": {},
        "status": {"replicas": object["status"]["replicas"].as_i64().unwrap_or_default()},
    });
    // Go leaves a 0 out here, but not in the status.
    if let Some(replicas) = object["spec"]["replicas"].as_i64().filter(|replicas| *replicas != 0) {
        scale["spec"]["replicas"] = json!(replicas);
    }
    if let Some(selector) = object["status"][SELECTOR].as_str() {
        scale["status"][SELECTOR] = json!(selector);
    }
    scale
}

impl State {
    /// PUT or PATCH of a Scale.
    ///
    /// # Errors
    /// As for the object.
    pub fn scale(&mut self, caller: &Caller, target: Target<'_>, edit: Edit<'_>) -> Result<Arc<Object>, Refusal> {
        let Target { kind, namespace, name, .. } = target;
        let existing = self.store.get(kind, namespace, name).ok_or_else(|| Refusal::not_found(kind, name))?;
        let mut scale = of(existing);
        match edit {
            Edit::Replace(value) => {
                let uid = meta_text(&value, "uid");
                if !uid.is_empty() && uid != existing.uid() {
                    return Err(Refusal::precondition(kind, name, "UID", uid, existing.uid()));
                }
                scale = value;
            }
            Edit::Merge(patch) | Edit::Strategic(patch) => json_patch::merge(&mut scale, &patch),
            Edit::Json(patch) => apply(patch, &mut scale)?,
            Edit::With(edit) => edit(&mut scale),
        }
        let version = meta_text(&scale, "resourceVersion");
        if !version.is_empty() && version != existing.revision().to_string() {
            return Err(Refusal::modified(kind, name));
        }
        let replicas = scale["spec"]["replicas"].as_i64().unwrap_or_default();
        let mut edit = |value: &mut Value| value["spec"]["replicas"] = json!(replicas);
        let target = Target { subresource: "", ..target };
        Ok(self.update(caller, target, Edit::With(&mut edit))?.0)
    }
}
