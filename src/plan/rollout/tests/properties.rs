//! Properties R1-R20 for arbitrary specs, Pods and memories, with any subset of the planned changes carried out.
use proptest::prelude::*;
use serde_json::json;

use super::{
    fixture::Fixture,
    laws::{
        brings_back_what_is_lost, comes_to_rest, completes_a_revert, is_the_same_in_any_order, keeps_the_bounds,
        scales_and_rolls, stands_a_stale_controller, unpins_and_rolls,
    },
    worlds::{
        coins, run_partly, selected, skew_seconds, world, world_in_place, world_of_blue_green, world_reloading,
        world_resized, world_that_keeps, world_to_recreate, world_with_packages, world_with_pins,
    },
};
use crate::{
    api::{names::pod_name, rollout::Approve},
    plan::{
        Change, PodAct,
        rollout::{
            fold::{End, World},
            plan,
        },
    },
    snapshot::Snapshot,
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
        spec.approve = Some(Approve { run, batch, ..Approve::default() });
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

        /// R15
        #[test]
        fn unpin_and_roll_together(snapshot in world_with_pins(), seed in any::<u64>(), early in 0..40usize, kept in 0..2usize) {
            unpins_and_rolls(snapshot, seed, early, kept)?;
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

/// The same where they are given other resources.
mod resized {
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, max_global_rejects: 50_000, ..ProptestConfig::default() })]

        /// R1 R2 R4 R10
        #[test]
        fn one_plan_keeps_the_bounds(snapshot in world_resized(), skew in skew_seconds()) {
            keeps_the_bounds(snapshot, skew)?;
        }

        /// R1 R2 R3 R6 R7 R15 R19
        #[test]
        fn every_world_comes_to_rest_within_the_bounds(snapshot in world_resized(), skew in skew_seconds(), seed in any::<u64>()) {
            comes_to_rest(snapshot, skew, seed)?;
        }

        /// R8 R13
        #[test]
        fn a_revert_completes(snapshot in world_resized(), seed in any::<u64>()) {
            completes_a_revert(snapshot, seed)?;
        }

        /// R20
        #[test]
        fn a_stale_controller_keeps_the_bounds(snapshot in world_resized(), seed in any::<u64>(), early in 0..20usize, later in 1..20usize) {
            stands_a_stale_controller(snapshot, seed, early, later)?;
        }
    }
}

mod reloading {
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, max_global_rejects: 50_000, ..ProptestConfig::default() })]

        /// R1 R2 R4 R10
        #[test]
        fn one_plan_keeps_the_bounds(snapshot in world_reloading(), skew in skew_seconds()) {
            keeps_the_bounds(snapshot, skew)?;
        }

        /// R1 R2 R3 R6 R7 R15 R19
        #[test]
        fn every_world_comes_to_rest_within_the_bounds(snapshot in world_reloading(), skew in skew_seconds(), seed in any::<u64>()) {
            comes_to_rest(snapshot, skew, seed)?;
        }

        /// R8 R13
        #[test]
        fn a_revert_completes(snapshot in world_reloading(), seed in any::<u64>()) {
            completes_a_revert(snapshot, seed)?;
        }

        /// R20
        #[test]
        fn a_stale_controller_keeps_the_bounds(snapshot in world_reloading(), seed in any::<u64>(), early in 0..20usize, later in 1..20usize) {
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

/// The same where failed Pods are kept for a look.
mod that_keep {
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, max_global_rejects: 50_000, ..ProptestConfig::default() })]

        /// R1 R2 R4 R10
        #[test]
        fn one_plan_keeps_the_bounds(snapshot in world_that_keeps(), skew in skew_seconds()) {
            keeps_the_bounds(snapshot, skew)?;
        }

        /// R1 R2 R3 R6 R7 R15 R19
        #[test]
        fn every_world_comes_to_rest_within_the_bounds(snapshot in world_that_keeps(), skew in skew_seconds(), seed in any::<u64>()) {
            comes_to_rest(snapshot, skew, seed)?;
        }

        /// R8 R13
        #[test]
        fn a_revert_completes(snapshot in world_that_keeps(), seed in any::<u64>()) {
            completes_a_revert(snapshot, seed)?;
        }

        /// R20
        #[test]
        fn a_stale_controller_keeps_the_bounds(snapshot in world_that_keeps(), seed in any::<u64>(), early in 0..20usize, later in 1..20usize) {
            stands_a_stale_controller(snapshot, seed, early, later)?;
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

    /// An instance that is lost while nothing may begin comes back at the revision that clients get.
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
        world.run(|_, step| writes += step
            .changes
            .iter()
            .filter(|c| matches!(c, Change::CreatePod { .. } | Change::Pod { act: PodAct::Delete { .. }, .. }))
            .count()),
        End::Done
    );
    assert_eq!(writes, 16, "two writes per replaced Pod, none more");
}
