//! The agent as a process, with real guards and real sockets, against an API server in this process.
mod handover;
mod stage;
