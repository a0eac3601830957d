//! I2: attempt numbers: how a slot's next Pod is called where Pods of the same slot and revision exist, or may exist soon.
//!
//! A create that was not answered may still be carried out, long after it was sent. So a name that was chosen (status
//! remembers it before the create is sent) is chosen again until a Pod of that name is seen or the slot has what it
//! should: if the first create was carried out, the second one meets it (409), and there is one Pod.
use std::collections::BTreeMap;

use crate::{
    api::{
        bounds::{ATTEMPTS_MAX, RANGES_CHARS_MAX},
        names::pod_name,
        status::Attempt,
    },
    plan::rollout::run::{View, slots::Slot},
    snapshot::{Pod, Ranges, Revision},
};

/// Attempt numbers, of the revisions (by name) and slots that have one.
pub(crate) struct Attempts<'a> {
    by_slot: BTreeMap<(&'a str, i32), u32>,
}

impl<'a> Attempts<'a> {
    /// Those that existing Pods carry in their names, and those that are remembered and not seen yet.
    pub fn new(view: &View<'a>) -> Self {
        let mut attempts = Self { by_slot: BTreeMap::new() };
        for pod in &view.snapshot.pods {
            let revision = view.snapshot.revisions.iter().find(|revision| revision.name == pod.revision);
            if let Some((revision, attempt)) = revision.and_then(|r| Some((r, attempt_of(rollout(view), pod, r)?))) {
                let known = attempts.by_slot.entry((revision.name.as_str(), pod.slot)).or_default();
                *known = attempt.max(*known);
            }
        }
        for remembered in &view.memory.attempts {
            let Ok(attempt) = u32::try_from(remembered.attempt) else { continue };
            let Some(revision) = view.snapshot.revisions.iter().find(|r| r.name == remembered.revision) else {
                continue;
            };
            for index in Ranges::parse(&remembered.instances).0 {
                let is_kept = view.slots.sets().is_some_and(|sets| sets.kept == Some(revision.name.as_str()));
                let lacks = |slot: &&Slot<'_>| {
                    let is_assigned = slot.assigned == Some(revision.name.as_str());
                    if is_assigned { !slot.fresh } else { is_kept && slot.kept.is_empty() }
                };
                let slot = view.slots.wanted_at(index).filter(lacks);
                if slot.is_some_and(|slot| !has(slot, &name(view, index, revision, attempt))) {
                    attempts.by_slot.insert((revision.name.as_str(), index), attempt);
                }
            }
        }
        attempts
    }

    /// Chooses the attempt of the next Pod: the one that is remembered, as long as its name is free; 0 where nothing of
    /// this slot and revision exists; else the lowest from 1 on that is free.
    pub fn take(&mut self, view: &View<'a>, revision: &'a Revision, slot: &Slot<'a>) -> u32 {
        let key = (revision.name.as_str(), slot.index);
        let free = |attempt: &u32| {
            let name = name(view, slot.index, revision, *attempt);
            let is_kept = view.snapshot.specimens.iter().any(|pod| pod.name == name);
            !has(slot, &name) && !is_kept && !view.snapshot.taken_names.contains(&name)
        };
        let first = u32::from(pods(slot).any(|pod| pod.revision == revision.name));
        let known = self.by_slot.get(&key).copied().filter(free);
        let attempt = known.or_else(|| (first..=u32::MAX).find(free)).unwrap_or(0);
        if attempt > 0 {
            self.by_slot.insert(key, attempt);
        }
        attempt
    }

    /// As status remembers them: sorted by (revision, attempt). Their instances share one list's room. What does not fit is
    /// chosen anew from the names that are there: the same again, unless one of them went meanwhile.
    pub fn remembered(self) -> Vec<Attempt> {
        let mut grouped: BTreeMap<(&str, u32), Vec<i32>> = BTreeMap::new();
        for ((revision, slot), attempt) in self.by_slot {
            grouped.entry((revision, attempt)).or_default().push(slot);
        }
        let mut left = RANGES_CHARS_MAX;
        let attempts = grouped.into_iter().take(ATTEMPTS_MAX).map(|((revision, attempt), slots)| {
            let instances = slots.into_iter().collect::<Ranges>().within(left);
            left -= instances.len();
            Attempt { revision: revision.to_owned(), attempt: i32::try_from(attempt).unwrap_or(i32::MAX), instances }
        });
        attempts.filter(|attempt| !attempt.instances.is_empty()).collect()
    }
}

/// The attempt that a Pod carries in its name, if any.
fn attempt_of(rollout: &str, pod: &Pod, revision: &Revision) -> Option<u32> {
    if pod.name.ends_with(&revision.hash) {
        return None; // a first attempt, as nearly all are
    }
    let base = pod_name(rollout, pod.slot, &revision.hash, 0);
    let attempt = pod.name.strip_prefix(&base)?.strip_prefix('-')?.parse::<u32>().ok();
    attempt.filter(|attempt| *attempt > 0)
}

fn rollout<'a>(view: &View<'a>) -> &'a str {
    view.snapshot.rollout.metadata.name.as_deref().unwrap_or_default()
}

fn name(view: &View<'_>, slot: i32, revision: &Revision, attempt: u32) -> String {
    pod_name(rollout(view), slot, &revision.hash, attempt)
}

fn pods<'s>(slot: &'s Slot<'_>) -> impl Iterator<Item = &'s Pod> {
    slot.all_live().chain(slot.finished.iter().chain(&slot.terminating).copied())
}

fn has(slot: &Slot<'_>, name: &str) -> bool {
    pods(slot).any(|pod| pod.name == name)
}
