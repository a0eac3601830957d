//! Leases as they come from the watch, read into what is kept of them.
use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::coordination::v1::Lease;
use serde::de::DeserializeOwned;

use super::{ANNOTATION_BYTES_MAX, Owned, SessionLease, Told};
use crate::{
    api::names,
    snapshot::{
        lease::{self, Holder, Named, Ownership, Session, read_inbox},
        listener_set::OwnershipSeen,
        report::{GAPS_MAX, Report, UNITS_MAX},
        wire::LeaseView,
    },
};

impl SessionLease {
    /// Reads a Lease; what says the same as in `before` is not read again.
    pub(super) fn read(lease: &Lease, before: Option<&Self>) -> Self {
        let annotations = lease.metadata.annotations.as_ref();
        let text = |name: &str| annotations.and_then(|annotations| annotations.get(name));
        let profile = text(names::ANNOTATION_PROFILE).map(|text| serde_json::Value::String(text.clone()));
        let (mut reports, mut inboxes) = (BTreeMap::new(), BTreeMap::new());
        for (name, text) in annotations.into_iter().flatten() {
            if let Some(set) = name.strip_prefix(names::REPORT_PREFIX) {
                let known = before.and_then(|before| before.reports.get(set));
                reports.insert(set.to_owned(), Told::read(text, known, read_report));
            } else if let Some(set) = name.strip_prefix(names::INBOX_PREFIX) {
                let known = before.and_then(|before| before.inboxes.get(set));
                inboxes.insert(set.to_owned(), Told::read(text, known, read_inbox));
            }
        }
        Self {
            uid: lease.metadata.uid.clone().unwrap_or_default(),
            resource_version: lease.metadata.resource_version.clone().unwrap_or_default(),
            session: Session::read(lease),
            profile: profile.and_then(|text| serde_json::from_value(text).ok()),
            info: text(names::ANNOTATION_AGENT).map(|text| read_json(text)).unwrap_or_default(),
            reports,
            inboxes,
        }
    }
}

impl<T: Default> Told<T> {
    fn read(text: &str, known: Option<&Self>, read: impl FnOnce(&str) -> T) -> Self {
        if let Some(known) = known.filter(|known| known.text == text) {
            return known.clone();
        }
        let value = if text.len() <= ANNOTATION_BYTES_MAX { read(text) } else { T::default() };
        Self { text: text.to_owned(), value: Arc::new(value) }
    }
}

fn read_report(text: &str) -> Report {
    let mut report: Report = read_json(text);
    while report.units.len() > UNITS_MAX {
        report.units.pop_last();
    }
    report.gaps.truncate(GAPS_MAX);
    report
}

/// What an agent tells; nothing where it cannot be read.
fn read_json<T: DeserializeOwned + Default>(text: &str) -> T {
    if text.len() > ANNOTATION_BYTES_MAX { T::default() } else { serde_json::from_str(text).unwrap_or_default() }
}

impl Owned {
    /// None for a Lease that something else than a ListenerSet controls. One that nothing controls is what a deleted set
    /// has left: the garbage collector takes the reference to the set, but not what a living Pod owns too.
    pub(super) fn read(name: String, lease: LeaseView) -> Option<Self> {
        let lease = Lease::from(lease);
        let set = lease::controlling_set(&lease);
        if set.is_none() && lease::owners(&lease).iter().any(|owner| owner.controller == Some(true)) {
            return None;
        }
        let annotation = |name: &str| lease.metadata.annotations.as_ref()?.get(name).cloned();
        let ownership = Ownership::of(&lease);
        let from = annotation(names::ANNOTATION_FROM);
        let is_other = ownership
            .holder
            .as_ref()
            .zip(from.as_deref())
            .is_some_and(|(holder, from)| Holder::parse(from).is_none_or(|from| from.uid != holder.uid));
        let seen = OwnershipSeen {
            lease: name,
            named: Named::of(&lease, ownership.holder.as_ref()),
            ownership,
            settings: annotation(names::ANNOTATION_CONFIG).unwrap_or_default(),
            acquired_at: lease.spec.as_ref().and_then(|spec| spec.acquire_time.as_ref()).map(|time| time.0),
            forced_at: annotation(names::ANNOTATION_FORCED_AT).and_then(|at| at.parse().ok()),
            is_handed_over: is_other && annotation(names::ANNOTATION_STOPPED_AT).is_some(),
            from,
        };
        Some(Self { set_uid: set.map(|owner| owner.uid.clone()).unwrap_or_default(), seen })
    }
}
