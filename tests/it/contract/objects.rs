//! Objects of the kinds that we touch.
use serde_json::{Value, json};

use super::step::NAMESPACE;
use crate::fake_apiserver::kinds::Kind;

/// Selects what these tests made.
pub const SELECTOR: &str = "contract=yes";
/// Ours, so that nobody else removes it.
pub const FINALIZER: &str = "baton.dev/contract";

/// How a create says the name.
#[derive(Clone, Copy, Debug)]
pub enum Name {
    /// As it is.
    Own,
    /// The server draws the end of it. The number is to differ: names that begin alike are listed in random order.
    Generated(u32),
    /// The same, with a beginning that is too long.
    GeneratedLong(u32),
    /// Both, of which the name counts.
    Both,
    /// There is none.
    Neither,
}

impl Name {
    pub fn put_into(self, object: &mut Value) {
        let metadata = &mut object["metadata"];
        match self {
            Self::Own => {}
            Self::Generated(number) => metadata["generateName"] = json!(format!("c{number}-")),
            Self::GeneratedLong(number) => {
                metadata["generateName"] = json!(format!("c{number}-{}", "long-".repeat(13)));
            }
            Self::Both => metadata["generateName"] = json!("both-"),
            Self::Neither => metadata["generateName"] = json!(""),
        }
        if !matches!(self, Self::Own | Self::Both) {
            metadata["name"] = Value::Null;
        }
    }
}

/// A valid object of this kind; `variant` changes what it is about.
pub fn valid(kind: &Kind, name: &str, variant: i64) -> Value {
    let mut object = match kind.kind {
        // Nobody schedules it, so that nobody but the test writes it.
        "Pod" => json!({"spec": {
            "schedulerName": "nobody", "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 20,
            "containers": [{"name": "app", "image": "web:1"}],
        }}),
        "Rollout" => json!({"spec": {
            "replicas": variant, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "app", "image": "web:1"}]},
            },
        }}),
        "ControllerRevision" => json!({"data": {"spec": {"image": "web:1"}}, "revision": variant}),
        "Lease" => json!({"spec": {
            "holderIdentity": format!("holder-{variant}"), "leaseDurationSeconds": 15, "leaseTransitions": variant,
            "acquireTime": "2026-01-01T10:00:00.000000Z", "renewTime": "2026-01-01T10:00:00.000000Z",
        }}),
        "ConfigMap" => json!({"data": {"key": format!("value-{variant}")}}),
        "Event" => json!({
            "eventTime": "2026-01-01T10:00:00.000000Z", "reportingComponent": "baton-operator",
            "firstTimestamp": "2026-01-01T10:00:00Z", "lastTimestamp": "2026-01-01T10:00:00Z", "count": 1,
            "reportingInstance": "contract", "action": "Testing", "reason": "Tested", "type": "Normal",
            "message": format!("note {variant}"),
            "involvedObject": {"apiVersion": "baton.dev/v1alpha1", "kind": "Rollout", "name": "web", "uid": "u1"},
        }),
        "Node" => json!({}),
        other => panic!("no sample of {other}"),
    };
    object["apiVersion"] = json!(kind.api_version());
    object["kind"] = json!(kind.kind);
    object["metadata"] = json!({"name": name, "labels": {"contract": "yes"}});
    if kind.kind == "Event" {
        object["involvedObject"]["namespace"] = json!(NAMESPACE);
    }
    object
}

/// The same, wrong in a way that validation sees.
pub fn invalid(kind: &Kind, name: &str) -> Value {
    let mut object = valid(kind, name, 1);
    match kind.kind {
        "Pod" => object["spec"]["containers"] = json!([]),
        "Rollout" => object["spec"]["replicas"] = json!(-1),
        "ControllerRevision" => object["revision"] = json!(-1),
        "Lease" => object["spec"]["leaseDurationSeconds"] = json!(0),
        "Event" => object["action"] = json!(""),
        _ => object["metadata"]["labels"]["wrong"] = json!("no label!"),
    }
    object
}
