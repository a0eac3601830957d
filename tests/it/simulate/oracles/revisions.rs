//! R4, R5, R9, R13, R17: which revision a slot gets, how many Pods it has, what is told.
use std::collections::{BTreeMap, BTreeSet};

use baton::{
    api::{
        ConditionStatus, ConditionType, Rollout, RolloutSpec, RolloutStatus,
        names::LABEL_REVISION,
        rollout::{OnFailure, Pin},
    },
    plan::rollout::back,
    snapshot::{Pod, Ranges},
};
use tokio::time::Instant;

use super::{Docket, bounds::Glass, story::Story};
use crate::fake_apiserver::object::Object;

impl Docket {
    /// What status calls stable is never cleared away: there would be nothing to go back to.
    pub(super) fn judge_cleaning(&self, owner: &str, name: &str) {
        let Some(story) = self.stories.get(owner) else { return };
        let mut statuses = story.versions_seen(self.age).map(|rollout| rollout.status.as_ref());
        let is_stable =
            |status: Option<&RolloutStatus>| status.and_then(|status| status.current_revision.as_deref()) == Some(name);
        if statuses.all(is_stable) {
            self.accuse("R5", format_args!("the stable revision {name} is deleted"));
        }
        let is_pinned = |rollout: &Rollout| {
            let named = rollout.spec.pins.iter().flat_map(|pin| pin.revision.iter().chain(&pin.base));
            named.into_iter().any(|named| named == name)
        };
        if story.versions_seen(self.age).all(|rollout| is_pinned(rollout)) {
            self.accuse("R5", format_args!("the pinned revision {name} is deleted"));
        }
    }
}

/// ControllerRevisions of a Rollout, by name, over all its life.
#[derive(Clone, Default)]
pub struct Revisions {
    /// There was one, since then.
    made: BTreeMap<String, Instant>,
    /// There was one that a user deleted; and when it was made again.
    deleted: BTreeMap<String, Option<Instant>>,
    /// There is none now: a user deleted it, or it was cleared away before a user named it.
    gone: BTreeSet<String>,
    /// A Service has selected it.
    used: BTreeSet<String>,
}

impl Revisions {
    /// One was made, changed, or deleted by ours or by a user.
    pub fn written(&mut self, name: String, is_gone: bool, is_ours: bool) {
        if is_gone {
            self.gone.insert(name.clone());
        } else {
            self.gone.remove(&name);
        }
        if !is_gone {
            self.made.entry(name.clone()).or_insert_with(Instant::now);
            self.deleted.entry(name).and_modify(|again| *again = again.or_else(|| Some(Instant::now())));
        } else if !is_ours {
            self.deleted.insert(name, None);
        }
    }

    /// A Service selects it.
    pub fn selected(&mut self, name: &str) {
        self.used.insert(name.to_owned());
    }

    /// Whether somebody may see that it names a revision that is not there.
    fn is_invalid(&self, pin: &Pin, glass: Glass) -> bool {
        let is_unseen = |name: &String| self.made.get(name).is_none_or(|made| made.elapsed() <= glass.age);
        let is_gone = |name: &String| is_unseen(name) || self.is_missing(name, glass) || self.gone.contains(name);
        pin.revision.iter().chain(&pin.base).any(is_gone)
    }

    /// Whether somebody may still see that it is deleted.
    fn is_missing(&self, name: &str, glass: Glass) -> bool {
        self.deleted.get(name).is_some_and(|again| again.is_none_or(|again| again.elapsed() <= glass.age))
    }
}

