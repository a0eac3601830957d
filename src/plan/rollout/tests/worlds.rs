//! Arbitrary worlds, and what must hold of any plan for them.
mod kinds;
pub(crate) use kinds::{
    give_images, has_another_package, world_in_place, world_of_blue_green, world_reloading, world_resized,
    world_that_keeps, world_to_recreate, world_with_packages, world_with_pins,
};

use std::{collections::BTreeSet, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::json;

use super::{
    acts,
    fixture::{Fixture, at},
};
use crate::{
    api::{
        Time,
        rollout::{OnFailure, StrategyType},
    },
    plan::{
        Change, HoldReason, Plan, RevisionAct, RevisionMark, Seen, Selection,
        rollout::{back, fold::World, plan, pod::counts::TERMINATING_COUNTS_SECONDS, time::restarted_at},
    },
    snapshot::{Pod, Ranges, Snapshot},
};

fn slot() -> impl Strategy<Value = String> {
    let pod = prop_oneof![8 => Just(""), 2 => Just("~"), 1 => Just("!"), 1 => Just("-"), 1 => Just("x")];
    let letter = prop_oneof![Just('a'), Just('b'), Just('c')];
    proptest::collection::vec((letter, pod), 0..3).prop_map(|pods| {
        // The stable revision works: nothing can complete where it does not.
        let pods =
            pods.into_iter().map(|(letter, mark)| (letter, if letter == 'a' && mark == "!" { "~" } else { mark }));
        let mut seen = std::collections::BTreeSet::new();
        let pods: Vec<String> = pods.filter(|(l, _)| seen.insert(*l)).map(|(l, m)| format!("{l}{m}")).collect();
        if pods.is_empty() { ".".into() } else { pods.concat() }
    })
}

prop_compose! {
    fn spec()(batch in 1..4i32, sized in any::<bool>(), surge in 0..3i32, unavailable in 0..3i32, threshold in 1..3i32,
              pause in any::<bool>(), paused in prop::bool::weighted(0.1), min_ready in 0..3i32) -> serde_json::Value {
        let mut strategy = json!({
            "maxSurge": surge,
            "maxUnavailable": if surge == 0 { unavailable.max(1) } else { unavailable },
            "failureThreshold": threshold,
            "onFailure": if pause { "Pause" } else { "Rollback" },
        });
        if sized {
            strategy["batchSize"] = json!(batch);
        } else {
            strategy["batches"] = json!([{"upTo": batch, "pause": {"seconds": 7}}, {"upTo": "60%"}]);
        }
        json!({"strategy": strategy, "paused": paused, "minReadySeconds": min_ready})
    }
}

prop_compose! {
    pub(crate) fn world()(slots in proptest::collection::vec(slot(), 0..7), want in prop_oneof![Just('a'), Just('b')], spec in spec(),
               opened in prop_oneof![Just(None), (0..7i32).prop_map(Some)], restart in prop::option::weighted(0.2, -600..20i64), scale in -2..3i32, first in prop::bool::weighted(0.2))
               -> Snapshot {
        let mut fixture = Fixture::new(&slots.join(" "), want, spec);
        if first {
            for revision in &mut fixture.snapshot.revisions {
                revision.completed_at = None;
            }
        }
        if let Some(opened) = opened {
            let opened = opened.min(slots.len() as i32);
            fixture = fixture.opened(opened);
        }
        fixture.snapshot.rollout.spec.restart_at = restart.map(|second| Time(at(second)));
        let replicas = &mut fixture.snapshot.rollout.spec.replicas;
        *replicas = (*replicas + scale).max(0);
        fixture.snapshot
    }
}

/// What this slot is pinned to.
pub(crate) fn pinned_to(snapshot: &Snapshot, slot: i32) -> Option<&String> {
    let pins = &snapshot.rollout.spec.pins;
    pins.iter().find(|pin| pin.instances == slot.to_string()).and_then(|pin| pin.revision.as_ref())
}

/// Bounds as a Deployment has them: (fewest available, most Pods).
pub(super) fn bounds(snapshot: &Snapshot) -> (i32, i32) {
    let spec = &snapshot.rollout.spec;
    if spec.strategy.type_ == StrategyType::Recreate {
        return (0, spec.replicas);
    }
    if spec.strategy.type_ == StrategyType::BlueGreen {
        let beyond = snapshot.pods.iter().filter(|pod| pod.slot >= spec.replicas).count() as i32;
        return (spec.replicas, 2 * spec.replicas + beyond);
    }
    let surge = spec.strategy.max_surge.rounded_up(spec.replicas);
    let unavailable = spec.strategy.max_unavailable.rounded_down(spec.replicas);
    let unavailable = if surge == 0 { unavailable.max(1) } else { unavailable };
    // Without surge none are kept.
    let kept = spec.strategy.keep_failed.filter(|_| surge > 0).map_or(0, |settings| settings.pods);
    ((spec.replicas - unavailable).max(0), spec.replicas + surge + kept)
}

/// How far the operator's clock is ahead of the world's (of API server and nodes); behind, when negative.
pub(super) fn skew_seconds() -> impl Strategy<Value = i64> {
    prop_oneof![4 => Just(0), 1 => Just(-900), 1 => Just(-120), 1 => Just(-1), 1 => Just(1), 1 => Just(120), 1 => Just(300)]
}

/// What an operator whose clock differs so plans.
pub(super) fn look(world: &World, skew_seconds: i64) -> Plan {
    let mut seen = world.snapshot.clone();
    seen.now += SignedDuration::from_secs(skew_seconds);
    plan(&seen)
}

/// Available by the world's own clock. An operator's clock that is ahead shortens minReadySeconds by as much, as it does
/// for a Deployment; nothing makes a Pod available that is not Ready.
pub(super) fn is_available(snapshot: &Snapshot, pod: &Pod, skew_seconds: i64) -> bool {
    let ahead = i32::try_from(skew_seconds.max(0)).unwrap_or(i32::MAX);
    pod.is_available(snapshot.rollout.spec.min_ready_seconds.saturating_sub(ahead), snapshot.now)
}

/// The one that they got before the last switch.
fn got_before(snapshot: &Snapshot) -> Option<&str> {
    let switched = snapshot.services.active.seen().and_then(|service| service.switched.as_ref());
    switched.map(|switched| switched.from.as_str())
}

/// Strategy Recreate, and nothing else is alive.
fn runs_alone(snapshot: &Snapshot, revision: &str, skew_seconds: i64) -> bool {
    let mut pods = snapshot.pods.iter().filter(|pod| is_alive(snapshot, pod, skew_seconds));
    snapshot.rollout.spec.strategy.type_ == StrategyType::Recreate && pods.all(|pod| pod.revision == revision)
}

/// Available Pods, of those that clients may use, of slots for which `of` is true.
fn available_pods<'s>(
    snapshot: &'s Snapshot,
    skew_seconds: i64,
    of: impl Fn(i32) -> bool + 's,
) -> impl Iterator<Item = &'s Pod> {
    let pods = snapshot.pods.iter().map(|pod| &**pod);
    let is_in_use = |pod: &&Pod| selected(snapshot).is_none_or(|selected| pod.revision == selected);
    pods.filter(is_in_use).filter(move |pod| is_available(snapshot, pod, skew_seconds) && of(pod.slot))
}

