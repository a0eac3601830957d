//! The Services that Rollouts name, and who names them.
use std::collections::{BTreeMap, BTreeSet};

use super::{
    event::{Event, ObjectKey},
    order::is_older,
    recollection::Recollection,
    shelf::in_namespace,
};
use crate::{
    api::Rollout,
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
    users: BTreeMap<ObjectKey, Users>,
}

/// Which Rollouts of its namespace have to do with a Service.
#[derive(Clone, Debug, Default)]
struct Users {
    /// Their specs name it.
    named_by: BTreeSet<String>,
    /// Their specs did, and the key that they have set may still be in its selector.
    left_by: BTreeSet<String>,
}

impl Users {
    fn all(&self) -> impl Iterator<Item = &String> {
        self.named_by.union(&self.left_by)
    }
}

/// The Services that a Rollout names: activeService, previewService.
fn named(key: &ObjectKey, rollout: &Rollout) -> (Option<ObjectKey>, Option<ObjectKey>) {
    let strategy = &rollout.spec.strategy;
    let names = strategy.switched();
    let key = |name: &String| ObjectKey { namespace: key.namespace.clone(), name: name.clone() };
    let preview = names.and_then(|names| names.preview_service.as_ref());
    (names.map(|names| key(&names.active_service)), preview.map(key))
}

/// Those that it has named before and has yet to let go, as status says.
fn left(key: &ObjectKey, rollout: &Rollout) -> BTreeSet<ObjectKey> {
    let (active, preview) = named(key, rollout);
    let noted = rollout.status.iter().flat_map(|status| &status.services);
    let noted = noted.map(|name| ObjectKey { namespace: key.namespace.clone(), name: name.clone() });
    noted.filter(|service| ![&active, &preview].contains(&&Some(service.clone()))).collect()
}

impl Services {
    /// Notes which Services this Rollout names now, or has left; returns the other Rollouts that have, or had, to do with one of
    /// them as well.
    pub(super) fn note(&mut self, key: &ObjectKey, rollout: Option<&Rollout>) -> BTreeSet<ObjectKey> {
        let (active, preview) = rollout.map(|rollout| named(key, rollout)).unwrap_or_default();
        let now: BTreeSet<ObjectKey> = active.into_iter().chain(preview).collect();
        let left = rollout.map(|rollout| left(key, rollout)).unwrap_or_default();
        let before: Vec<ObjectKey> = in_namespace(&self.users, &key.namespace)
            .filter(|(_, users)| users.all().any(|name| *name == key.name))
            .map(|(service, _)| service.clone())
            .collect();
        let mut others = BTreeSet::new();
        for service in now.iter().chain(&left).chain(&before) {
            let users = self.users.entry(service.clone()).or_default();
            for (rollouts, has_it) in
                [(&mut users.named_by, now.contains(service)), (&mut users.left_by, left.contains(service))]
            {
                if has_it {
                    rollouts.insert(key.name.clone())
                } else {
                    rollouts.remove(&key.name)
                };
            }
            others.extend(users.all().filter(|name| **name != key.name).cloned());
        }
        others.into_iter().map(|name| ObjectKey { namespace: key.namespace.clone(), name }).collect()
    }

    /// Forgets Services that no Rollout has to do with any more. After all that one event has changed: what one Rollout names no more another
    /// may name from now on, and it would not be asked for anew.
    pub(super) fn forget_unnamed(&mut self) {
        self.users.retain(|_, users| users.all().next().is_some());
        self.known.retain(|service, _| self.users.contains_key(service));
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
        let named_by = |service: &ObjectKey| {
            let users = self.users.get(service);
            users.and_then(|users| users.named_by.iter().find(|name| **name != key.name)).cloned()
        };
        let claimed_by = [&active, &preview].into_iter().flatten().find_map(named_by);
        let left = left(key, rollout).into_iter().filter(|service| named_by(service).is_none());
        let former = left.map(|service| (service.name.clone(), seen(&service))).collect();
        let seen = |service: &Option<ObjectKey>| service.as_ref().map(seen).unwrap_or_default();
        service::Services { active: seen(&active), preview: seen(&preview), claimed_by, former }
    }

    /// Those that Rollouts name, or have named.
    pub(super) fn wanted(&self) -> BTreeSet<ObjectKey> {
        self.users.keys().cloned().collect()
    }

