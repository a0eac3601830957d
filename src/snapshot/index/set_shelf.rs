//! What is known of ListenerSets, and of what only they look at.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    event::{Kind, ObjectKey},
    known::Known,
    leases::Leases,
    shelf::Shelf,
};
use crate::{
    api::{ListenerSet, session::SessionProfile},
    snapshot::{
        agent::AgentPod,
        listener::SourceError,
        listener::{self, Wanted},
        lists::{List, Lists},
    },
};

/// All that only ListenerSets look at.
#[derive(Clone, Debug, Default)]
pub(super) struct Sets {
    pub(super) known: Shelf<Known<ListenerSet>>,
    pub(super) agents: Shelf<AgentPod>,
    pub(super) leases: Leases,
    /// Those that sets name, once they have been looked for; None: there is none.
    pub(super) config_maps: BTreeMap<ObjectKey, Option<Lists>>,
    /// Made of each set and its ConfigMap when it is looked at, and kept: thousands of them are not made again for each look.
    pub(super) listeners: BTreeMap<ObjectKey, OnceLock<Found>>,
}

/// The listeners of a set, or why there are none to be known.
pub(super) type Found = Result<Arc<Vec<Wanted>>, SourceError>;

/// What the operator remembers of one ListenerSet between looks that no watch can tell it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SetMemories {
    /// See [`crate::snapshot::listener_set::SetSnapshot::taken_names`].
    pub taken_names: BTreeSet<String>,
}

/// The time of a look, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The time of day.
    pub now: Timestamp,
    /// The operator's own clock, as given with the events.
    pub uptime: Duration,
}

impl Sets {
    pub(super) fn version(&self, kind: Kind, key: &ObjectKey) -> Option<(&str, &str)> {
        match kind {
            Kind::AgentPod => self.agents.get(key).map(|o| (o.pod.uid.as_str(), o.pod.resource_version.as_str())),
            Kind::Lease => self.leases.version(key),
            _ => self.known.get(key).map(|o| (o.uid.as_str(), o.resource_version.as_str())),
        }
    }

    pub(super) fn progress(&self, kind: Kind, namespace: &str) -> Option<&str> {
        match kind {
            Kind::AgentPod => self.agents.progress(namespace),
            Kind::Lease => self.leases.progress(namespace),
            _ => self.known.progress(namespace),
        }
    }

    pub(super) fn get(&self, key: &ObjectKey) -> Option<&ListenerSet> {
        self.known.get(key)?.object.as_deref().ok()
    }

