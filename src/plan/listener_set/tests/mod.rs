//! The planner against a small world: Pods with agents that run the real [`super::unit::next`], Leases with
//! compare-and-swap, faults. What no single look shows is asserted there.
mod cases;
mod findings;
mod properties;
mod silence;
mod unreadable;
pub(crate) mod world;
