//! The objects of one kind, filed by key and by owner.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kube::{Resource, ResourceExt};

use super::{
    event::{Event, ObjectKey, Scope},
    order::is_at_least,
};
use crate::snapshot::guard::Guarded;
use crate::snapshot::owner::Owner;

/// One object on the shelf.
#[derive(Clone, Debug, PartialEq)]
struct Filed<T> {
    /// None: it has no owner (a Rollout).
    owner: Option<Owner>,
    value: Arc<T>,
}

/// The objects of one kind. What is filed never changes: a snapshot shares it, and a thousand Pods need not be copied for
/// each look.
#[derive(Clone, Debug)]
pub(super) struct Shelf<T> {
    objects: BTreeMap<ObjectKey, Filed<T>>,
    /// (namespace, owner) → objects by name. The namespace is part of it because ownerRefs never leave theirs: one that
    /// names a uid of another namespace is forged or mistaken.
    by_owner: BTreeMap<(String, Owner), BTreeMap<String, Arc<T>>>,
    progress: Progress,
}

/// How far each watch of a kind has told.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress(BTreeMap<Scope, String>);

impl Progress {
    /// A list is of this version.
    pub(super) fn listed(&mut self, scope: &Scope, resource_version: String) {
        self.0.insert(scope.clone(), resource_version);
    }

    pub(super) fn advance(&mut self, scope: &Scope, resource_version: Option<String>) {
        let Some(resource_version) = resource_version else { return };
        let progress = self.0.entry(scope.clone()).or_default();
        if progress.is_empty() || is_at_least(&resource_version, progress) {
            *progress = resource_version;
        }
    }

    /// Of the watch that covers `namespace`; None before its first list.
    pub(super) fn of(&self, namespace: &str) -> Option<&str> {
        let own = self.0.get(&Some(namespace.to_owned()));
        own.or_else(|| self.0.get(&None)).map(String::as_str)
    }
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), by_owner: BTreeMap::new(), progress: Progress::default() }
    }
}

impl<T: PartialEq> Shelf<T> {
    /// Takes an event. `read` makes a value and its owner of an object; None means that it is none of ours (any more).
    /// Returns the Rollouts whose objects changed: owners before and after, or the object itself when it has none.
    ///
    /// What cannot be read and so cannot be filed stays as it was: it is there.
    pub(super) fn take<K: Resource + Guarded>(
        &mut self,
        scope: &Scope,
        event: Event<K>,
        read: impl Fn(K) -> Option<(Option<Owner>, T)>,
    ) -> BTreeSet<ObjectKey> {
        let mut touched = BTreeSet::new();
        match event {
            Event::Listed { objects, resource_version } => {
                let mut gone = self.keys_in(scope);
                for object in objects {
                    let key = ObjectKey::of(&object);
                    gone.remove(&key);
                    let is_readable = object.unreadable().is_none();
                    if let Some(new) = Some(read(object)).filter(|new| is_readable || new.is_some()) {
                        self.put(key, new, &mut touched);
                    }
                }
                for key in gone {
                    self.put(key, None, &mut touched);
                }
                self.progress.listed(scope, resource_version);
            }
            Event::Applied(object) => {
                self.progress.advance(scope, object.resource_version());
                let key = ObjectKey::of(&object);
                let is_readable = object.unreadable().is_none();
                if let Some(new) = Some(read(object)).filter(|new| is_readable || new.is_some()) {
                    self.put(key, new, &mut touched);
                }
            }
            Event::Deleted(object) => {
                self.progress.advance(scope, object.resource_version());
                self.put(ObjectKey::of(&object), None, &mut touched);
            }
            Event::Progressed(resource_version) => self.progress.advance(scope, Some(resource_version)),
        }
        touched
    }

