//! The session of a Pod, and the listeners that it may run: who claims, renews, prepares, starts, stops, gives away.
//!
//! ```text
//!                watch: session.<pod>                        watch: Leases with baton.dev/holder = me
//!                        │                                                  │
//!   API server <─renew─ renewal ──Told{deadlines, inbox, over}──> units ────┴─ unit::next ─┬─> runner ─> guards ─> children
//!        ▲               ▲                                          │ ▲                     │
//!        │               └────────── Outbox{info, reports} ─────────┘ └── what children say, and their proven ends
//!        └───────────────────────── transfers, checkpoints (compare-and-swap) ─────────────┘
//! ```
//! - [`run`]: the process; [`settings`]: its command line; [`local`]: probes and `/drain`; `gate`: who may
//!   use it;
//! - [`boot`]: one session in it, from the claim to the end: what is started, in which order;
//! - `inheritance`: what the boot before has held;
//! - [`renewal`]: one task with a client of its own, for the session; [`pace`]: until when an acknowledged renewal lets
//!   listeners run, and pauses after failures (pure);
//! - [`units`]: one task for all listeners; [`hands`]: what it does about one; [`listener`]: what is known of one;
//!   `tell`: what is reported of them; [`drain`]: whether it lets go of them (pure);
//! - [`leases`]: Leases read, patches made (pure); [`api`]: the calls;
//! - [`runner`]: what runs listeners.
//!
//! # What stops listeners
//! At S after the last acknowledged renewal was sent every listener is told to stop. Their guards have been told since that
//! renewal to kill at K - [`crate::agent::exec::GUARD_MARGIN`], so that a guard which does not is killed by K:
//! without help of another process. When the session is lost (fenced, deleted, another boot's) everything is killed at once, because others
//! may have begun already, and the process ends once nothing runs: the next boot claims anew. After a jump of the wall clock nothing that was
//! acknowledged before counts.
pub mod api;
pub mod boot;
pub mod drain;
mod forget;
mod gate;
pub mod hands;
mod inheritance;
mod last_read;
pub mod leases;
pub mod listener;
pub mod local;
pub mod pace;
pub mod renewal;
pub mod run;
pub mod runner;
pub mod settings;
mod tell;
pub mod units;
