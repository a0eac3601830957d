//! Properties R1-R20 for arbitrary specs, Pods and memories, with any subset of the planned changes carried out.
use proptest::prelude::*;
use serde_json::json;

use super::fixture::Fixture;
use crate::{
    api::names::pod_name,
    plan::{
        Change, Plan,
        rollout::{
            fold::{End, World},
            plan,
        },
    },
    snapshot::Snapshot,
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
               opened in prop_oneof![Just(None), (0..7i32).prop_map(Some)], scale in -2..3i32, first in prop::bool::weighted(0.2))
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
        let replicas = &mut fixture.snapshot.rollout.spec.replicas;
        *replicas = (*replicas + scale).max(0);
        fixture.snapshot
    }
}

/// Bounds as a Deployment has them: (fewest available, most Pods).
fn bounds(snapshot: &Snapshot) -> (i32, i32) {
    let spec = &snapshot.rollout.spec;
    let surge = spec.strategy.max_surge.rounded_up(spec.replicas);
    let unavailable = spec.strategy.max_unavailable.rounded_down(spec.replicas);
    let unavailable = if surge == 0 { unavailable.max(1) } else { unavailable };
    ((spec.replicas - unavailable).max(0), spec.replicas + surge)
}

fn available(snapshot: &Snapshot) -> i32 {
    let spec = &snapshot.rollout.spec;
    snapshot.pods.iter().filter(|pod| pod.is_available(spec.min_ready_seconds, snapshot.now)).count() as i32
}

fn total(snapshot: &Snapshot) -> i32 {
    snapshot.pods.iter().filter(|pod| !pod.is_finished()).count() as i32
}

/// R1, R2, R4, R10 of one plan, whatever part of it is carried out.
fn check_plan(snapshot: &Snapshot, planned: &Plan) -> Result<(), TestCaseError> {
    let spec = &snapshot.rollout.spec;
    let (available_min, total_max) = bounds(snapshot);
    let mut lost = 0;
    let mut created = 0;
    for change in &planned.changes {
        match change {
            Change::DeletePod { uid, resource_version, name, .. } => {
                let pod = snapshot.pods.iter().find(|pod| pod.uid == *uid && pod.resource_version == *resource_version);
                prop_assert!(pod.is_some(), "R10: {name} is deleted with preconditions of no Pod of ours");
                lost += i32::from(pod.is_some_and(|pod| pod.is_available(spec.min_ready_seconds, snapshot.now)));
            }
            Change::CreatePod { revision, name, slot, .. } => {
                created += 1;
                let memory = &planned.memory;
                let known = [&memory.update, &memory.stable, &memory.effective];
                prop_assert!(known.contains(&&Some(revision.clone())), "R4: {name} is of {revision}");
                prop_assert!((0..spec.replicas).contains(slot), "{name} is beyond replicas");
                prop_assert!(snapshot.pods.iter().all(|pod| pod.name != *name), "{name} exists");
            }
            _ => {}
        }
    }
    prop_assert!(
        lost == 0 || available(snapshot) - lost >= available_min,
        "R1: {} - {lost} < {available_min}",
        available(snapshot)
    );
    prop_assert!(
        created == 0 || total(snapshot) + created <= total_max,
        "R2: {} + {created} > {total_max}",
        total(snapshot)
    );
    Ok(())
}

/// Runs with a random part of each plan carried out; checks every plan; ends when quiet.
fn run_partly(world: &mut World, mut coins: impl FnMut() -> bool, looks: usize) -> Result<bool, TestCaseError> {
    let mut before: Option<(i64, i32, i32)> = None;
    for _ in 0..looks {
        let planned = plan(&world.snapshot);
        check_plan(&world.snapshot, &planned)?;
        let replicas = world.snapshot.rollout.spec.replicas;
        if let Some(batch) = &planned.memory.batch {
            if let Some((run, opened, replicas_before)) = before {
                let scaled = replicas < replicas_before;
                prop_assert!(planned.memory.run != run || batch.opened >= opened || scaled, "opened shrinks");
            }
            before = Some((planned.memory.run, batch.opened, replicas));
        }
        if world.is_quiet(&planned) {
            let Some(next) = world.next_event(planned.wake_at) else { return Ok(true) };
            world.advance(next);
            continue;
        }
        let part: Vec<Change> = planned.changes.iter().filter(|_| coins()).cloned().collect();
        world.apply(&planned, &part);
    }
    Ok(false)
}

