//! Watch events in, sorted values out.
//!
//! The index holds what the watches have told so far, as values, filed under the controlling Rollout, its name and uid.
//! Each event answers with the Rollouts it touches: those whose [`Snapshot`] may have changed. Ownership is the controller
//! ownerRef's uid and nothing else; labels only select what is watched, and whose orphan an object without a controller is.
//!
//! Two things follow from how watches work and are tested below for any interleaving: a re-list *is* the state, so what
//! it no longer contains is gone (the API server never says so again), and the index always equals one that is built
//! from the last list alone.
mod agents;
mod endpoints;
mod event;
mod hooks;
mod known;
mod leases;
mod order;
mod recollection;
mod services;
mod set_shelf;
mod sets;
mod shelf;
#[cfg(test)]
mod tests;
mod unreadable;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;

use kube::ResourceExt;

use self::{
    endpoints::Endpoints, hooks::Hooks, known::Known, services::Services, set_shelf::Sets, shelf::Shelf,
    unreadable::Unreadables,
};
pub use self::{
    event::{Event, Kind, ObjectKey, Scope, Touched},
    order::{is_at_least, is_older},
    recollection::Recollection,
    set_shelf::{Moment, SetMemories},
    unreadable::Unreadable,
};
pub use super::owner::Owner;
use super::{
    Agents, Orphans, Pod, Revision, Snapshot,
    guard::DeserializeGuard,
    specimen,
    wire::{self, EndpointSliceView, JobView, NodeView, PodView, RevisionView, ServiceView},
};
use crate::api::Rollout;

/// Everything the watches have told.
#[derive(Clone, Debug, Default)]
pub struct Index {
    rollouts: Shelf<Known<Rollout>>,
    pods: Shelf<Pod>,
    revisions: Shelf<Revision>,
    sets: Sets,
    services: Services,
    hooks: Hooks,
    endpoints: Endpoints,
    /// Ready or not, by name. None where Nodes are not watched.
    nodes: Option<BTreeMap<String, bool>>,
    /// Pods that are to leave, by Rollout, as its plan says.
    leaving: BTreeMap<ObjectKey, BTreeSet<String>>,
    /// What is there and cannot be read, of every watched kind.
    unreadable: Unreadables,
}

impl Index {
    /// Takes an event of the watch on Rollouts; returns the Rollouts it touches.
    pub fn on_rollout(&mut self, scope: &Scope, event: Event<DeserializeGuard<Rollout>>) -> BTreeSet<ObjectKey> {
        self.unreadable.note("Rollout", 0, scope, &event);
        // Filed under its own uid, and touching itself.
        let mut touched = self.rollouts.take(scope, event, |guard| Some((None, Known::read(guard))));
        for gone in touched.iter().filter(|key| self.rollouts.get(key).is_none()) {
            self.leaving.remove(gone);
        }
        let mut others = BTreeSet::new();
        for key in &touched {
            let known = self.rollouts.get(key).map(|known| known.object.as_deref());
            // What cannot be read keeps what it named.
            if !matches!(known, Some(Err(_))) {
                others.extend(self.services.note(key, known.and_then(Result::ok)));
                self.endpoints
                    .note(key, known.and_then(Result::ok).is_some_and(|rollout| rollout.spec.drain.is_some()));
            }
        }
        self.services.forget_unnamed();
        touched.append(&mut others);
        touched
    }

    /// Takes an event of the watch on Pods; returns the Rollouts it touches.
    pub fn on_pod(&mut self, scope: &Scope, event: Event<PodView>) -> BTreeSet<ObjectKey> {
        self.unreadable.note("Pod", 0, scope, &event);
        self.pods.take(scope, event, |view| {
            let owner = wire::owner(&view.metadata).or_else(|| wire::orphaned_by(&view.metadata))?;
            let pod = wire::pod(view)?;
            let owner = if pod.specimen.is_some() { specimen::filed_under(owner) } else { owner };
            Some((Some(owner), pod))
        })
    }

    /// Takes an event of the watch on ControllerRevisions; returns the Rollouts it touches.
    pub fn on_revision(&mut self, scope: &Scope, event: Event<RevisionView>) -> BTreeSet<ObjectKey> {
        self.unreadable.note("ControllerRevision", 0, scope, &event);
        self.revisions.take(scope, event, |object| {
            let owner = wire::owner(&object.metadata).or_else(|| wire::orphaned_by(&object.metadata))?;
            Some((Some(owner), wire::revision(object)))
        })
    }

    /// Takes an event of the watch on Jobs of hooks; returns the Rollouts it touches.
    pub fn on_job(&mut self, scope: &Scope, event: Event<JobView>) -> BTreeSet<ObjectKey> {
        self.unreadable.note("Job", 0, scope, &event);
        self.hooks.take_jobs(scope, event)
    }

