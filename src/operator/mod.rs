//! The shell: wiring of watches, planner and writes; leadership, probes, metrics, shutdown; and what is installed in a
//! cluster to run it. Holds no rule of its own.

pub mod manifests;
