//! Pins: which slots are to run a revision of their own (`spec.pins`).
use serde_json::Value;

use crate::{
    api::{bounds::PINS_MAX, names::instance_name, rollout::Pin},
    plan::{revision, rollout::policy::Policy},
    snapshot::{Ranges, Revision, Snapshot},
};

/// `spec.pins`, read.
pub(crate) struct Pins<'a> {
    all: Vec<(&'a Pin, Target<'a>)>,
    /// Of each slot below replicas, its pin; empty where there is none at all.
    by_slot: Vec<Option<usize>>,
}

/// What a pin comes to.
pub(crate) enum Target<'a> {
    /// This revision.
    Is(&'a Revision),
    /// A revision with this data: its ControllerRevision is made first.
    Due(Value),
    /// Nothing, for this reason. Its slots keep what they run.
    Invalid(String),
}

impl<'a> Pins<'a> {
    pub fn of(snapshot: &'a Snapshot) -> Self {
        let spec = &snapshot.rollout.spec;
        let all: Vec<_> = spec.pins.iter().take(PINS_MAX).map(|pin| (pin, target(snapshot, pin))).collect();
        let replicas = if all.is_empty() { 0 } else { Policy::of(spec).replicas };
        let mut by_slot = vec![None; usize::try_from(replicas).unwrap_or(0)];
        for (number, (pin, _)) in all.iter().enumerate() {
            for (first, last) in Ranges::intervals(&pin.instances) {
                let (first, end) = (first.min(replicas) as usize, (last + 1).min(replicas) as usize);
                by_slot[first..end].iter_mut().for_each(|slot| *slot = slot.or(Some(number)));
            }
        }
        Self { all, by_slot }
    }

    /// The pin that counts for this slot, if one does, and what it comes to.
    pub fn get(&self, slot: i32) -> Option<(&'a Pin, &Target<'a>)> {
        let number = (*self.by_slot.get(usize::try_from(slot).ok()?)?)?;
        self.all.get(number).map(|(pin, target)| (*pin, target))
    }

    /// Slots below replicas that are pinned.
    pub fn slots(&self) -> Ranges {
        (0..).zip(&self.by_slot).filter(|(_, pin)| pin.is_some()).map(|(slot, _)| slot).collect()
    }

    /// Data of the revisions that are to be made, each with the pin that asks for it first.
    pub fn due(&self) -> impl Iterator<Item = (&'a Pin, &Value)> {
        let due = |at: usize| if let Target::Due(data) = &self.all[at].1 { Some(data) } else { None };
        (0..self.all.len()).filter_map(move |at| {
            let data = due(at).filter(|data| !(0..at).any(|earlier| due(earlier) == Some(*data)))?;
            Some((self.all[at].0, data))
        })
    }

    /// Names of the revisions that a pin names or comes to: they are kept.
    pub fn revisions(&self) -> impl Iterator<Item = &str> {
        self.all.iter().flat_map(|(pin, target)| {
            let is = if let Target::Is(revision) = target { Some(revision.name.as_str()) } else { None };
            [pin.revision.as_deref(), pin.base.as_deref(), is].into_iter().flatten()
        })
    }

    /// What is wrong with pins: a word and a sentence for each.
    pub fn problems(&self, snapshot: &Snapshot) -> Vec<(&'static str, String)> {
        let name = snapshot.rollout.metadata.name.as_deref().unwrap_or_default();
        let replicas = Policy::of(&snapshot.rollout.spec).replicas;
        let mut found = Vec::new();
        for (number, (pin, target)) in self.all.iter().enumerate() {
            if let Target::Invalid(why) = target {
                let instances = &pin.instances;
                found.push((
                    "PinInvalid",
                    format!("spec.pins[{number}]: {why}; instances {instances} keep what they run"),
                ));
            }
            let beyond = Ranges::intervals(&pin.instances).into_iter().find(|(_, last)| *last >= replicas);
            if let Some((first, _)) = beyond {
                let gone = instance_name(name, first.max(replicas));
                found.push((
                    "PinnedSlotGone",
                    format!(
                        "spec.pins[{number}] names {gone}, beyond spec.replicas: it counts again once there is one"
                    ),
                ));
            }
        }
        found
    }
}

fn target<'a>(snapshot: &'a Snapshot, pin: &Pin) -> Target<'a> {
    let usable = || snapshot.revisions.iter().filter(|revision| !revision.deleting);
    let named = |name: &str| usable().find(|revision| revision.name == name);
    let unknown = |name: &str| Target::Invalid(format!("there is no ControllerRevision {name} of this Rollout"));
    if Ranges::intervals(&pin.instances).is_empty() {
        return Target::Invalid(format!("{:?} names no instance", pin.instances));
    }
    match (&pin.revision, &pin.base) {
        (Some(name), None) => named(name).map_or_else(|| unknown(name), Target::Is),
        (None, Some(name)) => {
            let Some(base) = named(name) else { return unknown(name) };
            match revision::differing(&base.data, pin) {
                Ok(data) => {
                    let known = usable().filter(|revision| revision.data == data);
                    known.max_by_key(|revision| (revision.number, &revision.name)).map_or(Target::Due(data), Target::Is)
                }
                Err(why) => Target::Invalid(format!("images of {name}: {why}")),
            }
        }
        _ => Target::Invalid("exactly one of revision and base must be there".to_owned()),
    }
}
