//! What a person may ask of the API server: one object with all that the planner looks at, and a change of one spec. Nothing here
//! is printed, and nothing here says what to do about a refusal: that is for who asks (`cli`).
mod cluster;
mod edit;
mod unanswered;

pub use cluster::{Cluster, Ours, Reads, UNSEEN_AFTER, is_seen, selector};
pub use edit::Unchanged;
pub use unanswered::{Kind, Late, Unanswered, asked, in_time, without_secrets};
