//! What is wrong with an object, as far as our requests can be wrong: metadata of every kind, and a few fields of some.
//! Whether this is enough is for the contract tests to say.
use std::fmt;

use serde_json::{Value, json};

use super::{
    object::{finalizers, is_terminating, meta_text},
    rules, schema,
};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Cause {
    reason: &'static str,
    field: String,
    message: String,
}

impl Cause {
    pub fn required(field: &str, why: &str) -> Self {
        let message = if why.is_empty() { "Required value".to_owned() } else { format!("Required value: {why}") };
        Self { reason: "FieldValueRequired", field: field.into(), message }
    }

    pub fn invalid(field: &str, value: &Value, why: &str) -> Self {
        Self { reason: "FieldValueInvalid", field: field.into(), message: format!("Invalid value: {value}: {why}") }
    }

    pub fn broken_rule(field: &str, why: &str) -> Self {
        Self { reason: "FieldValueInvalid", field: field.into(), message: format!("Invalid value: {why}") }
    }

    pub fn wrong_type(field: &str, value: &Value, why: &str) -> Self {
        Self { reason: "FieldValueTypeInvalid", ..Self::invalid(field, value, why) }
    }

    pub fn forbidden(field: &str, why: &str) -> Self {
        Self { reason: "FieldValueForbidden", field: field.into(), message: format!("Forbidden: {why}") }
    }

    pub fn unsupported(field: &str, value: &Value, supported: &[String]) -> Self {
        let message = format!("Unsupported value: {value}: supported values: {}", supported.join(", "));
        Self { reason: "FieldValueNotSupported", field: field.into(), message }
    }

    /// As in Status.details.causes.
    pub fn to_json(&self) -> Value {
        json!({"reason": self.reason, "message": self.message, "field": self.field})
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Nothing is.
pub fn nothing(_: &Value, _: Option<&Value>) -> Vec<Cause> {
    Vec::new()
}

/// metadata of any kind.
pub fn metadata(value: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let name = meta_text(value, "name");
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
    } else if old.is_none() && !is_subdomain(name) {
        let why = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'";
        causes.push(Cause::invalid("metadata.name", &json!(name), why));
    }
    for (key, label) in value["metadata"]["labels"].as_object().into_iter().flatten() {
        if !is_qualified(key) {
            causes.push(Cause::invalid("metadata.labels", &json!(key), "name part must be a qualified name"));
        }
        if !label.as_str().is_some_and(is_label_value) {
            causes.push(Cause::invalid(
                "metadata.labels",
                label,
                "a valid label must be an empty string or alphanumeric",
            ));
        }
    }
    causes.extend(owners(value));
    if let Some(old) = old {
        causes.extend(unchanged(value, old));
    }
    causes
}

fn owners(value: &Value) -> Vec<Cause> {
    let owners = value["metadata"]["ownerReferences"].as_array().map_or(&[][..], Vec::as_slice);
    let mut causes = Vec::new();
    for (index, owner) in owners.iter().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().unwrap_or_default().is_empty() {
                let path = format!("metadata.ownerReferences[{index}].{field}");
                causes.push(Cause::invalid(&path, &json!(""), "must not be empty"));
            }
        }
    }
    if owners.iter().filter(|owner| owner["controller"] == true).count() > 1 {
        let why = "Only one reference can have Controller set to true";
        causes.push(Cause::invalid("metadata.ownerReferences", &value["metadata"]["ownerReferences"], why));
    }
    causes
}

/// What nobody may change.
fn unchanged(value: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let (now, before) = (&value["metadata"][field], &old["metadata"][field]);
        if now != before {
            causes.push(Cause::invalid(&format!("metadata.{field}"), now, "field is immutable"));
        }
    }
    let added = finalizers(value).into_iter().any(|name| !finalizers(old).contains(&name));
    if is_terminating(old) && added {
        let why = "no new finalizers can be added if the object is being deleted";
        causes.push(Cause::forbidden("metadata.finalizers", why));
    }
    causes
}

/// A Pod needs a container with a name and an image.
pub fn pod(value: &Value, _: Option<&Value>) -> Vec<Cause> {
    let containers = value["spec"]["containers"].as_array().map_or(&[][..], Vec::as_slice);
    let mut causes = Vec::new();
    if containers.is_empty() {
        causes.push(Cause::required("spec.containers", ""));
    }
    for (index, container) in containers.iter().enumerate() {
        for field in ["name", "image"] {
            if container[field].as_str().unwrap_or_default().is_empty() {
                causes.push(Cause::required(&format!("spec.containers[{index}].{field}"), ""));
            }
        }
    }
    causes
}

/// What a ControllerRevision holds never changes, and revisions are not negative.
pub fn controller_revision(value: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    if value["revision"].as_i64().is_some_and(|revision| revision < 0) {
        causes.push(Cause::invalid("revision", &value["revision"], "must be greater than or equal to 0"));
    }
    if old.is_some_and(|old| old["data"] != value["data"]) {
        causes.push(Cause::invalid("data", &value["data"], "field is immutable"));
    }
    causes
}

/// Durations and counts of a Lease are positive.
pub fn lease(value: &Value, _: Option<&Value>) -> Vec<Cause> {
    let spec = &value["spec"];
    let mut causes = Vec::new();
    if spec["holderIdentity"] == "" {
        causes.push(Cause::invalid("spec.holderIdentity", &json!(""), "must not be empty"));
    }
    if spec["leaseDurationSeconds"].as_i64().is_some_and(|seconds| seconds <= 0) {
        causes.push(Cause::invalid(
            "spec.leaseDurationSeconds",
            &spec["leaseDurationSeconds"],
            "must be greater than 0",
        ));
    }
    if spec["leaseTransitions"].as_i64().is_some_and(|count| count < 0) {
        let why = "must be greater than or equal to 0";
        causes.push(Cause::invalid("spec.leaseTransitions", &spec["leaseTransitions"], why));
    }
    causes
}

/// What an Event with an `eventTime` must say.
pub fn event(value: &Value, _: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    for field in ["reportingComponent", "reportingInstance", "action", "reason"] {
        if value[field].as_str().unwrap_or_default().is_empty() {
            causes.push(Cause::required(field, ""));
        }
    }
    if value["message"].as_str().is_some_and(|message| message.len() > 1024) {
        causes.push(Cause::invalid("message", &json!(""), "can have at most 1024 bytes"));
    }
    causes
}

/// By the schema of its CustomResourceDefinition, and by its rules where what they are about has changed.
pub fn rollout(value: &Value, old: Option<&Value>) -> Vec<Cause> {
    if old.is_some_and(|old| old["spec"] == value["spec"]) {
        return schema::rollout().check_field(value, "status");
    }
    let causes = schema::rollout().check(value);
    if causes.is_empty() { rules::check(value, old) } else { causes }
}

fn is_word(text: &str, extra: &[char]) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    ends(text.chars().next())
        && ends(text.chars().last())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(&c))
}

fn is_subdomain(name: &str) -> bool {
    let is_label = |part: &str| is_word(part, &['-']) && !part.contains(|c: char| c.is_ascii_uppercase());
    name.len() <= 253 && name.split('.').all(is_label)
}

fn is_label_value(text: &str) -> bool {
    text.is_empty() || text.len() <= 63 && is_word(text, &['-', '_', '.'])
}

fn is_qualified(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    prefix.is_none_or(is_subdomain) && name.len() <= 63 && is_word(name, &['-', '_', '.'])
}
