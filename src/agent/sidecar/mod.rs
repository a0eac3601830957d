//! Listeners that are run by an application in another container of the Pod: `baton-agent serve`.
//!
//! ```text
//! units ── Runner ──> application ── desk ──events──> one stream of the application
//!                          ▲            ▲
//!                          └ happenings └── prepared, started, tick, resume, failed, stopped
//! ```
//! - [`desk`]: what is known of the application, and what follows from it (pure); [`refusal`]: what it is told it did wrong;
//! - [`application`]: that as a [`crate::agent::session::runner::Runner`]; [`record`]: what outlives the agent of it;
//! - [`routes`]: HTTP. What is said there: [`crate::sdk::wire`].
//!
//! # What stops a listener, and what proves it
//! The agent cannot kill what runs in another container. So it tells the application with every renewal until when it may
//! run anything, and takes its word, or the passing of that time, for the end. An application that neither says what is true
//! nor keeps to its deadlines can run a listener twice: `baton-agent exec` needs no such trust. What the controller does
//! about a listener that is not given back in time, it does here too: it deletes the Pod, and waits for the proof that all
//! of its containers have ended.
pub mod application;
pub mod desk;
pub mod record;
pub mod refusal;
pub mod routes;
