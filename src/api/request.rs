//! Who asks for something, and why.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who asked for the present spec, and why. With an id it counts for the first change that bears it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Identifier of the request in the requesting system, such as deploy-12345.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub id: Option<String>,
    /// Who made the request: a person or a system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub by: Option<String>,
    /// Reason of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub reason: Option<String>,
}