/// The revision that clients get, with strategy BlueGreen.
pub(super) fn selected(snapshot: &Snapshot) -> Option<&str> {
    let is_blue_green = snapshot.rollout.spec.strategy.type_ == StrategyType::BlueGreen;
    snapshot.services.active.seen().filter(|_| is_blue_green)?.revision()
}

/// Instances, slots below replicas, that have an available Pod other than those in `without` (uids).
pub(super) fn available_instances(snapshot: &Snapshot, skew_seconds: i64, without: &[&str]) -> i32 {
    let replicas = snapshot.rollout.spec.replicas;
    let pods = available_pods(snapshot, skew_seconds, |slot| slot < replicas);
    let slots: BTreeSet<i32> = pods.filter(|pod| !without.contains(&pod.uid.as_str())).map(|pod| pod.slot).collect();
    slots.len() as i32
}

/// R1: an instance becomes unavailable by an act of ours only while the others keep the bound; a Pod beyond replicas goes
/// only while enough Pods are available.
fn check_availability(snapshot: &Snapshot, skew_seconds: i64, deleted: &[&str]) -> Result<(), TestCaseError> {
    let replicas = snapshot.rollout.spec.replicas;
    let (available_min, _) = bounds(snapshot);
    let before = available_instances(snapshot, skew_seconds, &[]);
    let after = available_instances(snapshot, skew_seconds, deleted);
    prop_assert!(after == before || after >= available_min, "R1: {after} instances < {available_min}");
    let is_deleted = |pod: &&Pod| deleted.contains(&pod.uid.as_str());
    let beyond = available_pods(snapshot, skew_seconds, |slot| slot >= replicas).any(|pod| is_deleted(&pod));
    let left = available_pods(snapshot, skew_seconds, |_| true).filter(|pod| !is_deleted(pod)).count() as i32;
    prop_assert!(!beyond || left >= available_min, "R1: {left} Pods < {available_min}");
    Ok(())
}