    /// Takes an event of the watch on Pods of hooks; returns the Rollouts it touches.
    pub fn on_hook_pod(&mut self, scope: &Scope, event: Event<PodView>) -> BTreeSet<ObjectKey> {
        self.unreadable.note("Pod", 2, scope, &event);
        self.hooks.take_pods(scope, event)
    }

    /// Takes an event of the watch on Nodes; returns the Rollouts that have Pods on a Node that was lost or came back.
    pub fn on_node(&mut self, event: Event<NodeView>) -> BTreeSet<ObjectKey> {
        self.unreadable.note("Node", 0, &None, &event);
        let before = self.lost_nodes();
        let nodes = self.nodes.get_or_insert_default();
        // Of one that cannot be read nothing new is known, and nothing bad.
        let is_ready = |nodes: &BTreeMap<String, bool>, node: &NodeView| match node.unreadable {
            Some(_) => nodes.get(&node.name_any()).copied().unwrap_or(true),
            None => node.is_ready(),
        };
        match event {
            Event::Listed { objects, .. } => {
                *nodes = objects.into_iter().map(|node| (node.name_any(), is_ready(nodes, &node))).collect();
            }
            // A heartbeat changes nothing, and there are many of them.
            Event::Applied(node) if nodes.get(&node.name_any()) == Some(&is_ready(nodes, &node)) => {
                return BTreeSet::new();
            }
            Event::Applied(node) => {
                let is_ready = is_ready(nodes, &node);
                nodes.insert(node.name_any(), is_ready);
            }
            Event::Deleted(node) => drop(nodes.remove(&node.name_any())),
            Event::Progressed(_) => return BTreeSet::new(),
        }
        let after = self.lost_nodes();
        let changed: BTreeSet<&String> = before.symmetric_difference(&after).collect();
        let on_changed = |pod: &Pod| pod.node.as_ref().is_some_and(|node| changed.contains(node));
        self.pods.owners_of(on_changed)
    }

    /// Nodes that run Pods of ours and are gone or not Ready.
    fn lost_nodes(&self) -> BTreeSet<String> {
        self.pods.values().filter_map(|pod| pod.node.as_ref()).filter(|node| self.is_lost(node)).cloned().collect()
    }

    fn is_lost(&self, node: &str) -> bool {
        self.nodes.as_ref().is_some_and(|nodes| nodes.get(node) != Some(&true))
    }

    /// All that is known about a Rollout at `now`. None when it does not exist, or cannot be read.
    pub fn snapshot(&self, key: &ObjectKey, recollection: &Recollection, now: Timestamp) -> Option<Snapshot> {
        let snapshot = self.snapshot_without_agents(key, recollection, now)?;
        Some(Snapshot { agents: self.agents_of(key, &snapshot.pods), ..snapshot })
    }

    /// The same for a ListenerSet, which looks at what agents tell by itself.
    fn snapshot_without_agents(
        &self,
        key: &ObjectKey,
        recollection: &Recollection,
        now: Timestamp,
    ) -> Option<Snapshot> {
        let known = self.rollouts.get(key)?;
        let rollout = known.object.as_ref().ok()?;
        let owner = Owner { name: key.name.clone(), uid: known.uid.clone() };
        let orphaned = Owner { name: key.name.clone(), uid: wire::ORPHANED.to_owned() };
        let hook_owner = owner.clone();
        let (pods, revisions) = self.owned_by(&key.namespace, &owner);
        let orphans = self.owned_by(&key.namespace, &orphaned);
        let specimens: Vec<Arc<Pod>> =
            self.pods.owned_by(&key.namespace, &specimen::filed_under(owner)).cloned().collect();
        let nodes = pods.iter().chain(&specimens).filter_map(|pod| pod.node.clone());
        let lost_nodes = nodes.filter(|node| self.is_lost(node)).collect();
        Some(Snapshot {
            rollout: (**rollout).clone(),
            pods,
            revisions,
            specimens,
            orphans: Orphans { pods: orphans.0, revisions: orphans.1 },
            overlap: recollection.overlap.clone(),
            taken_names: recollection.taken_names.clone(),
            lost_nodes,
            template_checks: recollection.template_checks.clone(),
            create_refusal: recollection.create_refusal.clone(),
            change_refusals: recollection.change_refusals.clone(),
            tellings: BTreeMap::new(),
            calls: BTreeMap::new(),
            endpoints: self.endpoints.of(key),
            agents: Agents::Unknown,
            services: self.services.of(key, rollout, recollection),
            hooks: self.hooks.of(&key.namespace, &hook_owner),
            hook_seen: recollection.hook_seen.clone(),
            hook_refusal: recollection.hook_refusal.clone(),
            now,
        })
    }

    /// Pods and ControllerRevisions, sorted.
    fn owned_by(&self, namespace: &str, owner: &Owner) -> (Vec<Arc<Pod>>, Vec<Revision>) {
        let mut pods: Vec<Arc<Pod>> = self.pods.owned_by(namespace, owner).cloned().collect();
        pods.sort_by(|a, b| (a.slot, &a.name).cmp(&(b.slot, &b.name)));
        let mut revisions: Vec<Revision> =
            self.revisions.owned_by(namespace, owner).map(|revision| (**revision).clone()).collect();
        revisions.sort_by(|a, b| (a.number, &a.name).cmp(&(b.number, &b.name)));
        (pods, revisions)
    }

