//! Slots whose Pod is not what they are assigned: what holds each, and how it changes.
use super::{Planner, exit};
use crate::{
    plan::{
        change::{Change, Hold, HoldReason, PodAct, PodReason, Question},
        in_place::NotInPlace,
        rollout::{
            pod::{
                failure::{PATIENCE_SECONDS, broken_at},
                reload::refuses,
                resize,
            },
            run::{
                slots::Slot,
                update_path::{self, UpdatePath, update_path},
            },
            verdict::{gates, holds},
        },
    },
    snapshot::{Pod, Revision, TemplateCheck},
};

impl<'a> Planner<'_, 'a, '_> {
    /// Slots whose best Pod is not what they are assigned.
    pub(super) fn replace(&mut self) {
        let view = self.view;
        let lineage = view.lineage;
        let is_due = |slot: &&Slot<'_>| !slot.live.is_empty() && !slot.fresh && self.assigned(slot).is_some();
        let due = view.slots.wanted().filter(is_due);
        let mut due: Vec<_> = due.map(|slot| (slot, self.reason_of_change(slot))).collect();
        // What was taken out of service for it is changed before another is; then what others wait for. What becomes due only
        // when something before it is done comes last: were it taken before what is due already, a controller that acts late on
        // this look and one that acts on a later one would take an instance each.
        due.sort_by_key(|(slot, reason)| {
            let by_batch = slot.pin.is_none() && matches!(reason, PodReason::Restart | PodReason::Pin);
            (slot.live[0].in_service != Some(false), by_batch, slot.pin.is_some())
        });
        if due.is_empty() {
            return;
        }
        let restart_end = self.restart_end();
        let forward = gates::forward(view, self.alarm);
        let stay = gates::stay(view, self.alarm);
        let renew = gates::renew(view, self.alarm);
        let back = gates::back(view, self.alarm);
        for (slot, reason) in due {
            let pod = slot.live[0];
            let opened = slot.opened;
            if let (PodReason::Pin, true, Some(to)) = (reason, slot.pin.is_some(), self.assigned(slot)) {
                match gates::pin(view, to, self.alarm) {
                    Some(hold) => drop(self.aside.get_or_insert(hold)),
                    None => self.change(slot, pod, reason),
                }
                continue;
            }
            let gate = match reason {
                PodReason::Restart if !pod.is_ready() && slot.pin.is_none() => &forward, // a retry
                PodReason::Restart if slot.index >= restart_end => continue,
                // With Recreate all would end at once, and come back at the stable revision: an older one.
                PodReason::Restart if self.alive.is_some() && !opened && !lineage.is_stable(&pod.revision) => continue,
                PodReason::Pin if slot.index >= restart_end && pod.is_ready() => continue,
                PodReason::Restart => &renew,
                PodReason::Pin => {
                    let to = self.assigned(slot).and_then(|to| gates::template_of(view, to, self.alarm));
                    &renew.clone().or(to)
                }
                // The Pod still serves, but its application rejected a version that is no longer wanted: revert it in place now,
                // because that costs no availability.
                _ if !opened && self.available(pod) => {
                    if !(refuses(view.snapshot, pod, self.alarm) && self.goes_back_as_it_is(slot, pod)) {
                        continue;
                    }
                    &renew
                }
                // Beyond the opened slots `stable` is for refill, and for broken Pods of another revision: they would use
                // up the budget for ever. Without it they go forward, if anything may.
                _ if !opened => {
                    let effective = lineage.effective.map(|effective| &effective.name);
                    let known = slot.assigned.is_none() && effective == Some(&pod.revision);
                    let broken_at = broken_at(pod, PATIENCE_SECONDS).filter(|_| !known);
                    if !broken_at.is_some_and(|at| self.alarm.passed(at)) {
                        continue;
                    }
                    if slot.assigned.is_some() { &None } else { &forward }
                }
                PodReason::Forward if Some(pod.revision.as_str()) == slot.assigned => &stay,
                PodReason::Forward => &forward,
                // Of failed instances alone: it is the stable revision whose Pods must be accepted.
                _ if !lineage.is_back() => &self.assigned(slot).and_then(|to| holds::refused(view, to)),
                _ => &back,
            };
            match gate {
                Some(hold) => self.note(hold.clone()),
                None => self.change(slot, pod, reason),
            }
        }
    }

    /// It comes to what its slot is assigned without another Pod, and without a container that is started anew.
    fn goes_back_as_it_is(&mut self, slot: &Slot<'a>, pod: &'a Pod) -> bool {
        let to = self.assigned(slot).filter(|_| slot.assigned.is_some() && slot.live.len() == 1);
        to.is_some_and(|to| {
            matches!(self.update_path(pod, to), UpdatePath::InPlace { restarts: false, resizes: false })
        })
    }