/// Pods, Terminating ones included as long as they count: by the clock of the operator, who cannot know better.
pub(super) fn total(snapshot: &Snapshot, skew_seconds: i64) -> i32 {
    let all = snapshot.pods.iter().chain(&snapshot.specimens);
    all.filter(|pod| is_alive(snapshot, pod, skew_seconds)).count() as i32
}

fn is_alive(snapshot: &Snapshot, pod: &Pod, skew_seconds: i64) -> bool {
    let now = snapshot.now + SignedDuration::from_secs(skew_seconds.max(0));
    let given_up = |at: Timestamp| at + SignedDuration::from_secs(TERMINATING_COUNTS_SECONDS) <= now;
    !pod.is_finished() && !pod.deletion.is_some_and(given_up)
}

/// R1, R2, R4, R10 of one plan, also if only a part of it is carried out.
pub(super) fn check_plan(snapshot: &Snapshot, planned: &Plan, skew_seconds: i64) -> Result<(), TestCaseError> {
    let spec = &snapshot.rollout.spec;
    let (_, total_max) = bounds(snapshot);
    let mut deleted = Vec::new();
    let mut created = 0;
    for change in &planned.changes {
        match change {
            Change::Pod { seen, act } => {
                deleted.extend(acts::check_act(snapshot, planned, seen, act)?.then_some(seen.uid.as_str()));
            }
            Change::CreatePod { revision, name, slot, .. } => {
                created += 1;
                let memory = &planned.memory;
                let known = [&memory.update, &memory.stable, &memory.effective];
                let is_right = match pinned_to(snapshot, *slot) {
                    Some(pinned) => pinned == revision,
                    // BlueGreen: also what clients get, and what they got before. Recreate: also what runs.
                    None => {
                        known.contains(&&Some(revision.clone()))
                            || selected(snapshot) == Some(revision)
                            || got_before(snapshot) == Some(revision)
                            || runs_alone(snapshot, revision, skew_seconds)
                    }
                };
                prop_assert!(is_right, "R4: {name} is of {revision}");
                prop_assert!((0..spec.replicas).contains(slot), "{name} is beyond replicas");
                let mut all = snapshot.pods.iter().chain(&snapshot.specimens);
                prop_assert!(all.all(|pod| pod.name != *name), "{name} exists");
            }
            Change::Revision { seen: Seen { name, .. }, act: RevisionAct::Mark(RevisionMark::Completed { .. }) } => {
                let is_seen = |pod: &&Pod| pod.revision == *name && is_available(snapshot, pod, skew_seconds);
                let mut pods = snapshot.pods.iter().map(|pod| &**pod);
                prop_assert!(pods.any(|pod| is_seen(&pod)), "R13: {name} completes, and no instance runs it");
            }
            _ => {}
        }
    }
    check_availability(snapshot, skew_seconds, &deleted)?;
    match spec.strategy.type_ {
        StrategyType::Batched => {}
        StrategyType::Recreate => check_alone(snapshot, planned, skew_seconds)?,
        StrategyType::BlueGreen => check_switch(snapshot, planned, skew_seconds)?,
    }
    prop_assert!(
        created == 0 || total(snapshot, skew_seconds) + created <= total_max,
        "R2: {} + {created} > {total_max}",
        total(snapshot, skew_seconds)
    );
    Ok(())
}