    /// uid and generation of a Rollout, readable or not.
    pub fn identity(&self, key: &ObjectKey) -> Option<(&str, i64)> {
        self.rollouts.get(key).map(|known| (known.uid.as_str(), known.generation))
    }

    /// Why a Rollout is left alone, when it exists: it cannot be read, or one of its ControllerRevisions cannot, so that it is
    /// not known what its instances are to run.
    pub fn unreadable(&self, key: &ObjectKey) -> Option<String> {
        let known = self.rollouts.get(key)?;
        if let Err(error) = &known.object {
            return Some(error.clone());
        }
        let owner = Owner { name: key.name.clone(), uid: known.uid.clone() };
        let revisions = self.revisions.owned_by(&key.namespace, &owner).map(|revision| &revision.name);
        let names = revisions.map(|name| ObjectKey { namespace: key.namespace.clone(), name: name.clone() });
        let mut unreadable = names.filter_map(|name| Some((self.unreadable.get("ControllerRevision", &name)?, name)));
        unreadable.next().map(|(found, name)| format!("its ControllerRevision {}: {}", name.name, found.error))
    }

    /// What is there and cannot be read, of every watched kind, in no more than so many of each.
    pub fn unreadables(&self) -> impl Iterator<Item = (&'static str, &ObjectKey, &Unreadable)> {
        self.unreadable.iter()
    }

    /// A Rollout, if it can be read.
    pub fn rollout(&self, key: &ObjectKey) -> Option<&Rollout> {
        self.rollouts.get(key)?.object.as_deref().ok()
    }

    /// The Rollouts that can be read, by key.
    pub fn rollouts(&self) -> impl Iterator<Item = (&ObjectKey, &Rollout)> {
        self.rollouts.iter().filter_map(|(key, known)| Some((key, known.object.as_deref().ok()?)))
    }

    /// Keys of all Rollouts.
    pub fn keys(&self) -> BTreeSet<ObjectKey> {
        self.rollouts.iter().map(|(key, _)| key.clone()).collect()
    }

    /// uid and resourceVersion of an object of ours, as last told.
    pub fn version(&self, kind: Kind, key: &ObjectKey) -> Option<(&str, &str)> {
        match kind {
            Kind::Rollout => self.rollouts.get(key).map(|o| (o.uid.as_str(), o.resource_version.as_str())),
            Kind::Pod => self.pods.get(key).map(|o| (o.uid.as_str(), o.resource_version.as_str())),
            Kind::Revision => self.revisions.get(key).map(|o| (o.uid.as_str(), o.resource_version.as_str())),
            Kind::Job => self.hooks.version(key),
            Kind::ListenerSet | Kind::AgentPod | Kind::Lease => self.sets.version(kind, key),
        }
    }

    /// True when the watch that covers `namespace` has told everything up to `resource_version`.
    pub fn has_reached(&self, kind: Kind, namespace: &str, resource_version: &str) -> bool {
        let progress = match kind {
            Kind::Rollout => self.rollouts.progress(namespace),
            Kind::Pod => self.pods.progress(namespace),
            Kind::Revision => self.revisions.progress(namespace),
            Kind::Job => self.hooks.progress(namespace),
            Kind::ListenerSet | Kind::AgentPod | Kind::Lease => self.sets.progress(kind, namespace),
        };
        progress.is_some_and(|progress| is_at_least(progress, resource_version))
    }

    /// The Services that Rollouts name, or have named.
    pub fn services_wanted(&self) -> BTreeSet<ObjectKey> {
        self.services.wanted()
    }

    /// Namespaces in which a Rollout drains its instances, each as a key without a name.
    pub fn endpoints_wanted(&self) -> BTreeSet<ObjectKey> {
        self.endpoints.wanted()
    }

    /// Takes an event of the watch on the EndpointSlices of a namespace; returns the Rollouts it touches.
    pub fn on_endpoints(&mut self, key: &ObjectKey, event: Event<EndpointSliceView>) -> BTreeSet<ObjectKey> {
        let pods = self.endpoints.take(&key.namespace, event);
        let owner = |name: String| {
            let owner = self.pods.owner_of(&ObjectKey { namespace: key.namespace.clone(), name })?;
            Some(ObjectKey { namespace: key.namespace.clone(), name: owner.name.clone() })
        };
        pods.into_iter().filter_map(owner).collect()
    }

    /// Takes an event of the watch on the Service of this name; returns the Rollouts it touches.
    pub fn on_service(&mut self, key: &ObjectKey, event: Event<ServiceView>) -> BTreeSet<ObjectKey> {
        self.services.take(key, event)
    }
}
