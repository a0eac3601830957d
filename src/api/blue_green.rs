//! `spec.strategy.blueGreen`: which Services are switched, and when.
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which Services are switched, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.previewService) || self.previewService != self.activeService")
        .message("spec.strategy.blueGreen.previewService must differ from activeService: name another Service or remove previewService")
)]
pub struct BlueGreen {
    /// Name of the Service that clients use, in the namespace of the Rollout. Its owner must permit the switch:
    /// annotate the Service with baton.dev/rollout: NAME, the name of this Rollout. Baton sets the key
    /// baton.dev/revision in the selector of the Service, and the annotations baton.dev/switched-at and
    /// baton.dev/switched-from. If the selector is empty, Baton also writes spec.selector.matchLabels into it, and
    /// these stay. No other Rollout may name this Service.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("spec.strategy.blueGreen.activeService must be the name of a Service, such as web"))]
    pub active_service: String,
    /// Name of a Service for trying the new set before clients use it: Baton makes it select the new set once that is
    /// available. It needs the annotation baton.dev/rollout too. If absent, there is no preview.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("spec.strategy.blueGreen.previewService must be the name of a Service, such as web-preview"))]
    pub preview_service: Option<String>,
    /// When activeService switches to the new set. Auto: as soon as the set is available. Manual: once spec.approve
    /// names the run and batch 1. A revision that has completed before needs no approval.
    #[serde(default)]
    pub promote: Promote,
    /// How many seconds the old set stays after the switch. Meanwhile open connections can end, a rollback is one
    /// switch, and a third version has to wait. kube-proxy and load balancers take a few seconds to follow a switch;
    /// requests may fail if this is shorter.
    #[serde(default = "scale_down_delay_seconds")]
    #[schemars(range(min = 0, max = 604_800))]
    pub scale_down_delay_seconds: i32,
}

impl BlueGreen {
    /// Names of the Services.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.active_service).chain(&self.preview_service)
    }
}

/// Who decides that clients get the new set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Promote {
    /// As soon as it is available.
    #[default]
    Auto,
    /// A person, by spec.approve.
    Manual,
}

fn scale_down_delay_seconds() -> i32 {
    30
}
