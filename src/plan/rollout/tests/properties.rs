//! Properties R1-R20 for arbitrary specs, Pods and memories, with any subset of the planned changes carried out.
use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::{
    fixture::Fixture,
    worlds::{
        available_instances, bounds, check_plan, check_rest, coins, give_images, has_another_package, look, pinned_to,
        run_partly, selected, skew_seconds, total, world, world_in_place, world_of_blue_green, world_to_recreate,
        world_with_packages, world_with_pins,
    },
};
use crate::{
    api::{
        names::pod_name,
        rollout::{OnFailure, UpdateMethod},
    },
    plan::{
        Change, Plan,
        rollout::{
            fold::{End, World},
            plan,
        },
    },
    snapshot::{Ranges, Snapshot},
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, max_global_rejects: 50_000, ..ProptestConfig::default() })]

    /// R1 R2 R4 R10
    #[test]
    fn one_plan_keeps_the_bounds(snapshot in world(), skew in skew_seconds()) {
        keeps_the_bounds(snapshot, skew)?;
    }

    /// R12
    #[test]
    fn the_order_of_inputs_does_not_matter(snapshot in world(), seed in any::<u64>()) {
        is_the_same_in_any_order(&snapshot, seed)?;
    }

    /// R1 R2 R3 R6 R7 R15 R19
    #[test]
    fn every_world_comes_to_rest_within_the_bounds(snapshot in world(), skew in skew_seconds(), seed in any::<u64>()) {
        comes_to_rest(snapshot, skew, seed)?;
    }

    /// R8 R13
    #[test]
    fn a_revert_completes(snapshot in world(), seed in any::<u64>()) {
        completes_a_revert(snapshot, seed)?;
    }

    /// R16
    #[test]
    fn scale_and_roll_together(snapshot in world(), seed in any::<u64>(), scales in proptest::collection::vec(0..8i32, 1..4)) {
        scales_and_rolls(snapshot, seed, scales)?;
    }

    /// R5
    #[test]
    fn lost_pods_come_back(snapshot in world(), seed in any::<u64>()) {
        brings_back_what_is_lost(snapshot, seed)?;
    }

    /// R20
    #[test]
    fn a_stale_controller_keeps_the_bounds(snapshot in world(), seed in any::<u64>(), early in 0..20usize, later in 1..20usize) {
        stands_a_stale_controller(snapshot, seed, early, later)?;
    }

    /// R18: nonsense neither panics nor overflows.
    #[test]
    fn nonsense_never_panics(snapshot in world(), replicas in any::<i32>(), seconds in any::<i32>(), percent in "[0-9]{0,12}%?",
                             run in any::<i64>(), opened in any::<i32>(), batch in any::<i32>()) {
        let mut snapshot = snapshot;
        let spec = &mut snapshot.rollout.spec;
        spec.replicas = replicas.min(12_000);
        spec.min_ready_seconds = seconds;
        spec.progress_deadline_seconds = seconds;
        spec.revision_history_limit = batch;
        spec.strategy.batch_size = Some(crate::api::IntOrPercent::Percent(percent.clone()));
        spec.strategy.max_surge = crate::api::IntOrPercent::Percent(percent);
        spec.strategy.max_unavailable = crate::api::IntOrPercent::Count(batch);
        spec.approve = Some(crate::api::rollout::Approve { run, batch });
        if let Some(status) = &mut snapshot.rollout.status {
            status.run = Some(run);
            if let Some(batch) = &mut status.batch {
                batch.opened = opened;
                batch.index = opened;
            }
        }
        plan(&snapshot);
    }

    /// R17
    #[test]
    fn a_deleted_rollout_is_only_torn_down(snapshot in world()) {
        let mut snapshot = snapshot;
        snapshot.rollout.metadata.deletion_timestamp = Some(crate::api::Time(snapshot.now));
        prop_assert!(plan(&snapshot).changes.is_empty());
    }

    /// R9
    #[test]
    fn names_are_injective(a in name(), b in name()) {
        let of = |(rollout, slot, hash, attempt): &(String, i32, String, u32)| pod_name(rollout, *slot, hash, *attempt);
        prop_assert!(a == b || of(&a) != of(&b));
        prop_assert!(of(&a).len() <= 63, "a Pod's name is its hostname");
    }
}

