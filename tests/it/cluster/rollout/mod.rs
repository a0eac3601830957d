//! Rollouts on a real control plane, as a user sees them: one namespace and one namespaced operator a test.
mod blame;
mod blue_green;
pub mod bounds;
pub mod faults;
mod helm;
mod in_place;
pub mod packages;
mod pins;
pub mod plugin;
mod recreate;
mod refusals;
mod reload;
mod requests;
mod resize;
mod rights;
mod rolls;
pub mod stage;
mod why;
