//! One worker a Pod: started when the Pod appears, told of every change, forgotten when it is gone.
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::sleep,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    host::Host,
    model,
    pod_worker::{Order, Worker},
    store,
    watch::News,
};

/// When a Pod whose worker failed gets another one.
const RETRY: Duration = Duration::from_secs(5);

/// The workers of all Pods of this node, by the Pods' uid.
pub struct Pods {
    host: Arc<Host>,
    orders: BTreeMap<String, watch::Sender<Order>>,
    workers: JoinSet<String>,
}

impl Pods {
    pub fn new(host: Arc<Host>) -> Self {
        Self { host, orders: BTreeMap::new(), workers: JoinSet::new() }
    }

    /// Follows the news for ever.
    pub async fn run(mut self, mut news: mpsc::Receiver<News>) -> Result<()> {
        loop {
            tokio::select! {
                Some(ended) = self.workers.join_next() => match ended {
                    Ok(uid) => drop(self.orders.remove(&uid)),
                    Err(error) => tracing::error!("a Pod worker failed: {error}"),
                },
                news = news.recv() => match news {
                    Some(News::All(pods)) => self.all(pods)?,
                    Some(News::One(pod)) => self.one(pod),
                    Some(News::Gone(pod)) => self.gone(&pod),
                    None => return Ok(()),
                },
            }
        }
    }

    /// Pods that are not among these have been deleted meanwhile, also those of an earlier run of the node.
    fn all(&mut self, pods: Vec<Pod>) -> Result<()> {
        let mut known: Vec<String> = self.orders.keys().cloned().collect();
        for dir in store::pods(&self.host.state)? {
            match dir.read_pod() {
                Ok(pod) if known.iter().any(|uid| uid == model::uid(&pod)) => {}
                Ok(pod) if pods.iter().any(|listed| listed.metadata.uid == pod.metadata.uid) => {}
                Ok(pod) => {
                    known.push(model::uid(&pod).to_owned());
                    self.one(Arc::new(pod));
                }
                // It had only just begun.
                Err(_) => dir.remove()?,
            }
        }
        for uid in known {
            if !pods.iter().any(|pod| pod.metadata.uid.as_deref() == Some(&uid))
                && let Some(orders) = self.orders.get(&uid)
            {
                orders.send_modify(|order| order.gone = true);
            }
        }
        for pod in pods {
            self.one(Arc::new(pod));
        }
        Ok(())
    }

    fn one(&mut self, pod: Arc<Pod>) {
        let uid = model::uid(&pod).to_owned();
        if let Some(orders) = self.orders.get(&uid) {
            orders.send_modify(|order| order.pod = pod);
            return;
        }
        let (sender, orders) = watch::channel(Order { pod, gone: false });
        self.orders.insert(uid.clone(), sender);
        let host = Arc::clone(&self.host);
        self.workers.spawn(async move {
            work(host, orders).await;
            uid
        });
    }

    fn gone(&mut self, pod: &Arc<Pod>) {
        if let Some(orders) = self.orders.get(model::uid(pod)) {
            orders.send_modify(|order| {
                order.pod = Arc::clone(pod);
                order.gone = true;
            });
        }
    }
}

/// Returns when nothing of the Pod is left. A worker that fails is followed by another, which takes up what runs as
/// after a restart of the node.
async fn work(host: Arc<Host>, orders: watch::Receiver<Order>) {
    let name = model::full_name(&orders.borrow().pod);
    loop {
        // A task of its own, so that a panic ends no more than this one worker.
        let worker = AbortOnDropHandle::new(tokio::spawn(Worker::run(Arc::clone(&host), orders.clone())));
        match worker.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => tracing::error!("Pod {name}: {error:#}"),
            Err(error) => tracing::error!("Pod {name}: its worker failed: {error}"),
        }
        sleep(RETRY).await;
    }
}