/// R1 R2 R4 R10
fn keeps_the_bounds(snapshot: Snapshot, skew: i64) -> Result<(), TestCaseError> {
    let world = World::new(snapshot, 3);
    check_plan(&world.snapshot, &look(&world, skew), skew)?;
    Ok(())
}

/// R1 R2 R3 R6 R7 R15 R19
fn is_the_same_in_any_order(snapshot: &Snapshot, seed: u64) -> Result<(), TestCaseError> {
    let mut shuffled = snapshot.clone();
    let mut coin = coins(seed);
    shuffled.pods.sort_by_key(|_| coin());
    shuffled.revisions.sort_by_key(|_| coin());
    prop_assert_eq!(plan(snapshot), plan(&shuffled));
    Ok(())
}

fn comes_to_rest(snapshot: Snapshot, skew: i64, seed: u64) -> Result<(), TestCaseError> {
    let mut world = World::new(snapshot, 3);
    let rest = run_partly(&mut world, skew, coins(seed), 2_000)?;
    prop_assert!(rest, "never quiet: {:?}", look(&world, skew));
    check_rest(&world, skew)?;
    let held = look(&world, skew).hold.is_some() || world.snapshot.rollout.spec.paused;
    prop_assert!(
        held || !world.snapshot.pods.iter().any(|pod| has_another_package(&world.snapshot, pod)),
        "{:?}",
        world.snapshot.pods
    );
    Ok(())
}

/// R8 R13: a spec set back to the stable revision completes without a person.
fn completes_a_revert(snapshot: Snapshot, seed: u64) -> Result<(), TestCaseError> {
    let mut world = World::new(snapshot, 3);
    run_partly(&mut world, 0, coins(seed), 20)?;
    let remembered = world.snapshot.rollout.status.clone();
    let back = Fixture::new("", 'a', json!({})).snapshot.rollout;
    prop_assume!(world.snapshot.revisions.iter().any(|r| r.name == "a" && r.completed_at.is_some()));
    world.snapshot.rollout.spec.version = back.spec.version;
    if world.snapshot.rollout.spec.strategy.update != UpdateMethod::Replace {
        give_images(&mut world.snapshot);
    }
    world.snapshot.rollout.spec.paused = false;
    world.snapshot.rollout.status = remembered;
    let rest = run_partly(&mut world, 0, coins(seed.rotate_left(7)), 2_000)?;
    prop_assert!(rest);
    let slots: Vec<i32> = world.snapshot.pods.iter().map(|pod| pod.slot).collect();
    prop_assert_eq!(slots, (0..world.snapshot.rollout.spec.replicas).collect::<Vec<_>>());
    let wanted = |slot| pinned_to(&world.snapshot, slot).map_or("a", String::as_str);
    prop_assert!(world.snapshot.pods.iter().all(|pod| pod.revision == wanted(pod.slot)), "{:?}", plan(&world.snapshot));
    Ok(())
}

/// R16: scaling at any moment of a roll keeps every plan within the bounds of that moment, and it completes.
fn scales_and_rolls(snapshot: Snapshot, seed: u64, scales: Vec<i32>) -> Result<(), TestCaseError> {
    let mut world = World::new(snapshot, 3);
    for replicas in scales {
        world.snapshot.rollout.spec.replicas = replicas;
        run_partly(&mut world, 0, coins(seed.wrapping_add(replicas as u64)), 15)?;
    }
    prop_assert!(run_partly(&mut world, 0, coins(seed), 2_000)?);
    check_rest(&world, 0)?;
    Ok(())
}

