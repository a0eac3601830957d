//! What each property asks of any world.
use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::{
    fixture::Fixture,
    worlds::{
        available_instances, bounds, check_plan, check_rest, coins, give_images, has_another_package, look, pinned_to,
        run_partly, selected, total,
    },
};
use crate::{
    api::rollout::OnFailure,
    plan::{
        Change, Memory, Plan,
        rollout::{back, fold::World, plan, slots},
    },
    snapshot::Snapshot,
};
/// R1 R2 R4 R10
pub(super) fn keeps_the_bounds(snapshot: Snapshot, skew: i64) -> Result<(), TestCaseError> {
    let world = World::new(snapshot, 3);
    check_plan(&world.snapshot, &look(&world, skew), skew)?;
    Ok(())
}

/// R12
pub(super) fn is_the_same_in_any_order(snapshot: &Snapshot, seed: u64) -> Result<(), TestCaseError> {
    let mut shuffled = snapshot.clone();
    let mut coin = coins(seed);
    shuffled.pods.sort_by_key(|_| coin());
    shuffled.revisions.sort_by_key(|_| coin());
    prop_assert_eq!(plan(snapshot), plan(&shuffled));
    Ok(())
}

/// R1 R2 R3 R6 R7 R15 R19
pub(super) fn comes_to_rest(snapshot: Snapshot, skew: i64, seed: u64) -> Result<(), TestCaseError> {
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
pub(super) fn completes_a_revert(snapshot: Snapshot, seed: u64) -> Result<(), TestCaseError> {
    let mut world = World::new(snapshot, 3);
    run_partly(&mut world, 0, coins(seed), 20)?;
    let remembered = world.snapshot.rollout.status.clone();
    let back = Fixture::new("", 'a', json!({})).snapshot.rollout;
    prop_assume!(world.snapshot.revisions.iter().any(|r| r.name == "a" && r.completed_at.is_some()));
    world.snapshot.rollout.spec.version = back.spec.version;
    if world.snapshot.rollout.spec.strategy.update.restarts() {
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
pub(super) fn scales_and_rolls(snapshot: Snapshot, seed: u64, scales: Vec<i32>) -> Result<(), TestCaseError> {
    let mut world = World::new(snapshot, 3);
    for replicas in scales {
        world.snapshot.rollout.spec.replicas = replicas;
        run_partly(&mut world, 0, coins(seed.wrapping_add(replicas as u64)), 15)?;
    }
    prop_assert!(run_partly(&mut world, 0, coins(seed), 2_000)?);
    check_rest(&world, 0)?;
    Ok(())
}

/// R15: pins that are taken away at any moment of a roll keep every plan within the bounds, and it completes.
pub(super) fn unpins_and_rolls(snapshot: Snapshot, seed: u64, early: usize, kept: usize) -> Result<(), TestCaseError> {
    let mut world = World::new(snapshot, 3);
    run_partly(&mut world, 0, coins(seed), early)?;
    world.snapshot.rollout.spec.pins.truncate(kept);
    prop_assert!(run_partly(&mut world, 0, coins(seed.rotate_left(9)), 2_000)?);
    check_rest(&world, 0)?;
    Ok(())
}

/// R5: a Pod that is lost comes back at the revision its slot is assigned, also while paused.
pub(super) fn brings_back_what_is_lost(snapshot: Snapshot, seed: u64) -> Result<(), TestCaseError> {
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
    let back = failed.map(back).unwrap_or_default();
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

/// R20: a second controller that acts on an older snapshot of the same generation, effective revision, opened
/// batches and set that is kept beside the assigned one. (With an older view of the opened batches it may refill a slot at the stable revision that the newer one
/// has begun to change.) A slot whose last Pod was ended in between makes the two fill different slots: one Pod too many
/// for each such slot, until it is retired as surplus.
pub(super) fn stands_a_stale_controller(
    snapshot: Snapshot,
    seed: u64,
    early: usize,
    later: usize,
) -> Result<(), TestCaseError> {
    prop_assume!(snapshot.pods.iter().all(|pod| !pod.is_finished()));
    let mut world = World::new(snapshot, 3);
    run_partly(&mut world, 0, coins(seed), early)?;
    let stale = plan(&world.snapshot);
    let kept = |world: &World| -> Option<String> {
        let slots = slots(&world.snapshot, &Memory::of(world.snapshot.rollout.status.as_ref()));
        slots.sets()?.kept.map(str::to_owned)
    };
    let kept_then = kept(&world);
    let filled = |world: &World| -> BTreeSet<i32> {
        world.snapshot.pods.iter().filter(|p| p.is_live()).map(|p| p.slot).collect()
    };
    let (filled_then, uids) =
        (filled(&world), world.snapshot.pods.iter().map(|pod| pod.uid.clone()).collect::<BTreeSet<_>>());
    let opened = |plan: &Plan| plan.memory.batch.as_ref().map(|batch| batch.opened);
    run_partly(&mut world, 0, coins(seed.rotate_left(9)), later)?;
    let now = plan(&world.snapshot);
    prop_assume!(now.memory.effective == stale.memory.effective && opened(&now) == opened(&stale));
    prop_assume!(kept(&world) == kept_then);
    let before = available_instances(&world.snapshot, 0, &[]);
    let total_before = total(&world.snapshot, 0);
    let pods = format!(
        "{:?}",
        world.snapshot.pods.iter().map(|p| (&p.name, p.deletion.is_some(), p.is_ready())).collect::<Vec<_>>()
    );
    // A Service that selects Pods of any revision is narrowed to one at once, whatever is available: also by the newer one.
    let narrows = selected(&world.snapshot).is_none()
        && stale.changes.iter().any(|change| matches!(change, Change::Service { .. }));
    // Its status write would meet 409, so nothing that follows from new memory is in `stale.changes`.
    world.apply(&Plan { memory: now.memory, ..stale.clone() }, &stale.changes);
    let (available_min, total_max) = bounds(&world.snapshot);
    let still = |slot: &i32| {
        world.snapshot.pods.iter().any(|pod| pod.slot == *slot && pod.is_live() && uids.contains(&pod.uid))
    };
    let emptied = filled_then.iter().filter(|slot| !still(slot)).count() as i32;
    let total_max = total_max + emptied;
    prop_assert!(
        narrows || available_instances(&world.snapshot, 0, &[]) >= available_min.min(before),
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
