//! A Rollout or a ListenerSet as it changes.
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::{StreamExt, stream::BoxStream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Resource,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;

use super::{exit::Exit, hints};
use crate::{
    api::{ListenerSet, Rollout, names},
    client::{Cluster, selector, without_secrets},
    snapshot::{
        Snapshot,
        guard::DeserializeGuard,
        index::{Event, Index, Moment, ObjectKey, Recollection, Scope},
        listener::SourceError,
        listener_set::SetSnapshot,
        lists::Lists,
        wire::{LeaseView, PodView, RevisionView},
    },
};

/// Events this close together are shown as one.
const COALESCE_MILLISECONDS: u64 = 100;
/// A refusal so soon is meant: the caller may not watch.
const REFUSED_WITHIN: Duration = Duration::from_secs(5);
/// How often a ConfigMap is read again: it takes no right to watch it.
const REREAD_SECONDS: u64 = 10;

/// What is followed has come to this.
pub(super) enum Seen<S> {
    /// This is how it looks now.
    Now(Box<S>),
    /// It does not exist any more.
    Gone,
    /// The connection is lost; it is tried again by itself.
    Lost(String),
}

/// What became of reading the ConfigMap of this name; none: there is none.
type Read = (String, Result<Option<ConfigMap>, SourceError>);

enum Told {
    Rollout(Box<Event<DeserializeGuard<Rollout>>>),
    Pod(Box<Event<PodView>>),
    Revision(Box<Event<RevisionView>>),
    Set(Box<Event<DeserializeGuard<ListenerSet>>>),
    Lease(Box<Event<LeaseView>>),
    ConfigMap(Box<Read>),
    Lost(String),
    /// The API server forbids it.
    Refused(String),
    /// The API server does not take the credentials, or does not take them any more.
    Unknown(String),
}

/// Watches of one object and what belongs to it; `S` is what is seen of it.
pub(super) struct Follow<S = Snapshot> {
    key: ObjectKey,
    scope: Scope,
    index: Index,
    told: BoxStream<'static, Told>,
    /// Kinds that have been listed: before all are, a snapshot would show Pods as missing.
    lists_awaited: usize,
    began: Instant,
    /// As last read: it may come before the set that names it.
    config_map: Option<Box<Read>>,
    look: fn(&Self, Moment) -> Result<Option<S>>,
}

fn look_at_rollout(follow: &Follow, moment: Moment) -> Result<Option<Snapshot>> {
    let Follow { index, key, .. } = follow;
    if let Some(why) = index.unreadable(key) {
        anyhow::bail!("the Rollout cannot be read by this version of the plugin: {why}");
    }
    Ok(index.snapshot(key, &Recollection::default(), moment.now))
}

fn look_at_set(follow: &Follow<SetSnapshot>, moment: Moment) -> Result<Option<SetSnapshot>> {
    let Follow { index, key, .. } = follow;
    if let Some(why) = index.set_unreadable(key) {
        anyhow::bail!("the ListenerSet cannot be read by this version of the plugin: {why}");
    }
    let Some(snapshot) = index.set_without_pods(key, moment) else { return Ok(None) };
    let named = snapshot.set.spec.config_map.as_ref().map(|source| &source.name);
    let listeners = match follow.config_map.as_deref() {
        Some((name, Err(unread))) if named == Some(name) => Err(unread.clone()),
        _ => snapshot.listeners,
    };
    Ok(Some(SetSnapshot { listeners, ..snapshot }))
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
            began: Instant::now(),
            config_map: None,
            look: look_at_rollout,
        }
    }
}

