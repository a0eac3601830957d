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
    doc = "Listeners: named pieces of work, each of which runs in exactly one Pod at a time and is handed over from Pod to Pod. This is not the ListenerSet of the Gateway API: use the name listenersets.baton.dev in kubectl commands.",
    printcolumn(name = "Running", type_ = "string", json_path = ".status.display.running", description = "Listeners that run / that should run"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".status.listeners", description = "Listeners of the set, including stopped ones"),
    printcolumn(name = "Moving", type_ = "integer", json_path = ".status.moving", description = "Listeners that are moving from one Pod to another"),
    printcolumn(name = "Unassigned", type_ = "integer", json_path = ".status.unassigned", description = "Listeners that should run but that no live Pod holds"),
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
        .message("spec.listeners[].connectTimeoutSeconds must not exceed spec.defaults.startTimeoutSeconds, or the start would fail before the connection: lower the first or raise the second")
)]
pub struct ListenerSetSpec {
    /// Rollout whose Pods may run the listeners. Exactly one of rolloutRef and selector is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout_ref: Option<RolloutRef>,

    /// Labels of other Pods that may run the listeners, for example Pods of a Deployment or StatefulSet. Such a Pod
    /// also needs the label baton.dev/agent: "true" and the annotation baton.dev/listener-sets with the name of this
    /// ListenerSet. Baton may delete a Pod that does not release a listener in time. Exactly one of rolloutRef and
    /// selector is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,

    /// The listeners themselves, at most 1,000. Exactly one of listeners, configMap and count is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = LISTENERS_INLINE_MAX), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub listeners: Option<Vec<Listener>>,

    /// A ConfigMap that lists the listeners, at most 10,000. Exactly one of listeners, configMap and count is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapSource>,

    /// Numbered listeners without settings of their own, at most 10,000. Exactly one of listeners, configMap and count
    /// is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<CountSource>,

    /// Settings and time limits of every listener. A listener's own value goes first, if it has one.
    #[serde(default)]
    pub defaults: ListenerDefaults,

    /// How fast Baton notices that a Pod is lost.
    #[serde(default)]
    pub session: Session,

    /// How listeners move from Pod to Pod.
    #[serde(default)]
    pub handoff: Handoff,

    /// How many listeners may start in a period of time, in all Pods together and for any reason. For services that
    /// limit new connections. Baton stops a listener that moves only when its successor may start. If absent, there is
    /// no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_budget: Option<StartBudget>,

    /// How listeners are spread over the Pods. Baton balances them, so that the numbers of two Pods differ by at most
    /// one.
    #[serde(default)]
    pub placement: Placement,

    /// Restarts all listeners: once this time is reached, every running listener that started before it is restarted
    /// once, a few at a time, within the limits of handoff and startBudget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recover_at: Option<Time>,

    /// Listeners that must leave the Pod that runs them now, at most 100. Without force each moves to another Pod as in
    /// any hand-over; if no other Pod may run it, it stays.
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
    /// Name of the listener, unique in the set.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("spec.listeners[].name must be a DNS label: lower-case letters, digits and '-', such as listener-1"))]
    pub name: String,

    /// Started: the listener should run. Stopped: it should not run, but keeps its place in the set and its resume
    /// position.
    #[serde(default)]
    pub state: ListenerState,

    /// Settings for the application: any JSON object of at most 4 KiB, and at most 1 MiB for all listeners of the set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::config")]
    pub config: Option<Map<String, Value>>,

    /// Secret that the application uses for this listener. The application mounts it or reads it with its own rights;
    /// Baton never reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,

    /// Whether the application should connect this listener through a proxy. If absent: spec.defaults.useProxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_proxy: Option<bool>,

    /// How many seconds the application should try to open this listener's connection. If absent:
    /// spec.defaults.connectTimeoutSeconds.
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

    /// Key in the ConfigMap. Its value is a list of listeners in YAML or JSON; each entry has the fields of
    /// spec.listeners.
    #[serde(default = "defaults::config_map_key")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[-._a-zA-Z0-9]+$')").message("spec.configMap.key must be a key of a ConfigMap: letters, digits, '-', '_' and '.', such as listeners.yaml"))]
    pub key: String,
}

