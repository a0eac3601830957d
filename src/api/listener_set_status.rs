//! `ListenerSet` status: how many listeners are where, as counts. Who holds which listener is in the Leases, never here:
//! a status in proportion to the listeners would cost the API server too much with every write.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    bounds::{EXCEPTIONS_MAX, HOLDERS_MAX},
    condition::Condition,
    quantity::is_zero,
};

/// Words of `exceptions[].state`; strings in the code, an enum in the CRD, as [`super::status::INSTANCE_STATES`].
pub const LISTENER_STATES: [&str; 7] =
    ["Failed", "Orphaned", "Unassigned", "Moving", "Starting", "Stopping", "Retiring"];

/// State of a ListenerSet as last observed. Each listener is in one of the counts running, stopped, moving, starting,
/// unassigned and failed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ListenerSetStatus {
    /// metadata.generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Number of listeners of the set, including stopped ones.
    #[schemars(range(min = 0))]
    pub listeners: i32,
    /// Number of listeners that run.
    #[schemars(range(min = 0))]
    pub running: i32,
    /// Number of listeners that are stopped because the spec says so.
    #[schemars(range(min = 0))]
    pub stopped: i32,
    /// Number of listeners that are moving from one Pod to another.
    #[schemars(range(min = 0))]
    pub moving: i32,
    /// Number of listeners that a Pod holds but has not started yet.
    #[schemars(range(min = 0))]
    pub starting: i32,
    /// Number of listeners that should run but that no live Pod holds.
    #[schemars(range(min = 0))]
    pub unassigned: i32,
    /// Number of listeners that a Pod holds but cannot get to run.
    #[schemars(range(min = 0))]
    pub failed: i32,
    /// Highest epoch of all listeners whose Lease was deleted. New Leases begin above it, so that an epoch is never
    /// used twice.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub epoch_floor: i32,
    /// Number of Pods that hold listeners.
    #[schemars(range(min = 0))]
    pub holder_count: i32,
    /// Pods that hold listeners: the first 100, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = HOLDERS_MAX), extend("x-kubernetes-list-type" = "atomic"))]
    pub holders: Vec<Holder>,
    /// Listeners that do not run as the spec says, most important first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = EXCEPTIONS_MAX), extend("x-kubernetes-list-type" = "atomic"))]
    pub exceptions: Vec<ListenerException>,
    /// Number of further exceptions, which the list has no room for.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub exceptions_omitted: i32,
    /// The last planned move of listeners.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_move: Option<LastMove>,
    /// Strings for the columns of `kubectl get`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display: Option<ListenerSetDisplay>,
    /// Conditions. Exactly one of Ready, Reconciling and Stalled is True.
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A Pod that holds listeners.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Holder {
    /// Name of the Pod.
    #[schemars(length(max = 253))]
    pub pod: String,
    /// Revision that the Pod reports. Empty if the Pod has no revision.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    pub revision: String,
    /// Number of listeners that run in this Pod.
    #[schemars(range(min = 0))]
    pub running: i32,
}

/// A listener that is not as it should be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ListenerException {
    /// Name of the listener.
    #[schemars(length(max = 63))]
    pub listener: String,
    /// Failed, Orphaned (its holder is dead), Unassigned, Moving, Starting, Stopping or Retiring (removed from the set, not
    /// stopped yet).
    #[schemars(extend("enum" = LISTENER_STATES))]
    pub state: String,
    /// Name of the Pod that holds the listener. Empty if no Pod holds it.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub holder: String,
    /// Cause in one CamelCase word, such as ConnectTimeout.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Explanation in a sentence.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// When this state began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// The last planned move: of all listeners that moved within seconds of each other.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LastMove {
    /// Number of listeners that moved.
    #[schemars(range(min = 0))]
    pub count: i32,
    /// Milliseconds from the old Pod's confirmed stop to the new Pod's start: the median of the moved listeners.
    #[schemars(range(min = 0))]
    pub gap_milliseconds_p50: i32,
    /// Milliseconds from the old Pod's confirmed stop to the new Pod's start: the longest of the moved listeners.
    #[schemars(range(min = 0))]
    pub gap_milliseconds_max: i32,
    /// When the moves were counted: 4 seconds after the last moved listener reported that it runs again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
}

/// Strings for the columns of `kubectl get`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ListenerSetDisplay {
    /// Listeners that run / that should run, such as "11/12".
    #[schemars(length(max = 32))]
    pub running: String,
}
