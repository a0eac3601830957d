//! What to tell: `(snapshot, plan, outcomes) -> RolloutStatus`, and the events of the way from one status to the next.
//! Pure: from the same snapshot as the plan; equal input gives equal bytes, and absolute times only, so that a status
//! is written only when something has happened.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod conditions;
mod display;
mod history;
pub mod instances;
mod kept;
pub mod listener_set;
mod look;
pub mod notice;
pub mod rollout;
#[cfg(test)]
mod tests;
mod text;
mod verdict;

pub use notice::{
    Notice, NoticeKind, are_resources_newly_held, drain_timed_out, not_in_place, notices, strategy_warning,
};
