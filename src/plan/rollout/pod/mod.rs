//! Facts about one Pod, each by itself: nothing here knows of slots or of a run.
pub mod agent;
pub mod counts;
pub mod drain;
pub mod failure;
pub mod health;
pub mod reload;
pub mod resize;
pub mod waiting;
