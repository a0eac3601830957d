//! The hand-off of listeners as a model that is searched for two owners. Every decision is one of the real functions of
//! `baton::plan::listener_set`; what is made up here is the world around them: API server, kubelets, network, clocks.
//!
//! How any number of controllers with views of any age fit into a small state: a write to an ownership Lease succeeds only
//! on the version that was looked at, and a proof of death never turns false; so who decides on an old view and writes late
//! does what somebody who looks now does. Views that are not like that are stored, or may be of any time: agents read the
//! ownership of any past version; renewals and hand-overs stay on their way as long as they like.
//!
//! - [`state`], [`views`]: small integers, and the values that the real functions see of them;
//! - [`world`], [`steps`]: what can happen; [`recovery`]: whether somebody can run the listener after all;
//! - [`search`]: stateright; [`protocol`]: nothing is found; [`removed`]: without one of the rules it is.
mod protocol;
mod recovery;
mod removed;
mod search;
mod state;
mod steps;
mod views;
mod world;
