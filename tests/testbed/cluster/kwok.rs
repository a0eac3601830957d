//! kwok, which plays the kubelet of the simulated nodes.
use anyhow::Result;

use super::{
    components,
    layout::{Layout, private_file},
    nodes::NodesSpec,
    processes::Spec,
};

/// Annotation (value `fake`) of the nodes that kwok plays, and key of their taint.
pub const NODE_KEY: &str = "kwok.x-k8s.io/node";

/// What the simulated nodes and Pods do, and when.
const STAGES: &str = include_str!("kwok-stages.yaml");

/// Simulated Pods get addresses from here. Nothing answers at them, and 10.244.0.0/16 stays for real ones.
const POD_CIDR: &str = "10.245.0.1/16";

/// Writes kwok's configuration and says how to run it.
pub fn kwok(layout: &Layout, nodes: NodesSpec) -> Result<Spec> {
    private_file(&layout.kwok_config(), STAGES, 0o600)?;
    // kwok renews a lease each quarter of its duration: well within the grace period, and seldom.
    let lease_seconds = nodes.grace_period_seconds() * 2;
    let args = [
        format!("--config={}", layout.kwok_config().display()),
        format!("--kubeconfig={}", layout.pki("admin.kubeconfig").display()),
        format!("--manage-nodes-with-annotation-selector={NODE_KEY}=fake"),
        "--manage-all-nodes=false".into(),
        format!("--cidr={POD_CIDR}"),
        "--node-ip=10.245.0.1".into(),
        format!("--node-lease-duration-seconds={lease_seconds}"),
    ];
    Ok(components::spec(layout, "kwok", args))
}
