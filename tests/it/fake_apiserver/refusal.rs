//! What the API server answers when it says no: a Status with the reason and the words that clients read.
use serde_json::{Value, json};

use super::{kinds::Kind, validate::Cause};

/// A Status of failure.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// HTTP status.
    pub code: u16,
    /// Status.reason.
    pub reason: &'static str,
    /// Status.message.
    pub message: String,
    /// Status.details.
    pub details: Value,
    /// Status.metadata.continue, with which a list whose token has expired goes on nevertheless; else empty.
    pub continue_: String,
}

impl Refusal {
    /// Any.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: Value::Null, continue_: String::new() }
    }

    /// About one object.
    fn about(kind: &Kind, name: &str, code: u16, reason: &'static str, message: &str) -> Self {
        let details = json!({"name": name, "group": kind.group, "kind": kind.resource});
        Self { details, ..Self::new(code, reason, message) }
    }

    pub fn not_found(kind: &Kind, name: &str) -> Self {
        Self::about(kind, name, 404, "NotFound", &format!("{} {name:?} not found", kind.qualified()))
    }

    pub fn already_exists(kind: &Kind, name: &str) -> Self {
        Self::about(kind, name, 409, "AlreadyExists", &format!("{} {name:?} already exists", kind.qualified()))
    }

    pub fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", kind.qualified());
        Self::about(kind, name, 409, "Conflict", &message)
    }

    /// The resourceVersion is not the latest.
    pub fn modified(kind: &Kind, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(kind, name, why)
    }

    /// A precondition is about another object, or another version of it.
    pub fn precondition(kind: &Kind, name: &str, field: &str, wanted: &str, found: &str) -> Self {
        let why = format!("Precondition failed: {field} in precondition: {wanted}, {field} in object meta: {found}");
        Self::conflict(kind, name, &why)
    }

    pub fn invalid(kind: &Kind, name: &str, causes: &[Cause]) -> Self {
        Self::invalid_as(kind.kind, kind.group, name, causes)
    }

    /// About something of this kind and group.
    pub fn invalid_as(kind: &str, group: &str, name: &str, causes: &[Cause]) -> Self {
        let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let told: Vec<String> = causes.iter().map(ToString::to_string).collect();
        let told = if let [one] = told.as_slice() { one.clone() } else { format!("[{}]", told.join(", ")) };
        let causes: Value = causes.iter().map(Cause::to_json).collect();
        let details = json!({"name": name, "group": group, "kind": kind, "causes": causes});
        Self { details, ..Self::new(422, "Invalid", format!("{qualified} {name:?} is invalid: {told}")) }
    }

    pub fn forbidden(kind: &Kind, name: &str, why: &str) -> Self {
        Self::about(kind, name, 403, "Forbidden", &format!("{} {name:?} is forbidden: {why}", kind.qualified()))
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// Flow control: come back in a second.
    pub fn too_many_requests() -> Self {
        let message = "the server has received too many requests and has asked us to try again later";
        Self { details: json!({"retryAfterSeconds": 1}), ..Self::new(429, "TooManyRequests", message) }
    }

    /// The write may have been done.
    pub fn timeout() -> Self {
        Self::new(504, "Timeout", "request did not complete within the allotted timeout")
    }

    /// As it goes over the wire.
    pub fn to_json(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        if !self.continue_.is_empty() {
            status["metadata"]["continue"] = json!(self.continue_);
        }
        status
    }
}
