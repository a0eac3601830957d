//! Watches on the ConfigMaps that ListenerSets name: one each, by name, so that an edit is known at once and no other
//! ConfigMap is ever read.
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
};

use super::{
    Sink,
    watch::{Refresher, Selection, Settings, Watch},
};
use crate::snapshot::index::{Index, ObjectKey};

/// Says which ConfigMaps are to be watched.
#[derive(Clone, Debug)]
pub(super) struct ConfigMaps(watch::Sender<BTreeSet<ObjectKey>>);

/// Watches them.
#[derive(Debug)]
pub(super) struct Wanted(watch::Receiver<BTreeSet<ObjectKey>>);

/// Both ends.
pub(super) fn channel() -> (ConfigMaps, Wanted) {
    let (sender, receiver) = watch::channel(BTreeSet::new());
    (ConfigMaps(sender), Wanted(receiver))
}

impl ConfigMaps {
    /// These, and no others.
    pub(super) fn want(&self, wanted: BTreeSet<ObjectKey>) {
        self.0.send_if_modified(|present| {
            let differs = *present != wanted;
            *present = wanted;
            differs
        });
    }
}

impl Wanted {
    /// Runs until dropped.
    pub(super) async fn follow(mut self, client: Client, settings: Settings, mut rng: fastrand::Rng, sink: Sink) {
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
                    api: Api::<ConfigMap>::namespaced(client.clone(), &key.namespace),
                    name: "ConfigMap",
                    selection: Selection::name(&key.name),
                    settings: settings.clone(),
                    // Nobody asks for a new list: what is written is not ours.
                    refresh: Refresher::default().subscribe(),
                    rng: rng.fork(),
                    required: false,
                };
                let (sink, of) = (sink.clone(), key.clone());
                let take = move |index: &mut Index, event| index.on_config_map(&of, event);
                running.insert(key, watches.spawn(watch.run(move |event| sink.take(event, &take))));
            }
            tokio::select! {
                changed = self.0.changed() => if changed.is_err() {
                    // The watch on ListenerSets is gone: the process is ending.
                    return std::future::pending().await;
                },
                // One that was aborted; none ends by itself.
                Some(_) = watches.join_next() => {}
            }
        }
    }
}
