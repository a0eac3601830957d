//! What a person may ask of the API server: one object with all that the planner looks at, and a change of one spec. Nothing here
//! is printed. A refusal is returned as it came: what a person can do about it, the caller (`cli`) adds.
mod cluster;
mod edit;
mod unanswered;

pub use cluster::{Cluster, Ours, Reads, UNSEEN_AFTER, is_seen, selector};
pub use edit::Unchanged;
pub use unanswered::{Kind, Late, Unanswered, asked, in_time, without_secrets};
