//! The Leases of the hand-off, and for how long each session has shown no sign of life.
//!
//! Time is that of the operator's own clock, given with each event: no clock is compared with another. A session
//! that was deleted, or that an ownership names and no watch has ever shown, is kept as missing from when that was first
//! seen, as long as an ownership names its Pod.
mod past;
mod read;
mod seen;
pub(super) mod touch;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kube::{Resource, ResourceExt};

use self::{
    past::Past,
    read::{Owned, SessionLease},
    seen::Seen,
    touch::Touch,
};
use super::{
    event::{Event, ObjectKey, Scope},
    shelf::{Progress, in_namespace},
};
use crate::{
    api::names,
    snapshot::{
        lease::{Session, Watched},
        listener_set::{OwnershipSeen, SessionSeen},
        report::{AgentInfo, Report},
        wire::LeaseView,
    },
};

/// Sessions and ownerships.
#[derive(Clone, Debug, Default)]
pub(super) struct Leases {
    /// By namespace and name of the Pod.
    sessions: BTreeMap<ObjectKey, Seen>,
    /// By ListenerSet, then by listener.
    ownerships: BTreeMap<ObjectKey, BTreeMap<String, Owned>>,
    /// Pods that ownerships name, with the number of ownerships of each ListenerSet (by name).
    named: BTreeMap<ObjectKey, BTreeMap<String, usize>>,
    past: Past,
    progress: Progress,
}

/// What a Lease is, by its name.
enum Place {
    /// The session of this Pod.
    Session(ObjectKey),
    /// The ownership of a listener of this ListenerSet.
    Ownership(ObjectKey, String),
}

impl Place {
    fn of(key: &ObjectKey) -> Option<Self> {
        let beside = |name: &str| ObjectKey { namespace: key.namespace.clone(), name: name.to_owned() };
        if let Some(pod) = key.name.strip_prefix("session.") {
            return Some(Self::Session(beside(pod)));
        }
        let (set, listener) = key.name.strip_prefix("listener.")?.split_once('.')?;
        Some(Self::Ownership(beside(set), listener.to_owned()))
    }

    /// Value of [`names::LABEL_LEASE`].
    fn label(&self) -> &'static str {
        match self {
            Self::Session(_) => names::LEASE_SESSION,
            Self::Ownership(..) => names::LEASE_LISTENER,
        }
    }
}

impl Leases {
    /// Takes an event that came at `now`.
    pub(super) fn take(&mut self, scope: &Scope, event: Event<LeaseView>, now: Duration) -> Touch {
        let mut touch = Touch::default();
        match event {
            Event::Listed { objects, resource_version } => {
                let mut gone = self.keys_in(scope);
                // An ownership whose holder's session has not been put yet would count as one whose session is missing.
                let (sessions, others): (Vec<_>, Vec<_>) = objects
                    .into_iter()
                    .partition(|lease| matches!(Place::of(&ObjectKey::of(lease)), Some(Place::Session(_))));
                for lease in sessions.into_iter().chain(others) {
                    gone.remove(&ObjectKey::of(&lease));
                    self.put(lease, now, &mut touch);
                }
                for key in gone {
                    self.remove(&key, now, &mut touch);
                }
                self.past.listed(scope, now);
                self.progress.listed(scope, resource_version);
            }
            Event::Applied(lease) => {
                self.progress.advance(scope, lease.resource_version());
                self.put(lease, now, &mut touch);
            }
            Event::Deleted(lease) => {
                self.progress.advance(scope, lease.resource_version());
                self.remove(&ObjectKey::of(&lease), now, &mut touch);
            }
            Event::Progressed(resource_version) => self.progress.advance(scope, Some(resource_version)),
        }
        touch
    }

