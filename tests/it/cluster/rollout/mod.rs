//! Rollouts on a real control plane, as a user sees them: one namespace and one namespaced operator a test.
mod bounds;
pub mod faults;
mod helm;
mod in_place;
mod packages;
mod pins;
mod plugin;
mod refusals;
mod requests;
mod rolls;
pub mod stage;
