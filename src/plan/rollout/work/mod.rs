//! Pods to create, delete and change now, within the budget; most urgent class first.
mod ask;
mod attempts;
mod exit;
mod finish;
mod health;
pub mod hooks;
mod keep;
pub mod provenance;
mod reload;
mod replace;
mod resize;
pub mod revisions;
mod says;
mod soak;
pub mod switch;

use std::collections::{BTreeMap, BTreeSet};

use self::attempts::Attempts;
use crate::{
    api::{names::pod_name, status::Attempt},
    plan::{
        change::{Change, Hold, HoldReason, PodAct, PodReason, Question},
        in_place::NotInPlace,
        rollout::{
            pod::{
                counts::{TERMINATING_COUNTS_SECONDS, counts},
                failure::{PATIENCE_SECONDS, broken_at, failure_of},
            },
            run::{
                View,
                budget::Budget,
                recreate::{self, Alive},
                slots::Slot,
                update_path::UpdatePath,
            },
            time::{Alarm, after, restarted_at},
            verdict::{gates, holds, old_pods, sets},
        },
    },
    snapshot::{Pod, RefusalReason, Revision, ServiceSeen, TemplateCheck},
};

/// A finished Pod is cleared away no sooner than this after its creation, so that a node which refuses every Pod at
/// once does not get hundreds of them a minute.
const FINISHED_PACE_SECONDS: i64 = 10;

/// What to do with Pods.
#[derive(Default)]
pub(crate) struct Work {
    pub changes: Vec<Change>,
    pub attempts: Vec<Attempt>,
    pub leaving: BTreeSet<String>,
    pub hold: Option<Hold>,
    /// What holds pinned slots, which keep nothing else waiting.
    pub aside: Option<Hold>,
    pub not_in_place: Option<NotInPlace>,
    /// Names of Pods that are deleted although they have not said that they are drained.
    pub drained_late: BTreeSet<String>,
}

/// Plans all Pod work.
pub(crate) fn pods(view: &View<'_>, alarm: &mut Alarm) -> Work {
    let mut planner = Planner::new(view, alarm);
    planner.check_template();
    planner.clear_finished();
    planner.retire_sets();
    planner.retire_surplus();
    planner.refill();
    planner.replace();
    planner.wake_for_pods();
    planner.finish()
}

struct Planner<'v, 'a, 'm> {
    view: &'v View<'a>,
    alarm: &'m mut Alarm,
    budget: Budget,
    changes: Vec<Change>,
    attempts: Attempts<'a>,
    hold: Option<Hold>,
    /// Of pinned slots: they keep nothing else waiting.
    aside: Option<Hold>,
    creates_held: Option<Hold>,
    /// How Pods of one revision come to another, by their names: as thousands of Pods do it.
    paths: BTreeMap<(&'a str, &'a str), UpdatePath>,
    not_in_place: Option<NotInPlace>,
    /// With strategy Recreate.
    alive: Option<Alive<'a>>,
    /// With strategy BlueGreen: holds Pods of the assigned set, as long as clients use another.
    preview_held: Option<Hold>,
}

impl<'v, 'a, 'm> Planner<'v, 'a, 'm> {
    fn new(view: &'v View<'a>, alarm: &'m mut Alarm) -> Self {
        let mut planner = Self {
            view,
            alarm,
            budget: view.budget.clone(),
            changes: Vec::new(),
            attempts: Attempts::new(view),
            hold: None,
            aside: None,
            creates_held: None,
            paths: BTreeMap::new(),
            not_in_place: None,
            alive: Alive::of(view.snapshot),
            preview_held: sets::preview_held(view),
        };
        if let Some(refusal) = &view.snapshot.create_refusal
            && !planner.alarm.passed(refusal.retry_at)
        {
            let what = match refusal.reason {
                RefusalReason::QuotaExceeded => "quota exceeded",
                RefusalReason::FailedCreate => "Pods cannot be created",
            };
            let message = format!("{what}: {}", refusal.message);
            let until = Some(refusal.retry_at);
            planner.creates_held = Some(Hold { reason: HoldReason::CreateRefused, message, until });
        }
        planner
    }

    fn available(&self, pod: &Pod) -> bool {
        pod.is_available(self.view.spec().min_ready_seconds, self.view.now())
    }

