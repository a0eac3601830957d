//! What the API server makes of the controller's changes.
use super::*;

impl World {
    /// One change, as the API server makes it; false where a precondition does not hold.
    pub fn write(&mut self, change: &SetChange) -> bool {
        self.writes += 1;
        let version = self.version();
        match change {
            SetChange::CreateSession { pod, pod_uid, profile } => {
                if self.sessions.contains_key(pod) {
                    return false;
                }
                let mut seen = missing(pod);
                seen.profile = Some(*profile);
                seen.watched.session = Some(Session {
                    pod_uid: pod_uid.clone(),
                    claim: Claim::Empty,
                    boot: 0,
                    renewed_at: None,
                    acquired_at: None,
                    duration: profile.times().expire,
                    resource_version: version,
                });
                seen.uid = format!("uid-session-{}", self.versions);
                self.sessions.insert(pod.clone(), seen);
                true
            }
            SetChange::SetProfile { lease, uid, profile } => {
                let found = self.sessions.values_mut().find(|seen| seen.lease == *lease && seen.uid == *uid);
                found.map(|seen| seen.profile = Some(*profile)).is_some()
            }
            SetChange::Fence { lease, uid, resource_version, holder, .. } => {
                let same = |seen: &&mut SessionSeen| {
                    let own = seen.watched.session.as_ref();
                    seen.lease == *lease
                        && seen.uid == *uid
                        && own.is_some_and(|own| own.resource_version == *resource_version)
                };
                let Some(seen) = self.sessions.values_mut().find(same) else { return false };
                let own = seen.watched.session.as_mut().unwrap();
                assert_eq!(own.claim, Claim::Held(holder.clone()));
                (own.claim, own.resource_version) = (Claim::Fenced(holder.clone()), version);
                true
            }
            SetChange::SetInbox { lease, uid, letters } => {
                assert!(letters.len() <= crate::api::bounds::INBOX_MAX);
                let found = self.sessions.values_mut().find(|seen| seen.lease == *lease && seen.uid == *uid);
                let Some(seen) = found else { return false };
                seen.inbox.clone_from(letters);
                seen.watched.session.as_mut().unwrap().resource_version = version;
                true
            }
            SetChange::CreateOwnership { listener, write, settings, config_hash } => {
                if self.leases.contains_key(listener) {
                    return false;
                }
                let before = self.epochs.insert(listener.clone(), write.epoch);
                assert!(before.is_none_or(|before| before < write.epoch), "{listener}: {before:?} {write:?}");
                let seen = OwnershipSeen {
                    lease: names::listener_lease_name("bots", listener),
                    ownership: Ownership {
                        holder: write.holder.clone(),
                        epoch: write.epoch,
                        uid: format!("uid-lease-{version}"),
                        resource_version: version,
                        state: None,
                        config_hash: config_hash.clone(),
                    },
                    is_unreadable: false,
                    settings: serde_json::to_string(settings).unwrap(),
                    acquired_at: Some(time(self.now)),
                    forced_at: None,
                    from: None,
                    is_handed_over: false,
                    named: Named::Fully,
                };
                self.leases.insert(listener.clone(), seen);
                true
            }
            SetChange::Assign { listener, uid, resource_version, write, .. } => {
                self.put(listener, uid, resource_version, write, version, Named::Fully)
            }
            SetChange::Configure { listener, uid, resource_version, settings, config_hash } => {
                let Some(seen) = self.lease(listener, uid, resource_version) else { return false };
                seen.settings = serde_json::to_string(settings).unwrap();
                seen.ownership.config_hash.clone_from(config_hash);
                seen.ownership.resource_version = version;
                true
            }
            SetChange::Mend { listener, uid, resource_version, write } => {
                self.mend(listener, uid, resource_version, write, version)
            }
            SetChange::Retire { listener, uid, resource_version } => {
                let floor = self.set.status.as_ref().map_or(0, |status| status.epoch_floor as u32);
                let Some(seen) = self.lease(listener, uid, resource_version) else { return false };
                assert!(seen.ownership.holder.is_none() && seen.ownership.epoch <= floor, "L2");
                self.leases.remove(listener);
                true
            }
            SetChange::KillPod { pod, uid, .. } => {
                let is_it = self.pods.get(pod).is_some_and(|known| known.seen.uid == *uid);
                is_it.then(|| self.delete_pod(pod)).is_some()
            }
        }
    }

    fn mend(&mut self, listener: &str, uid: &str, resource_version: &str, write: &Write, version: String) -> bool {
        let Some(seen) = self.lease(listener, uid, resource_version) else { return false };
        assert_eq!((&seen.ownership.holder, seen.ownership.epoch), (&write.holder, write.epoch));
        assert_ne!(seen.named, Named::Fully);
        (seen.named, seen.ownership.resource_version) = (Named::Fully, version);
        true
    }

    fn lease(&mut self, listener: &str, uid: &str, version: &str) -> Option<&mut OwnershipSeen> {
        let seen = self.leases.get_mut(listener)?;
        (seen.ownership.uid == uid && seen.ownership.resource_version == version).then_some(seen)
    }

    pub(super) fn put(
        &mut self,
        listener: &str,
        uid: &str,
        resource_version: &str,
        write: &Write,
        version: String,
        named: Named,
    ) -> bool {
        let now = self.now;
        let Some(seen) = self.lease(listener, uid, resource_version) else { return false };
        assert!(seen.ownership.epoch < write.epoch, "L2");
        seen.from = seen.ownership.holder.as_ref().map(ToString::to_string);
        (seen.ownership.holder, seen.ownership.epoch) = (write.holder.clone(), write.epoch);
        seen.ownership.resource_version = version;
        seen.acquired_at = Some(time(now));
        seen.named = named;
        self.epochs.insert(listener.to_owned(), write.epoch);
        true
    }
}
