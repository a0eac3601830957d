//! A Rollout as it changes.
use std::time::Duration;

use anyhow::Result;
use futures::{StreamExt, stream::BoxStream};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::{
    Api, Resource,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;

use super::cluster::{Cluster, selector};
use crate::{
    api::Rollout,
    snapshot::{
        Snapshot,
        guard::DeserializeGuard,
        index::{Event, Index, ObjectKey, Recollection, Scope},
        wire::PodView,
    },
};

/// Events this close together are shown as one.
const COALESCE_MILLISECONDS: u64 = 100;

/// What is followed has come to this.
pub(super) enum Seen {
    /// This is how it looks now.
    Now(Box<Snapshot>),
    /// It does not exist any more.
    Gone,
    /// The connection is lost; it is tried again by itself.
    Lost(String),
}

enum Told {
    Rollout(Box<Event<DeserializeGuard<Rollout>>>),
    Pod(Box<Event<PodView>>),
    Revision(Box<Event<ControllerRevision>>),
    Lost(String),
}

/// Watches of one Rollout and what belongs to it.
pub(super) struct Follow {
    key: ObjectKey,
    scope: Scope,
    index: Index,
    told: BoxStream<'static, Told>,
    /// Kinds that have been listed: before all are, a snapshot would show Pods as missing.
    lists_awaited: usize,
}

impl Follow {
    /// Follows the Rollout with its Pods and revisions.
    pub fn all(cluster: &Cluster, name: &str) -> Self {
        let belonging = watcher::Config::default().labels(&selector(name));
        let pods = watch(cluster, belonging.clone(), |event| Told::Pod(Box::new(event)));
        let revisions = watch(cluster, belonging, |event| Told::Revision(Box::new(event)));
        let rollout = Self::rollout(cluster, name);
        let told = futures::stream::select_all([rollout.told, pods, revisions]).boxed();
        Self { told, lists_awaited: 3, ..rollout }
    }

    /// Follows the object alone; its snapshots have no Pods.
    pub fn rollout(cluster: &Cluster, name: &str) -> Self {
        let named = watcher::Config::default().fields(&format!("metadata.name={name}"));
        Self {
            key: ObjectKey { namespace: cluster.namespace.clone(), name: name.to_owned() },
            scope: Some(cluster.namespace.clone()),
            index: Index::default(),
            told: watch(cluster, named, |event| Told::Rollout(Box::new(event))),
            lists_awaited: 1,
        }
    }

    /// The next news, with what follows at once. May be dropped and called again: nothing is lost.
    pub async fn next(&mut self) -> Result<Seen> {
        loop {
            let first = self.told.next().await;
            let Some(first) = first else { return Ok(Seen::Gone) };
            if let Some(lost) = self.take(first) {
                return Ok(Seen::Lost(lost));
            }
            let coalesce = tokio::time::sleep(Duration::from_millis(COALESCE_MILLISECONDS));
            tokio::pin!(coalesce);
            loop {
                tokio::select! {
                    () = &mut coalesce => break,
                    more = self.told.next() => match more {
                        Some(more) => drop(self.take(more)),
                        None => break,
                    },
                }
            }
            if self.is_complete() {
                return self.now();
            }
        }
    }

    /// All lists have come: what is not there now does not exist.
    pub fn is_complete(&self) -> bool {
        self.lists_awaited == 0
    }

    /// How it looks at this moment, as far as told.
    pub fn now(&self) -> Result<Seen> {
        if let Some(why) = self.index.unreadable(&self.key) {
            anyhow::bail!("the Rollout cannot be read by this version of the plugin: {why}");
        }
        let snapshot = self.index.snapshot(&self.key, &Recollection::default(), Timestamp::now());
        Ok(snapshot.map_or(Seen::Gone, |snapshot| Seen::Now(Box::new(snapshot))))
    }

    fn take(&mut self, told: Told) -> Option<String> {
        let listed = match told {
            Told::Rollout(event) => {
                let listed = matches!(*event, Event::Listed { .. });
                self.index.on_rollout(&self.scope, *event);
                listed
            }
            Told::Pod(event) => {
                let listed = matches!(*event, Event::Listed { .. });
                self.index.on_pod(&self.scope, *event);
                listed
            }
            Told::Revision(event) => {
                let listed = matches!(*event, Event::Listed { .. });
                self.index.on_revision(&self.scope, *event);
                listed
            }
            Told::Lost(why) => return Some(why),
        };
        self.lists_awaited = self.lists_awaited.saturating_sub(usize::from(listed));
        None
    }
}

/// One watch as events of the index; a list is handed on whole.
fn watch<K>(cluster: &Cluster, config: watcher::Config, told: fn(Event<K>) -> Told) -> BoxStream<'static, Told>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    K: Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
{
    let api: Api<K> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let mut list = Vec::new();
    let events = watcher(api, config).default_backoff().filter_map(move |event| {
        let event = match event {
            Ok(watcher::Event::Init) => {
                list.clear();
                None
            }
            Ok(watcher::Event::InitApply(object)) => {
                list.push(object);
                None
            }
            Ok(watcher::Event::InitDone) => {
                Some(told(Event::Listed { objects: std::mem::take(&mut list), resource_version: String::new() }))
            }
            Ok(watcher::Event::Apply(object)) => Some(told(Event::Applied(object))),
            Ok(watcher::Event::Delete(object)) => Some(told(Event::Deleted(object))),
            // Too far behind: the watcher lists anew by itself.
            Err(watcher::Error::WatchError(status)) if status.code == 410 => None,
            Err(error) => Some(Told::Lost(error.to_string())),
        };
        std::future::ready(event)
    });
    events.boxed()
}
