//! What is there and cannot be read: it is told of, and it takes nothing from the rest.
use std::collections::BTreeMap;

use kube::{Resource, ResourceExt};

use super::event::{Event, ObjectKey, Scope};
use crate::snapshot::guard::Guarded;

/// An object that is there and cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Its uid, as far as that can be read.
    pub uid: String,
    /// Its resourceVersion.
    pub resource_version: String,
    /// What is wrong with it.
    pub error: String,
}

/// Those of every watched kind. `watch` tells the watches on one kind apart.
#[derive(Clone, Debug, Default)]
pub(super) struct Unreadables(BTreeMap<(&'static str, u8), BTreeMap<ObjectKey, Unreadable>>);

impl Unreadables {
    /// Takes note of an event.
    pub(super) fn note<K: Resource + Guarded>(
        &mut self,
        kind: &'static str,
        watch: u8,
        scope: &Scope,
        event: &Event<K>,
    ) {
        let of_kind = self.0.entry((kind, watch)).or_default();
        match event {
            Event::Applied(object) => put(of_kind, object),
            Event::Deleted(object) => drop(of_kind.remove(&ObjectKey::of(object))),
            Event::Listed { objects, .. } => {
                let is_elsewhere = |key: &ObjectKey| scope.as_ref().is_some_and(|own| key.namespace != *own);
                of_kind.retain(|key, _| is_elsewhere(key));
                for object in objects {
                    put(of_kind, object);
                }
            }
            Event::Progressed(_) => {}
        }
    }

    pub(super) fn get(&self, kind: &'static str, key: &ObjectKey) -> Option<&Unreadable> {
        self.0.get(&(kind, 0))?.get(key)
    }

    /// By kind.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, &ObjectKey, &Unreadable)> {
        self.0.iter().flat_map(|((kind, _), found)| found.iter().map(move |(key, found)| (*kind, key, found)))
    }
}

fn put<K: Resource + Guarded>(of_kind: &mut BTreeMap<ObjectKey, Unreadable>, object: &K) {
    let key = ObjectKey::of(object);
    let Some(error) = object.unreadable() else {
        of_kind.remove(&key);
        return;
    };
    let (uid, resource_version) = (object.uid().unwrap_or_default(), object.resource_version().unwrap_or_default());
    of_kind.insert(key, Unreadable { uid, resource_version, error: error.to_owned() });
}