    /// With surge: create the partner, the old Pod leaves once that is available. Without: retire, then create. In place:
    /// the Pod stays.
    fn change(&mut self, slot: &Slot<'a>, pod: &'a Pod, reason: PodReason) {
        let update = &self.view.policy.update;
        let only = update.is_in_place_only();
        let is_other = |to: &&Revision| slot.live.len() == 1 && to.name != pod.revision;
        if let Some(to) = self.assigned(slot).filter(is_other) {
            let why = match self.update_path(pod, to) {
                // It would serve on until its container is gone, and be missing for as long as the image is pulled.
                UpdatePath::InPlace { restarts: true, .. } if !exit::can_leave_service(pod) && !only => {
                    Some("the Pod was made without the readiness gate that changes in place need".to_owned())
                }
                // What has too little to run is not asked to run on.
                UpdatePath::InPlace { resizes: true, .. }
                    if pod.containers.iter().any(|it| !it.init && !it.ready) && !only =>
                {
                    Some("a container of the Pod is not ready, and may be short of resources".to_owned())
                }
                // Who does not serve may never hear of it: a new one reads what it is to be as it starts.
                UpdatePath::InPlace { .. } if update.reloads() && !pod.is_ready() => {
                    Some("the Pod is not Ready, so its application may miss the request to reload".to_owned())
                }
                UpdatePath::InPlace { restarts, resizes } => {
                    return self.change_in_place(slot, pod, to, (restarts, resizes), reason);
                }
                UpdatePath::Impossible(message) => {
                    return self.note_of(slot, Hold { reason: HoldReason::NotInPlace, message, until: None });
                }
                UpdatePath::Replace(why) => why,
            };
            if let Some(why) = why {
                NotInPlace::note(&mut self.not_in_place, slot.index, why);
            }
        }
        let serves = |pod: &Pod| self.view.slots.is_in_use(pod) || self.view.slots.was_in_use(pod);
        if slot.live.len() > 1 {
            // The surplus leaves first. Its turn is kept: were a slot behind it taken now, and this one at the next look, a
            // controller that acts late on this look and one that acts on the next would take an instance each.
            if pod.is_ready() && (self.creates_held.is_some() || !self.budget.take_create()) {
                self.budget.take_instance(self.available(pod));
            }
        } else if self.alive.is_some() || !pod.is_ready() || !serves(pod) {
            self.changes.push(Change::delete(pod, reason)); // costs no availability, and may free what the new one needs
        } else if self.creates_held.is_none() && self.budget.total < self.budget.total_max {
            self.create(slot, reason);
        } else if self.budget.take_instance(self.available(pod)) {
            self.changes.push(Change::delete(pod, reason));
        } else if let Some(refused) = self.creates_held.clone() {
            self.note(refused);
        } else {
            self.hold_for_budget(slot.index);
        }
    }

    /// What holds this slot alone.
    fn note_of(&mut self, slot: &Slot<'_>, hold: Hold) {
        match slot.pin {
            Some(_) => drop(self.aside.get_or_insert_with(|| holds::of_pins(&hold))),
            None => self.note(hold),
        }
    }

    /// A Pod of which no container is started anew costs no availability. Whether it would get its resources is asked before
    /// anything is done to it.
    fn change_in_place(
        &mut self,
        slot: &Slot<'a>,
        pod: &Pod,
        to: &Revision,
        (restarts, resizes): (bool, bool),
        reason: PodReason,
    ) {
        let snapshot = self.view.snapshot;
        let check = resize::check(snapshot, pod, &to.name).filter(|_| resizes);
        if let Some(TemplateCheck::Unknown { message, recheck_at }) = check
            && !self.alarm.passed(*recheck_at)
        {
            let message = format!(
                "the API server does not say whether {} can have the resources of {}: {message}",
                pod.name, to.name
            );
            let (reason, until) = (HoldReason::TemplateUnchecked, Some(*recheck_at));
            return self.note_of(slot, Hold { reason, message, until });
        }
        let costs = restarts && pod.is_ready();
        if costs && !self.budget.take_instance_in_place(self.available(pod)) {
            return self.hold_for(slot.index, self.budget.available_min_in_place);
        }
        let (slot, revision) = (slot.index, to.name.clone());
        self.changes.push(if resizes && check != Some(&TemplateCheck::Valid) {
            Change::Ask(Question::Resize { pod: pod.into(), revision })
        } else {
            Change::pod(pod, PodAct::ChangeInPlace { slot, revision, restarts, resizes, reason })
        });
    }

    fn update_path(&mut self, pod: &'a Pod, to: &'a Revision) -> UpdatePath {
        let view = self.view;
        let snapshot = view.snapshot;
        if let Some(refusal) = snapshot.change_refusals.get(&to.name) {
            self.alarm.passed(refusal.retry_at);
        }
        if let Some(refusal) = resize::refusal(snapshot, pod, &to.name) {
            self.alarm.passed(refusal.retry_at);
            return update_path::refused(&self.view.policy.update, refusal);
        }
        let key = (pod.revision.as_str(), to.name.as_str());
        self.paths.entry(key).or_insert_with(|| update_path(&view.policy.update, snapshot, &pod.revision, to)).clone()
    }

    /// Restarts go batch by batch without memory: up to the end of the batch of the first slot not restarted yet. Slots
    /// that an earlier run has left at a third revision wait for their batch, not the restart for them.
    fn restart_end(&self) -> i32 {
        let view = self.view;
        let replicas = view.replicas();
        let left_behind = |slot: &Slot<'_>| {
            !slot.opened
                && !slot.live.is_empty()
                && slot.live.iter().all(|pod| Some(pod.revision.as_str()) != slot.assigned)
        };
        let first = view.slots.unpinned().find(|slot| !view.slots.is_done(slot) && !left_behind(slot));
        let first = first.map_or(replicas, |slot| slot.index);
        let ends = &view.slots.batches().ends;
        ends.iter().map(|boundary| boundary.up_to).find(|end| *end > first).unwrap_or(replicas)
    }
}
