//! ListenerSets on a real API server, with real agents and processes.
pub mod agents;
mod changes;
mod crashes;
mod foreign;
mod moves;
mod nodes;
pub mod stage;
