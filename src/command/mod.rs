//! What a person asks of a Rollout, as a change of its spec, or why it is refused: pure. The plugin writes and prints it; a REST
//! API and a page need the same rules.
//!
//! - [`steer`]: what becomes of a run: approve, abort, retry, restart, pause, resume;
//! - [`undo`]: what all instances, or chosen ones, are to run;
//! - [`deploy`]: a new version.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod deploy;
mod edit;
mod refusal;
pub mod steer;
pub mod undo;

pub use edit::{Edited, SpecEdit, set, shell_word};
pub use refusal::Refusal;
