//! EndpointSlices, in namespaces where a Rollout drains its instances: which Pods clients are sent to.
use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;

use super::event::{Event, ObjectKey};
use crate::snapshot::{self, wire::EndpointSliceView};

#[derive(Clone, Debug, Default)]
pub(super) struct Endpoints {
    /// Rollouts that drain.
    wanted_by: BTreeSet<ObjectKey>,
    /// By namespace that has been listed, and name of the slice: uid and name of the Pods that serve.
    known: BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>>,
}

impl Endpoints {
    /// Notes whether this Rollout drains.
    pub fn note(&mut self, key: &ObjectKey, drains: bool) {
        if drains {
            self.wanted_by.insert(key.clone());
            return;
        }
        self.wanted_by.remove(key);
        if !self.wanted_by.iter().any(|other| other.namespace == key.namespace) {
            self.known.remove(&key.namespace);
        }
    }

    /// The namespaces that are to be watched.
    pub fn wanted(&self) -> BTreeSet<ObjectKey> {
        let namespaces = self.wanted_by.iter().map(|key| key.namespace.clone());
        namespaces.map(|namespace| ObjectKey { namespace, name: String::new() }).collect()
    }

    /// uids of the Pods that serve. A Rollout that does not drain is not told: its looks do without a copy of them all.
    pub fn of(&self, rollout: &ObjectKey) -> snapshot::Endpoints {
        match self.known.get(&rollout.namespace).filter(|_| self.wanted_by.contains(rollout)) {
            None => snapshot::Endpoints::Unknown,
            Some(slices) => snapshot::Endpoints::Serving(slices.values().flat_map(BTreeMap::keys).cloned().collect()),
        }
    }

    /// Names of the Pods that the event is about.
    pub fn take(&mut self, namespace: &str, event: Event<EndpointSliceView>) -> BTreeSet<String> {
        if !self.wanted_by.iter().any(|key| key.namespace == namespace) {
            return BTreeSet::new();
        }
        let names = |slices: &BTreeMap<String, BTreeMap<String, String>>| -> BTreeSet<String> {
            slices.values().flat_map(BTreeMap::values).cloned().collect()
        };
        match event {
            Event::Listed { objects, .. } => {
                let listed = objects.into_iter().map(|slice| (slice.name_any(), serving(slice))).collect();
                let mut touched = names(&listed);
                touched.extend(self.known.insert(namespace.to_owned(), listed).iter().flat_map(names));
                touched
            }
            Event::Applied(slice) => {
                let Some(slices) = self.known.get_mut(namespace) else { return BTreeSet::new() };
                let (name, now) = (slice.name_any(), serving(slice));
                let before = slices.insert(name, now.clone()).unwrap_or_default();
                let changed = |one: &BTreeMap<String, String>, other: &BTreeMap<String, String>| {
                    let gone = one.iter().filter(|(uid, _)| !other.contains_key(*uid));
                    gone.map(|(_, name)| name.clone()).collect::<Vec<_>>()
                };
                changed(&before, &now).into_iter().chain(changed(&now, &before)).collect()
            }
            Event::Deleted(slice) => {
                let gone = self.known.get_mut(namespace).and_then(|slices| slices.remove(&slice.name_any()));
                gone.into_iter().flat_map(BTreeMap::into_values).collect()
            }
            Event::Progressed(_) => BTreeSet::new(),
        }
    }
}

/// uid and name of the Pods that serve. `serving` that is absent means that they do (discovery/v1).
fn serving(slice: EndpointSliceView) -> BTreeMap<String, String> {
    let serving = slice.endpoints.into_iter().filter(|endpoint| endpoint.conditions.serving != Some(false));
    serving.filter_map(|endpoint| endpoint.target_ref.map(|target| (target.uid, target.name))).collect()
}
