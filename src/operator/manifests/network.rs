//! Whom the API server serves first, and who reaches whom: a FlowSchema for Leases, a NetworkPolicy for the operator.
use serde_json::{Value, json};

use super::objects::{self, NAME, PROBE_PORT};

/// Name of the FlowSchema and of its priority level.
pub const FLOW: &str = "baton-leases";

/// After those of the cluster's own parts (at most 900), before the one for all ServiceAccounts (9000).
const PRECEDENCE: i32 = 8_000;
/// Beside the 245 shares of the levels that every cluster has: about 9 % of the API server's seats, half of them lent
/// while they are idle.
const SHARES: i32 = 25;

/// Renewals wait in no queue behind what other programs ask for: agents stop all their listeners when an answer takes too
/// long. Agents have the ServiceAccounts of their Pods, and a FlowSchema knows neither roles nor labels: so it is about
/// the Leases of all ServiceAccounts, those of the operators among them, each account with queues of its own.
pub fn flow(labels: &Value) -> [Value; 2] {
    let metadata = json!({"name": FLOW, "labels": labels});
    let object = |kind: &str, spec: Value| json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": kind, "metadata": metadata, "spec": spec});
    let level = json!({
        "type": "Limited",
        "limited": {
            "nominalConcurrencyShares": SHARES,
            "lendablePercent": 50,
            // As the levels for workloads that every cluster has.
            "limitResponse": {"type": "Queue", "queuing": {"queues": 128, "handSize": 6, "queueLengthLimit": 50}},
        },
    });
    let schema = json!({
        "priorityLevelConfiguration": {"name": FLOW},
        "matchingPrecedence": PRECEDENCE,
        "distinguisherMethod": {"type": "ByUser"},
        "rules": [{
            "subjects": [{"kind": "Group", "group": {"name": "system:serviceaccounts"}}],
            "resourceRules": [{
                "apiGroups": ["coordination.k8s.io"],
                "resources": ["leases"],
                "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
                "namespaces": ["*"],
            }],
        }],
    });
    [object("PriorityLevelConfiguration", level), object("FlowSchema", schema)]
}

/// What differs between installations.
pub struct Peers {
    /// Adds `from` to the rule about metrics, if it is there.
    pub metrics: Vec<(&'static str, Value)>,
    /// Ports of the API server, behind its Service.
    pub api_server_ports: Value,
    /// Adds `to` to the rule about the API server.
    pub api_server: Vec<(&'static str, Value)>,
    /// Namespaces of the Pods whose applications are told to reload.
    pub namespaces: Value,
}

/// Lets in what asks for probes and metrics, and out what goes to the API server and to Pods (`update: HotReload`).
pub fn policy(labels: &Value, namespace: &Value, peers: &Peers) -> Value {
    let with = |mut rule: Value, more: &[(&'static str, Value)]| {
        for (key, value) in more {
            rule[*key] = value.clone();
        }
        rule
    };
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": NAME, "namespace": namespace, "labels": labels},
        "spec": {
            "podSelector": {"matchLabels": objects::selector_labels()},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [with(json!({"ports": [{"port": PROBE_PORT, "protocol": "TCP"}]}), &peers.metrics)],
            "egress": [
                with(json!({"ports": peers.api_server_ports}), &peers.api_server),
                {"to": [{"namespaceSelector": peers.namespaces}]},
            ],
        },
    })
}
