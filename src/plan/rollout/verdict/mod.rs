//! What is true of the run now: what holds each class of work, who is late, who has failed.
pub mod deadline;
pub mod failed;
pub mod gates;
pub mod holds;
pub mod hooks;
pub mod old_pods;
pub mod progress;
pub mod sets;
pub mod soak;
