//! Keeps the volumes of one Pod: makes them, and brings them up to date for as long as it lives.
use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{downward::Facts, host::Host, pod_worker::Order, store::PodDir, volumes};

/// The kubelet looks after volumes about this often.
const REFRESH: Duration = Duration::from_mins(1);
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(122);
/// Renewals are at least this far apart, whatever a token's life is.
const SHORTEST: Duration = Duration::from_secs(1);

/// The volumes of one Pod.
pub struct Keeper {
    pub host: Arc<Host>,
    pub orders: watch::Receiver<Order>,
    pub dir: PodDir,
    pub facts: Facts,
}

impl Keeper {
    /// Reports each outcome until nobody listens.
    pub async fn run(mut self, outcomes: mpsc::Sender<anyhow::Result<()>>) {
        let mut retry_in = FIRST_RETRY;
        loop {
            let pod = Arc::clone(&self.orders.borrow_and_update().pod);
            let outcome = volumes::prepare(&self.host, &pod, &self.dir, self.facts).await;
            let pause = if let Ok(renew_in) = &outcome {
                retry_in = FIRST_RETRY;
                let refresh = volumes::changeable(&pod).then_some(REFRESH);
                renew_in.iter().copied().chain(refresh).min().map(|pause| pause.max(SHORTEST))
            } else {
                let pause = retry_in;
                retry_in = (retry_in * 2).min(LAST_RETRY);
                Some(pause)
            };
            if outcomes.send(outcome.map(drop)).await.is_err() {
                return;
            }
            self.pause(&pod, pause.map(|pause| Instant::now() + pause)).await;
        }
    }

    /// Returns at that time, or when the Pod's labels or annotations have changed.
    async fn pause(&mut self, pod: &k8s_openapi::api::core::v1::Pod, until: Option<Instant>) {
        let described = |order: &Order| {
            let metadata = &order.pod.metadata;
            metadata.labels != pod.metadata.labels || metadata.annotations != pod.metadata.annotations
        };
        let end = async {
            match until {
                Some(time) => sleep_until(time).await,
                None => std::future::pending().await,
            }
        };
        let changed = async {
            // The worker, which holds the other end, ends this task.
            let _ = self.orders.wait_for(described).await;
        };
        tokio::select! {
            () = end => {}
            () = changed => {}
        }
    }
}
