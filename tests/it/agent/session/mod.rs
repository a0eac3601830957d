//! The agent as a process, with real guards and real sockets, against an API server in this process.
mod again;
mod drain;
mod failures;
mod handover;
mod sidecar;
mod silence;
mod spoken;
mod stage;
mod warm;