/// Recreate: also if only a part of a plan is carried out, no Pod is made beside one of another revision.
fn check_alone(snapshot: &Snapshot, planned: &Plan, skew_seconds: i64) -> Result<(), TestCaseError> {
    let created = planned.changes.iter().filter_map(|change| match change {
        Change::CreatePod { revision, .. } => Some(revision.as_str()),
        _ => None,
    });
    let created: BTreeSet<&str> = created.collect();
    let alive = snapshot.pods.iter().chain(&snapshot.specimens).filter(|pod| is_alive(snapshot, pod, skew_seconds));
    let alive = alive.map(|pod| pod.revision.as_str());
    let alive: BTreeSet<&str> = alive.collect();
    prop_assert!(created.is_empty() || created.union(&alive).count() == 1, "{created:?} beside {alive:?}");
    Ok(())
}

/// BlueGreen: clients get a revision only once every instance runs it, available; or, where they get any, what most Pods run; or
/// one that they have used before, where no Pod answers them.
fn check_switch(snapshot: &Snapshot, planned: &Plan, skew_seconds: i64) -> Result<(), TestCaseError> {
    let replicas = snapshot.rollout.spec.replicas;
    for change in &planned.changes {
        let Change::Service { seen: Seen { name, .. }, select: Selection { revision: Some(revision), .. } } = change
        else {
            continue;
        };
        let at_it = |pod: &&Arc<Pod>| pod.revision == *revision && is_available(snapshot, pod, skew_seconds);
        let slots: BTreeSet<i32> = snapshot.pods.iter().filter(at_it).map(|pod| pod.slot).collect();
        let is_whole = (0..replicas).all(|slot| slots.contains(&slot));
        let exists = |name: &str| {
            snapshot.revisions.iter().any(|known| known.name == name)
                || snapshot.pods.iter().any(|pod| pod.revision == name)
        };
        let available = |name: &str| {
            let pods = snapshot.pods.iter().filter(|pod| is_available(snapshot, pod, skew_seconds));
            pods.filter(|pod| pod.revision == name).count()
        };
        let most = snapshot.pods.iter().map(|pod| available(&pod.revision)).max();
        // A clock that is behind knows less of who is available.
        let is_most = available(revision) > 0 && (skew_seconds != 0 || Some(available(revision)) == most);
        let is_first_key = !selected(snapshot).is_some_and(exists) && is_most;
        // What is gone back to has been, also where nothing says so any more.
        let has_completed = planned.memory.stable.as_ref() == Some(revision)
            || snapshot.revisions.iter().any(|known| known.name == *revision && known.completed_at.is_some());
        let answers = |pod: &&Arc<Pod>| selected(snapshot) == Some(&pod.revision) && pod.is_ready();
        let is_rescue = has_completed && !slots.is_empty() && !snapshot.pods.iter().any(|pod| answers(&pod));
        prop_assert!(
            is_whole || is_first_key || is_rescue,
            "Service {name} selects {revision}, which runs in {slots:?}"
        );
    }
    Ok(())
}

/// Carries out; what the operator stamps on Pods is by its own clock.
fn act(world: &mut World, skew_seconds: i64, planned: &Plan, changes: &[Change]) {
    let before: BTreeSet<String> = world.snapshot.pods.iter().map(|pod| pod.uid.clone()).collect();
    world.apply(planned, changes);
    let stamp =
        restarted_at(&world.snapshot.rollout.spec, world.snapshot.now + SignedDuration::from_secs(skew_seconds));
    for pod in world.snapshot.pods_mut().filter(|pod| !before.contains(&pod.uid)) {
        pod.restarted_at = stamp;
    }
}

/// By the world's clock.
fn wake_at(planned: &Plan, skew_seconds: i64) -> Option<Timestamp> {
    planned.wake_at.map(|at| at - SignedDuration::from_secs(skew_seconds))
}

/// What one look leaves for the next to be compared with.
struct Known {
    run: i64,
    opened: i32,
    replicas: i32,
    restart_at: Option<Timestamp>,
    /// What packages are to be: Pods with other ones are left to do from then on.
    noted: Vec<String>,
    /// Instances that alone go back (RollbackFailed).
    back: Ranges,
    /// Instances not opened yet, and opened ones without an available Pod that stays.
    remaining: usize,
}

