//! The Pod side: what runs in each Pod of a ListenerSet.
//!
//! - [`session`]: the agent itself: claims and renews the Pod's session, runs what it is given, gives it away;
//! - [`exec`]: one child process per listener, under a guard that can prove that it has stopped;
//! - [`sidecar`]: listeners run by an application beside the agent, which is told what to run, and until when;
//! - [`alone`]: one agent in a Pod, and none before the guards of the last one are gone;
//! - [`fetch`]: the package of a Rollout, before anything else starts;
//! - [`install`]: the agent for images that have none;
//! - [`boottime`]: the clock of deadlines, which goes on while the machine sleeps; [`clocks`]: that and the time of day.
//!
//! What is decided is decided in [`crate::plan::listener_set`], by the functions that the controller uses too.
pub mod alone;
pub mod boottime;
pub mod clocks;
pub mod exec;
pub mod fetch;
pub mod install;
pub mod session;
pub mod sidecar;