/// R5: whatever is lost comes back at the revision its slot is assigned, also while paused.
fn brings_back_what_is_lost(snapshot: Snapshot, seed: u64) -> Result<(), TestCaseError> {
    let mut world = World::new(snapshot, 3);
    run_partly(&mut world, 0, coins(seed), 30)?;
    world.snapshot.rollout.spec.paused = true;
    let settled = plan(&world.snapshot);
    world.apply(&settled, &[]);
    let goes_forward = settled.memory.stable.is_some() && settled.memory.stable != settled.memory.effective;
    let opened_before = settled.memory.batch.filter(|_| goes_forward).map(|batch| batch.opened);
    world.snapshot.pods.clear();
    prop_assert!(run_partly(&mut world, 0, coins(seed), 2_000)?);
    let memory = plan(&world.snapshot).memory;
    let goes_forward = memory.stable.is_some() && memory.stable != memory.effective;
    let opened = memory.batch.as_ref().filter(|_| goes_forward).map_or(i32::MAX, |batch| batch.opened);
    prop_assert!(opened_before.is_none_or(|before| opened == i32::MAX || opened == before), "paused");
    let goes_back = world.snapshot.rollout.spec.strategy.on_failure == OnFailure::RollbackFailed && goes_forward;
    let failed = memory.failed.as_ref().filter(|failed| goes_back && failed.at.is_some());
    let back = failed.map(|failed| Ranges::parse(&failed.slots)).unwrap_or_default();
    let assigned = |slot: i32| {
        let is_back = back.0.contains(&slot);
        let unpinned = if slot < opened && !is_back { &memory.effective } else { &memory.stable };
        (slot, pinned_to(&world.snapshot, slot).or(unpinned.as_ref()).cloned())
    };
    let expected: Vec<_> = (0..world.snapshot.rollout.spec.replicas).map(assigned).collect();
    let found: Vec<_> = world.snapshot.pods.iter().map(|pod| (pod.slot, Some(pod.revision.clone()))).collect();
    prop_assert_eq!(found, expected, "{:?}", plan(&world.snapshot));
    Ok(())
}

/// R20: a second controller that acts on an older snapshot of the same generation, effective revision and opened
/// batches. (With an older view of the opened batches it may refill a slot at the stable revision that the newer one
/// has begun to change.) A slot whose last Pod was ended in between makes the two fill different slots: one Pod too many
/// for each such slot, until it is retired as surplus.
fn stands_a_stale_controller(snapshot: Snapshot, seed: u64, early: usize, later: usize) -> Result<(), TestCaseError> {
    prop_assume!(snapshot.pods.iter().all(|pod| !pod.is_finished()));
    let mut world = World::new(snapshot, 3);
    run_partly(&mut world, 0, coins(seed), early)?;
    let stale = plan(&world.snapshot);
    let filled = |world: &World| -> BTreeSet<i32> {
        world.snapshot.pods.iter().filter(|p| p.is_live()).map(|p| p.slot).collect()
    };
    let (filled_then, uids) =
        (filled(&world), world.snapshot.pods.iter().map(|pod| pod.uid.clone()).collect::<BTreeSet<_>>());
    let opened = |plan: &Plan| plan.memory.batch.as_ref().map(|batch| batch.opened);
    run_partly(&mut world, 0, coins(seed.rotate_left(9)), later)?;
    let now = plan(&world.snapshot);
    prop_assume!(now.memory.effective == stale.memory.effective && opened(&now) == opened(&stale));
    let before = available_instances(&world.snapshot, 0, &[]);
    let total_before = total(&world.snapshot, 0);
    let pods = format!(
        "{:?}",
        world.snapshot.pods.iter().map(|p| (&p.name, p.deletion.is_some(), p.is_ready())).collect::<Vec<_>>()
    );
    // Its status write would meet 409, so nothing that follows from new memory is in `stale.changes`.
    world.apply(&Plan { memory: now.memory, ..stale.clone() }, &stale.changes);
    let (available_min, total_max) = bounds(&world.snapshot);
    let still = |slot: &i32| {
        world.snapshot.pods.iter().any(|pod| pod.slot == *slot && pod.is_live() && uids.contains(&pod.uid))
    };
    let emptied = filled_then.iter().filter(|slot| !still(slot)).count() as i32;
    let total_max = total_max + emptied;
    prop_assert!(
        available_instances(&world.snapshot, 0, &[]) >= available_min.min(before),
        "R1: {} of {available_min}: {pods} then {}",
        available_instances(&world.snapshot, 0, &[]),
        super::fixture::say(&stale)
    );
    prop_assert!(
        total(&world.snapshot, 0) <= total_max.max(total_before),
        "R2: {} of {total_max}: {pods} then {}",
        total(&world.snapshot, 0),
        super::fixture::say(&stale)
    );
    Ok(())
}