    fn put(&mut self, lease: LeaseView, now: Duration, touch: &mut Touch) {
        let key = ObjectKey::of(&lease);
        // Only what has the label is watched; one that cannot be read may have lost it here alone.
        let place = Place::of(&key).filter(|place| {
            lease.unreadable.is_some()
                || lease.meta().labels.as_ref().and_then(|labels| labels.get(names::LABEL_LEASE)).map(String::as_str)
                    == Some(place.label())
        });
        match place {
            Some(Place::Session(pod)) => {
                let before = self.sessions.get(&pod).and_then(|seen| seen.lease.as_ref());
                let lease = SessionLease::read(lease, before);
                self.put_session(&pod, Some(lease), now, touch);
            }
            Some(Place::Ownership(set, listener)) => {
                let before = self.ownerships.get(&set).and_then(|owned| owned.get(&listener));
                let new = Owned::read(key.name, lease, before);
                self.put_ownership(&set, listener, new, now, touch);
            }
            None => self.remove(&key, now, touch),
        }
    }

    fn remove(&mut self, key: &ObjectKey, now: Duration, touch: &mut Touch) {
        match Place::of(key) {
            Some(Place::Session(pod)) => self.put_session(&pod, None, now, touch),
            Some(Place::Ownership(set, listener)) => self.put_ownership(&set, listener, None, now, touch),
            None => {}
        }
    }

    fn put_session(&mut self, pod: &ObjectKey, lease: Option<SessionLease>, now: Duration, touch: &mut Touch) {
        let before = self.sessions.remove(pod);
        let after = match &before {
            Some(before) => before.followed_by(lease, now),
            None => Seen::new(lease, now),
        };
        after.touch(before.as_ref(), pod, now, touch);
        match &after.lease {
            Some(lease) => {
                let holds = |set: &str| self.named.get(pod).is_some_and(|by_set| by_set.contains_key(set));
                self.past.let_go(pod, |set, uid| {
                    let told = lease.reports.get(set).map(|told| &told.value);
                    told.is_some_and(|told| told.set != uid || told.count == 0) && !holds(set)
                });
            }
            None if !self.named.contains_key(pod) => self.past.forget(pod),
            None => {}
        }
        if after.lease.is_some() || self.named.contains_key(pod) {
            self.sessions.insert(pod.clone(), after);
        }
    }

    fn put_ownership(
        &mut self,
        set: &ObjectKey,
        listener: String,
        new: Option<Owned>,
        now: Duration,
        touch: &mut Touch,
    ) {
        let of_set = self.ownerships.entry(set.clone()).or_default();
        if of_set.get(&listener) == new.as_ref() {
            if of_set.is_empty() {
                self.ownerships.remove(set);
            }
            return;
        }
        let holder = |owned: Option<&Owned>| {
            let holder = owned?.seen.ownership.holder.as_ref()?;
            Some(ObjectKey { namespace: set.namespace.clone(), name: holder.pod.clone() })
        };
        touch.sets.insert(set.clone());
        let to = holder(new.as_ref());
        let set_uid = new.as_ref().map(|new| new.set_uid.clone());
        let old = match new {
            Some(new) => of_set.insert(listener, new),
            None => of_set.remove(&listener),
        };
        if of_set.is_empty() {
            self.ownerships.remove(set);
        }
        let from = holder(old.as_ref());
        if from == to && old.as_ref().map(|old| &old.set_uid) == set_uid.as_ref() {
            return;
        }
        if let Some(old) = &old {
            self.past.changed(set, &old.set_uid, now);
        }
        if let (Some(to), Some(uid)) = (&to, &set_uid) {
            self.past.holds(to, &set.name, uid);
        }
        if from == to {
            return;
        }
        touch.holders.extend(from.iter().chain(&to).cloned());
        // The new holder first: where both are the same Pod's sessions nothing is forgotten in between.
        if let Some(to) = to {
            *self.named.entry(to.clone()).or_default().entry(set.name.clone()).or_default() += 1;
            self.sessions.entry(to).or_insert_with(|| Seen::missing(now));
        }
        if let Some(from) = from {
            self.unname(&from, &set.name);
        }
    }

    /// One ownership of this set less names the Pod.
    fn unname(&mut self, pod: &ObjectKey, set: &str) {
        let Some(by_set) = self.named.get_mut(pod) else { return };
        if let Some(count) = by_set.get_mut(set) {
            *count -= 1;
            if *count == 0 {
                by_set.remove(set);
            }
        }
        if by_set.is_empty() {
            self.named.remove(pod);
            if self.sessions.get(pod).is_some_and(|seen| seen.lease.is_none()) {
                self.sessions.remove(pod);
                self.past.forget(pod);
            }
        }
    }

