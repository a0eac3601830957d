//! What comes from the watches, and what it is about.
use std::collections::BTreeSet;

use kube::{Resource, ResourceExt};

use crate::snapshot::guard::DeserializeGuard;

/// Namespace and name of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// metadata.namespace.
    pub namespace: String,
    /// metadata.name.
    pub name: String,
}

impl ObjectKey {
    /// The key of an object; empty parts where the object has none.
    pub fn of<K: Resource>(object: &K) -> Self {
        Self { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What one watch covers: a namespace, or all of them.
pub type Scope = Option<String>;

/// One message of a watch. Within a scope and kind they must be given in the order in which the API server told them.
#[derive(Clone, Debug)]
pub enum Event<K> {
    /// A complete list: what is not in it does not exist.
    Listed {
        /// All objects of the scope.
        objects: Vec<K>,
        /// Of the list.
        resource_version: String,
    },
    /// Added or changed.
    Applied(K),
    /// Gone, or no longer selected.
    Deleted(K),
    /// Nothing happened up to this resourceVersion (a bookmark).
    Progressed(String),
}

impl<K> Event<K> {
    /// The same of another form of the objects.
    pub fn map<T>(self, into: impl Fn(K) -> T) -> Event<T> {
        match self {
            Self::Listed { objects, resource_version } => {
                Event::Listed { objects: objects.into_iter().map(into).collect(), resource_version }
            }
            Self::Applied(object) => Event::Applied(into(object)),
            Self::Deleted(object) => Event::Deleted(into(object)),
            Self::Progressed(resource_version) => Event::Progressed(resource_version),
        }
    }

    /// The one object that it is about.
    pub fn object(&self) -> Option<&K> {
        match self {
            Self::Applied(object) | Self::Deleted(object) => Some(object),
            Self::Listed { .. } | Self::Progressed(_) => None,
        }
    }
}

impl<K> Event<DeserializeGuard<K>> {
    /// For watches on one object: None where that cannot be read. It is there, and says nothing; what was known of it stays.
    pub fn readable(self) -> Option<Event<K>> {
        match self {
            Self::Listed { objects, resource_version } => {
                let objects: Option<Vec<K>> = objects.into_iter().map(|object| object.0.ok()).collect();
                objects.map(|objects| Event::Listed { objects, resource_version })
            }
            Self::Applied(object) => object.0.ok().map(Event::Applied),
            Self::Deleted(object) => object.0.ok().map(Event::Deleted),
            Self::Progressed(resource_version) => Some(Event::Progressed(resource_version)),
        }
    }
}

/// Kinds of objects whose writes must come back on a watch before the next decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Rollouts.
    Rollout,
    /// Pods.
    Pod,
    /// ControllerRevisions.
    Revision,
    /// ListenerSets.
    ListenerSet,
    /// Pods outside Rollouts that have agents.
    AgentPod,
    /// Leases of the hand-off.
    Lease,
    /// Jobs of hooks.
    Job,
}

impl Kind {
    /// For logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rollout => "Rollout",
            Self::Pod | Self::AgentPod => "Pod",
            Self::Revision => "ControllerRevision",
            Self::ListenerSet => "ListenerSet",
            Self::Lease => "Lease",
            Self::Job => "Job",
        }
    }
}

/// What an event may have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// These Rollouts.
    pub rollouts: BTreeSet<ObjectKey>,
    /// These ListenerSets.
    pub sets: BTreeSet<ObjectKey>,
}

impl Touched {
    /// Nothing.
    pub fn is_empty(&self) -> bool {
        self.rollouts.is_empty() && self.sets.is_empty()
    }
}
