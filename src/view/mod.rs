//! What every face shows: snapshot and status as headers, trees and rows of values. Pure; the plugin, and later the REST
//! gateway and the page, only draw them.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod age;
mod eta;
pub mod history;
pub mod instances;
pub mod listener_set;
pub mod preview;
pub mod progress;
pub mod rollout;
pub mod tree;

pub use listener_set::{SetHeader, SetView};
pub use preview::Preview;
pub use progress::Progress;
pub use rollout::{Header, RolloutView};
pub use tree::{Node, Tone};
