//! The shell: wiring of watches, planner and writes; leadership, probes, metrics, shutdown; and what is installed in a
//! cluster to run it. Holds no rule of its own.
//!
//! - [`run`]: what is started, and in which order it stops;
//! - [`dispatch`] takes what is due from a [`queue`] and hands it to [`reconcile`], one look at one Rollout, or to [`sets`],
//!   one look at one ListenerSet; what both share is in [`shell`];
//! - [`memory`]: what is remembered of an object between looks;
//! - [`leader`]: the controller lock;
//! - [`probes`], [`metrics`], [`telemetry`]: what is told about the process;
//! - [`settings`]: the command line;
//! - [`manifests`]: what is installed in a cluster.
pub mod backoff;
pub mod clock;
pub mod dispatch;
mod exposition;
mod labels;
pub mod leader;
pub mod manifests;
pub mod memory;
pub mod metrics;
pub mod notify;
pub mod probes;
pub mod queue;
pub mod reconcile;
#[cfg(test)]
mod reconcile_world;
pub mod run;
pub mod sets;
pub mod settings;
pub mod shell;
pub mod telemetry;
mod unreadable;
