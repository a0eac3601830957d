//! The time after a rollout in which it is watched.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::health::Check;

/// The time after the last batch in which the instances are watched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Soak {
    /// How many seconds the instances are watched, 1 to 604,800. Until then the previous revision stays the stable one.
    #[schemars(range(min = 1, max = 604_800))]
    pub seconds: i32,
    /// What happens when a limit is broken. Notify: an Event, and the run completes at the end. Pause: the run waits for
    /// spec.approve. Rollback: the run fails with SoakBreach, and spec.strategy.onFailure decides what goes back.
    #[serde(default)]
    pub on_breach: OnBreach,
    /// How often the containers of an instance may restart in this time, 0 to 1,000.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000))]
    pub max_restarts: i32,
    /// How many seconds in a row an instance may be not ready, 1 to 86,400.
    #[serde(default = "defaults::max_unready_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub max_unready_seconds: i32,
    /// How many seconds in a row a check must fail before that counts, 0 to 86,400. At least three failures in a row
    /// are needed.
    #[serde(default = "defaults::for_seconds")]
    #[schemars(range(min = 0, max = 86_400))]
    pub for_seconds: i32,
    /// Checks of each instance, at most 8, as in spec.health.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub checks: Vec<Check>,
    /// Seconds from one round of checks to the next, 1 to 3,600.
    #[serde(default = "defaults::check_period_seconds")]
    #[schemars(range(min = 1, max = 3_600))]
    pub check_period_seconds: i32,
}

/// What a broken limit leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnBreach {
    /// It is told, and the run completes at the end.
    #[default]
    Notify,
    /// The run waits for a person.
    Pause,
    /// The run fails.
    Rollback,
}

/// The watched time of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SoakStatus {
    /// Number of the run.
    #[schemars(range(min = 0))]
    pub run: i64,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    /// Limits that were broken, the first one first; at most 10.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    pub breaches: Vec<Breach>,
    /// Instances whose containers had restarted before it began, and how often; at most 50.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "atomic"))]
    pub restarted_before: Vec<RestartedBefore>,
}

/// A limit that an instance has broken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Breach {
    /// Number of the instance.
    #[schemars(range(min = 0))]
    pub instance: i32,
    /// restarts, unready or check.
    #[schemars(length(max = 32))]
    pub what: String,
    /// What was seen, in a sentence.
    #[schemars(length(max = 256))]
    pub message: String,
    /// When it was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
}

/// Restarts of an instance that do not count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RestartedBefore {
    /// Name of its Pod.
    #[schemars(length(max = 63))]
    pub pod: String,
    /// How often.
    #[schemars(range(min = 0))]
    pub restarts: i32,
}

mod defaults {
    pub(super) fn max_unready_seconds() -> i32 {
        30
    }
    pub(super) fn for_seconds() -> i32 {
        30
    }
    pub(super) fn check_period_seconds() -> i32 {
        10
    }
}