    /// Takes an event of the watch on the Service of this name; returns the Rollouts it touches.
    pub(super) fn take(&mut self, key: &ObjectKey, event: Event<ServiceView>) -> BTreeSet<ObjectKey> {
        let found = match event {
            Event::Listed { mut objects, .. } => objects.pop(),
            Event::Applied(object) => Some(object),
            Event::Deleted(_) => None,
            Event::Progressed(_) => return BTreeSet::new(),
        };
        let found = found.map(wire::service);
        let Some(users) = self.users.get(key) else { return BTreeSet::new() };
        if self.known.get(key) == Some(&found) {
            return BTreeSet::new();
        }
        let touched = users.all().map(|name| ObjectKey { namespace: key.namespace.clone(), name: name.clone() });
        let touched = touched.collect();
        self.known.insert(key.clone(), found);
        touched
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;
    use crate::snapshot::{guard::DeserializeGuard, index::Index};

    fn key(name: &str) -> ObjectKey {
        ObjectKey { namespace: "shop".into(), name: name.into() }
    }

    fn rollout(name: &str, strategy: &Value) -> Event<DeserializeGuard<Rollout>> {
        let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app"}]}});
        let spec = json!({"selector": {"matchLabels": {"app": "web"}}, "template": template, "strategy": strategy});
        let metadata = json!({"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "resourceVersion": "1"});
        Event::Applied(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap())
    }

    fn blue_green(service: &str) -> Value {
        json!({"type": "BlueGreen", "blueGreen": {"activeService": service}})
    }

    fn service(resource_version: &str, revision: &str) -> Event<ServiceView> {
        let metadata = json!({"name": "web", "namespace": "shop", "uid": "s", "resourceVersion": resource_version, "annotations": {
            "baton.dev/switched-from": "web-a", "baton.dev/switched-at": "2026-01-01T10:00:00Z",
        }});
        let selector = json!({"app": "web", "baton.dev/revision": revision});
        Event::Applied(serde_json::from_value(json!({"metadata": metadata, "spec": {"selector": selector}})).unwrap())
    }

    fn seen(index: &Index, recollection: &Recollection) -> service::Services {
        index.snapshot(&key("web"), recollection, Timestamp::UNIX_EPOCH).unwrap().services
    }

    /// B3
    #[test]
    fn a_service_is_known_once_it_is_read_and_only_while_it_is_named() {
        let mut index = Index::default();
        index.on_rollout(&None, rollout("web", &blue_green("web")));
        assert_eq!(index.services_wanted(), [key("web")].into());
        assert_eq!(seen(&index, &Recollection::default()).active, ServiceSeen::Unknown);
        let none = Event::Listed { objects: vec![], resource_version: "4".into() };
        assert_eq!(index.on_service(&key("web"), none), [key("web")].into());
        assert_eq!(seen(&index, &Recollection::default()).active, ServiceSeen::Missing);
        assert_eq!(index.on_service(&key("web"), service("5", "web-b")), [key("web")].into());
        assert!(index.on_service(&key("web"), service("5", "web-b")).is_empty(), "nothing new");
        let ServiceSeen::Seen(active) = seen(&index, &Recollection::default()).active else { panic!("not seen") };
        let switched = active.switched.clone().unwrap();
        assert_eq!((active.revision(), switched.from.as_str()), (Some("web-b"), "web-a"));
        index.on_rollout(&None, rollout("web", &json!({"type": "Recreate"})));
        assert!(index.services_wanted().is_empty() && index.services.known.is_empty());
    }

    /// A view that is older than our own last write to the Service is none.
    #[test]
    fn what_is_older_than_our_own_write_does_not_count() {
        let mut index = Index::default();
        index.on_rollout(&None, rollout("web", &blue_green("web")));
        index.on_service(&key("web"), service("5", "web-b"));
        let written = Recollection { services: [("web".into(), "7".into())].into(), ..Recollection::default() };
        assert_eq!(seen(&index, &written).active, ServiceSeen::Unknown);
        index.on_service(&key("web"), service("7", "web-c"));
        assert!(seen(&index, &written).active.seen().is_some());
    }

    /// A Service that is named no more is known until status has forgotten it, unless another Rollout names it now.
    #[test]
    fn a_service_that_was_left_is_known_until_it_is_let_go() {
        let left = |services: Value| {
            let Event::Applied(DeserializeGuard(Ok(mut rollout))) = rollout("web", &json!({})) else { unreachable!() };
            rollout.status = Some(serde_json::from_value(json!({"services": services})).unwrap());
            Event::Applied(DeserializeGuard(Ok(rollout)))
        };
        let mut index = Index::default();
        index.on_rollout(&None, rollout("web", &blue_green("web")));
        index.on_service(&key("web"), service("5", "web-b"));
        index.on_rollout(&None, left(json!(["web"])));
        let services = seen(&index, &Recollection::default());
        assert_eq!(services.former["web"].seen().and_then(Service::revision), Some("web-b"));
        assert_eq!(index.on_service(&key("web"), service("6", "web-c")), [key("web")].into());
        assert_eq!(index.on_rollout(&None, rollout("other", &blue_green("web"))), [key("other"), key("web")].into());
        assert!(seen(&index, &Recollection::default()).former.is_empty(), "it is another one's");
        let other = index.snapshot(&key("other"), &Recollection::default(), Timestamp::UNIX_EPOCH).unwrap().services;
        assert_eq!(other.claimed_by, None, "who has left it claims nothing");
        index.on_rollout(&None, rollout("other", &json!({})));
        index.on_rollout(&None, left(json!([])));
        assert!(index.services_wanted().is_empty() && index.services.known.is_empty());
    }

    /// Two Rollouts that name one Service hear of each other, and again when one lets go.
    #[test]
    fn a_service_that_two_name_is_claimed() {
        let mut index = Index::default();
        index.on_rollout(&None, rollout("web", &blue_green("web")));
        assert_eq!(seen(&index, &Recollection::default()).claimed_by, None);
        let touched = index.on_rollout(&None, rollout("other", &blue_green("web")));
        assert_eq!(touched, [key("other"), key("web")].into());
        assert_eq!(seen(&index, &Recollection::default()).claimed_by, Some("other".into()));
        let touched = index.on_rollout(&None, rollout("other", &blue_green("shop")));
        assert_eq!(touched, [key("other"), key("web")].into());
        assert_eq!(seen(&index, &Recollection::default()).claimed_by, None);
    }
}
