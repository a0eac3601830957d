//! The Pod side: what runs in each Pod of a ListenerSet.
//!
//! - [`session`]: the agent itself: claims and renews the Pod's session, runs what it is given, gives it away;
//! - [`exec`]: one child process per listener, under a guard that can prove that it has stopped;
//! - [`alone`]: one agent in a Pod, and none before the guards of the last one are gone;
//! - [`boottime`]: the clock of deadlines, which goes on while the machine sleeps.
//!
//! What is decided is decided in [`crate::plan::listener_set`], by the functions that the controller uses too.
pub mod alone;
pub mod boottime;
pub mod exec;
pub mod session;