/// The same where instances are pinned. (Of their own, so that what is saved of the others stays what it is.)
mod with_pins {
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, max_global_rejects: 50_000, ..ProptestConfig::default() })]

        /// R1 R2 R4 R10
        #[test]
        fn one_plan_keeps_the_bounds(snapshot in world_with_pins(), skew in skew_seconds()) {
            keeps_the_bounds(snapshot, skew)?;
        }

        /// R1 R2 R3 R6 R7 R15 R19
        #[test]
        fn every_world_comes_to_rest_within_the_bounds(snapshot in world_with_pins(), skew in skew_seconds(), seed in any::<u64>()) {
            comes_to_rest(snapshot, skew, seed)?;
        }

        /// R8 R13
        #[test]
        fn a_revert_completes(snapshot in world_with_pins(), seed in any::<u64>()) {
            completes_a_revert(snapshot, seed)?;
        }

        /// R16
        #[test]
        fn scale_and_roll_together(snapshot in world_with_pins(), seed in any::<u64>(), scales in proptest::collection::vec(0..8i32, 1..4)) {
            scales_and_rolls(snapshot, seed, scales)?;
        }

        /// R5
        #[test]
        fn lost_pods_come_back(snapshot in world_with_pins(), seed in any::<u64>()) {
            brings_back_what_is_lost(snapshot, seed)?;
        }

        /// R20
        #[test]
        fn a_stale_controller_keeps_the_bounds(snapshot in world_with_pins(), seed in any::<u64>(), early in 0..20usize, later in 1..20usize) {
            stands_a_stale_controller(snapshot, seed, early, later)?;
        }
    }
}

/// The same where Pods are changed in place.
mod in_place {
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, max_global_rejects: 50_000, ..ProptestConfig::default() })]

        /// R1 R2 R4 R10
        #[test]
        fn one_plan_keeps_the_bounds(snapshot in world_in_place(), skew in skew_seconds()) {
            keeps_the_bounds(snapshot, skew)?;
        }

        /// R1 R2 R3 R6 R7 R15 R19
        #[test]
        fn every_world_comes_to_rest_within_the_bounds(snapshot in world_in_place(), skew in skew_seconds(), seed in any::<u64>()) {
            comes_to_rest(snapshot, skew, seed)?;
        }

        /// R8 R13
        #[test]
        fn a_revert_completes(snapshot in world_in_place(), seed in any::<u64>()) {
            completes_a_revert(snapshot, seed)?;
        }

        /// R16
        #[test]
        fn scale_and_roll_together(snapshot in world_in_place(), seed in any::<u64>(), scales in proptest::collection::vec(0..8i32, 1..4)) {
            scales_and_rolls(snapshot, seed, scales)?;
        }

        /// R5
        #[test]
        fn lost_pods_come_back(snapshot in world_in_place(), seed in any::<u64>()) {
            brings_back_what_is_lost(snapshot, seed)?;
        }

        /// R20
        #[test]
        fn a_stale_controller_keeps_the_bounds(snapshot in world_in_place(), seed in any::<u64>(), early in 0..20usize, later in 1..20usize) {
            stands_a_stale_controller(snapshot, seed, early, later)?;
        }
    }
}