impl Known {
    fn of(world: &World, planned: &Plan, skew_seconds: i64) -> Self {
        let snapshot = &world.snapshot;
        let spec = &snapshot.rollout.spec;
        let restart_at = restarted_at(spec, snapshot.now + SignedDuration::from_secs(skew_seconds));
        let arrived = |slot: i32| {
            let at_it = |pod: &&Pod| pod.slot == slot && Some(&pod.revision) == planned.memory.effective.as_ref();
            let stays = |pod: &&Pod| {
                !restart_at.is_some_and(|at| pod.precedes(at))
                    && !has_another_package(snapshot, pod)
                    && pod.resize.is_none()
            };
            let mut pods = snapshot.pods.iter().map(|pod| &**pod).filter(at_it).filter(stays);
            pods.any(|pod| is_available(snapshot, pod, skew_seconds))
        };
        let opened = planned.memory.batch.as_ref().map_or(spec.replicas, |batch| batch.opened);
        let goes_back = spec.strategy.on_failure == OnFailure::RollbackFailed;
        let failed = planned.memory.failed.as_ref().filter(|failed| goes_back && failed.at.is_some());
        let back = failed.map(back).unwrap_or_default();
        let counts = |slot: &i32| pinned_to(snapshot, *slot).is_none() && !back.0.contains(slot);
        // What was unpinned in mid-run joins later, also where its pin had brought it there already.
        let joins_later = planned.memory.batch.as_ref().map(|batch| Ranges::parse(&batch.pinned)).unwrap_or_default();
        let is_left = |slot: &i32| *slot >= opened || joins_later.0.contains(slot) || !arrived(*slot);
        Self {
            run: planned.memory.run,
            opened,
            replicas: spec.replicas,
            restart_at,
            noted: snapshot.revisions.iter().filter_map(|revision| revision.package_sha256.clone()).collect(),
            remaining: (0..spec.replicas).filter(counts).filter(is_left).count(),
            back,
        }
    }

    /// R3, R6: against the look before, with nothing done from outside in between.
    fn check(
        &self,
        before: &Self,
        snapshot: &Snapshot,
        planned: &Plan,
        skew_seconds: i64,
    ) -> Result<(), TestCaseError> {
        if (self.run, self.replicas, self.restart_at, &self.back, &self.noted)
            != (before.run, before.replicas, before.restart_at, &before.back, &before.noted)
        {
            return Ok(());
        }
        prop_assert!(self.opened >= before.opened, "R6: opened shrinks");
        prop_assert!(self.remaining <= before.remaining, "R6: {} to do after {}", self.remaining, before.remaining);
        let memory = &planned.memory;
        let forward = memory.effective != memory.stable && memory.stable.is_some();
        let has_batches = snapshot.rollout.spec.strategy.type_ == StrategyType::Batched;
        if self.opened == before.opened || !forward || !has_batches {
            return Ok(());
        }
        let tolerated = memory.failed.as_ref().map(|failed| Ranges::parse(&failed.slots)).unwrap_or_default();
        prop_assert!(tolerated.0.len() < snapshot.rollout.spec.strategy.failure_threshold as usize, "R3: threshold");
        let left_out = memory.batch.as_ref().map(|batch| Ranges::parse(&batch.pinned)).unwrap_or_default();
        let unpinned = |slot: &i32| pinned_to(snapshot, *slot).is_none() && !left_out.0.contains(slot);
        for slot in (0..before.opened).filter(unpinned).filter(|slot| !tolerated.0.contains(slot)) {
            let live: Vec<&Pod> =
                snapshot.pods.iter().map(|pod| &**pod).filter(|pod| pod.slot == slot && pod.is_live()).collect();
            let done = |pod: &Pod| {
                Some(&pod.revision) == memory.effective.as_ref() && is_available(snapshot, pod, skew_seconds)
            };
            prop_assert!(live.len() == 1 && done(live[0]), "R3: {} opened before slot {slot} was done", self.opened);
        }
        Ok(())
    }
}

