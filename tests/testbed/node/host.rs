//! What all parts of one node share.
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use kube::Client;
use tokio::sync::watch;

use super::{addresses::Addresses, events::Events, image::Images};

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
    pub settings: watch::Sender<Settings>,
}

/// What tests may change while the node runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Nothing is written to the API server any more: no status, no lease, no delete.
    pub frozen: bool,
    /// How long the processes of a force-deleted Pod go on before they are told to end.
    pub keep_force_deleted: Duration,
    /// Factor of the kubelet's back-off times, for Pods that come later.
    pub back_off_scale: f64,
}

impl Host {
    pub fn address(&self) -> IpAddr {
        self.listen.ip()
    }

    pub fn back_off_scale(&self) -> f64 {
        self.settings.borrow().back_off_scale
    }

    /// Returns when the node may write to the API server.
    pub async fn thawed(&self) {
        let mut settings = self.settings.subscribe();
        // The sender is ours: it cannot be gone.
        let _ = settings.wait_for(|settings| !settings.frozen).await;
    }
}

/// An error of the API server in one line, for logs.
pub fn brief(error: &anyhow::Error) -> String {
    match error.downcast_ref() {
        Some(kube::Error::Api(status)) => format!("{} ({})", status.message, status.code),
        _ => format!("{error:#}"),
    }
}
