//! Services of the strategy BlueGreen that the spec names no more, because it has another strategy by now, or names others. They
//! would go on selecting one revision, and no Pod once its Pods have gone: the key is taken off first.
use super::revisions::Lineage;
use crate::{
    api::{bounds::SERVICES_MAX, rollout::BlueGreen},
    plan::{
        change::{Hold, HoldReason},
        rollout::policy::Policy,
    },
    snapshot::{Service, ServiceSeen, Snapshot},
};

/// The Services whose selectors Baton sets, or has set and has yet to let go: what status remembers. A Service that
/// Baton has never seen is not among them: a spec that names another need not wait for it. Nor is one that has never permitted it.
pub(crate) fn services(snapshot: &Snapshot) -> Vec<String> {
    let known = snapshot.rollout.status.as_ref().map(|status| &status.services[..]).unwrap_or_default();
    let services = &snapshot.services;
    let is_seen = |name: &String| {
        let mut seen = [&services.active, &services.preview].into_iter().filter_map(ServiceSeen::seen);
        seen.any(|seen| seen.name == *name && is_own(snapshot, seen))
    };
    let named = Policy::of(&snapshot.rollout.spec).switched().into_iter().flat_map(BlueGreen::names);
    let named = named.filter(|name| known.contains(name) || is_seen(name)).cloned();
    named.chain(kept(snapshot).map(|(name, _)| name.clone())).take(SERVICES_MAX).collect()
}

/// Those that have the key, or may have it.
pub(crate) fn kept(snapshot: &Snapshot) -> impl Iterator<Item = (&String, &ServiceSeen)> {
    snapshot.services.former.iter().filter(|(_, seen)| match seen {
        ServiceSeen::Unknown => true,
        ServiceSeen::Missing => false,
        ServiceSeen::Seen(service) => service.revision().is_some() && is_own(snapshot, service),
    })
}

/// This Rollout may switch it, or has done so: a manifest that is applied without the annotation may have taken that away.
fn is_own(snapshot: &Snapshot, service: &Service) -> bool {
    let is_switched = |revision: &str| {
        snapshot.revisions.iter().any(|known| known.name == revision)
            || snapshot.pods.iter().any(|pod| pod.revision == revision)
    };
    let rollout = snapshot.rollout.metadata.name.as_deref();
    service.rollout.as_deref().is_some_and(|named| Some(named) == rollout)
        || service.revision().is_some_and(is_switched)
}

/// Clients were never given what is worked towards: a whole set of it is there, as their preview. With a strategy of batches or
/// of no second set it has yet to begin.
pub(crate) fn was_preview(snapshot: &Snapshot, lineage: &Lineage<'_>) -> bool {
    let is_elsewhere = |service: &Service| {
        let selected = service.revision();
        selected.is_some() && selected != lineage.effective.map(|effective| effective.name.as_str())
    };
    let begins = !lineage.is_back() && !lineage.is_first() && Policy::of(&snapshot.rollout.spec).switched().is_none();
    begins && kept(snapshot).filter_map(|(_, seen)| seen.seen()).any(is_elsewhere)
}

/// Until then no Pod leaves that clients may use, and the deadline's clock stands still.
pub(crate) fn hold(snapshot: &Snapshot) -> Option<Hold> {
    let (name, seen) = kept(snapshot).next()?;
    let message = match seen.seen().and_then(Service::revision) {
        Some(revision) => format!(
            "spec.strategy names Service {name} no more, which still selects {revision} alone: no Pod is ended or changed until it selects Pods of any version"
        ),
        None => format!(
            "reading Service {name}, which spec.strategy names no more: the operator has yet to see it, or may not"
        ),
    };
    Some(Hold { reason: HoldReason::ServiceUnread, message, until: None })
}
