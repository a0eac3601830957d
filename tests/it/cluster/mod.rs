//! What a user sees on a real control plane.
mod supervisor;
pub mod support;
