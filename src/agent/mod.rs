//! The Pod side: what runs in each Pod of a ListenerSet.
//!
//! - [`boottime`]: the clock of deadlines, which goes on while the machine sleeps;
//! - [`alone`]: one agent in a Pod;
//! - [`exec`]: one child process per listener, under a guard that can prove that it has stopped.
pub mod alone;
pub mod boottime;
pub mod exec;