    /// The first counts; but that the budget is used up says less than what keeps it from being given back.
    fn note(&mut self, hold: Hold) {
        let says_less = |known: &Hold| [HoldReason::Budget, HoldReason::OldPods].contains(&known.reason);
        if self.hold.as_ref().is_none_or(says_less) {
            self.hold = Some(hold);
        }
    }

    /// One dry run per revision that is being rolled out, and again when its verdict has aged. A refusal is asked about
    /// again as long as it could hold anything, a refill or the way back too: policies change.
    fn check_template(&mut self) {
        let lineage = self.view.lineage;
        let forward = lineage.effective.filter(|_| !lineage.is_back() && self.view.memory.batch.is_some());
        let stable = lineage.stable.filter(|stable| forward.is_none_or(|forward| forward.name != stable.name));
        let idle = lineage.effective.filter(|effective| forward.or(stable).is_none_or(|r| r.name != effective.name));
        let pins = self.pins_to_come();
        let others =
            [forward, stable, idle].into_iter().flatten().filter(|other| !pins.contains_key(other.name.as_str()));
        for revision in others.chain(pins.values().copied()) {
            let is_forward = forward.is_some_and(|forward| forward.name == revision.name)
                || pins.contains_key(revision.name.as_str());
            let due = match self.view.snapshot.template_checks.get(&revision.name) {
                Some(TemplateCheck::Valid | TemplateCheck::Warned { .. }) => false,
                Some(TemplateCheck::Refused { recheck_at, .. }) => self.alarm.passed(*recheck_at),
                Some(TemplateCheck::Unknown { recheck_at, .. }) => is_forward && self.alarm.passed(*recheck_at),
                None => is_forward,
            };
            if due {
                self.changes.push(Change::Ask(Question::Template { revision: revision.name.clone() }));
            }
        }
    }

    /// Revisions that pinned slots, or those that are not pinned any more, do not run yet, by name.
    fn pins_to_come(&self) -> BTreeMap<&'a str, &'a Revision> {
        let is_due =
            |slot: &&Slot<'_>| !slot.fresh && (slot.pin.is_some() || self.reason_of_change(slot) == PodReason::Pin);
        let pinned = self.view.slots.wanted().filter(is_due);
        pinned.filter_map(|slot| self.assigned(slot)).map(|revision| (revision.name.as_str(), revision)).collect()
    }

    fn clear_finished(&mut self) {
        let view = self.view;
        for pod in view.slots.all().flat_map(|slot| &slot.finished) {
            if self.alarm.passed(after(pod.created, FINISHED_PACE_SECONDS)) {
                self.changes.push(Change::delete(pod, PodReason::Finished));
            }
        }
    }

    /// BlueGreen: deletes stray Pods (of neither set) and duplicates in the previous set. A stray Pod may go once
    /// scaleDownDelaySeconds have passed since the last switch.
    fn retire_sets(&mut self) {
        let view = self.view;
        let Some(sets) = view.slots.sets() else { return };
        for slot in view.slots.wanted() {
            // Where clients get Pods of any revision, only what stands beside a better one goes, and what never came up: one that is
            // not available beside one that is not either costs nothing.
            let is_any = view.snapshot.services.active.seen().is_some();
            let is_known = view.snapshot.services.active != ServiceSeen::Unknown;
            let is_beside = |place: usize| is_known && place > 0;
            let leaves = |(place, pod): &(usize, &&Pod)| {
                let is_nobodys = view.lineage.is_first() || (is_any && sets.active.is_none());
                let never_came_up = is_nobodys && !pod.is_ready();
                let is_over = sets.selected.is_some() && !view.slots.was_in_use(pod);
                is_over || never_came_up || is_beside(*place)
            };
            let others = slot.others.iter().enumerate().filter(leaves);
            let mut leaving: Vec<_> = others.map(|(_, pod)| (*pod, PodReason::Superseded)).collect();
            if let Some((best, surplus)) = slot.kept.split_first() {
                let leaves = |pod: &&&Pod| !pod.is_ready() || self.available(best);
                leaving.extend(surplus.iter().filter(leaves).map(|pod| (*pod, PodReason::Surplus)));
            }
            for (pod, reason) in leaving {
                self.budget.leave_beside(view.slots.is_in_use(pod) && self.available(pod));
                self.changes.push(Change::delete(pod, reason));
            }
        }
    }

