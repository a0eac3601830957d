//! Pins: which slots are to run a revision of their own (`spec.pins`).
use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    batches::{self, Boundary},
    replicas,
};
use crate::{
    api::{
        bounds::PINS_MAX,
        names::instance_name,
        rollout::{Pin, Strategy},
    },
    plan::revision,
    snapshot::{Ranges, Revision, Snapshot},
};

/// `spec.pins`, read.
pub(super) struct Pins<'a> {
    all: Vec<(&'a Pin, Target<'a>)>,
    /// Of each pinned slot below replicas, its pin.
    by_slot: BTreeMap<i32, usize>,
}

/// What a pin comes to.
pub(super) enum Target<'a> {
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
        let mut by_slot = BTreeMap::new();
        for (number, (pin, _)) in all.iter().enumerate() {
            for slot in Ranges::parse(&pin.instances).0.range(..replicas(spec)) {
                by_slot.entry(*slot).or_insert(number);
            }
        }
        Self { all, by_slot }
    }

    /// What this slot is pinned to, if it is.
    pub fn target(&self, slot: i32) -> Option<&Target<'a>> {
        self.by_slot.get(&slot).map(|number| &self.all[*number].1)
    }

    /// The pin that counts for this slot, if one does.
    pub fn pin(&self, slot: i32) -> Option<&'a Pin> {
        self.by_slot.get(&slot).map(|number| self.all[*number].0)
    }

    /// Batches of the slots that are not pinned, in order.
    pub fn boundaries(&self, strategy: &Strategy, replicas: i32) -> Vec<Boundary> {
        if self.by_slot.is_empty() {
            return batches::boundaries(strategy, replicas);
        }
        let free: Vec<i32> = (0..replicas).filter(|slot| !self.by_slot.contains_key(slot)).collect();
        let mut found = batches::boundaries(strategy, free.len() as i32);
        let last = found.len() - 1;
        for (number, boundary) in found.iter_mut().enumerate() {
            let end = usize::try_from(boundary.up_to - 1).ok().and_then(|at| free.get(at));
            boundary.up_to = end.filter(|_| number < last).map_or(replicas, |end| end + 1);
        }
        found
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
        let replicas = replicas(&snapshot.rollout.spec);
        let mut found = Vec::new();
        for (number, (pin, target)) in self.all.iter().enumerate() {
            if let Target::Invalid(why) = target {
                let instances = &pin.instances;
                found.push((
                    "PinInvalid",
                    format!("spec.pins[{number}]: {why}; instances {instances} keep what they run"),
                ));
            }
            if let Some(gone) = Ranges::parse(&pin.instances).0.range(replicas..).next() {
                let gone = instance_name(name, *gone);
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
    if Ranges::parse(&pin.instances).is_empty() {
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
