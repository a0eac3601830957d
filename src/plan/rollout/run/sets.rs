//! Strategy BlueGreen: a whole second set of Pods beside the one that clients use, and one switch of a Service.
//!
//! | set | of which revision | in |
//! |---|---|---|
//! | assigned | what slots are assigned, as with any strategy | [`Slot::live`] |
//! | kept | the one in use, while that is another; after a switch the one before, for scaleDownDelaySeconds | [`Slot::kept`] |
//! | others | all else: a preview that was superseded or given up; an old set whose time is over, or in whose time a third version came | [`Slot::others`] |
//!
//! Which set is in use, the Service says: its selector is read. If the key was taken away, status says it.
//!
//! [`Slot::live`]: super::slots::Slot::live
//! [`Slot::kept`]: super::slots::Slot::kept
//! [`Slot::others`]: super::slots::Slot::others
use std::collections::BTreeMap;

use jiff::Timestamp;

use super::revisions::Lineage;
use crate::{
    plan::rollout::{policy::Policy, time::after},
    snapshot::{Pod, Revision, Service, Snapshot, Switched},
};

/// Which sets of Pods there should be.
#[derive(Clone, Copy, Debug)]
pub struct Sets<'a> {
    /// Revision that slots are assigned.
    pub target: Option<&'a str>,
    /// Revision that clients get: as the Service says, else as status has told last, else what most available Pods run.
    pub active: Option<&'a str>,
    /// Revision of the set that stays beside the assigned one.
    pub kept: Option<&'a str>,
    /// Revision that clients used before the last switch, and until when its Pods stay, whether they are kept or not.
    pub before: Option<(&'a str, Timestamp)>,
    /// What the Service selects. None: not known, or Pods of any revision.
    pub selected: Option<&'a str>,
    /// The same, or as status has told it last.
    pub told: Option<&'a str>,
}

impl<'a> Sets<'a> {
    /// None with another strategy.
    pub(crate) fn of(snapshot: &'a Snapshot, lineage: &Lineage<'a>, assigned: Option<&'a str>) -> Option<Self> {
        let delay_seconds = Policy::of(&snapshot.rollout.spec).switched()?.scale_down_delay_seconds;
        let name = |revision: Option<&'a Revision>| revision.map(|revision| revision.name.as_str());
        let target = assigned.or(name(lineage.effective));
        let service = snapshot.services.active.seen();
        // Also one whose ControllerRevision was deleted: clients use its Pods.
        let exists = |name: &&str| {
            snapshot.revisions.iter().any(|revision| revision.name == *name && !revision.deleting)
                || snapshot.pods.iter().any(|pod| pod.revision == *name && pod.is_live())
        };
        let selected = service.and_then(Service::revision).filter(exists);
        let status = snapshot.rollout.status.as_ref();
        let told = selected.or_else(|| status?.active_revision.as_deref().filter(exists));
        let stable = name(lineage.stable);
        let most_available = || (!lineage.is_first()).then(|| most_available(snapshot, stable)).flatten();
        let active = told.or_else(most_available).or(stable);
        let before = service.and_then(|service| service.switched.as_ref()).and_then(|Switched { from, at }| {
            // Until a breach can be taken back by one switch no more.
            let soak = snapshot.rollout.spec.soak.as_ref().filter(|_| stable != target);
            let soak_seconds = soak.map_or(0, |soak| i64::from(soak.seconds));
            let told = status.and_then(|status| status.soak.as_ref()?.until.as_ref()).filter(|_| soak.is_some());
            let until = after(*at, i64::from(delay_seconds).max(soak_seconds));
            let until = told.map_or(until, |told| until.max(told.0));
            let stays = until > snapshot.now && Some(from.as_str()) != selected && exists(&from.as_str());
            stays.then_some((from.as_str(), until))
        });
        let mut used = [active, before.map(|(before, _)| before)].into_iter().flatten();
        Some(Self { target, active, kept: used.find(|used| Some(*used) != target), before, selected, told })
    }

    /// Whether clients may use Pods of this revision.
    pub fn is_in_use(&self, revision: &str) -> bool {
        self.selected.is_none_or(|selected| selected == revision)
    }

    /// The Service selects the assigned set.
    pub fn is_switched(&self) -> bool {
        self.selected.is_some() && self.selected == self.target
    }
}

/// The revision with the most available Pods: selecting it takes least from clients, if the Service selects none and status has
/// forgotten which it was. In doubt it is the stable one, unless that was deleted. None while the Service is not known, if the
/// stable revision has Pods: then that is used.
fn most_available<'a>(snapshot: &'a Snapshot, stable: Option<&str>) -> Option<&'a str> {
    let is_stable = |pod: &Pod| Some(pod.revision.as_str()) == stable;
    if snapshot.services.active.seen().is_none() && snapshot.pods.iter().any(|pod| pod.is_live() && is_stable(pod)) {
        return None;
    }
    let min_ready_seconds = snapshot.rollout.spec.min_ready_seconds;
    let mut available: BTreeMap<&str, usize> = BTreeMap::new();
    for pod in snapshot.pods.iter().filter(|pod| pod.is_available(min_ready_seconds, snapshot.now)) {
        *available.entry(&pod.revision).or_default() += 1;
    }
    available
        .into_iter()
        .max_by_key(|(revision, pods)| (*pods, Some(*revision) == stable))
        .map(|(revision, _)| revision)
}