pub(crate) fn coins(seed: u64) -> impl FnMut() -> bool {
    let mut state = seed | 1;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 62 != 0
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, max_global_rejects: 50_000, ..ProptestConfig::default() })]

    /// R1 R2 R4 R10
    #[test]
    fn one_plan_keeps_the_bounds(snapshot in world()) {
        check_plan(&snapshot, &plan(&snapshot))?;
    }

    /// R12
    #[test]
    fn the_order_of_inputs_does_not_matter(snapshot in world(), seed in any::<u64>()) {
        let expected = plan(&snapshot);
        let mut shuffled = snapshot.clone();
        let mut coin = coins(seed);
        shuffled.pods.sort_by_key(|_| coin());
        shuffled.revisions.sort_by_key(|_| coin());
        prop_assert_eq!(expected, plan(&shuffled));
    }

    /// R1 R2 R6 R7 R15 R19
    #[test]
    fn every_world_comes_to_rest_within_the_bounds(snapshot in world(), seed in any::<u64>()) {
        let mut world = World::new(snapshot, 3);
        let rest = run_partly(&mut world, coins(seed), 2_000)?;
        prop_assert!(rest, "never quiet: {:?}", plan(&world.snapshot));
        let planned = plan(&world.snapshot);
        prop_assert!(planned.changes.is_empty(), "R7: {:?}", planned.changes);
    }

    /// R8 R13: a spec set back to the stable revision completes without a person.
    #[test]
    fn a_revert_completes(snapshot in world(), seed in any::<u64>()) {
        let mut world = World::new(snapshot, 3);
        run_partly(&mut world, coins(seed), 20)?;
        let remembered = world.snapshot.rollout.status.clone();
        let back = Fixture::new("", 'a', json!({})).snapshot.rollout;
        prop_assume!(world.snapshot.revisions.iter().any(|r| r.name == "a" && r.completed_at.is_some()));
        world.snapshot.rollout.spec.version = back.spec.version;
        world.snapshot.rollout.spec.paused = false;
        world.snapshot.rollout.status = remembered;
        let rest = run_partly(&mut world, coins(seed.rotate_left(7)), 2_000)?;
        prop_assert!(rest);
        let slots: Vec<i32> = world.snapshot.pods.iter().map(|pod| pod.slot).collect();
        prop_assert_eq!(slots, (0..world.snapshot.rollout.spec.replicas).collect::<Vec<_>>());
        prop_assert!(world.snapshot.pods.iter().all(|pod| pod.revision == "a"), "{:?}", plan(&world.snapshot));
    }

    /// R16: scaling at any moment of a roll keeps every plan within the bounds of that moment, and it completes.
    #[test]
    fn scale_and_roll_together(snapshot in world(), seed in any::<u64>(), scales in proptest::collection::vec(0..8i32, 1..4)) {
        let mut world = World::new(snapshot, 3);
        for replicas in scales {
            world.snapshot.rollout.spec.replicas = replicas;
            run_partly(&mut world, coins(seed.wrapping_add(replicas as u64)), 15)?;
        }
        prop_assert!(run_partly(&mut world, coins(seed), 2_000)?);
    }

    /// R5: whatever is lost comes back at the revision its slot is assigned, also while paused.
    #[test]
    fn lost_pods_come_back(snapshot in world(), seed in any::<u64>()) {
        let mut world = World::new(snapshot, 3);
        run_partly(&mut world, coins(seed), 30)?;
        world.snapshot.rollout.spec.paused = true;
        world.snapshot.pods.clear();
        prop_assert!(run_partly(&mut world, coins(seed), 2_000)?);
        let slots: Vec<i32> = world.snapshot.pods.iter().map(|pod| pod.slot).collect();
        prop_assert_eq!(slots, (0..world.snapshot.rollout.spec.replicas).collect::<Vec<_>>(), "{:?}", plan(&world.snapshot));
    }

    /// R20: a second controller that acts on an older snapshot of the same generation, effective revision and opened
    /// batches. (With an older view of the opened batches it may refill a slot at the stable revision that the newer one
    /// has begun to change, and Pods that others ended in between make the two fill different slots: one Pod too many per
    /// create in flight, until it is retired as surplus.)
    #[test]
    fn a_stale_controller_keeps_the_bounds(snapshot in world(), seed in any::<u64>(), early in 0..20usize, later in 1..20usize) {
        prop_assume!(snapshot.pods.iter().all(|pod| !pod.is_finished()));
        let mut world = World::new(snapshot, 3);
        run_partly(&mut world, coins(seed), early)?;
        let stale = plan(&world.snapshot);
        let opened = |plan: &Plan| plan.memory.batch.as_ref().map(|batch| batch.opened);
        run_partly(&mut world, coins(seed.rotate_left(9)), later)?;
        let now = plan(&world.snapshot);
        prop_assume!(now.memory.effective == stale.memory.effective && opened(&now) == opened(&stale));
        let before = available(&world.snapshot);
        let total_before = total(&world.snapshot);
        let pods = format!("{:?}", world.snapshot.pods.iter().map(|p| (&p.name, p.deletion.is_some(), p.is_ready())).collect::<Vec<_>>());
        // Its status write would meet 409, so nothing that follows from new memory is in `stale.changes`.
        world.apply(&Plan { memory: now.memory, ..stale.clone() }, &stale.changes);
        let (available_min, total_max) = bounds(&world.snapshot);
        prop_assert!(available(&world.snapshot) >= available_min.min(before), "R1: {} of {available_min}", available(&world.snapshot));
        prop_assert!(total(&world.snapshot) <= total_max.max(total_before), "R2: {} of {total_max}: {pods} then {}", total(&world.snapshot), super::fixture::say(&stale));
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

fn name() -> impl Strategy<Value = (String, i32, String, u32)> {
    ("[a-c]([-a-b0-1]{0,38}[a-b0-1])?", 0..10_000i32, "[bc][bc29]{9}", 0..1000u32)
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
