//! `ListenerSet`: named pieces of work of which each runs in exactly one Pod.
//!
//! What a schema cannot say, the controller checks: that the names and bounds hold for listeners from a ConfigMap too,
//! that a listener's `config` is at most 4 KiB and all of them together 1 MiB (as compact JSON), that profile Fast serves
//! at most 200 Pods.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    bounds::{CONFIG_PROPERTIES_MAX, LISTENERS_INLINE_MAX, LISTENERS_MAX, RELEASES_MAX},
    listener_set_status::ListenerSetStatus,
    rollout::Selector,
    session::SessionProfile,
};

/// Named pieces of work, each in exactly one Pod.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "baton.dev",
    version = "v1alpha1",
    kind = "ListenerSet",
    plural = "listenersets",
    shortname = "bls",
    category = "baton",
    namespaced,
    status = "ListenerSetStatus",
    derive = "PartialEq",
    doc = "Named pieces of work, each in exactly one Pod, handed over from Pod to Pod. Baton's ListenerSet, not the ListenerSet of the Gateway API: address it as listenersets.baton.dev.",
    printcolumn(name = "Running", type_ = "string", json_path = ".status.display.running", description = "Listeners running / that should run"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".status.listeners", description = "Listeners of the set, stopped ones included"),
    printcolumn(name = "Moving", type_ = "integer", json_path = ".status.moving", description = "Listeners on their way from one Pod to another"),
    printcolumn(name = "Unassigned", type_ = "integer", json_path = ".status.unassigned", description = "Listeners that should run and that no Pod holds"),
    printcolumn(name = "Holders", type_ = "integer", json_path = ".status.holderCount", description = "Pods that hold listeners"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason", description = "Reason of the Ready condition"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = 1),
    validation = Rule::new("size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name must be a DNS label that starts with a letter, of at most 40 characters, so that the names of its Leases and labels stay within their limits")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.rolloutRef) != has(self.selector)")
        .message("spec: exactly one of rolloutRef and selector says which Pods hold the listeners; set one, remove the other"),
    validation = Rule::new("[has(self.listeners), has(self.configMap), has(self.count)].filter(source, source).size() == 1")
        .message("spec: exactly one of listeners, configMap and count says which listeners there are; set one, remove the others"),
    validation = Rule::new("!has(self.listeners) || self.listeners.all(listener, !has(listener.connectTimeoutSeconds) || listener.connectTimeoutSeconds <= self.defaults.startTimeoutSeconds)")
        .message("spec.listeners[].connectTimeoutSeconds must not exceed spec.defaults.startTimeoutSeconds, the start would be given up before the connection: lower the first or raise the second")
)]
pub struct ListenerSetSpec {
    /// The Rollout whose Pods may hold the listeners. Exactly one of rolloutRef and selector is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout_ref: Option<RolloutRef>,

    /// Which other Pods may hold the listeners, of a Deployment or StatefulSet for example: those with all of these labels
    /// and the label baton.dev/agent: "true", whose annotation baton.dev/listener-sets names this ListenerSet. Baton may delete such
    /// a Pod if it does not let go of a listener. Exactly one of rolloutRef and selector is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,

    /// The listeners, at most 1,000. Exactly one of listeners, configMap and count is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = LISTENERS_INLINE_MAX), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub listeners: Option<Vec<Listener>>,

    /// A ConfigMap with the listeners, up to 10,000. Exactly one of listeners, configMap and count is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapSource>,

    /// So many numbered listeners, up to 10,000. Exactly one of listeners, configMap and count is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<CountSource>,

    /// What holds for every listener that does not say otherwise.
    #[serde(default)]
    pub defaults: ListenerDefaults,

    /// How fast the loss of a Pod is noticed.
    #[serde(default)]
    pub session: Session,

    /// How listeners move from Pod to Pod.
    #[serde(default)]
    pub handoff: Handoff,

    /// How many listeners may start in a period of time, wherever and why ever they start: for services that limit new
    /// connections. A listener is stopped only when its successor may start. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_budget: Option<StartBudget>,

    /// How listeners are spread over the Pods. They are balanced to within one.
    #[serde(default)]
    pub placement: Placement,

    /// When reached: every listener that runs is restarted once, gently, within the bounds of handoff and startBudget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recover_at: Option<Time>,

    /// For emergencies: listeners that are taken from their holders, at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = RELEASES_MAX), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["listener"]))]
    pub release: Vec<Release>,
}