    /// Replaces what is filed under `key`, or removes it.
    fn put(&mut self, key: ObjectKey, new: Option<(Option<Owner>, T)>, touched: &mut BTreeSet<ObjectKey>) {
        let new = new.map(|(owner, value)| Filed { owner, value: Arc::new(value) });
        if self.objects.get(&key) == new.as_ref() {
            return;
        }
        if let Some(old) = self.objects.remove(&key) {
            self.unfile(&key, old.owner.as_ref());
            touched.insert(toucher(&key, old.owner.as_ref()));
        }
        if let Some(new) = new {
            touched.insert(toucher(&key, new.owner.as_ref()));
            if let Some(owner) = &new.owner {
                let owned = self.by_owner.entry((key.namespace.clone(), owner.clone())).or_default();
                owned.insert(key.name.clone(), new.value.clone());
            }
            self.objects.insert(key, new);
        }
    }

    fn unfile(&mut self, key: &ObjectKey, owner: Option<&Owner>) {
        let Some(owner) = owner else { return };
        let place = (key.namespace.clone(), owner.clone());
        if let Some(owned) = self.by_owner.get_mut(&place) {
            owned.remove(&key.name);
            if owned.is_empty() {
                self.by_owner.remove(&place);
            }
        }
    }

    fn keys_in(&self, scope: &Scope) -> BTreeSet<ObjectKey> {
        let in_scope = |key: &&ObjectKey| scope.as_ref().is_none_or(|namespace| key.namespace == *namespace);
        self.objects.keys().filter(in_scope).cloned().collect()
    }
}

impl<T> Shelf<T> {
    pub(super) fn get(&self, key: &ObjectKey) -> Option<&T> {
        self.objects.get(key).map(|filed| &*filed.value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &T)> {
        self.objects.iter().map(|(key, filed)| (key, &*filed.value))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.objects.values().map(|filed| &*filed.value)
    }

    /// The objects of a namespace, by name.
    pub(super) fn in_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = (&'a ObjectKey, &'a T)> {
        in_namespace(&self.objects, namespace).map(|(key, filed)| (key, &*filed.value))
    }

    /// The Rollout that controls an object.
    pub(super) fn owner_of(&self, key: &ObjectKey) -> Option<&Owner> {
        self.objects.get(key)?.owner.as_ref()
    }

    /// The objects that this Rollout controls, by name.
    pub(super) fn owned_by(&self, namespace: &str, owner: &Owner) -> impl Iterator<Item = &Arc<T>> {
        let files = self.by_owner.get(&(namespace.to_owned(), owner.clone()));
        files.into_iter().flat_map(BTreeMap::values)
    }

    /// The Rollouts that control an object of which `holds` is true.
    pub(super) fn owners_of(&self, holds: impl Fn(&T) -> bool) -> BTreeSet<ObjectKey> {
        let held = self.objects.iter().filter(|(_, filed)| holds(&filed.value));
        held.map(|(key, filed)| toucher(key, filed.owner.as_ref())).collect()
    }

    /// How far the watch that covers `namespace` has told.
    pub(super) fn progress(&self, namespace: &str) -> Option<&str> {
        self.progress.of(namespace)
    }
}

/// Those of a namespace, by name.
pub(super) fn in_namespace<'a, T>(
    objects: &'a BTreeMap<ObjectKey, T>,
    namespace: &str,
) -> impl Iterator<Item = (&'a ObjectKey, &'a T)> + use<'a, T> {
    let first = ObjectKey { namespace: namespace.to_owned(), name: String::new() };
    objects.range(&first..).take_while(move |(key, _)| key.namespace == first.namespace)
}

/// The Rollout that a change of an object concerns.
fn toucher(key: &ObjectKey, owner: Option<&Owner>) -> ObjectKey {
    match owner {
        Some(owner) => ObjectKey { namespace: key.namespace.clone(), name: owner.name.clone() },
        None => key.clone(),
    }
}

#[cfg(test)]
impl<T> Shelf<T> {
    /// What is filed where, for comparison.
    pub(super) fn keys_and_files(&self) -> impl PartialEq + std::fmt::Debug {
        let names = |owned: &BTreeMap<String, Arc<T>>| owned.keys().cloned().collect::<Vec<_>>();
        let by_owner: Vec<_> = self.by_owner.iter().map(|(owner, owned)| (owner.clone(), names(owned))).collect();
        (self.objects.keys().collect::<Vec<_>>(), by_owner)
    }
}
