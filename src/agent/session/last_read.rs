//! What the watch tells of Leases, some of which may not be readable: such a one is there, and says nothing, so it is as it was
//! when it could last be read.
use std::collections::BTreeMap;

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Resource, ResourceExt};

use crate::snapshot::{
    guard::{DeserializeGuard, Guarded},
    index::Event,
    wire::LeaseView,
};

/// Leases as they were last read, by name: those that the watch tells of.
#[derive(Default)]
pub(super) struct LastRead(BTreeMap<String, Lease>);

impl LastRead {
    /// What an event says as far as it can be read; None: nothing.
    pub fn read(&mut self, event: Event<DeserializeGuard<LeaseView>>) -> Option<Event<Lease>> {
        match event {
            Event::Listed { objects, resource_version } => {
                let before = std::mem::take(&mut self.0);
                for object in objects {
                    let name = object.name_any();
                    if let Some(lease) = read(object, before.get(&name)) {
                        self.0.insert(name, lease);
                    }
                }
                Some(Event::Listed { objects: self.0.values().cloned().collect(), resource_version })
            }
            Event::Applied(object) => {
                let (name, is_readable) = (object.name_any(), object.unreadable().is_none());
                let lease = read(object, self.0.get(&name))?;
                self.0.insert(name, lease.clone());
                is_readable.then_some(Event::Applied(lease))
            }
            Event::Deleted(object) => {
                self.0.remove(&object.name_any());
                Some(Event::Deleted(LeaseView::from(object).into()))
            }
            Event::Progressed(resource_version) => Some(Event::Progressed(resource_version)),
        }
    }
}

/// One of another uid is another Lease.
fn read(object: DeserializeGuard<LeaseView>, before: Option<&Lease>) -> Option<Lease> {
    let Some(error) = object.unreadable() else { return Some(LeaseView::from(object).into()) };
    tracing::warn!(lease = object.name_any(), error, "a Lease cannot be read; it counts as it was before");
    before.filter(|before| before.metadata.uid == object.meta().uid).cloned()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn lease(name: &str, uid: &str, version: u32, holder: &Value) -> DeserializeGuard<LeaseView> {
        let metadata = json!({"name": name, "uid": uid, "resourceVersion": version.to_string()});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"holderIdentity": holder}})).unwrap()
    }

    fn listed(objects: Vec<DeserializeGuard<LeaseView>>) -> Event<DeserializeGuard<LeaseView>> {
        Event::Listed { objects, resource_version: "9".into() }
    }

    /// Holders by name of what is said, `-` before the name of what is gone.
    fn said(event: Option<Event<Lease>>) -> Vec<String> {
        let holder =
            |lease: &Lease| lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        match event {
            Some(Event::Listed { objects, .. }) => {
                objects.iter().map(|lease| format!("{}={}", lease.name_any(), holder(lease))).collect()
            }
            Some(Event::Applied(lease)) => vec![format!("{}={}", lease.name_any(), holder(&lease))],
            Some(Event::Deleted(lease)) => vec![format!("-{}", lease.name_any())],
            Some(Event::Progressed(_)) | None => Vec::new(),
        }
    }

    /// An agent that took such a Lease for gone would stop what it runs, or give up its session.
    #[test]
    fn a_lease_that_cannot_be_read_is_as_it_was() {
        let (mut known, poison) = (LastRead::default(), json!("x".repeat(1_400_000)));
        let (good, wrong) = (json!("me"), json!(7));
        assert_eq!(said(known.read(listed(vec![lease("a", "u", 1, &good), lease("b", "u", 1, &poison)]))), ["a=me"]);
        for bad in [&poison, &wrong] {
            assert!(known.read(Event::Applied(lease("a", "u", 2, bad))).is_none());
            assert_eq!(said(known.read(listed(vec![lease("a", "u", 2, bad), lease("b", "u", 1, bad)]))), ["a=me"]);
            let other = known.read(Event::Applied(lease("c", "u", 3, &good)));
            assert_eq!(said(other), ["c=me"], "others are told of");
        }
        assert!(known.read(Event::Applied(lease("a", "another", 4, &wrong))).is_none(), "another Lease of that name");
        assert_eq!(said(known.read(Event::Deleted(lease("a", "u", 5, &poison)))), ["-a"]);
        assert!(said(known.read(listed(vec![lease("a", "u", 6, &poison)]))).is_empty());
    }
}
