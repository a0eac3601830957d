//! What to do: pure, total, without a clock. `rollout::plan(&Snapshot) -> Plan` looks at the world as it is and returns
//! only the next changes; folded over their simulated effects ([`crate::plan::rollout::fold`]) it gives the whole
//! rollout. Broken input gives a [`Hold`] with a reason, never an error or a panic.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod addition;
pub mod adoption;
mod agent;
pub mod change;
pub mod hold;
pub mod hook;
pub mod in_place;
pub mod lease;
pub mod listener_set;
pub mod outcome;
pub mod package;
pub mod pod_reason;
pub mod resize;
pub mod revision;
pub mod rollout;
pub mod specimen;
pub mod undo;

pub use change::{
    Change, Hold, HoldReason, HookEnd, Memory, Plan, PodAct, PodReason, Question, RevisionAct, RevisionMark, Seen,
    Selection,
};
pub use outcome::{Applied, Outcome};
