//! One listener as its ListenerSet asks for it, and what an agent is told of it.
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::api::listener_set::ListenerState;

/// One listener of a set, with all defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Unique in the set.
    pub name: String,
    /// Whether it should run.
    pub state: ListenerState,
    /// Name of the Secret of its application: two listeners with the same one must not run at once.
    pub secret: Option<String>,
    /// What its agent is told.
    pub settings: Settings,
}

/// What an agent is told of a listener: the value of [`crate::api::names::ANNOTATION_CONFIG`] as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// The application's own.
    pub config: Map<String, Value>,
    /// Whether its connection goes through a proxy.
    pub use_proxy: bool,
    /// How long its connection may take to open.
    pub connect_timeout_seconds: u32,
    /// How long it may take from its start until it runs.
    pub start_timeout_seconds: u32,
    /// How long it may take to stop; then it is killed.
    pub stop_timeout_seconds: u32,
    /// How often what it would resume from is written down; 0: never.
    pub checkpoint_seconds: u32,
}
