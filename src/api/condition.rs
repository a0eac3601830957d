//! Conditions, of a type of our own: as `metav1.Condition`, with bounds.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One aspect of an object's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Name of the condition.
    #[serde(rename = "type")]
    pub type_: ConditionType,
    /// True, False or Unknown.
    pub status: ConditionStatus,
    /// Cause in one CamelCase word, for programs.
    #[schemars(length(min = 1, max = 64))]
    pub reason: String,
    /// Explanation in a sentence, for people.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// When `status` last changed.
    pub last_transition_time: Time,
    /// metadata.generation of the spec that this condition is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
}

/// Aspects Baton reports. `Reconciling`, `Stalled`, `Paused`, `Degraded` and `SelectorOverlaps` are present only when True.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum ConditionType {
    /// Everything asked for is running and in service.
    Ready,
    /// Enough instances are available, as a Deployment says it.
    Available,
    /// Work towards the spec is going on or was completed.
    Progressing,
    /// kstatus: being worked on.
    Reconciling,
    /// kstatus: will not get on without a person.
    Stalled,
    /// `spec.paused` is true.
    Paused,
    /// Something is wrong that does not stop the rollout.
    Degraded,
    /// `spec.selector` matches Pods of something else.
    SelectorOverlaps,
    /// The API server accepted a Pod of the template in a dry run.
    TemplateValid,
    /// The listeners are spread evenly over the Pods.
    Balanced,
}

impl ConditionType {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Available => "Available",
            Self::Progressing => "Progressing",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::Paused => "Paused",
            Self::Degraded => "Degraded",
            Self::SelectorOverlaps => "SelectorOverlaps",
            Self::TemplateValid => "TemplateValid",
            Self::Balanced => "Balanced",
        }
    }
}

/// Truth of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Not known yet.
    Unknown,
}