/// Numbered listeners.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CountSource {
    /// Number of listeners, 0 to 10,000.
    #[schemars(range(min = 0, max = LISTENERS_MAX))]
    pub count: i32,

    /// Prefix of the listeners' names. A number from 0 to count - 1 follows, such as shard-0, shard-1.
    #[serde(default = "defaults::name_prefix")]
    #[schemars(length(min = 1, max = 59))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9][-a-z0-9]*$')").message("spec.count.namePrefix must begin with a letter or digit and have only lower-case letters, digits and '-', such as shard-"))]
    pub name_prefix: String,
}

/// Settings and time limits of every listener. A listener's own value goes first, if it has one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.connectTimeoutSeconds <= self.startTimeoutSeconds")
        .message("spec.defaults.startTimeoutSeconds must be at least spec.defaults.connectTimeoutSeconds, or the start would fail before the connection: raise the first or lower the second")
)]
pub struct ListenerDefaults {
    /// How many seconds the application should try to open a connection. The application has to keep to this itself.
    #[serde(default = "defaults::connect_timeout_seconds")]
    #[schemars(range(min = 1, max = 600))]
    pub connect_timeout_seconds: i32,

    /// Whether the application should connect through a proxy. The application chooses the proxy.
    #[serde(default)]
    pub use_proxy: bool,

    /// How many seconds a listener may take from its start until it works. After that the start has failed. Must not be
    /// less than connectTimeoutSeconds.
    #[serde(default = "defaults::start_timeout_seconds")]
    #[schemars(range(min = 1, max = 3_600))]
    pub start_timeout_seconds: i32,

    /// How many seconds a listener may take to stop. After that it is killed with all of its processes.
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

/// How fast Baton notices that a Pod is lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// After how long other Pods take the listeners of a Pod that no longer reports. Default: 15 seconds. Calm: 90
    /// seconds, so that listeners go on if the API server is away for 45 seconds. Fast: 5 seconds, for at most 200
    /// Pods.
    #[serde(default)]
    pub profile: SessionProfile,
}

/// How listeners move from Pod to Pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Handoff {
    /// If true, the new Pod prepares a listener (connects, loads) before the old Pod stops it.
    #[serde(default = "defaults::prepare")]
    pub prepare: bool,

    /// How many seconds the old Pod may take to release a listener, in addition to defaults.stopTimeoutSeconds. After
    /// that Baton deletes the Pod, and other Pods take its listeners once it is dead.
    #[serde(default = "defaults::handoff_timeout_seconds")]
    #[schemars(range(min = 1, max = 3_600))]
    pub timeout_seconds: i32,

    /// How many listeners of the set may move at the same time.
    #[serde(default = "defaults::max_in_flight")]
    #[schemars(range(min = 1, max = 1_000))]
    pub max_in_flight: i32,

    /// How many listeners may move from or to the same Pod at the same time.
    #[serde(default = "defaults::max_in_flight_per_pod")]
    #[schemars(range(min = 1, max = 16))]
    pub max_in_flight_per_pod: i32,

    /// How often, in seconds, a listener's resume position is saved for the case that its Pod dies: 5 or more. 0: it is
    /// saved only at a planned stop.
    #[serde(default)]
    #[schemars(range(min = 0, max = 86_400))]
    #[x_kube(validation = Rule::new("self == 0 || self >= 5").message("spec.handoff.checkpointSeconds must be 0 (off), or 5 or more, because each checkpoint is a write to the API server"))]
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
    /// How many listeners may start within any period of periodSeconds.
    #[serde(default = "defaults::permits")]
    #[schemars(range(min = 1, max = 1_000))]
    pub permits: i32,

    /// Length of the period in seconds. It may begin at any moment.
    #[serde(default = "defaults::period_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub period_seconds: i32,
}

/// How listeners are spread over the Pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// How many listeners of this set a Pod may hold. 0: no limit. Listeners for which no Pod has room stay unassigned.
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

    /// When this was requested. A later time requests it again.
    pub at: Time,

    /// If true, Baton gives the listener to another Pod without proof that its holder stopped it or is dead. If the
    /// holder is alive, the listener may run twice for a time.
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
            "description": "Settings for the application: any JSON object of at most 4 KiB, and at most 1 MiB for all listeners of the set.",
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