    /// Slots without a Pod of the kept set: clients use it, or would on the way back.
    fn refill_kept(&mut self) {
        let view = self.view;
        let Some(revision) = sets::refills(view) else { return };
        for slot in view.slots.wanted().filter(|slot| slot.kept.is_empty()) {
            if !self.create_at(slot, revision, PodReason::Refill) {
                break;
            }
        }
    }

    /// Pods beside a better one, then Pods of slots beyond replicas: what the first leave is what the second count on.
    fn retire_surplus(&mut self) {
        let view = self.view;
        for slot in view.slots.wanted().filter(|slot| slot.live.len() > 1) {
            let best = slot.live[0];
            for pod in &slot.live[1..] {
                // A Ready Pod leaves only when the better one has taken over: that is what the surge is for. Where revisions
                // may not live side by side there is none.
                let may_stay = self.alive.is_none() || pod.revision == best.revision;
                if pod.is_ready() && !self.available(best) && may_stay {
                    continue;
                }
                let same = pod.revision == best.revision && !view.slots.is_renewal_due(pod);
                let reason = match self.reason_of_change(slot) {
                    _ if same => PodReason::Surplus,
                    // Also a Pod that another strategy has left: it is not pinned.
                    PodReason::Pin if slot.pin.is_none() => PodReason::Surplus,
                    reason => reason,
                };
                self.budget.leave_beside(self.available(pod));
                self.changes.push(Change::delete(pod, reason));
            }
        }
        let is_either = sets::may_use_either(view);
        for slot in view.slots.unwanted() {
            for pod in slot.live.iter().filter(|pod| !view.slots.was_in_use(pod)) {
                let is_free = !pod.is_ready() || !view.slots.is_in_use(pod);
                if is_free || (!is_either && self.budget.take_beyond(self.available(pod))) {
                    self.changes.push(Change::delete(pod, PodReason::Scale));
                } else if let Some(hold) = sets::trouble(view).filter(|_| is_either) {
                    self.note(hold);
                } else {
                    self.hold_for_budget(slot.index);
                }
            }
        }
    }

    /// Why a Pod of this slot gives way to another revision, or to a new Pod of the same one.
    fn reason_of_change(&self, slot: &Slot<'_>) -> PodReason {
        let lineage = self.view.lineage;
        let is_there = slot.live.iter().all(|pod| Some(pod.revision.as_str()) == slot.assigned);
        // One that does not get what it was to be given in place is still on its way.
        let is_moving = || slot.opened && slot.live.iter().any(|pod| self.view.slots.is_given_up(pod));
        if is_there && !is_moving() {
            PodReason::Restart
        } else if slot.pin.is_some() || (lineage.is_back() && self.view.memory.batch.is_none()) {
            PodReason::Pin // outside a run nothing but a pin that is gone leaves another revision behind
        } else {
            self.reason_in_run(slot)
        }
    }

    /// Where a slot that is in no pin's hands goes in a run.
    fn reason_in_run(&self, slot: &Slot<'_>) -> PodReason {
        let lineage = self.view.lineage;
        let is_elsewhere = |to: &str| lineage.effective.is_none_or(|effective| effective.name != to);
        if lineage.is_back() || slot.assigned.is_some_and(is_elsewhere) { PodReason::Back } else { PodReason::Forward }
    }

    /// What is missing; of two sets first in the one that clients use.
    fn refill(&mut self) {
        let is_kept_in_use = self.view.slots.sets().is_some_and(|sets| sets.kept == sets.active);
        if is_kept_in_use {
            self.refill_kept();
            self.refill_assigned();
        } else {
            self.refill_assigned();
            self.refill_kept();
        }
    }

    /// Slots without a live Pod.
    fn refill_assigned(&mut self) {
        let view = self.view;
        let missing: Vec<&Slot<'_>> = view.slots.wanted().filter(|slot| slot.live.is_empty()).collect();
        for (place, slot) in missing.iter().enumerate() {
            if !slot.finished.is_empty() || self.ends_at_once(slot) {
                continue; // cleared away first: that frees the name, and takes no grace period
            }
            let reason = self.reason_of_refill(slot);
            if !self.create(slot, reason) {
                self.make_room(missing.len() - place);
                break;
            }
        }
    }

