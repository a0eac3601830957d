//! R4, R5, R9, R13, R17: which revision a slot gets, how many Pods it has, what is told.
use std::collections::{BTreeMap, BTreeSet};

use baton::{
    api::{ConditionStatus, ConditionType, Rollout, RolloutStatus, names::LABEL_REVISION},
    snapshot::Pod,
};
use tokio::time::Instant;

use super::{bounds::Glass, story::Story};
use crate::fake_apiserver::object::Object;

/// ControllerRevisions of a Rollout, by name, over all its life.
#[derive(Clone, Default)]
pub struct Revisions {
    /// There was one.
    made: BTreeSet<String>,
    /// There was one that a user deleted; and when it was made again.
    deleted: BTreeMap<String, Option<Instant>>,
}

impl Revisions {
    /// One was made, changed, or deleted by ours or by a user.
    pub fn written(&mut self, name: String, is_gone: bool, is_ours: bool) {
        if !is_gone {
            self.made.insert(name.clone());
            self.deleted.entry(name).and_modify(|again| *again = again.or_else(|| Some(Instant::now())));
        } else if !is_ours {
            self.deleted.insert(name, None);
        }
    }

    /// Whether somebody may still see that it is deleted.
    fn is_missing(&self, name: &str, glass: Glass) -> bool {
        self.deleted.get(name).is_some_and(|again| again.is_none_or(|again| again.elapsed() <= glass.age))
    }
}

/// R4, R5: a Pod is made at the revision that its slot is assigned by a status that its maker may have seen; where
/// somebody has deleted that one, at what is worked towards.
pub fn is_assigned(story: &Story, object: &Object, revisions: &Revisions, glass: Glass) -> Result<(), String> {
    let Some(pod) = super::story::pod(object) else { return Err(format!("{} is of no slot", object.name())) };
    if !revisions.made.contains(&pod.revision) {
        return Err(format!("{}: there was never a revision {}", pod.name, pod.revision));
    }
    let mut statuses = story.versions_seen(glass.age).filter_map(|rollout| rollout.status.as_ref());
    let is_of = |revision: Option<&str>| revision == Some(pod.revision.as_str());
    let is_assigned = |status: &RolloutStatus| {
        let assigned = assigned(status, pod.slot);
        let is_deleted = assigned.is_some_and(|assigned| revisions.is_missing(assigned, glass));
        is_of(assigned) || (is_deleted && is_of(status.effective_revision.as_deref()))
    };
    if statuses.any(is_assigned) {
        return Ok(());
    }
    let status = story.rollout().and_then(|rollout| rollout.status.clone()).unwrap_or_default();
    let wanted = assigned(&status, pod.slot).unwrap_or("none");
    Err(format!("{} of {} {LABEL_REVISION}={}; its slot is assigned {wanted}", pod.name, pod.slot, pod.revision))
}

/// Opened slots are assigned what is worked towards, the others what was there before.
fn assigned(status: &RolloutStatus, slot: i32) -> Option<&str> {
    let effective = status.effective_revision.as_deref();
    match (&status.batch, &status.current_revision) {
        (Some(batch), Some(stable)) if slot >= batch.opened => Some(stable),
        _ => effective,
    }
}

/// R9: beside its predecessor a Pod is alone in its slot.
pub fn is_alone(story: &Story, object: &Object) -> Result<(), String> {
    let Some(pod) = super::story::pod(object) else { return Ok(()) };
    let is_counted = |other: &&std::sync::Arc<Pod>| other.is_live() && !story.strays.contains(&other.uid);
    let live = story.now().pods.values().filter(|other| other.slot == pod.slot).filter(is_counted).count();
    if live <= 2 { Ok(()) } else { Err(format!("slot {} has {live} live Pods with {}", pod.slot, pod.name)) }
}

impl Story {
    /// R17: nothing is made for a Rollout that goes.
    pub fn is_wanted(&self, glass: Glass) -> Result<(), String> {
        match self.deleted_at.filter(|at| at.elapsed() > glass.age) {
            None => Ok(()),
            Some(at) => Err(format!("a Pod is made for {}, deleted {} s ago", self.name, at.elapsed().as_secs())),
        }
    }

    /// R13: Complete means that every instance was observed at its target and available.
    pub fn completeness(&self, rollout: &Rollout, glass: Glass) -> Result<(), String> {
        let status = rollout.status.clone().unwrap_or_default();
        let is_complete = |condition: &baton::api::Condition| {
            condition.type_ == ConditionType::Ready && condition.status == ConditionStatus::True
        };
        if !status.conditions.iter().any(is_complete) || status.observed_generation != rollout.metadata.generation {
            return Ok(());
        }
        let replicas = rollout.spec.replicas;
        let is_there = |moment: &super::story::Moment| {
            let at_target = moment.pods.values().filter(|pod| {
                Some(&pod.revision) == status.effective_revision.as_ref()
                    && super::bounds::is_available(pod, rollout, glass)
            });
            let slots: BTreeSet<i32> = at_target.map(|pod| pod.slot).filter(|slot| *slot < replicas).collect();
            slots.len() as i32 == replicas
        };
        if self.moments_seen(glass.age).any(is_there) {
            return Ok(());
        }
        Err(format!("{} is told to be complete, and at no time of late were all {replicas} instances so", self.name))
    }
}