/// Names a Rollout of the same namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutRef {
    /// Name of the Rollout, in the same namespace.
    #[schemars(length(min = 1, max = 40))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("spec.rolloutRef.name must be the name of a Rollout: a DNS label that starts with a letter, such as web"))]
    pub name: String,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// Its name, unique in the set.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("spec.listeners[].name must be a DNS label: lower-case letters, digits and '-', such as listener-1"))]
    pub name: String,

    /// Whether it should run: Started or Stopped.
    #[serde(default)]
    pub state: ListenerState,

    /// Settings for the application, any JSON object; at most 4 KiB, and 1 MiB for all listeners of the set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::config")]
    pub config: Option<Map<String, Value>>,

    /// A Secret for the application, which mounts it or reads it by its own rights; Baton does not read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,

    /// Whether its connection goes through a proxy. Absent: spec.defaults.useProxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_proxy: Option<bool>,

    /// How long its connection may take to open. Absent: spec.defaults.connectTimeoutSeconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 600))]
    pub connect_timeout_seconds: Option<i32>,
}

/// Whether a listener should run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ListenerState {
    /// It should run.
    #[default]
    Started,
    /// It should not run. It keeps its place in the set, and what it would resume from.
    Stopped,
}

/// Names a Secret of the same namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct SecretRef {
    /// Name of the Secret, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$')").message("spec.listeners[].secretRef.name must be the name of a Secret: lower-case letters, digits, '-' and '.', such as token-1"))]
    pub name: String,
}

/// A ConfigMap with listeners.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapSource {
    /// Name of the ConfigMap, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$')").message("spec.configMap.name must be the name of a ConfigMap: lower-case letters, digits, '-' and '.', such as tokens"))]
    pub name: String,

    /// Key whose value is a list of listeners, in YAML or JSON, each as in spec.listeners.
    #[serde(default = "defaults::config_map_key")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[-._a-zA-Z0-9]+$')").message("spec.configMap.key must be a key of a ConfigMap: letters, digits, '-', '_' and '.', such as listeners.yaml"))]
    pub key: String,
}

/// Numbered listeners.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CountSource {
    /// How many, 0 to 10,000.
    #[schemars(range(min = 0, max = LISTENERS_MAX))]
    pub count: i32,

    /// Their names are this and a number from 0 to count - 1, such as shard-0, shard-1.
    #[serde(default = "defaults::name_prefix")]
    #[schemars(length(min = 1, max = 59))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9][-a-z0-9]*$')").message("spec.count.namePrefix must begin with a letter or digit and have only lower-case letters, digits and '-', such as shard-"))]
    pub name_prefix: String,
}

/// What holds for every listener that does not say otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.connectTimeoutSeconds <= self.startTimeoutSeconds")
        .message("spec.defaults.startTimeoutSeconds must be at least spec.defaults.connectTimeoutSeconds, the start would be given up before the connection: raise the first or lower the second")
)]
pub struct ListenerDefaults {
    /// How long a connection may take to open.
    #[serde(default = "defaults::connect_timeout_seconds")]
    #[schemars(range(min = 1, max = 600))]
    pub connect_timeout_seconds: i32,

    /// Whether connections go through a proxy.
    #[serde(default)]
    pub use_proxy: bool,

    /// How long a listener may take from its start until it runs; then the start has failed.
    #[serde(default = "defaults::start_timeout_seconds")]
    #[schemars(range(min = 1, max = 3_600))]
    pub start_timeout_seconds: i32,

    /// How long a listener may take to stop; then it is killed, with all of its processes.
    #[serde(default = "defaults::stop_timeout_seconds")]
    #[schemars(range(min = 1, max = 3_600))]
    pub stop_timeout_seconds: i32,
}

impl Default for ListenerDefaults {
    fn default() -> Self {
        Self {
            connect_timeout_seconds: defaults::connect_timeout_seconds(),
            use_proxy: false,
            start_timeout_seconds: defaults::start_timeout_seconds(),
            stop_timeout_seconds: defaults::stop_timeout_seconds(),
        }
    }
}

/// How fast the loss of a Pod is noticed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// Default: listeners of a Pod that fell silent are free after 15 seconds. Calm: after 90, so that an API server that
    /// is away for 45 seconds stops nothing. Fast: after 5, for at most 200 Pods.
    #[serde(default)]
    pub profile: SessionProfile,
}