impl Follow<SetSnapshot> {
    /// Follows the ListenerSet with the Leases, and with the ConfigMap that says which listeners there are.
    pub fn listener_set(cluster: &Cluster, name: &str, config_map: Option<&str>) -> Self {
        let named = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let set = watch(cluster, named, |event| Told::Set(Box::new(event)));
        let leases = watcher::Config::default().labels(names::LABEL_LEASE);
        let leases = watch(cluster, leases, |event| Told::Lease(Box::new(event)));
        let config_map = config_map.map(|name| reads(cluster, name));
        let lists_awaited = 2 + usize::from(config_map.is_some());
        Self {
            key: ObjectKey { namespace: cluster.namespace.clone(), name: name.to_owned() },
            scope: Some(cluster.namespace.clone()),
            index: Index::default(),
            told: futures::stream::select_all([set, leases].into_iter().chain(config_map)).boxed(),
            lists_awaited,
            began: Instant::now(),
            config_map: None,
            look: look_at_set,
        }
    }
}

impl<S> Follow<S> {
    /// The next news, with what follows at once. May be dropped and called again: nothing is lost.
    pub async fn next(&mut self) -> Result<Seen<S>> {
        loop {
            let first = self.told.next().await;
            let Some(first) = first else { return Ok(Seen::Gone) };
            // Later, an API server that has just started may refuse what it will allow: its roles are not read yet.
            let is_young = !self.is_complete() || self.began.elapsed() < REFUSED_WITHIN;
            match first {
                Told::Refused(why) if is_young => {
                    return Err(Exit::NoAccess.because(hints::forbidden(&self.key.namespace, &why)));
                }
                Told::Unknown(why) => return Err(Exit::NoAccess.because(hints::unknown(&why))),
                told => {
                    if let Some(lost) = self.take(told) {
                        return Ok(Seen::Lost(lost));
                    }
                }
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
    pub fn now(&self) -> Result<Seen<S>> {
        let moment = Moment { now: Timestamp::now(), uptime: self.began.elapsed() };
        let snapshot = (self.look)(self, moment)?;
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
            Told::Set(event) => {
                let listed = matches!(*event, Event::Listed { .. });
                self.index.on_set(&self.scope, *event);
                self.tell_config_map();
                listed
            }
            Told::ConfigMap(read) => {
                let is_first = self.config_map.is_none();
                // After a failure what was read stays.
                if is_first || read.1.is_ok() {
                    self.config_map = Some(read);
                }
                self.tell_config_map();
                is_first
            }
            Told::Lease(event) => {
                let listed = matches!(*event, Event::Listed { .. });
                self.index.on_lease(&self.scope, *event, self.began.elapsed());
                listed
            }
            Told::Lost(why) | Told::Refused(why) | Told::Unknown(why) => return Some(why),
        };
        self.lists_awaited = self.lists_awaited.saturating_sub(usize::from(listed));
        None
    }

    /// The index takes it once a set names it.
    fn tell_config_map(&mut self) {
        let Some((name, Ok(found))) = self.config_map.as_deref() else { return };
        let key = ObjectKey { namespace: self.key.namespace.clone(), name: name.clone() };
        let objects = found.iter().cloned().map(Lists::from).collect();
        self.index.on_config_map(&key, Event::Listed { objects, resource_version: String::new() });
    }
}

/// The ConfigMap of this name, again and again.
fn reads(cluster: &Cluster, name: &str) -> BoxStream<'static, Told> {
    let reads = futures::stream::unfold((cluster.clone(), name.to_owned(), false), async |(cluster, name, again)| {
        if again {
            tokio::time::sleep(Duration::from_secs(REREAD_SECONDS)).await;
        }
        let read = cluster.config_map(&name).await;
        Some((Told::ConfigMap(Box::new((name.clone(), read))), (cluster, name, true)))
    });
    reads.boxed()
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
            Err(
                watcher::Error::InitialListFailed(kube::Error::Api(status))
                | watcher::Error::WatchStartFailed(kube::Error::Api(status)),
            ) => Some(match status.code {
                401 => Told::Unknown(status.message.clone()),
                403 => Told::Refused(status.message.clone()),
                _ => Told::Lost(status.message.clone()),
            }),
            Err(
                watcher::Error::InitialListFailed(error)
                | watcher::Error::WatchStartFailed(error)
                | watcher::Error::WatchFailed(error),
            ) => Some(Told::Lost(without_secrets(&error))),
            Err(error) => Some(Told::Lost(error.to_string())),
        };
        std::future::ready(event)
    });
    events.boxed()
}
