//! ListenerSets, and what only they look at: Leases, Pods outside Rollouts, ConfigMaps.
//!
//! The answer to each event says more than for a Rollout, because what a set looks at belongs to others: a Pod may serve
//! several, and a Rollout waits for what its Pods hold.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kube::ResourceExt;

use super::{
    Index,
    event::{Event, Kind, ObjectKey, Scope, Touched},
    known::Known,
    leases::touch::Touch,
    recollection::Recollection,
    set_shelf::{Asks, Moment, SetMemories, config_map_of, rollout_of, selects},
};
use crate::{
    api::{ListenerSet, session::SessionProfile},
    snapshot::{
        Snapshot,
        agent::AgentPod,
        guard::DeserializeGuard,
        listener_set::{SessionSeen, SetPod, SetSnapshot},
        lists::Lists,
        owner::Owner,
        wire::{LeaseView, PodView},
    },
};

impl Index {
    /// Takes an event of the watch on ListenerSets.
    pub fn on_set(&mut self, scope: &Scope, event: Event<DeserializeGuard<ListenerSet>>) -> Touched {
        self.unreadable.note("ListenerSet", 0, scope, &event);
        let asks = |index: &Self, key: &ObjectKey| index.sets.get(key).map(Asks::of);
        let before = event.object().map(|guard| asks(self, &ObjectKey::of(guard)));
        let changed = self.sets.known.take(scope, event, |guard| Some((None, Known::read(guard))));
        for key in &changed {
            self.sets.read(key);
        }
        let named = self.config_maps_wanted();
        self.sets.config_maps.retain(|key, _| named.contains(key));
        // Sets that the same Pods serve agree on how often sessions are renewed: also with one that leaves these Pods.
        let asks_anew = |key: &&ObjectKey| before.as_ref().is_none_or(|before| *before != asks(self, key));
        let asks_anew: BTreeSet<String> = changed.iter().filter(asks_anew).map(|key| key.namespace.clone()).collect();
        let beside = asks_anew.iter().flat_map(|namespace| self.sets.in_namespace(namespace)).map(|(key, _)| key);
        let sets = beside.chain(&changed).cloned().collect();
        // Whether anybody asks for an agent may have changed, of the Rollout that it has left too.
        let left =
            |key: &ObjectKey| before.as_ref()?.as_ref()?.rollout.clone().map(|name| (key.namespace.clone(), name));
        let joined = |key: &ObjectKey| Some((key.namespace.clone(), rollout_of(self.sets.get(key)?)?.clone()));
        let rollouts = changed.iter().flat_map(|key| [left(key), joined(key)]).flatten();
        let rollouts = rollouts.map(|(namespace, name)| ObjectKey { namespace, name });
        Touched { rollouts: rollouts.filter(|_| !asks_anew.is_empty()).collect(), sets }
    }

    /// Takes an event of the watch on Pods outside Rollouts.
    pub fn on_agent_pod(&mut self, scope: &Scope, event: Event<PodView>) -> Touched {
        self.unreadable.note("Pod", 1, scope, &event);
        let is_list = matches!(event, Event::Listed { .. });
        let one = event.object().map(ObjectKey::of);
        let selecting = |index: &Self| -> BTreeSet<ObjectKey> {
            one.iter().flat_map(|pod| index.sets.of_agent(pod)).map(|(key, _)| key.clone()).collect()
        };
        let mut sets = selecting(self);
        let changed = self.sets.agents.take(scope, event, |view| Some((None, AgentPod::from(view))));
        if changed.is_empty() && !is_list {
            return Touched::default();
        }
        sets.extend(selecting(self));
        if is_list {
            sets.extend(self.sets_in(scope, |set| set.spec.selector.is_some()));
        }
        Touched { sets, ..Touched::default() }
    }