    /// The sets of a namespace that can be read.
    pub(super) fn in_namespace<'a>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a ObjectKey, &'a ListenerSet)> {
        self.known.in_namespace(namespace).filter_map(|(key, known)| Some((key, known.object.as_deref().ok()?)))
    }

    /// The sets that this Rollout's Pods serve.
    pub(super) fn of_rollout<'a>(
        &'a self,
        rollout: &'a ObjectKey,
    ) -> impl Iterator<Item = (&'a ObjectKey, &'a ListenerSet)> {
        self.in_namespace(&rollout.namespace).filter(|(_, set)| rollout_of(set) == Some(&rollout.name))
    }

    /// The sets whose selector selects this Pod.
    pub(super) fn of_agent<'a>(&'a self, pod: &'a ObjectKey) -> impl Iterator<Item = (&'a ObjectKey, &'a ListenerSet)> {
        let agent = self.agents.get(pod);
        self.in_namespace(&pod.namespace).filter(move |(_, set)| agent.is_some_and(|agent| selects(set, agent)))
    }

    /// Has the listeners of a set read anew. One whose ConfigMap has not been looked for yet has none to be read.
    pub(super) fn read(&mut self, key: &ObjectKey) {
        let can_be_read = self
            .get(key)
            .is_some_and(|set| config_map_of(key, set).is_none_or(|name| self.config_maps.contains_key(&name)));
        if can_be_read {
            self.listeners.insert(key.clone(), OnceLock::new());
        } else {
            self.listeners.remove(key);
        }
    }

    /// The listeners of a set. Numbered ones are made anew each time: they are all alike, and 10,000 take a megabyte.
    pub(super) fn listeners(&self, key: &ObjectKey, set: &ListenerSet) -> Found {
        let found = config_map_of(key, set).and_then(|name| self.config_maps.get(&name));
        let read = || listener::read(set, found.map(|found| list_of(set, found.as_ref()))).map(Arc::new);
        let kept = self.listeners.get(key).filter(|_| set.spec.count.is_none());
        kept.map_or_else(read, |kept| kept.get_or_init(|| self.shared(key, set).unwrap_or_else(read)).clone())
    }

    /// The listeners of another set that reads the same of the same ConfigMap: a thousand sets on one of a megabyte share them.
    fn shared(&self, key: &ObjectKey, set: &ListenerSet) -> Option<Found> {
        let source = set.spec.config_map.as_ref()?;
        let is_same = |other: &ListenerSet| {
            let (one, other) = (&set.spec, &other.spec);
            other.config_map.as_ref() == Some(source)
                && (other.listeners.is_none() && other.count.is_none())
                && (&one.defaults, &one.handoff) == (&other.defaults, &other.handoff)
                && one.start_budget.is_some() == other.start_budget.is_some()
        };
        let mut others = self.in_namespace(&key.namespace).filter(|(other, set)| *other != key && is_same(set));
        // They are all forgotten at once when the ConfigMap changes.
        others.find_map(|(other, _)| self.listeners.get(other)?.get()).cloned()
    }
}

/// What other sets have to know of one: which Pods serve it, and how fast they are to be noticed.
#[derive(PartialEq)]
pub(super) struct Asks {
    pub(super) profile: SessionProfile,
    pub(super) rollout: Option<String>,
    pub(super) labels: Option<BTreeMap<String, String>>,
}

impl Asks {
    pub(super) fn of(set: &ListenerSet) -> Self {
        let labels = set.spec.selector.as_ref().map(|selector| selector.match_labels.clone());
        Self { profile: set.spec.session.profile, rollout: rollout_of(set).cloned(), labels }
    }
}

/// Name of the Rollout whose Pods serve a set.
pub(super) fn rollout_of(set: &ListenerSet) -> Option<&String> {
    set.spec.rollout_ref.as_ref().map(|rollout| &rollout.name)
}

pub(super) fn config_map_of(key: &ObjectKey, set: &ListenerSet) -> Option<ObjectKey> {
    let source = set.spec.config_map.as_ref()?;
    Some(ObjectKey { namespace: key.namespace.clone(), name: source.name.clone() })
}

/// What a set reads of its ConfigMap, or why there is nothing to read.
pub(super) fn list_of<'a>(set: &ListenerSet, found: Option<&'a Lists>) -> Result<&'a List, String> {
    let (name, key) = set.spec.config_map.as_ref().map_or(("", ""), |source| (&source.name, &source.key));
    let Some(found) = found else {
        return Err(format!(
            "spec.configMap.name: there is no ConfigMap {name} in this namespace; create it, or name another"
        ));
    };
    found.list(key).ok_or_else(|| {
        format!("spec.configMap.key: ConfigMap {name} has no key {key} in its data; add it, or name another key")
    })
}

/// An empty selector selects nothing: a set that takes every agent's Pod would be a mistake. Nor does a selector select a Pod
/// that does not accept the set.
pub(super) fn selects(set: &ListenerSet, agent: &AgentPod) -> bool {
    let labels = set.spec.selector.as_ref().map(|selector| &selector.match_labels);
    let is_accepted = set.metadata.name.as_ref().is_some_and(|name| agent.accepts.contains(name));
    labels.is_some_and(|labels| is_accepted && !labels.is_empty() && agent.matches(labels))
}