    fn keys_in(&self, scope: &Scope) -> BTreeSet<ObjectKey> {
        let name = |beside: &ObjectKey, name: String| ObjectKey { namespace: beside.namespace.clone(), name };
        let sessions = self.sessions.iter().filter(|(_, seen)| seen.lease.is_some());
        let sessions = sessions.map(|(pod, _)| name(pod, format!("session.{}", pod.name)));
        let ownerships = self.ownerships.iter().flat_map(|(set, owned)| {
            owned.keys().map(move |listener| name(set, names::listener_lease_name(&set.name, listener)))
        });
        let all = sessions.chain(ownerships);
        all.filter(|key| scope.as_ref().is_none_or(|namespace| key.namespace == *namespace)).collect()
    }

    /// How far the watch that covers `namespace` has told; None before its first list.
    pub(super) fn progress(&self, namespace: &str) -> Option<&str> {
        self.progress.of(namespace)
    }

    /// uid and resourceVersion of a Lease.
    pub(super) fn version(&self, key: &ObjectKey) -> Option<(&str, &str)> {
        match Place::of(key)? {
            Place::Session(pod) => {
                let lease = self.sessions.get(&pod)?.lease.as_ref()?;
                Some((&lease.uid, &lease.resource_version))
            }
            Place::Ownership(set, listener) => {
                let ownership = &self.ownerships.get(&set)?.get(&listener)?.seen.ownership;
                Some((&ownership.uid, &ownership.resource_version))
            }
        }
    }

    /// The ownerships of the ListenerSet with this uid that can be read, by listener.
    pub(super) fn ownerships(&self, set: &ObjectKey, uid: &str) -> BTreeMap<String, OwnershipSeen> {
        let is_one = |owned: &Owned| owned.set_uid == uid && !owned.seen.is_unreadable;
        let owned = self.ownerships.get(set).into_iter().flatten().filter(|(_, owned)| is_one(owned));
        owned.map(|(listener, owned)| (listener.clone(), owned.seen.clone())).collect()
    }

    /// Names of Leases that cannot be read, of ownerships of the ListenerSet with this uid, or of one that is not known.
    pub(super) fn unreadable(&self, set: &ObjectKey, uid: &str) -> BTreeSet<String> {
        let owned = self.ownerships.get(set).into_iter().flat_map(BTreeMap::values);
        let unreadable = owned.filter(|owned| owned.seen.is_unreadable && [uid, ""].contains(&owned.set_uid.as_str()));
        unreadable.map(|owned| owned.seen.lease.clone()).collect()
    }

    /// ListenerSets, by namespace and name, of which there are ownerships: also those that exist no more.
    pub(super) fn sets(&self) -> impl Iterator<Item = &ObjectKey> {
        self.ownerships.keys()
    }

    /// The ownerships of this name that are of any other ListenerSet than the one with this uid.
    pub(super) fn left_by_others(&self, set: &ObjectKey, uid: &str) -> impl Iterator<Item = &OwnershipSeen> {
        let owned = self.ownerships.get(set).into_iter().flatten();
        let is_readable = |owned: &Owned| !owned.seen.is_unreadable;
        let owned = owned.filter(move |(_, owned)| is_readable(owned));
        owned.filter(move |(_, owned)| uid.is_empty() || owned.set_uid != uid).map(|(_, owned)| &owned.seen)
    }