    /// Takes an event of the watch on Leases that came at `uptime`.
    pub fn on_lease(&mut self, scope: &Scope, event: Event<LeaseView>, uptime: Duration) -> Touched {
        self.unreadable.note("Lease", 0, scope, &event);
        let is_list = matches!(event, Event::Listed { .. });
        let Touch { mut sets, sessions, holders } = self.sets.leases.take(scope, event, uptime);
        for pod in &sessions {
            sets.extend(self.sets_served_by(pod));
        }
        if is_list {
            sets.extend(self.sets_in(scope, |_| true));
        }
        let rollouts = holders.union(&sessions).filter_map(|pod| self.rollout_of(pod)).collect();
        Touched { rollouts, sets }
    }

    /// Takes an event of the watch on the ConfigMap of this name.
    pub fn on_config_map(&mut self, key: &ObjectKey, event: Event<Lists>) -> Touched {
        let found = match event {
            Event::Listed { mut objects, .. } => objects.pop(),
            Event::Applied(object) => Some(object),
            Event::Deleted(_) => None,
            Event::Progressed(_) => return Touched::default(),
        };
        let version = |found: &Lists| (found.uid.clone(), found.resource_version.clone());
        let known = self.sets.config_maps.get(key);
        if known.is_some_and(|known| known.as_ref().map(version) == found.as_ref().map(version)) {
            return Touched::default();
        }
        let naming =
            self.sets.in_namespace(&key.namespace).filter(|(of, set)| config_map_of(of, set).as_ref() == Some(key));
        let sets: BTreeSet<ObjectKey> = naming.map(|(of, _)| of.clone()).collect();
        if sets.is_empty() {
            return Touched::default(); // no set names it any more; the watch is about to end
        }
        self.sets.config_maps.insert(key.clone(), found);
        for set in &sets {
            self.sets.read(set);
        }
        Touched { sets, ..Touched::default() }
    }

    /// What else an event has touched that has touched these Rollouts: the sets that their Pods serve.
    pub fn with_their_sets(&self, rollouts: BTreeSet<ObjectKey>) -> Touched {
        let sets = rollouts.iter().flat_map(|rollout| self.sets.of_rollout(rollout)).map(|(key, _)| key.clone());
        Touched { sets: sets.collect(), rollouts }
    }

    /// The ConfigMaps that sets name.
    pub fn config_maps_wanted(&self) -> BTreeSet<ObjectKey> {
        let sets = self.sets.known.iter().filter_map(|(key, known)| Some((key, known.object.as_deref().ok()?)));
        sets.filter_map(|(key, set)| config_map_of(key, set)).collect()
    }

    fn sets_in(&self, scope: &Scope, holds: impl Fn(&ListenerSet) -> bool) -> Vec<ObjectKey> {
        let sets = self.sets.known.iter().filter_map(|(key, known)| Some((key, known.object.as_deref().ok()?)));
        let in_scope = |key: &ObjectKey| scope.as_ref().is_none_or(|namespace| key.namespace == *namespace);
        sets.filter(|(key, set)| in_scope(key) && holds(set)).map(|(key, _)| key.clone()).collect()
    }

    /// The Rollout that controls a Pod.
    fn rollout_of(&self, pod: &ObjectKey) -> Option<ObjectKey> {
        let owner = self.pods.owner_of(pod)?;
        Some(ObjectKey { namespace: pod.namespace.clone(), name: owner.name.clone() })
    }

    /// The sets that this Pod serves, or of which it holds listeners.
    fn sets_served_by(&self, pod: &ObjectKey) -> BTreeSet<ObjectKey> {
        let holding = self.sets.leases.sets_held_by(pod);
        let holding = holding.map(|name| ObjectKey { namespace: pod.namespace.clone(), name: name.clone() });
        holding.chain(self.serving(pod).map(|(key, _)| key.clone())).collect()
    }

