//! # Baton
//!
//! A Kubernetes operator for Pods that *hold* something. This page is the map; `docs/architecture.md` tells the reasons.
//!
//! ```text
//! api ─watch─> observe ─> snapshot::Index ─> Snapshot {object, pods, revisions, verdicts, now}
//!                                              └─> plan::rollout::plan ─> Plan {memory, changes, hold, wake_at}
//!                                                     └─> apply ─> Vec<Outcome>
//!                                                            └─> status ─> RolloutStatus ── only if changed ──> API server
//! ```
//!
//! The folders are that data flow; each may use only what stands left of it:
//! `api ← snapshot ← plan ← status ← view` are pure (no clock, no I/O, no randomness, no map of random order: clippy
//! denies them there); `observe` and `apply` do I/O; `operator`, `agent`, `client` and `cli` wire things and
//! hold no rule of their own. What a person asks for (approve, undo, deploy …) becomes a change of a spec in `command`, which is pure, too.
//! `sdk` stands alone: it is what other people's programs are built on.
//!
//! | I want to … | look in |
//! |---|---|
//! | change what users may write | [`api`]; then `make generate` |
//! | change when an instance is replaced, or why it is not | [`plan::rollout`]: one folder a layer; `verdict/holds.rs`, `verdict/gates.rs` for holds |
//! | add or change a strategy | `plan/rollout/policy.rs` |
//! | change what comes before a Pod ends (hand-over, gate) | `plan/rollout/work/exit.rs` |
//! | change what applications are told, when and how | `plan/rollout/work/reload.rs`, `apply/applications.rs` |
//! | change what counts as failed | `plan/rollout/pod/failure.rs`, `plan/rollout/verdict/failed.rs` |
//! | change who may run a listener, or take it | [`plan::listener_set`], [`snapshot::lease`] |
//! | change what `kubectl get` and `kubectl baton get` show | [`status`], [`view`] |
//! | change how a write meets the API server | `apply/`, one function per [`plan::Change`] and [`plan::listener_set::change::SetChange`] |
//! | change for how long a session counts as silent, or what wakes a ListenerSet | `snapshot/index/leases.rs`, `snapshot/index/sets.rs` |
//! | change how often a ListenerSet is looked at, or its status written | `operator/sets/` |
//! | change how a listener's processes are run and stopped | `agent/exec/` |
//! | change what an application beside an agent is told and believed | `agent/sidecar/desk.rs`; the words: `sdk/wire.rs` |
//! | change what a Rust program is offered for that | `sdk/` |
//! | change how a Pod keeps its session, takes and gives listeners | `agent/session/`; what is decided: [`plan::listener_set::unit`] |
//! | change leader election, metrics, shutdown | `operator/` |
//! | change what a verb asks of a spec, or why it is refused | `command/` |
//! | see a whole rollout without a cluster | [`plan::rollout::fold`], `kubectl baton plan -f FILE` |
//!
//! What holds everywhere:
//! 1. The planner is total: broken input gives a [`plan::Hold`] with a reason, never an error or a panic.
//! 2. Changes of one plan are independent and idempotent; where order matters only the first is emitted.
//! 3. What decisions rest on is written to status first, by compare-and-swap; durable facts are annotations of
//!    ControllerRevisions. Status can be wiped: nothing but the place within a batch is lost.
//! 4. Names are deterministic, deletes carry uid and resourceVersion, only objects whose controller ownerRef carries our
//!    uid are touched.
//! 5. Commands come in through spec, never through status.
#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "core")]
pub mod api;
#[cfg(feature = "operator")]
pub mod apply;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
pub mod client;
#[cfg(feature = "core")]
pub mod command;
#[cfg(any(feature = "operator", feature = "agent"))]
pub mod connection;
#[cfg(any(feature = "operator", feature = "agent"))]
pub mod observe;
#[cfg(feature = "operator")]
pub mod operator;
#[cfg(feature = "core")]
pub mod plan;
#[cfg(all(test, any(feature = "operator", feature = "agent")))]
mod scripted;
#[cfg(feature = "sdk")]
pub mod sdk;
#[cfg(any(feature = "operator", feature = "agent"))]
pub mod served;
#[cfg(feature = "core")]
pub mod snapshot;
#[cfg(feature = "core")]
pub mod status;
#[cfg(feature = "core")]
pub mod view;
#[cfg(any(feature = "operator", feature = "cli"))]
pub mod warned;
