//! The Services that Rollouts name, and who names them.
use std::collections::{BTreeMap, BTreeSet};

use super::{Event, Index, ObjectKey, Recollection, is_older, shelf::in_namespace};
use crate::{
    api::{Rollout, rollout::StrategyType},
    snapshot::{
        service::{self, Service, ServiceSeen},
        wire::{self, ServiceView},
    },
};

/// Everything that is known of Services.
#[derive(Clone, Debug, Default)]
pub(super) struct Services {
    /// Those that have been looked for. None: there is none of this name.
    known: BTreeMap<ObjectKey, Option<Service>>,
    /// By Service, the Rollouts of its namespace that name it.
    named_by: BTreeMap<ObjectKey, BTreeSet<String>>,
}

/// The Services that a Rollout names: activeService, previewService.
fn named(key: &ObjectKey, rollout: &Rollout) -> (Option<ObjectKey>, Option<ObjectKey>) {
    let strategy = &rollout.spec.strategy;
    let names = strategy.blue_green.as_ref().filter(|_| strategy.type_ == StrategyType::BlueGreen);
    let key = |name: &String| ObjectKey { namespace: key.namespace.clone(), name: name.clone() };
    let preview = names.and_then(|names| names.preview_service.as_ref());
    (names.map(|names| key(&names.active_service)), preview.map(key))
}

impl Services {
    /// Notes which Services this Rollout names now; returns the other Rollouts that name, or named, one of them as well.
    pub(super) fn note(&mut self, key: &ObjectKey, rollout: Option<&Rollout>) -> BTreeSet<ObjectKey> {
        let (active, preview) = rollout.map(|rollout| named(key, rollout)).unwrap_or_default();
        let now: BTreeSet<ObjectKey> = active.into_iter().chain(preview).collect();
        let before: Vec<ObjectKey> = in_namespace(&self.named_by, &key.namespace)
            .filter(|(_, rollouts)| rollouts.contains(&key.name))
            .map(|(service, _)| service.clone())
            .collect();
        let mut others = BTreeSet::new();
        for service in now.iter().chain(&before) {
            let rollouts = self.named_by.entry(service.clone()).or_default();
            if now.contains(service) {
                rollouts.insert(key.name.clone())
            } else {
                rollouts.remove(&key.name)
            };
            others.extend(rollouts.iter().filter(|name| **name != key.name).cloned());
        }
        self.named_by.retain(|_, rollouts| !rollouts.is_empty());
        self.known.retain(|service, _| self.named_by.contains_key(service));
        others.into_iter().map(|name| ObjectKey { namespace: key.namespace.clone(), name }).collect()
    }

    /// What this Rollout is to know of them.
    pub(super) fn of(&self, key: &ObjectKey, rollout: &Rollout, recollection: &Recollection) -> service::Services {
        let seen = |service: &ObjectKey| match self.known.get(service) {
            None => ServiceSeen::Unknown,
            Some(None) => ServiceSeen::Missing,
            Some(Some(seen)) => {
                let written = recollection.services.get(&service.name);
                let is_old = written.is_some_and(|written| is_older(&seen.resource_version, written));
                if is_old { ServiceSeen::Unknown } else { ServiceSeen::Seen(seen.clone()) }
            }
        };
        let (active, preview) = named(key, rollout);
        let named = [&active, &preview].into_iter().flatten();
        let mut naming = named.filter_map(|service| self.named_by.get(service)).flatten();
        let claimed_by = naming.find(|name| **name != key.name).cloned();
        let seen = |service: &Option<ObjectKey>| service.as_ref().map(seen).unwrap_or_default();
        service::Services { active: seen(&active), preview: seen(&preview), claimed_by }
    }
}

impl Index {
    /// The Services that Rollouts name.
    pub fn services_wanted(&self) -> BTreeSet<ObjectKey> {
        self.services.named_by.keys().cloned().collect()
    }

    /// Takes an event of the watch on the Service of this name; returns the Rollouts it touches.
    pub fn on_service(&mut self, key: &ObjectKey, event: Event<ServiceView>) -> BTreeSet<ObjectKey> {
        let found = match event {
            Event::Listed { mut objects, .. } => objects.pop(),
            Event::Applied(object) => Some(object),
            Event::Deleted(_) => None,
            Event::Progressed(_) => return BTreeSet::new(),
        };
        let found = found.map(wire::service);
        let Some(rollouts) = self.services.named_by.get(key) else { return BTreeSet::new() };
        if self.services.known.get(key) == Some(&found) {
            return BTreeSet::new();
        }
        let touched = rollouts.iter().map(|name| ObjectKey { namespace: key.namespace.clone(), name: name.clone() });
        let touched = touched.collect();
        self.services.known.insert(key.clone(), found);
        touched
    }
}
