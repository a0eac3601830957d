//! Baton: a Kubernetes operator for Pods that hold something.
#[cfg(feature = "core")]
pub mod api;
#[cfg(feature = "core")]
pub mod plan;
#[cfg(feature = "core")]
pub mod snapshot;
