//! Baton on real nodes: kubelet, containerd and runc, the operator installed by its chart as a user installs it.
//!
//! `make e2e` runs these tests. They need root, so nothing else runs them. All share one cluster of two nodes: the first has
//! containerd 1.6, the second 2, and what depends on the runtime is done on each. What breaks a node or the API server has the cluster for itself
//! ([`equipment::alone`]). A recorder writes every state of every Pod, Rollout, Lease and Event to `recording.jsonl` in the
//! cluster's folder: read it where a test fails.
mod equipment;
mod leftovers;
mod listeners;
mod packages;
mod processes;
mod recorder;
mod rolls;
mod updates;
mod whole_nodes;
