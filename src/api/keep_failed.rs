//! Failed Pods that are kept for a look.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounds::KEPT_PODS_MAX;

/// Failed Pods that are kept for a look when a version goes back. The failed version runs on in them. Their labels are removed, so no
/// Service selects them, and no NetworkPolicy that selects by these labels confines them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeepFailed {
    /// How many failed Pods are kept at most, 1 to 10. Baton removes kept Pods of an earlier run first.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 10))]
    pub pods: i32,
    /// How many seconds each Pod is kept.
    #[serde(default = "ten_minutes")]
    #[schemars(range(min = 1, max = 86_400))]
    pub seconds: i32,
}

impl KeepFailed {
    /// How many, within the bounds even when the CRD was bypassed.
    pub fn most(self) -> usize {
        usize::try_from(self.pods).unwrap_or_default().min(KEPT_PODS_MAX)
    }
}

fn one() -> i32 {
    1
}

fn ten_minutes() -> i32 {
    600
}
