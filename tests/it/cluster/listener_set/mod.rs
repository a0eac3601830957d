//! ListenerSets on a real API server, with real agents and processes.
mod moves;
mod stage;