/// R4, R5: a Pod is made at the revision that its slot is assigned by a status that its maker may have seen; where
/// somebody has deleted that one, at what is worked towards.
/// `selected`: what Services select, now and when its maker asked for it.
pub fn is_assigned(
    story: &Story,
    object: &Object,
    revisions: &Revisions,
    selected: &[&BTreeMap<String, String>],
    glass: Glass,
) -> Result<(), String> {
    let Some(pod) = super::story::pod(object) else { return Err(format!("{} is of no slot", object.name())) };
    if !revisions.made.contains_key(&pod.revision) {
        return Err(format!("{}: there was never a revision {}", pod.name, pod.revision));
    }
    let is_of = |revision: Option<&str>| revision == Some(pod.revision.as_str());
    if revisions.used.contains(&pod.revision) {
        return Ok(()); // clients get it, or got it
    }
    let image = object["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
    let is_assigned = |rollout: &Rollout| {
        let Some(status) = rollout.status.as_ref() else { return false };
        if let Some(pin) = pin_of(rollout, pod.slot) {
            let others = [status.current_revision.as_deref(), status.target_revision.as_deref()];
            let may_be_invalid = revisions.is_invalid(pin, glass);
            return is_meant(pin, &pod.revision, image) || (may_be_invalid && others.into_iter().any(is_of));
        }
        // Until a Service says otherwise, clients are taken to use it: its set is kept whole.
        let service = rollout.spec.strategy.blue_green.as_ref().map(|settings| &settings.active_service);
        let is_any = service.is_some_and(|name| selected.iter().any(|selected| !selected.contains_key(name)));
        if is_any && is_of(status.current_revision.as_deref()) {
            return true;
        }
        let assigned = assigned(&rollout.spec, status, pod.slot);
        let is_deleted = assigned.is_some_and(|assigned| revisions.is_missing(assigned, glass));
        is_of(assigned) || (is_deleted && is_of(status.target_revision.as_deref()))
    };
    if story.versions_seen(glass.age).any(|rollout| is_assigned(rollout)) {
        return Ok(());
    }
    let rollout = story.rollout().map(|rollout| (**rollout).clone());
    let wanted = rollout.as_ref().and_then(|rollout| assigned(&rollout.spec, rollout.status.as_ref()?, pod.slot));
    let wanted = wanted.unwrap_or("none");
    Err(format!("{} of {} {LABEL_REVISION}={}; its slot is assigned {wanted}", pod.name, pod.slot, pod.revision))
}

/// The pin that counts for a slot.
fn pin_of(rollout: &Rollout, slot: i32) -> Option<&Pin> {
    rollout.spec.pins.iter().find(|pin| is_among(&pin.instances, slot))
}

/// Whether a Pod is what its pin asks for.
fn is_meant(pin: &Pin, revision: &str, image: &str) -> bool {
    match &pin.images {
        Some(images) => images.values().any(|wanted| wanted == image),
        None => pin.revision.as_deref() == Some(revision),
    }
}

fn is_among(ranges: &str, slot: i32) -> bool {
    Ranges::parse(ranges).0.contains(&slot)
}

/// Opened slots are assigned what is worked towards, the others what was there before.
fn assigned<'a>(spec: &RolloutSpec, status: &'a RolloutStatus, slot: i32) -> Option<&'a str> {
    let failed = status.failed.as_ref().filter(|failed| failed.at.is_some() && Some(failed.run) == status.run);
    if spec.strategy.on_failure == OnFailure::RollbackFailed
        && status.current_revision.is_some()
        && failed.is_some_and(|failed| back(failed).0.contains(&slot))
    {
        return status.current_revision.as_deref();
    }
    let effective = status.target_revision.as_deref();
    match (&status.batch, &status.current_revision) {
        // What is unpinned in mid-run joins later.
        (Some(batch), Some(stable)) if slot >= batch.opened || is_among(&batch.pinned, slot) => Some(stable),
        _ => effective,
    }
}

/// R9: beside its predecessor a Pod is alone in its slot.
pub fn is_alone(story: &Story, object: &Object, glass: Glass) -> Result<(), String> {
    let Some(pod) = super::story::pod(object) else { return Ok(()) };
    let is_counted = |other: &&std::sync::Arc<Pod>| other.is_live() && !story.strays.contains(&other.uid);
    let live = story.now().pods.values().filter(|other| other.slot == pod.slot).filter(is_counted).count();
    // With strategy BlueGreen beside the Pod of another set, too.
    let is_blue_green = story.versions_seen(glass.age).any(|rollout| rollout.spec.strategy.blue_green.is_some());
    if live <= 2 + usize::from(is_blue_green) {
        Ok(())
    } else {
        Err(format!("slot {} has {live} live Pods with {}", pod.slot, pod.name))
    }
}

impl Story {
    /// R17: nothing is made for a Rollout that goes.
    pub fn is_wanted(&self, glass: Glass) -> Result<(), String> {
        match self.deleted_at.filter(|at| at.elapsed() > glass.age) {
            None => Ok(()),
            Some(at) => Err(format!("a Pod is made for {}, deleted {} s ago", self.name, at.elapsed().as_secs())),
        }
    }

    /// R13: Complete means that every instance was observed at its target and available, and had reloaded that where it was to.
    pub fn completeness(
        &self,
        rollout: &Rollout,
        revisions: &Revisions,
        glass: Glass,
        has_reloaded: impl Fn(&Pod) -> bool,
    ) -> Result<(), String> {
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
                // What a pin by what differs comes to, its Pods do not say here.
                let is_right = match pin_of(rollout, pod.slot) {
                    Some(pin) => pin.base.is_some() || is_meant(pin, &pod.revision, ""),
                    None => Some(&pod.revision) == status.target_revision.as_ref(),
                };
                let is_unknown = || pin_of(rollout, pod.slot).is_some_and(|pin| revisions.is_invalid(pin, glass));
                (is_right || is_unknown()) && super::bounds::is_available(pod, rollout, glass) && has_reloaded(pod)
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