    /// The same, without a copy.
    pub(super) fn owned<'a>(
        &'a self,
        set: &ObjectKey,
        uid: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a OwnershipSeen)> {
        let owned = self.ownerships.get(set).into_iter().flatten().filter(move |(_, owned)| owned.set_uid == uid);
        owned.map(|(listener, owned)| (listener.as_str(), &owned.seen))
    }

    /// The session of a Pod, as it stands.
    pub(super) fn claimed(&self, pod: &ObjectKey) -> Option<&Session> {
        self.sessions.get(pod)?.lease.as_ref()?.session.as_ref()
    }

    /// What the agent of a Pod tells of itself and of this ListenerSet.
    pub(super) fn told(&self, pod: &ObjectKey, set: &str, set_uid: &str) -> Option<(&AgentInfo, Option<&Report>)> {
        let lease = self.sessions.get(pod)?.lease.as_ref()?;
        let report = lease.reports.get(set).map(|told| &*told.value).filter(|report| report.set == set_uid);
        Some((&lease.info, report))
    }

    /// Names of the ListenerSets of which an ownership names this Pod.
    pub(super) fn sets_held_by(&self, pod: &ObjectKey) -> impl Iterator<Item = &String> {
        self.named.get(pod).into_iter().flat_map(BTreeMap::keys)
    }

    /// Pods whose sessions tell of a ListenerSet of this name, or are told of it.
    pub(super) fn speaking_of<'a>(&'a self, set: &'a ObjectKey) -> impl Iterator<Item = &'a ObjectKey> {
        self.sessions_where(&set.namespace, move |lease| {
            lease.reports.contains_key(&set.name) || lease.inboxes.contains_key(&set.name)
        })
    }

    fn sessions_where<'a>(
        &'a self,
        namespace: &str,
        is_one: impl Fn(&SessionLease) -> bool + 'a,
    ) -> impl Iterator<Item = &'a ObjectKey> {
        let sessions = in_namespace(&self.sessions, namespace);
        sessions.filter(move |(_, seen)| seen.lease.as_ref().is_some_and(&is_one)).map(|(pod, _)| pod)
    }

    /// Pods that tell of listeners of another ListenerSet of this name than the one with this uid.
    pub(super) fn holding_of_earlier<'a>(
        &'a self,
        set: &'a ObjectKey,
        uid: &'a str,
    ) -> impl Iterator<Item = &'a ObjectKey> {
        self.sessions_where(&set.namespace, move |lease| holds_of_earlier(lease, &set.name, uid).is_some())
    }

    /// The session of a Pod as this ListenerSet sees it at `now`. None where there is none, and none is missed.
    pub(super) fn session(&self, pod: &ObjectKey, set: &str, set_uid: &str, now: Duration) -> Option<SessionSeen> {
        let seen = self.sessions.get(pod)?;
        let watched = Watched {
            session: seen.lease.as_ref().and_then(|lease| lease.session.clone()),
            silent_for: now.saturating_sub(seen.changed_at),
            claimed_for: now.saturating_sub(seen.claimed_at),
            of_pod_for: now.saturating_sub(seen.of_pod_since),
            fenced: seen.fenced.clone(),
            duration: seen.duration(now),
        };
        let lease = seen.lease.as_ref();
        let report = lease.and_then(|lease| lease.reports.get(set)).filter(|told| told.value.set == set_uid);
        let inbox = lease.and_then(|lease| lease.inboxes.get(set));
        Some(SessionSeen {
            lease: names::session_lease_name(&pod.name).unwrap_or_default(),
            uid: lease.map(|lease| lease.uid.clone()).unwrap_or_default(),
            watched,
            profile: lease.and_then(|lease| lease.profile),
            info: lease.map(|lease| lease.info.clone()).unwrap_or_default(),
            report: report.map(|told| (*told.value).clone()),
            holds_of_earlier_set: lease.and_then(|lease| holds_of_earlier(lease, set, set_uid)).is_some_and(|report| {
                // An agent may write anything into a report.
                self.past.may_run(pod, set, &report.set, now)
            }),
            inbox: inbox.map(|told| (*told.value).clone()).unwrap_or_default(),
            other_profiles: Vec::new(),
        })
    }
}

/// What tells of listeners of another set of this name than the one with this uid.
fn holds_of_earlier<'a>(lease: &'a SessionLease, set: &str, uid: &str) -> Option<&'a Report> {
    let told = lease.reports.get(set).map(|told| &*told.value);
    told.filter(|report| report.set != uid && report.count > 0)
}

#[cfg(test)]
impl Leases {
    /// Everything but the times, for comparison.
    pub(super) fn content(&self) -> impl PartialEq + std::fmt::Debug {
        let sessions: Vec<_> = self.sessions.iter().map(|(pod, seen)| (pod.clone(), seen.lease.clone())).collect();
        (sessions, self.ownerships.clone(), self.named.clone())
    }
}
