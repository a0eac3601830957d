//! What the API server fills in. Only what somebody of ours looks at; the rest is in the contract tests' list of things
//! that are not compared.
use serde_json::{Value, json};

use super::schema;

/// Nothing.
pub fn nothing(_: &mut Value) {}

/// A Pod's grace, and the status of one that nobody has seen yet.
pub fn pod(pod: &mut Value) {
    set(pod, "spec", "terminationGracePeriodSeconds", json!(30));
    set(pod, "spec", "restartPolicy", json!("Always"));
    set(pod, "status", "phase", json!("Pending"));
}

/// A Namespace is in use from the start.
pub fn namespace(namespace: &mut Value) {
    set(namespace, "status", "phase", json!("Active"));
}

/// What its CustomResourceDefinition says.
pub fn rollout(rollout: &mut Value) {
    schema::rollout().prune(rollout);
    schema::rollout().default(rollout);
}

fn set(object: &mut Value, part: &str, field: &str, to: Value) {
    if object[part][field].is_null() {
        object[part][field] = to;
    }
}
