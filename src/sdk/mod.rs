//! Listeners in your own Rust program, beside `baton-agent serve`: what to implement, and what does the rest.
//!
//! ```no_run
//! use baton::sdk::{Error, Fence, Listener, Resume, Sidecar, Stop, Unit};
//!
//! struct Counter;
//!
//! impl Listener for Counter {
//!     async fn run(&self, unit: Unit, resume: Resume, fence: Fence, stop: Stop) -> Result<Resume, Error> {
//!         let mut number: u64 = resume.read()?.unwrap_or_default();
//!         unit.tick(); // it works
//!         while !stop.is_cancelled() {
//!             fence.check()?; // before each thing that others can see
//!             println!("{} {number}", unit.listener());
//!             number += 1;
//!             unit.checkpoint(&number)?;
//!             tokio::select! {
//!                 () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
//!                 () = stop.cancelled() => {}
//!             }
//!         }
//!         Resume::new(&number)
//!     }
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), baton::sdk::Problem> {
//!     Sidecar::from_environment().run(Counter).await
//! }
//! ```
//!
//! - [`Listener`]: what is yours; [`Unit`], [`Resume`], [`Fence`], [`Stop`]: what it is given;
//! - [`Sidecar`]: runs it for each listener of the Pod;
//! - [`wire`]: what is said to the agent; `client`, `follow`: how; `run`: one listener;
//! - `orphan`: whether the container runtime has lost this process;
//! - `watchdog`: the thread that keeps deadlines, when nothing else does.
//!
//! # What ends a listener
//! [`Listener::run`] is asked to end by its [`Stop`]. If it has not returned when its time is over it is dropped, a quarter
//! second before the deadline that the agent gave; if it cannot even be dropped, because it blocks its thread, the process is
//! aborted at the deadline. So what `run` begins must end with it: what it spawns, on tasks or threads, it must also wait
//! for, or guard by its fence.
mod client;
mod clock;
mod follow;
mod listener;
pub(crate) mod orphan;
mod run;
mod sidecar;
#[cfg(test)]
mod tests;
mod watchdog;
pub mod wire;

pub use listener::{Error, Fence, Listener, Resume, Unit};
pub use sidecar::{Problem, Sidecar};
/// Asks a listener to end. Cancelled once, and for good.
pub use tokio_util::sync::CancellationToken as Stop;
