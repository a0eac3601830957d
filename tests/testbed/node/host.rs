//! What all parts of one node share.
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use kube::Client;
use tokio::sync::watch;

use super::{addresses::Addresses, events::Events, gate::Gate, image::Images};

/// Who writes, in `managedFields`.
pub const MANAGER: &str = "baton-process-node";
/// No call to the API server takes longer, or it has failed.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// One process node.
pub struct Host {
    pub name: String,
    pub client: Client,
    pub images: Images,
    pub addresses: Addresses,
    pub events: Events,
    /// Where the kubelet API listens; its address is the node's.
    pub listen: SocketAddr,
    pub state: PathBuf,
    /// A switch for tests: how long the processes of a Pod that is deleted by force go on.
    pub keep_force_deleted: watch::Sender<Duration>,
    /// What is written to the API server goes through it: no status, no lease, no delete while it is closed.
    pub gate: Gate,
}

impl Host {
    pub fn address(&self) -> IpAddr {
        self.listen.ip()
    }
}

/// An error of the API server in one line, for logs.
pub fn brief(error: &anyhow::Error) -> String {
    match error.downcast_ref() {
        Some(kube::Error::Api(status)) => format!("{} ({})", status.message, status.code),
        _ => format!("{error:#}"),
    }
}
