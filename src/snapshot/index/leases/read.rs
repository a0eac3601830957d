//! Leases as they come from the watch, read into what is kept of them.
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::coordination::v1::Lease;
use serde::de::DeserializeOwned;

use crate::{
    api::{names, session::SessionProfile},
    snapshot::{
        lease::{self, Claim, Holder, Letter, Named, Ownership, Session, read_inbox},
        listener_set::OwnershipSeen,
        report::{AgentInfo, GAPS_MAX, Report, UNITS_MAX},
        wire::LeaseView,
    },
};

/// Longer annotations of an agent are not read. A report with as much as it may say of 48 listeners takes 24 KiB.
const ANNOTATION_BYTES_MAX: usize = 32 * 1_024;

/// A session Lease, read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SessionLease {
    pub(super) uid: String,
    pub(super) resource_version: String,
    /// None: it is no Pod's.
    pub(super) session: Option<Session>,
    pub(super) profile: Option<SessionProfile>,
    pub(super) info: AgentInfo,
    /// By name of the ListenerSet.
    pub(super) reports: BTreeMap<String, Told<Report>>,
    /// By name of the ListenerSet.
    pub(super) inboxes: BTreeMap<String, Told<BTreeMap<String, Letter>>>,
}

/// A value and the annotation that it was read from.
#[derive(Debug)]
pub(super) struct Told<T> {
    pub(super) text: String,
    pub(super) value: Arc<T>,
}

impl<T> Clone for Told<T> {
    fn clone(&self) -> Self {
        Self { text: self.text.clone(), value: self.value.clone() }
    }
}

impl<T> PartialEq for Told<T> {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// An ownership Lease, and the ListenerSet that controls it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Owned {
    pub(super) set_uid: String,
    pub(super) seen: OwnershipSeen,
}

impl SessionLease {
    /// Reads a Lease; what says the same as in `before` is not read again.
    pub(super) fn read(lease: LeaseView, before: Option<&Self>) -> Self {
        if lease.unreadable.is_some() {
            return Self::unreadable(&lease.into(), before);
        }
        let lease = &Lease::from(lease);
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

    /// One that cannot be read: it is there, and says nothing.
    fn unreadable(lease: &Lease, before: Option<&Self>) -> Self {
        let resource_version = lease.metadata.resource_version.clone().unwrap_or_default();
        let session = Session {
            pod_uid: lease::owners(lease)
                .iter()
                .find(|owner| lease::is_pod(owner))
                .map(|pod| pod.uid.clone())
                .unwrap_or_default(),
            claim: Claim::Unreadable,
            boot: 0,
            renewed_at: None,
            acquired_at: None,
            duration: Duration::ZERO,
            resource_version: resource_version.clone(),
        };
        Self {
            uid: lease.metadata.uid.clone().unwrap_or_default(),
            resource_version,
            session: Some(session),
            profile: before.and_then(|before| before.profile),
            info: AgentInfo::default(),
            reports: BTreeMap::new(),
            inboxes: BTreeMap::new(),
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
    pub(super) fn read(name: String, lease: LeaseView, before: Option<&Self>) -> Option<Self> {
        if lease.unreadable.is_some() {
            return Some(Self::unreadable(name, &lease.into(), before));
        }
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
            is_unreadable: false,
            settings: annotation(names::ANNOTATION_CONFIG).unwrap_or_default(),
            acquired_at: lease.spec.as_ref().and_then(|spec| spec.acquire_time.as_ref()).map(|time| time.0),
            forced_at: annotation(names::ANNOTATION_FORCED_AT).and_then(|at| at.parse().ok()),
            is_handed_over: is_other && annotation(names::ANNOTATION_STOPPED_AT).is_some(),
            from,
        };
        Some(Self { set_uid: set.map(|owner| owner.uid.clone()).unwrap_or_default(), seen })
    }

    /// One that cannot be read: it is there, and whose it is remains as it was. Where that was never known it is its Pod's, of
    /// whichever boot.
    fn unreadable(name: String, lease: &Lease, before: Option<&Self>) -> Self {
        let (uid, resource_version) = (lease.metadata.uid.clone(), lease.metadata.resource_version.clone());
        let (uid, resource_version) = (uid.unwrap_or_default(), resource_version.unwrap_or_default());
        if let Some(before) = before.filter(|before| before.seen.ownership.uid == uid) {
            let mut after = before.clone();
            after.seen.is_unreadable = true;
            after.seen.ownership.resource_version = resource_version;
            return after;
        }
        let of_pod = lease::owners(lease).iter().find(|owner| lease::is_pod(owner));
        let of_pod = of_pod.map(|pod| (pod.name.clone(), pod.uid.clone()));
        let holder = of_pod.map(|(pod, uid)| Holder { pod, uid, boot: 0, random: String::new() });
        let ownership = Ownership { holder, epoch: 0, uid, resource_version, state: None, config_hash: String::new() };
        let seen = OwnershipSeen {
            lease: name,
            ownership,
            is_unreadable: true,
            settings: String::new(),
            acquired_at: None,
            forced_at: None,
            from: None,
            is_handed_over: false,
            named: Named::No,
        };
        Self { set_uid: lease::controlling_set(lease).map(|set| set.uid.clone()).unwrap_or_default(), seen }
    }
}
