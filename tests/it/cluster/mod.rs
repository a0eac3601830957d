//! What a user sees on a real control plane.
pub mod api;
mod chart;
mod explain;
mod install;
pub mod listener_set;
mod listener_set_api;
mod nodes;
pub mod plugin;
mod policies;
pub mod rollout;
mod supervisor;
pub mod support;
