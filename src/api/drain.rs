//! What comes before an instance is taken away.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::update::HttpPost;

/// What comes before an instance is deleted or its containers start anew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// How many seconds an instance has from when it leaves service until it is deleted all the same, 0 to 3,600.
    #[serde(default = "defaults::timeout_seconds")]
    #[schemars(range(min = 0, max = 3_600))]
    pub timeout_seconds: i32,
    /// How many seconds an instance is left alone after it is gone from all EndpointSlices, 0 to 300: proxies hear of
    /// that a moment later.
    #[serde(default = "defaults::settle_seconds")]
    #[schemars(range(min = 0, max = 300))]
    pub settle_seconds: i32,
    /// The request that asks an application whether it is drained. If it answers 200, the instance is drained. After
    /// 202, any other answer or none, it is asked again a second later. An instance whose Pod somebody else deletes is
    /// asked too, until the Pod has ended. If absent, no application is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_post: Option<HttpPost>,
}

mod defaults {
    pub(super) fn timeout_seconds() -> i32 {
        30
    }
    pub(super) fn settle_seconds() -> i32 {
        2
    }
}
