//! The Pods bound to this node: listed once, then watched; listed again whenever the watch is lost.
use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{ListParams, WatchEvent, WatchParams},
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::host::{CALL_TIMEOUT, Host, brief};

/// The server ends a watch after this time, and it is resumed.
const WATCH_SECONDS: u32 = 240;
/// Bookmarks come every minute: a longer silence is a connection that is gone.
const SILENCE: Duration = Duration::from_secs(90);
const RETRY: Duration = Duration::from_millis(500);

/// News of the Pods bound to this node.
#[derive(Debug)]
pub enum News {
    /// All of them: others are gone.
    All(Vec<Pod>),
    One(Arc<Pod>),
    Gone(Arc<Pod>),
}

/// Sends news until nobody listens.
pub async fn pods(host: Arc<Host>, news: mpsc::Sender<News>) {
    let api = Api::<Pod>::all(host.client.clone());
    let selector = format!("spec.nodeName={}", host.name);
    loop {
        if let Err(error) = follow(&api, &selector, &news).await {
            tracing::warn!("the watch of Pods is lost: {}", brief(&error));
        }
        if news.is_closed() {
            return;
        }
        sleep(RETRY).await;
    }
}

/// Returns an error when the Pods have to be listed again.
async fn follow(api: &Api<Pod>, selector: &str, news: &mpsc::Sender<News>) -> Result<()> {
    let list = timeout(CALL_TIMEOUT, api.list(&ListParams::default().fields(selector))).await??;
    let mut version = list.metadata.resource_version.context("a list without resourceVersion")?;
    news.send(News::All(list.items)).await?;
    let params = WatchParams::default().fields(selector).timeout(WATCH_SECONDS);
    loop {
        let stream = timeout(CALL_TIMEOUT, api.watch(&params, &version)).await??;
        let mut stream = std::pin::pin!(stream);
        while let Some(event) = timeout(SILENCE, stream.next()).await? {
            match event? {
                WatchEvent::Added(pod) | WatchEvent::Modified(pod) => {
                    version = pod.resource_version().unwrap_or(version);
                    news.send(News::One(Arc::new(pod))).await?;
                }
                WatchEvent::Deleted(pod) => {
                    version = pod.resource_version().unwrap_or(version);
                    news.send(News::Gone(Arc::new(pod))).await?;
                }
                WatchEvent::Bookmark(bookmark) => version = bookmark.metadata.resource_version,
                WatchEvent::Error(status) => bail!("{} ({})", status.message, status.code),
            }
        }
    }
}
