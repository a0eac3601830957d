//! The one integration crate.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

#[cfg(feature = "testbed")] // test equipment is built with it only
mod cluster;