    /// The sets that may give this Pod listeners.
    fn serving<'a>(&'a self, pod: &'a ObjectKey) -> impl Iterator<Item = (&'a ObjectKey, &'a ListenerSet)> {
        let rollout = self.pods.owner_of(pod).map(|owner| &owner.name);
        let agent = self.sets.agents.get(pod);
        let serves = move |set: &ListenerSet| {
            (rollout.is_some() && rollout_of(set) == rollout) || agent.is_some_and(|agent| selects(set, agent))
        };
        self.sets.in_namespace(&pod.namespace).filter(move |(_, set)| serves(set))
    }

    /// uid and generation of a ListenerSet, readable or not.
    pub fn set_identity(&self, key: &ObjectKey) -> Option<(&str, i64)> {
        self.sets.known.get(key).map(|known| (known.uid.as_str(), known.generation))
    }

    /// Why a ListenerSet cannot be read, when it exists and cannot.
    pub fn set_unreadable(&self, key: &ObjectKey) -> Option<&str> {
        self.sets.known.get(key)?.object.as_ref().err().map(String::as_str)
    }

    /// A ListenerSet, if it can be read.
    pub fn set(&self, key: &ObjectKey) -> Option<&ListenerSet> {
        self.sets.get(key)
    }

    /// The ListenerSets that can be read, by key.
    pub fn sets(&self) -> impl Iterator<Item = (&ObjectKey, &ListenerSet)> {
        self.sets.known.iter().filter_map(|(key, known)| Some((key, known.object.as_deref().ok()?)))
    }

    /// Keys of all ListenerSets, and of those that have left Leases behind.
    pub fn set_keys(&self) -> BTreeSet<ObjectKey> {
        self.sets.known.iter().map(|(key, _)| key).chain(self.sets.leases.sets()).cloned().collect()
    }

    /// Ownership Leases that a deleted ListenerSet of this name has left behind: (name, uid, resourceVersion) of each.
    pub fn left_behind(&self, key: &ObjectKey) -> Vec<(String, String, String)> {
        let uid = self.set_identity(key).map_or("", |(uid, _)| uid);
        let left = self.sets.leases.left_by_others(key, uid);
        left.map(|seen| {
            let ownership = &seen.ownership;
            (seen.lease.clone(), ownership.uid.clone(), ownership.resource_version.clone())
        })
        .collect()
    }

    /// False while the first list of something that a set of this namespace looks at is still to come.
    pub fn is_set_listed(&self, key: &ObjectKey) -> bool {
        let kinds = [Kind::ListenerSet, Kind::AgentPod, Kind::Lease];
        kinds.iter().all(|kind| self.sets.progress(*kind, &key.namespace).is_some())
    }

    /// [`Self::is_set_listed`], and its ConfigMap has been looked for.
    pub fn is_set_known(&self, key: &ObjectKey) -> bool {
        self.is_set_listed(key) && (self.sets.get(key).is_none() || self.sets.listeners.contains_key(key))
    }

    /// All that is known about a ListenerSet, and about the Rollout whose Pods serve it: what becomes of each Pod is the
    /// Rollout's plan. None when the set does not exist, or cannot be read.
    pub fn set_snapshot(
        &self,
        key: &ObjectKey,
        memories: &SetMemories,
        moment: Moment,
    ) -> Option<(SetSnapshot, Option<Snapshot>)> {
        let set = self.sets.get(key)?;
        let uid = set.uid().unwrap_or_default();
        let beside = |name: &str| ObjectKey { namespace: key.namespace.clone(), name: name.to_owned() };
        let rollout = rollout_of(set)
            .and_then(|name| self.snapshot_without_agents(&beside(name), &Recollection::default(), moment.now));
        let mut pods: Vec<SetPod> = match &rollout {
            Some(rollout) => rollout.pods.iter().map(|pod| SetPod::from(&**pod)).collect(),
            None => self
                .sets
                .agents
                .in_namespace(&key.namespace)
                .map(|(_, agent)| agent)
                .filter(|agent| selects(set, agent))
                .map(|agent| agent.pod.clone())
                .collect(),
        };
        pods.sort_by(|a, b| a.name.cmp(&b.name));
        let ownerships = self.sets.leases.ownerships(key, &uid);
        let holders = ownerships.values().filter_map(|seen| seen.ownership.holder.as_ref()).map(|holder| &holder.pod);
        let earlier = self.sets.leases.holding_of_earlier(key, &uid).map(|pod| &pod.name);
        let names: BTreeSet<&String> = pods.iter().map(|pod| &pod.name).chain(holders).chain(earlier).collect();
        let mut asked = BTreeMap::new();
        let sessions: BTreeMap<String, SessionSeen> = names
            .into_iter()
            .filter_map(|name| {
                let pod = beside(name);
                let seen = self.sets.leases.session(&pod, &key.name, &uid, moment.uptime)?;
                let other_profiles = self.other_profiles(key, &pod, &mut asked);
                Some((name.clone(), SessionSeen { other_profiles, ..seen }))
            })
            .collect();
        let nodes = pods.iter().filter_map(|pod| pod.node.clone());
        let lost_nodes = nodes.filter(|node| self.is_lost(node)).collect();
        let staying = pods.iter().filter(|pod| !pod.is_terminating).count();
        let wanted = rollout.as_ref().map(|rollout| usize::try_from(rollout.rollout.spec.replicas).unwrap_or(0));
        let snapshot = SetSnapshot {
            set: set.clone(),
            listeners: self.sets.listeners(key, set),
            sessions,
            ownerships,
            taken_names: memories.taken_names.clone(),
            unreadable: self.sets.leases.unreadable(key, &uid),
            pods_in_the_end: wanted.unwrap_or(staying),
            is_rolling: false,
            leaving: rollout_of(set).and_then(|name| self.leaving.get(&beside(name))).cloned().unwrap_or_default(),
            lost_nodes,
            now: moment.now,
            uptime: moment.uptime,
            pods,
        };
        Some((snapshot, rollout))
    }

    /// The same for a reader that watches no Pods: sessions are those of all who hold listeners of the set, tell of it, or
    /// are told of it.
    pub fn set_without_pods(&self, key: &ObjectKey, moment: Moment) -> Option<SetSnapshot> {
        let (mut snapshot, _) = self.set_snapshot(key, &SetMemories::default(), moment)?;
        let uid = snapshot.set.uid().unwrap_or_default();
        for pod in self.sets.leases.speaking_of(key) {
            let seen = self.sets.leases.session(pod, &key.name, &uid, moment.uptime);
            snapshot.sessions.extend(seen.map(|seen| (pod.name.clone(), seen)));
        }
        Some(snapshot)
    }

    /// What other sets that this Pod serves ask its agent for. `asked`: those that were looked up before.
    fn other_profiles(
        &self,
        key: &ObjectKey,
        pod: &ObjectKey,
        asked: &mut BTreeMap<ObjectKey, SessionProfile>,
    ) -> Vec<SessionProfile> {
        let others = self.serving(pod).filter(|(of, _)| *of != key);
        let profile = |(of, set): (&ObjectKey, &ListenerSet)| {
            *asked.entry(of.clone()).or_insert_with(|| set.spec.session.profile.affordable(self.count_pods(of, set)))
        };
        others.map(profile).collect()
    }

    /// How many Pods may hold listeners of a set.
    fn count_pods(&self, key: &ObjectKey, set: &ListenerSet) -> usize {
        let Some(name) = rollout_of(set) else {
            let agents = self.sets.agents.in_namespace(&key.namespace);
            return agents.filter(|(_, agent)| selects(set, agent)).count();
        };
        let rollout = ObjectKey { namespace: key.namespace.clone(), name: name.to_owned() };
        let uid = self.identity(&rollout).map(|(uid, _)| uid.to_owned()).unwrap_or_default();
        self.pods.owned_by(&key.namespace, &Owner { name: name.to_owned(), uid }).count()
    }
}

#[cfg(test)]
#[path = "sets_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "config_map_tests.rs"]
mod config_map_tests;

#[cfg(test)]
#[path = "accepted_tests.rs"]
mod accepted_tests;