    /// Room for instances that have no Pod and that the total keeps from one, though none is about to end: `maxSurge` was
    /// lowered while more stood beside others, or Pods beyond replicas stay because too few are available. Of two Pods of an
    /// instance the Ready one stays; the one that is to take over and cannot yet costs no availability, and would keep the
    /// others waiting for ever if it is broken.
    fn make_room(&mut self, missing: usize) {
        if self.creates_held.is_some() {
            return;
        }
        let view = self.view;
        let leaves = |change: &&Change| matches!(change, Change::Pod { act: PodAct::Delete { reason, .. }, .. } if *reason != PodReason::Finished);
        let ending =
            view.snapshot.pods.iter().filter(|pod| pod.deletion.is_some() && counts(view.snapshot, pod)).count()
                + self.changes.iter().filter(leaves).count();
        let beside = view.slots.wanted().filter(|slot| slot.live.len() > 1).count() as i32;
        let is_too_many = beside > view.policy.room.total_max - view.replicas();
        let waits = |slot: &&Slot<'_>| slot.live.iter().any(|pod| pod.is_ready()) && !slot.live[0].is_ready();
        let mut room = missing.saturating_sub(ending);
        for slot in view.slots.wanted().filter(waits) {
            let broken_at = broken_at(slot.live[0], PATIENCE_SECONDS);
            if room > 0 && (is_too_many || broken_at.is_some_and(|at| self.alarm.passed(at))) {
                self.changes.push(Change::delete(slot.live[0], PodReason::Surplus));
                room -= 1;
            }
        }
    }

    /// A finished Pod that has been deleted is gone in a moment, unless something (a finalizer) keeps it.
    fn ends_at_once(&self, slot: &Slot<'_>) -> bool {
        let now = self.view.now();
        let in_time = |pod: &Pod| pod.deletion.is_some_and(|at| after(at, TERMINATING_COUNTS_SECONDS) > now);
        slot.terminating.iter().filter(|pod| pod.is_finished()).any(|pod| in_time(pod))
    }

    /// Why an empty slot is filled: in the middle of its change; else it is new, or its Pod was lost.
    fn reason_of_refill(&self, slot: &Slot<'_>) -> PodReason {
        let is_in_run = self.view.memory.batch.is_some() && !self.view.lineage.is_first();
        if is_in_run && slot.opened && slot.pin.is_none() { self.reason_in_run(slot) } else { PodReason::Refill }
    }

    /// Plans the create of a slot's Pod; false when the budget or a refusal stops all further ones.
    fn create(&mut self, slot: &Slot<'a>, reason: PodReason) -> bool {
        let Some(revision) = self.assigned(slot) else { return true };
        self.create_at(slot, revision, reason)
    }

    /// The same at this revision.
    fn create_at(&mut self, slot: &Slot<'a>, revision: &'a Revision, reason: PodReason) -> bool {
        let view = self.view;
        if let Some(hold) = self.creates_held.clone() {
            self.note(hold);
            return false;
        }
        let checked = view.snapshot.template_checks.get(&revision.name);
        let refused = matches!(checked, Some(TemplateCheck::Refused { .. }));
        if refused || (view.lineage.is_first() && checked.is_none()) {
            if slot.pin.is_some() {
                let held = gates::template_of(view, revision, self.alarm).map(|held| holds::of_pins(&held));
                self.aside = self.aside.take().or(held);
            } else if let Some(hold) = gates::template(view, self.alarm) {
                self.note(hold);
            }
            return true;
        }
        // Nor is an empty slot given the stable version before what a run has changed is taken back.
        let goes_back = reason == PodReason::Back && slot.pin.is_none();
        if let Some(hold) = gates::due_at_once(view).filter(|_| goes_back) {
            self.note(hold);
            return false;
        }
        if let Some(hold) = gates::before_first(view).filter(|_| slot.pin.is_none()) {
            self.note(hold);
            return false;
        }
        if self.alive.as_mut().is_some_and(|alive| !alive.admit(&revision.name)) {
            self.hold_for_old_pods(recreate::in_the_way(view.snapshot, &revision.name), revision);
            return true;
        }
        if let Some(hold) = gates::waits_while_down(view) {
            self.note(hold);
            return false;
        }
        let is_kept = view.slots.sets().is_some_and(|sets| sets.kept == Some(revision.name.as_str()));
        if let Some(hold) = self.preview_held.clone().filter(|_| !is_kept) {
            self.note(hold);
            return true;
        }
        if let Some(hold) = sets::crowded(view, slot).filter(|_| !is_kept) {
            self.note(hold);
            return true;
        }
        if !self.budget.take_create() {
            self.hold_for_budget(slot.index);
            return false;
        }
        let rollout = view.snapshot.rollout.metadata.name.as_deref().unwrap_or_default();
        let attempt = self.attempts.take(view, revision, slot);
        self.changes.push(Change::CreatePod {
            name: pod_name(rollout, slot.index, &revision.hash, attempt),
            slot: slot.index,
            revision: revision.name.clone(),
            restarted_at: restarted_at(view.spec(), view.now()),
            reason,
        });
        true
    }

