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
use crate::snapshot::index::{Event, Index, ObjectKey, Touched};

/// Says which objects are to be watched.
#[derive(Clone, Debug)]
pub(super) struct Names(watch::Sender<BTreeSet<ObjectKey>>);

/// Watches them.
#[derive(Debug)]
pub(super) struct Wanted(watch::Receiver<BTreeSet<ObjectKey>>);

/// Both ends.
pub(super) fn channel() -> (Names, Wanted) {
    let (sender, receiver) = watch::channel(BTreeSet::new());
    (Names(sender), Wanted(receiver))
}

impl Names {
    /// These, and no others.
    pub(super) fn want(&self, wanted: BTreeSet<ObjectKey>) {
        self.0.send_if_modified(|present| {
            let differs = *present != wanted;
            *present = wanted;
            differs
        });
    }
}

/// What is followed: the kind, for people, and where its events go.
pub(super) struct Followed<K> {
    pub name: &'static str,
    pub take: fn(&mut Index, &ObjectKey, Event<K>) -> Touched,
}

impl Wanted {
    /// Runs until dropped.
    pub(super) async fn follow<K>(
        mut self,
        followed: Followed<K>,
        client: Client,
        settings: Settings,
        mut rng: fastrand::Rng,
        sink: Sink,
    ) where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Watchable,
    {
        let mut watches = JoinSet::new();
        let mut running: BTreeMap<ObjectKey, AbortHandle> = BTreeMap::new();
        loop {
            let wanted = self.0.borrow_and_update().clone();
            running.retain(|key, watch| {
                let stays = wanted.contains(key);
                if !stays {
                    watch.abort();
                }
                stays
            });
            for key in wanted {
                if running.contains_key(&key) {
                    continue;
                }
                let watch = Watch {
                    api: Api::<K>::namespaced(client.clone(), &key.namespace),
                    name: followed.name,
                    selection: Selection::name(&key.name),
                    settings: settings.clone(),
                    // Nobody asks for a new list: what is written is not ours, or is waited for by its version.
                    refresh: Refresher::default().subscribe(),
                    rng: rng.fork(),
                    required: false,
                };
                let (sink, of, take) = (sink.clone(), key.clone(), followed.take);
                let take = move |index: &mut Index, event| take(index, &of, event);
                running.insert(key, watches.spawn(watch.run(move |event| sink.take(event, &take)).in_current_span()));
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
