//! The one integration crate: rules of the repository, and everything that needs more than the library.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

#[cfg(feature = "testbed")] // test equipment is built with it only
mod agent;
mod architecture;
#[cfg(feature = "testbed")]
mod cluster;
#[cfg(feature = "testbed")]
mod contract;
mod docs;
#[cfg(feature = "testbed")]
mod e2e;
#[cfg(feature = "operator")]
mod fake_apiserver;
#[cfg(feature = "operator")]
mod generated;
mod layers;
#[cfg(feature = "operator")]
mod model;
#[cfg(feature = "testbed")]
mod node;
#[cfg(feature = "operator")]
mod revisions;
#[cfg(feature = "operator")]
mod samples;
#[cfg(feature = "operator")]
mod simulate;
mod sources;
#[cfg(feature = "testbed")]
mod testbed;

/// Saves a seventh of the time of a simulated history. The operator is without it: it would take half as much memory again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
