//! The agent's part in a Pod, with real processes.
mod fetch;
pub mod fixture;
mod guard;
mod kills;
mod lines;
mod session;