/// Instances, and the revisions that they were seen with.
#[derive(Default)]
struct Given(BTreeSet<(i32, String)>);

impl Given {
    /// B7: none fails at a revision that it was not given. What was remembered before the first look is as it is.
    fn check(&mut self, snapshot: &Snapshot, planned: &Plan) -> Result<(), TestCaseError> {
        let known = snapshot.rollout.status.as_ref().and_then(|status| status.failed.as_ref());
        if self.0.is_empty()
            && let Some(known) = known
        {
            self.0.extend(Ranges::parse(&known.slots).0.into_iter().map(|slot| (slot, known.revision.clone())));
        }
        self.0.extend(snapshot.pods.iter().map(|pod| (pod.slot, pod.revision.clone())));
        let Some(failed) = &planned.memory.failed else { return Ok(()) };
        for slot in Ranges::parse(&failed.slots).0 {
            let was_given = self.0.contains(&(slot, failed.revision.clone()));
            prop_assert!(was_given, "B7: {slot} is blamed for {}: {}", failed.revision, failed.message);
        }
        Ok(())
    }
}

/// Runs with a random part of each plan carried out; checks every plan; true when nothing happens any more.
pub(super) fn run_partly(
    world: &mut World,
    skew_seconds: i64,
    mut coins: impl FnMut() -> bool,
    looks: usize,
) -> Result<bool, TestCaseError> {
    let mut before: Option<Known> = None;
    let mut given = Given::default();
    for _ in 0..looks {
        let planned = look(world, skew_seconds);
        check_plan(&world.snapshot, &planned, skew_seconds)?;
        given.check(&world.snapshot, &planned)?;
        let seen = Known::of(world, &planned, skew_seconds);
        if let Some(before) = &before {
            seen.check(before, &world.snapshot, &planned, skew_seconds)?;
        }
        before = Some(seen);
        if world.is_quiet(&planned) {
            let Some(next) = world.next_event(wake_at(&planned, skew_seconds)) else { return Ok(true) };
            world.advance(next);
            continue;
        }
        let part: Vec<Change> = planned.changes.iter().filter(|_| coins()).cloned().collect();
        act(world, skew_seconds, &planned, &part);
    }
    Ok(false)
}

/// R15, R19: a world in which nothing happens any more is where it should be, or says which person it waits for.
pub(super) fn check_rest(world: &World, skew_seconds: i64) -> Result<(), TestCaseError> {
    const PERSONS: [HoldReason; 5] = [
        HoldReason::Paused,
        HoldReason::AwaitingApproval,
        HoldReason::FailureThreshold,
        HoldReason::ProgressDeadline,
        HoldReason::Pinned,
    ];
    let planned = look(world, skew_seconds);
    prop_assert!(planned.changes.is_empty(), "R7: {:?}", planned.changes);
    if planned.hold.as_ref().is_some_and(|hold| PERSONS.contains(&hold.reason)) {
        return Ok(());
    }
    prop_assert_eq!(&planned.hold, &None, "R15: at rest");
    let snapshot = &world.snapshot;
    let slots: Vec<i32> = snapshot.pods.iter().map(|pod| pod.slot).collect();
    prop_assert_eq!(slots, (0..snapshot.rollout.spec.replicas).collect::<Vec<_>>(), "R15: one Pod a slot");
    let right = |pod: &Pod| {
        let wanted = pinned_to(snapshot, pod.slot).or(planned.memory.effective.as_ref());
        Some(&pod.revision) == wanted && is_available(snapshot, pod, skew_seconds) && pod.untold_since().is_none()
    };
    prop_assert!(snapshot.pods.iter().all(|pod| right(pod)), "R15: {:?}", super::fixture::say(&planned));
    if snapshot.rollout.spec.replicas == 0 && planned.memory.effective != planned.memory.stable {
        return Ok(()); // it goes on when there are instances
    }
    prop_assert_eq!(&planned.memory.batch, &None, "R15: the run has not ended");
    prop_assert!(selected(snapshot).is_none_or(|selected| Some(selected) == planned.memory.effective.as_deref()));
    Ok(())
}

pub(crate) fn coins(seed: u64) -> impl FnMut() -> bool {
    let mut state = seed | 1;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 62 != 0
    }
}
