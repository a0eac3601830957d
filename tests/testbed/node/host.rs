//! What all parts of one node share.
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use kube::Client;
use tokio::sync::{OwnedRwLockReadGuard, RwLock, watch};

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
    /// Shared by calls that write to the API server.
    pub writing: Arc<RwLock<()>>,
}

/// What tests may change while the node runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Nothing is written to the API server any more: no status, no lease, no delete.
    pub frozen: bool,
    /// How long the processes of a force-deleted Pod go on before they are told to end.
    pub keep_force_deleted: Duration,
}

impl Host {
    pub fn address(&self) -> IpAddr {
        self.listen.ip()
    }

    /// Waits until the node may write to the API server; hold what this returns for as long as the call lasts.
    pub async fn may_write(&self) -> OwnedRwLockReadGuard<()> {
        let mut settings = self.settings.subscribe();
        loop {
            // The sender is ours: it cannot be gone.
            let _ = settings.wait_for(|settings| !settings.frozen).await;
            let writing = Arc::clone(&self.writing).read_owned().await;
            if !settings.borrow().frozen {
                return writing;
            }
        }
    }

    /// Writes nothing any more; returns when calls under way are over.
    pub async fn freeze(&self) {
        self.settings.send_modify(|settings| settings.frozen = true);
        drop(self.writing.write().await);
    }
}

/// An error of the API server in one line, for logs.
pub fn brief(error: &anyhow::Error) -> String {
    match error.downcast_ref() {
        Some(kube::Error::Api(status)) => format!("{} ({})", status.message, status.code),
        _ => format!("{error:#}"),
    }
}
