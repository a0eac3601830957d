//! One worker a Pod: started when the Pod appears, told of every change, forgotten when it is gone.
use std::{collections::BTreeMap, sync::Arc};

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{
    host::Host,
    model,
    pod_worker::{Order, Worker},
    store,
    watch::News,
};

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
            let pod = Arc::clone(&orders.borrow().pod);
            if let Err(error) = Worker::run(host, orders).await {
                tracing::error!("Pod {}: {error:#}", model::full_name(&pod));
            }
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
