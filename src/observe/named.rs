//! Watches on the objects that others name, such as the ConfigMap of a ListenerSet: one each, by name, so that an edit is known
//! at once and no other object of the kind is ever read.
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
};
use tracing::Instrument;

use super::{
    Sink,
    watch::{Refresher, Selection, Settings, Watch, Watchable},
};
use crate::snapshot::{
    guard::DeserializeGuard,
    index::{Event, Index, ObjectKey, Touched},
};

/// Says which objects are to be watched.
#[derive(Clone, Debug)]
pub(super) struct Names(watch::Sender<Named>);

/// Watches them.
#[derive(Debug)]
pub(super) struct Wanted(watch::Receiver<Named>);

/// The objects, each with the number of the change that it has been named since: what is forgotten with its last name and
/// named again before anybody has looked is to be read anew.
#[derive(Debug, Default)]
struct Named {
    since: BTreeMap<ObjectKey, u64>,
    changes: u64,
}

/// Both ends.
pub(super) fn channel() -> (Names, Wanted) {
    let (sender, receiver) = watch::channel(Named::default());
    (Names(sender), Wanted(receiver))
}

impl Names {
    /// These, and no others.
    pub(super) fn want(&self, wanted: BTreeSet<ObjectKey>) {
        self.0.send_if_modified(|present| {
            let differs = !present.since.keys().eq(&wanted);
            if differs {
                present.changes += 1;
                present.since.retain(|key, _| wanted.contains(key));
                for key in wanted {
                    present.since.entry(key).or_insert(present.changes);
                }
            }
            differs
        });
    }
}

/// What is followed.
pub(super) struct Followed<K, R> {
    /// The kind, for people.
    pub name: &'static str,
    /// Reads an object, before anything is locked.
    pub read: fn(K) -> R,
    /// Where events go.
    pub take: fn(&mut Index, &ObjectKey, Event<R>) -> Touched,
}

impl Wanted {
    /// Runs until dropped.
    pub(super) async fn follow<K, R: 'static>(
        mut self,
        followed: Followed<K, R>,
        client: Client,
        settings: Settings,
        mut rng: fastrand::Rng,
        sink: Sink,
    ) where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Watchable,
    {
        let mut watches = JoinSet::new();
        let mut running: BTreeMap<ObjectKey, (u64, AbortHandle)> = BTreeMap::new();
        loop {
            let wanted = self.0.borrow_and_update().since.clone();
            running.retain(|key, (since, watch)| {
                let stays = wanted.get(key) == Some(since);
                if !stays {
                    watch.abort();
                }
                stays
            });
            for (key, since) in wanted {
                if running.contains_key(&key) {
                    continue;
                }
                let watch = Watch {
                    api: Api::<DeserializeGuard<K>>::namespaced(client.clone(), &key.namespace),
                    name: followed.name,
                    // Without a name: all of the namespace.
                    selection: if key.name.is_empty() { Selection::default() } else { Selection::name(&key.name) },
                    settings: settings.clone(),
                    // A new list is not asked for: what is written is not ours, or is waited for by its version.
                    refresh: Refresher::default().subscribe(),
                    rng: rng.fork(),
                    required: false,
                };
                let (sink, of, take, read) = (sink.clone(), key.clone(), followed.take, followed.read);
                let take = move |index: &mut Index, event| take(index, &of, event);
                // What cannot be read stays as it was.
                let watching = watch.run(move |event| {
                    if let Some(event) = event.readable() {
                        sink.take(event.map(read), &take);
                    }
                });
                let watching = watching.in_current_span();
                running.insert(key, (since, watches.spawn(watching)));
            }
            tokio::select! {
                changed = self.0.changed() => if changed.is_err() {
                    // The watch on those who name them is gone: the process is ending.
                    return std::future::pending().await;
                },
                // One that was aborted; none ends by itself.
                Some(_) = watches.join_next() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;
    use crate::{
        scripted::{self, Answer},
        snapshot::lists::Lists,
    };

    /// What is forgotten with its last name and named again at once is listed again: nothing else would ever tell of it.
    #[tokio::test(start_paused = true)]
    async fn what_is_named_again_is_read_again() {
        let lists = Arc::new(AtomicUsize::new(0));
        let counted = lists.clone();
        let client = scripted::client(move |call| {
            if call.is_watch() {
                return Answer::Never;
            }
            counted.fetch_add(1, Ordering::Relaxed);
            Answer::ok(json!({"metadata": {"resourceVersion": "5"}, "items": []}))
        });
        let sink = Sink { state: Arc::default(), trigger: Arc::new(|_| ()) };
        let followed =
            Followed::<ConfigMap, _> { name: "ConfigMap", read: Lists::from, take: |_, _, _| Touched::default() };
        let (names, wanted) = channel();
        let rng = fastrand::Rng::with_seed(1);
        let task = tokio::spawn(wanted.follow(followed, client, Settings::default(), rng, sink));
        let key = |name: &str| ObjectKey { namespace: "shop".into(), name: name.into() };
        let after_a_while = async |lists: &AtomicUsize| {
            tokio::time::sleep(Duration::from_secs(1)).await;
            lists.load(Ordering::Relaxed)
        };
        names.want([key("web")].into());
        assert_eq!(after_a_while(&lists).await, 1);
        names.want([key("web"), key("shop")].into());
        assert_eq!(after_a_while(&lists).await, 2, "the one that stays is left alone");
        names.want([key("shop")].into());
        names.want([key("web"), key("shop")].into());
        assert_eq!(after_a_while(&lists).await, 3);
        task.abort();
    }
}
