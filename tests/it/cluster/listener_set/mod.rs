//! ListenerSets on a real API server, with real agents and processes.
mod changes;
mod crashes;
mod moves;
mod stage;