/// How listeners move from Pod to Pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Handoff {
    /// Whether the new Pod prepares a listener (connects, loads) before the old one stops it.
    #[serde(default = "defaults::prepare")]
    pub prepare: bool,

    /// How long an old Pod may take for a hand-off, beyond defaults.stopTimeoutSeconds; then it is deleted, and its
    /// listeners are taken when it is dead.
    #[serde(default = "defaults::handoff_timeout_seconds")]
    #[schemars(range(min = 1, max = 3_600))]
    pub timeout_seconds: i32,

    /// How many listeners may move at once.
    #[serde(default = "defaults::max_in_flight")]
    #[schemars(range(min = 1, max = 1_000))]
    pub max_in_flight: i32,

    /// Of these, how many from or to the same Pod.
    #[serde(default = "defaults::max_in_flight_per_pod")]
    #[schemars(range(min = 1, max = 16))]
    pub max_in_flight_per_pod: i32,

    /// How often what a listener would resume from is written down, for when its Pod dies: 0 for never, or 5 and more.
    #[serde(default)]
    #[schemars(range(min = 0, max = 86_400))]
    #[x_kube(validation = Rule::new("self == 0 || self >= 5").message("spec.handoff.checkpointSeconds must be 0 (off), or 5 or more: each is a write to the API server"))]
    pub checkpoint_seconds: i32,
}

impl Default for Handoff {
    fn default() -> Self {
        Self {
            prepare: defaults::prepare(),
            timeout_seconds: defaults::handoff_timeout_seconds(),
            max_in_flight: defaults::max_in_flight(),
            max_in_flight_per_pod: defaults::max_in_flight_per_pod(),
            checkpoint_seconds: 0,
        }
    }
}

/// How many listeners may start in a period of time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StartBudget {
    /// How many listeners may start within one period.
    #[serde(default = "defaults::permits")]
    #[schemars(range(min = 1, max = 1_000))]
    pub permits: i32,

    /// How long a period is; it may begin at any moment.
    #[serde(default = "defaults::period_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub period_seconds: i32,
}

/// How listeners are spread over the Pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// How many listeners a Pod may hold; 0 for no bound. What finds no place stays unassigned.
    #[serde(default)]
    #[schemars(range(min = 0, max = LISTENERS_MAX))]
    pub max_per_pod: i32,
}

/// A listener that is taken from its holder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// Name of the listener.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("spec.release[].listener must be the name of a listener, such as listener-1"))]
    pub listener: String,

    /// When that was asked for; a later time asks again.
    pub at: Time,

    /// Not even wait until the holder is known to be dead: should it be alive, the listener may run twice.
    #[serde(default)]
    pub force: bool,
}

mod defaults {
    pub(super) fn config_map_key() -> String {
        "listeners.yaml".into()
    }
    pub(super) fn name_prefix() -> String {
        "listener-".into()
    }
    pub(super) fn connect_timeout_seconds() -> i32 {
        30
    }
    pub(super) fn start_timeout_seconds() -> i32 {
        60
    }
    pub(super) fn stop_timeout_seconds() -> i32 {
        30
    }
    pub(super) fn prepare() -> bool {
        true
    }
    pub(super) fn handoff_timeout_seconds() -> i32 {
        30
    }
    pub(super) fn max_in_flight() -> i32 {
        128
    }
    pub(super) fn max_in_flight_per_pod() -> i32 {
        16
    }
    pub(super) fn permits() -> i32 {
        1
    }
    pub(super) fn period_seconds() -> i32 {
        5
    }
}

mod schema {
    use schemars::{Schema, SchemaGenerator, json_schema};

    use super::CONFIG_PROPERTIES_MAX;

    /// Raw JSON: its fields are the application's. Its size in bytes is beyond what a schema or CEL can see.
    /// Atomic, as `secretRef` is: with an owner for each field below, the managedFields of 1,000 listeners would be as
    /// large as the listeners, and a write of their status would cost the API server half as much again.
    pub(super) fn config(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Settings for the application, any JSON object; at most 4 KiB, and 1 MiB for all listeners of the set.",
            "type": "object",
            "maxProperties": CONFIG_PROPERTIES_MAX,
            "x-kubernetes-map-type": "atomic",
            "x-kubernetes-preserve-unknown-fields": true
        })
    }
}

#[cfg(test)]
#[path = "listener_set_tests.rs"]
mod tests;
