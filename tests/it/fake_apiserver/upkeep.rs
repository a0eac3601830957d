//! What an update cannot change, and what changes with it.
use serde_json::{Value, json};

use super::{
    kinds::{Kind, StatusRule},
    object::{Object, is_terminating, meta_text, set_meta},
    refusal::Refusal,
    validate,
    write::Target,
};

/// It must be an object of this kind.
pub(super) fn check_body(kind: &Kind, value: &Value) -> Result<(), Refusal> {
    let says = |field: &str| value[field].as_str().unwrap_or_default();
    let is_other = |field: &str, expected: &str| !says(field).is_empty() && says(field) != expected;
    if !value.is_object() || !(value["metadata"].is_object() || value["metadata"].is_null()) {
        return Err(Refusal::bad_request("the body is not an object of the API"));
    }
    if is_other("apiVersion", &kind.api_version()) || is_other("kind", kind.kind) {
        let found = format!("{}, Kind={}", says("apiVersion"), says("kind"));
        return Err(Refusal::bad_request(format!("{found} does not match the expected {}", kind.kind)));
    }
    Ok(())
}

/// The namespace is that of the path; apiVersion and kind are filled in.
pub(super) fn settle_namespace(kind: &Kind, namespace: &str, value: &mut Value) -> Result<(), Refusal> {
    if !value["metadata"].is_object() {
        value["metadata"] = json!({});
    }
    let found = meta_text(value, "namespace");
    if !found.is_empty() && found != namespace {
        let message = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Refusal::bad_request(message));
    }
    set_meta(value, "namespace", kind.is_namespaced.then(|| json!(namespace)));
    for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
        let is_empty = matches!(&value["metadata"][field], Value::Null)
            || value["metadata"][field] == json!([])
            || value["metadata"][field] == json!({});
        if is_empty {
            set_meta(value, field, None);
        }
    }
    value["apiVersion"] = json!(kind.api_version());
    value["kind"] = json!(kind.kind);
    Ok(())
}

pub(super) fn check_name(name: &str, value: &Value) -> Result<(), Refusal> {
    let found = meta_text(value, "name");
    if found == name {
        return Ok(());
    }
    let message = format!("the name of the object ({found}) does not match the name on the URL ({name})");
    Err(Refusal::bad_request(message))
}

/// Optimistic locking.
pub(super) fn check_version(target: &Target<'_>, existing: &Object, value: &Value) -> Result<(), Refusal> {
    let wanted = meta_text(value, "resourceVersion");
    if wanted.is_empty() || wanted == "0" {
        if target.kind.updates_unconditionally {
            return Ok(());
        }
        let cause = validate::Cause::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
        let mut refusal = Refusal::invalid(target.kind, target.name, &[cause]);
        // The real one names the resource here where it otherwise names the kind.
        refusal.message = refusal.message.replacen(target.kind.kind, target.kind.resource, 1);
        refusal.details["kind"] = json!(target.kind.resource);
        return Err(refusal);
    }
    if wanted == existing.revision().to_string() { Ok(()) } else { Err(Refusal::modified(target.kind, target.name)) }
}

/// A write of the status takes nothing else; of built-in kinds it also takes labels and annotations.
pub(super) fn keep_all_but_status(kind: &Kind, existing: &Object, value: &mut Value) {
    let is_writers = |name: &str| name == "status" || (name == "metadata" && !kind.is_custom);
    let Some(fields) = value.as_object_mut() else { return };
    fields.retain(|name, field| is_writers(name) && !field.is_null());
    for (name, field) in existing.as_object().into_iter().flatten().filter(|(name, _)| !is_writers(name)) {
        fields.insert(name.clone(), field.clone());
    }
    if !kind.is_custom {
        set_meta(value, "ownerReferences", existing["metadata"].get("ownerReferences").cloned());
    }
}

/// What an update cannot change, and what changes with it.
pub(super) fn keep_what_is_not_the_writers(kind: &Kind, subresource: &str, existing: &Object, value: &mut Value) {
    if kind.status != StatusRule::None && subresource.is_empty() {
        match existing.get("status") {
            Some(status) => value["status"] = status.clone(),
            None => drop(value.as_object_mut().and_then(|value| value.remove("status"))),
        }
    }
    let old = |field: &str| existing["metadata"].get(field).cloned();
    if meta_text(value, "uid").is_empty() {
        set_meta(value, "uid", old("uid"));
    }
    for field in ["creationTimestamp", "generation"] {
        set_meta(value, field, old(field));
    }
    if is_terminating(existing) {
        set_meta(value, "deletionTimestamp", old("deletionTimestamp"));
    }
    if old("deletionGracePeriodSeconds").is_some() && value["metadata"]["deletionGracePeriodSeconds"].is_null() {
        set_meta(value, "deletionGracePeriodSeconds", old("deletionGracePeriodSeconds"));
    }
    for field in ["managedFields", "selfLink"] {
        set_meta(value, field, None);
    }
    if kind.has_generation && subresource != "status" && differs_beyond_metadata(existing, value) {
        bump_generation(value);
    }
}

/// One more, where it is counted.
pub(super) fn bump_generation(value: &mut Value) {
    if let Some(generation) = value["metadata"]["generation"].as_i64().filter(|generation| *generation > 0) {
        value["metadata"]["generation"] = json!(generation + 1);
    }
}

pub(super) fn differs_beyond_metadata(a: &Value, b: &Value) -> bool {
    !beyond_metadata(a).eq(beyond_metadata(b))
}

fn beyond_metadata(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let fields = value.as_object().into_iter().flatten();
    fields.filter(|(name, _)| *name != "metadata" && *name != "status")
}

/// Nothing but finalizers keeps it.
pub(super) fn grace_is_over(value: &Value) -> bool {
    value["metadata"]["deletionGracePeriodSeconds"].as_i64().is_none_or(|seconds| seconds == 0)
}
