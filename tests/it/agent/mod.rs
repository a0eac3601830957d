//! The agent's part in a Pod, with real processes.
mod fixture;
mod guard;
mod kills;
mod lines;