    fn assigned(&self, slot: &Slot<'_>) -> Option<&'a Revision> {
        // The slot is not left empty if a person deleted the stable revision.
        let Some(assigned) = slot.assigned else { return self.view.lineage.effective };
        // Newest first: nearly always it is one of the last.
        self.view.snapshot.revisions.iter().rev().find(|revision| revision.name == assigned)
    }

    fn hold_for_old_pods<'p>(&mut self, pods: impl Iterator<Item = &'p Pod>, revision: &Revision) {
        if self.hold.is_none() {
            self.hold = old_pods::hold(&self.view.slots, pods, revision);
        }
    }

    fn hold_for_budget(&mut self, slot: i32) {
        self.hold_for(slot, self.budget.available_min);
    }

    fn hold_for(&mut self, slot: i32, available_min: i32) {
        if self.hold.is_some() {
            return;
        }
        let rollout = self.view.snapshot.rollout.metadata.name.as_deref().unwrap_or_default();
        let name = crate::api::names::instance_name(rollout, slot);
        let message = format!(
            "{name} waits: {} available of at least {}, {} Pods of at most {}",
            self.budget.available_instances, available_min, self.budget.total, self.budget.total_max
        );
        // What failed by a pin stays so until a person says otherwise, and what waits with it.
        let (reason, message) = match self.failed_pin() {
            None => (HoldReason::Budget, message),
            Some(failed) => {
                let pinned = crate::api::names::instance_name(rollout, failed.index);
                let remedy = if failed.fresh { "unpin it" } else { "its change waits until spec.paused is false" };
                (HoldReason::Pinned, format!("{message}; {pinned} is pinned and has failed: {remedy}"))
            }
        };
        self.note(Hold { reason, message, until: None });
    }

    /// An instance that is kept as it is, by its pin or on the way there by a pause, and takes what may be unavailable.
    fn failed_pin(&self) -> Option<&Slot<'a>> {
        let is_kept = |slot: &Slot<'_>| slot.pin.is_some() && (slot.fresh || self.view.spec().paused);
        let now = self.view.now();
        let has_failed = |pod: &&Pod| failure_of(pod).is_some_and(|failure| failure.counts(now));
        let mut failed =
            self.view.slots.wanted().filter(|slot| is_kept(slot) && slot.live.first().is_some_and(has_failed));
        // While others are on their way the budget comes back by itself.
        let comes_back = |slot: &Slot<'_>| !slot.live.first().is_some_and(|pod| self.available(pod)) && !is_kept(slot);
        failed.next().filter(|_| !self.view.slots.wanted().any(comes_back))
    }

    /// Pods that become available, or stop counting, without an event.
    fn wake_for_pods(&mut self) {
        let view = self.view;
        for pod in view.snapshot.pods.iter().chain(&view.snapshot.specimens) {
            if let Some(at) = pod.available_later(view.spec().min_ready_seconds, view.now()) {
                self.alarm.passed(at);
            }
            if let Some(at) = pod.deletion {
                self.alarm.passed(after(at, TERMINATING_COUNTS_SECONDS));
            }
        }
    }
}
