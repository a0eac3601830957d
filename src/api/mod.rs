//! What users write: the custom resources, and every label, annotation, condition and field-manager name, each
//! defined once. Pure: no client, no clock.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod blue_green;
pub mod bounds;
pub mod condition;
pub mod crd;
pub mod drain;
pub mod fingerprint;
pub mod health;
pub mod hooks;
pub mod keep_failed;
pub mod listener_set;
pub mod listener_set_status;
pub mod names;
pub mod package;
pub mod pin;
pub mod quantity;
pub mod request;
pub mod rollout;
pub mod session;
pub mod soak;
pub mod status;
pub mod template;
pub mod update;

pub use condition::{Condition, ConditionStatus, ConditionType};
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
pub use listener_set::{ListenerSet, ListenerSetSpec};
pub use listener_set_status::ListenerSetStatus;
pub use quantity::IntOrPercent;
pub use rollout::{Rollout, RolloutSpec};
pub use status::RolloutStatus;
pub use template::PodTemplate;