mod with_packages {
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, max_global_rejects: 50_000, ..ProptestConfig::default() })]

        /// R1 R2 R4 R10
        #[test]
        fn one_plan_keeps_the_bounds(snapshot in world_with_packages(), skew in skew_seconds()) {
            keeps_the_bounds(snapshot, skew)?;
        }

        /// R12
        #[test]
        fn the_order_of_inputs_does_not_matter(snapshot in world_with_packages(), seed in any::<u64>()) {
            is_the_same_in_any_order(&snapshot, seed)?;
        }

        /// R1 R2 R3 R6 R7 R15 R19, and no Pod stays that has fetched another package than what was noted.
        #[test]
        fn every_world_comes_to_rest_within_the_bounds(snapshot in world_with_packages(), skew in skew_seconds(), seed in any::<u64>()) {
            comes_to_rest(snapshot, skew, seed)?;
        }
    }
}

/// The same with strategy Recreate; and never is a Pod made beside one of another revision.
mod to_recreate {
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, max_global_rejects: 50_000, ..ProptestConfig::default() })]

        /// B1 R2 R4 R10
        #[test]
        fn one_plan_makes_no_second_revision(snapshot in world_to_recreate(), skew in skew_seconds()) {
            keeps_the_bounds(snapshot, skew)?;
        }

        /// B1 R2 R6 R7 R15 R19
        #[test]
        fn every_world_comes_to_rest_with_one_revision(snapshot in world_to_recreate(), skew in skew_seconds(), seed in any::<u64>()) {
            comes_to_rest(snapshot, skew, seed)?;
        }

        /// B1 R8 R13
        #[test]
        fn a_revert_completes(snapshot in world_to_recreate(), seed in any::<u64>()) {
            completes_a_revert(snapshot, seed)?;
        }

        /// B1 R16
        #[test]
        fn scale_and_roll_together(snapshot in world_to_recreate(), seed in any::<u64>(), scales in proptest::collection::vec(0..8i32, 1..4)) {
            scales_and_rolls(snapshot, seed, scales)?;
        }

        /// B1 R5
        #[test]
        fn lost_pods_come_back(snapshot in world_to_recreate(), seed in any::<u64>()) {
            brings_back_what_is_lost(snapshot, seed)?;
        }

        /// B1 R20
        #[test]
        fn a_stale_controller_keeps_the_bounds(snapshot in world_to_recreate(), seed in any::<u64>(), early in 0..20usize, later in 1..20usize) {
            stands_a_stale_controller(snapshot, seed, early, later)?;
        }
    }
}

/// The same with strategy BlueGreen: bounds are those of the Pods that clients use.
mod of_blue_green {
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, max_global_rejects: 50_000, ..ProptestConfig::default() })]

        /// B3 R1 R2 R4 R10
        #[test]
        fn one_plan_keeps_the_bounds(snapshot in world_of_blue_green(), skew in skew_seconds()) {
            keeps_the_bounds(snapshot, skew)?;
        }

        /// B3 R1 R2 R6 R7 R15 R19
        #[test]
        fn every_world_comes_to_rest_within_the_bounds(snapshot in world_of_blue_green(), skew in skew_seconds(), seed in any::<u64>()) {
            comes_to_rest(snapshot, skew, seed)?;
        }

        /// B3 R8 R13
        #[test]
        fn a_revert_completes(snapshot in world_of_blue_green(), seed in any::<u64>()) {
            completes_a_revert(snapshot, seed)?;
        }

        /// B3 R16
        #[test]
        fn scale_and_roll_together(snapshot in world_of_blue_green(), seed in any::<u64>(), scales in proptest::collection::vec(0..8i32, 1..4)) {
            scales_and_rolls(snapshot, seed, scales)?;
        }

        /// B3 R5
        #[test]
        fn lost_pods_come_back(snapshot in world_of_blue_green(), seed in any::<u64>()) {
            keeps_clients_served(snapshot, seed)?;
        }

        /// B3 R12
        #[test]
        fn the_order_of_inputs_does_not_matter(snapshot in world_of_blue_green(), seed in any::<u64>()) {
            is_the_same_in_any_order(&snapshot, seed)?;
        }

        /// B3 R20
        #[test]
        fn a_stale_controller_keeps_the_bounds(snapshot in world_of_blue_green(), seed in any::<u64>(), early in 0..20usize, later in 1..20usize) {
            stands_a_stale_controller(snapshot, seed, early, later)?;
        }
    }

    /// Whatever is lost while nothing may begin, each instance comes back at the revision that clients get.
    fn keeps_clients_served(snapshot: Snapshot, seed: u64) -> Result<(), TestCaseError> {
        let mut world = World::new(snapshot, 3);
        run_partly(&mut world, 0, coins(seed), 30)?;
        world.snapshot.rollout.spec.paused = true;
        world.snapshot.pods.clear();
        prop_assert!(run_partly(&mut world, 0, coins(seed), 2_000)?);
        let Some(selected) = selected(&world.snapshot) else { return Ok(()) };
        let at_it = world.snapshot.pods.iter().filter(|pod| pod.revision == selected && pod.is_ready());
        let slots: Vec<i32> = at_it.map(|pod| pod.slot).collect();
        prop_assert_eq!(
            slots,
            (0..world.snapshot.rollout.spec.replicas).collect::<Vec<_>>(),
            "{:?}",
            plan(&world.snapshot)
        );
        Ok(())
    }
}

fn name() -> impl Strategy<Value = (String, i32, String, u32)> {
    ("[a-c]([-a-b0-1]{0,38}[a-b0-1])?", 0..10_000i32, "[bc][bc29]{9}", 0..1000u32)
}

/// argo-rollouts#4696: fields that this build's types do not know are part of the revision, like all others.
#[test]
fn a_field_of_tomorrow_makes_another_revision() {
    let mut spec = Fixture::new("a", 'a', json!({})).snapshot.rollout.spec;
    let hash = |spec: &crate::api::RolloutSpec| crate::plan::revision::hash(&crate::plan::revision::data(spec));
    let before = hash(&spec);
    spec.template.0["spec"]["containers"][0]["fieldOfTomorrow"] = json!(1);
    assert_ne!(hash(&spec), before);
    spec.template.0["spec"]["containers"][0].as_object_mut().unwrap().remove("fieldOfTomorrow");
    assert_eq!(hash(&spec), before);
}

/// R14: hashes that earlier releases gave; they never change.
#[test]
fn golden_hashes() {
    let data = crate::plan::revision::data(&Fixture::new("", 'a', json!({})).snapshot.rollout.spec);
    assert_eq!(crate::plan::revision::hash(&data), "s596cf6rgr");
    let reordered: serde_json::Value = serde_json::from_str(
        r#"{"version":"a","template":{"spec":{"x":null,"containers":[{"image":"example.local/web:1","name":"web"}]},"metadata":{"labels":{"app":"web"}}}}"#,
    ).unwrap();
    assert_eq!(
        crate::plan::revision::hash(&data),
        crate::plan::revision::hash(&reordered),
        "order and nulls do not count"
    );
}

#[test]
fn a_fold_ends() {
    let mut world = World::new(Fixture::new("a a a a a a a a", 'b', json!({"strategy": {"batchSize": 3}})).snapshot, 1);
    let mut writes = 0;
    assert_eq!(
        world.run(|_, step| writes +=
            step.changes.iter().filter(|c| matches!(c, Change::CreatePod { .. } | Change::DeletePod { .. })).count()),
        End::Done
    );
    assert_eq!(writes, 16, "two writes per replaced Pod, none more");
}
