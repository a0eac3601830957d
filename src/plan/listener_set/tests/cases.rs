//! What becomes of a set in the situations that its users know.
use serde_json::json;

use super::world::{World, time};
use crate::{
    api::{
        Time,
        listener_set::{Release, StartBudget},
        session::SessionProfile,
    },
    plan::listener_set::change::{Origin, SetChange, Stage},
    snapshot::listener_set::Course,
};

/// Seconds until so many listeners run.
pub(super) fn seconds_until(world: &mut World, running: usize) -> usize {
    (0..200)
        .find(|_| {
            world.tick();
            world.running().len() == running
        })
        .unwrap_or(usize::MAX)
}

/// L4, L5, L11
#[test]
fn a_new_set_is_spread_and_then_left_alone() {
    let mut world = World::of(10, 3);
    assert!(seconds_until(&mut world, 10) < 5);
    world.settle();
    assert_eq!(world.loads(), [4, 3, 3]);
    let (writes, moves) = (world.writes, world.moves.clone());
    world.run(100);
    assert_eq!((world.writes, world.moves), (writes, moves));
    assert!(writes <= 3 + 10, "a session each, an ownership each: {writes}");
}

/// L4: container restart, Pod deleted, node lost.
#[test]
fn what_a_dead_pod_held_is_taken() {
    for (fault, most) in [("crash", 3), ("delete", 20), ("cut off", 20)] {
        let mut world = World::of(9, 3);
        world.settle();
        let first = world.pods.keys().next().unwrap().clone();
        match fault {
            "crash" => {
                world.pods.get_mut(&first).unwrap().has_agent = false;
                world.crash(&first);
            }
            "delete" => world.delete_pod(&first),
            _ => world.pods.get_mut(&first).unwrap().is_cut_off = true,
        }
        let took = (0..60).find(|_| {
            world.tick();
            let running = world.running();
            running.len() == 9 && running.values().all(|pod| *pod != first)
        });
        assert!(took.is_some_and(|took| took <= most), "{fault}: {took:?}");
    }
}

/// A16
#[test]
fn pods_without_an_agent_get_nothing_and_block_nothing() {
    let mut world = World::of(4, 2);
    world.pods.values_mut().for_each(|pod| pod.has_agent = false);
    world.run(30);
    let place = world.dry_look().listeners["listener-0"].clone();
    assert_eq!((place.stage, place.reason.as_str()), (Stage::Unassigned, "NoAgent"));
    world.pods.values_mut().next().unwrap().has_agent = true;
    world.settle();
    assert_eq!(world.loads(), [4, 0]);
}

/// L5, L6
#[test]
fn a_rollout_moves_each_listener_once() {
    let mut world = World::of(12, 3);
    world.settle();
    world.is_rolling = true;
    let old: Vec<String> = world.pods.keys().cloned().collect();
    for name in &old {
        world.pods.get_mut(name).unwrap().seen.course = Course::Stays;
    }
    for (slot, name) in old.iter().enumerate() {
        world.add_pod(slot as i32);
        world.pods.get_mut(name).unwrap().seen.course = Course::Leaves;
        world.run(10);
        assert!(world.running().values().all(|at| at != name), "{name} is empty: {:?}", world.running());
        world.delete_pod(name);
    }
    world.is_rolling = false;
    world.settle();
    assert_eq!((world.loads(), world.running().len()), (vec![4, 4, 4], 12));
    assert!(world.moves.len() == 12 && world.moves.values().all(|moves| *moves == 1), "{:?}", world.moves);
}

/// A6: SIGTERM, with a Pod to hand over to.
#[test]
fn a_pod_that_drains_hands_over() {
    let mut world = World::of(6, 2);
    world.settle();
    let first = world.pods.keys().next().unwrap().clone();
    world.pods.get_mut(&first).unwrap().agent.as_mut().unwrap().draining = true;
    world.run(10);
    assert_eq!((world.loads(), world.moves.len()), (vec![0, 6], 3));
}

/// A10
#[test]
fn listeners_stop_start_and_go_as_the_spec_says() {
    let spec = |listeners| json!({"rolloutRef": {"name": "web"}, "listeners": listeners});
    let mut world = World::new(&spec(json!([{"name": "a"}, {"name": "b"}, {"name": "c"}])), 2);
    world.settle();
    world.set.spec =
        serde_json::from_value(spec(json!([{"name": "a", "state": "Stopped"}, {"name": "b"}, {"name": "d"}]))).unwrap();
    world.settle();
    assert_eq!(world.running().into_keys().collect::<Vec<_>>(), ["b", "d"]);
    // L8: the Lease of what is not in the set is gone; that of what is stopped is not.
    assert_eq!(world.leases.keys().collect::<Vec<_>>(), ["a", "b", "d"]);
    let floor = world.set.status.as_ref().unwrap().epoch_floor;
    assert!(floor >= 2, "{floor}");
    world.set.spec = serde_json::from_value(spec(json!([{"name": "a"}, {"name": "c"}]))).unwrap();
    world.settle();
    assert_eq!(world.running().into_keys().collect::<Vec<_>>(), ["a", "c"]);
    assert!(world.leases["c"].ownership.epoch > floor as u32, "L2");
}

#[test]
fn what_is_renamed_waits_for_what_it_replaces() {
    let spec = |listeners| json!({"rolloutRef": {"name": "web"}, "listeners": listeners});
    for (before, after) in [
        (json!({"name": "a", "secretRef": {"name": "token"}}), json!({"name": "b", "secretRef": {"name": "token"}})),
        (json!({"name": "a", "config": {"room": 7}}), json!({"name": "b", "config": {"room": 7}})),
    ] {
        let mut world = World::new(&spec(json!([before])), 2);
        world.settle();
        world.pods.values_mut().for_each(|pod| pod.hangs = true);
        world.set.spec = serde_json::from_value(spec(json!([after]))).unwrap();
        world.run(20);
        let place = world.dry_look().listeners["b"].clone();
        assert_eq!((place.stage, place.reason.as_str()), (Stage::Unassigned, "ReplacesRemoved"));
        world.pods.values_mut().for_each(|pod| pod.hangs = false);
        world.settle();
        assert_eq!(world.running().into_keys().collect::<Vec<_>>(), ["b"]);
    }
}

#[test]
fn changed_settings_restart_what_runs_a_few_at_a_time() {
    let spec = |proxy, timeout| {
        json!({"rolloutRef": {"name": "web"}, "count": {"count": 12}, "handoff": {"maxInFlight": 3},
            "defaults": {"useProxy": proxy, "stopTimeoutSeconds": timeout}})
    };
    let mut world = World::new(&spec(false, 30), 2);
    world.settle();
    let epochs = world.epochs.clone();
    world.set.spec = serde_json::from_value(spec(false, 20)).unwrap();
    world.settle();
    assert_eq!(world.epochs, epochs, "times take effect without a restart");
    assert!(world.leases.values().all(|seen| seen.settings.contains("\"stopTimeoutSeconds\":20")));
    world.set.spec = serde_json::from_value(spec(true, 20)).unwrap();
    let planned = world.tick();
    assert_eq!(planned.changes.iter().filter(|change| change.verb() == "Configure").count(), 3);
    world.settle();
    assert!(world.epochs.iter().all(|(name, epoch)| *epoch == epochs[name] + 1), "{:?}", world.epochs);
    assert_eq!(world.running().len(), 12);
}

/// A10: recover
#[test]
fn recover_at_restarts_each_once() {
    let mut world = World::of(8, 2);
    world.settle();
    let epochs = world.epochs.clone();
    world.set.spec.recover_at = Some(crate::api::Time(time(world.now + 10)));
    world.run(5);
    assert_eq!(world.epochs, epochs, "not yet");
    world.run(10);
    world.settle();
    assert!(world.epochs.iter().all(|(name, epoch)| *epoch == epochs[name] + 1), "{:?}", world.epochs);
    let after = world.epochs.clone();
    world.set.spec.recover_at = None;
    world.settle();
    assert_eq!(world.epochs, after, "its end restarts nothing");
}

#[test]
fn starts_keep_to_their_budget() {
    let spec = json!({"rolloutRef": {"name": "web"}, "count": {"count": 6}, "startBudget": {"permits": 1, "periodSeconds": 5}});
    let mut world = World::new(&spec, 2);
    let mut starts: Vec<u64> = Vec::new();
    for _ in 0..60 {
        let before: u32 = world.epochs.values().sum();
        world.tick();
        let now = world.now;
        let begun = world.epochs.values().sum::<u32>() - before;
        starts.extend((0..begun).map(|_| now));
    }
    assert!(starts.len() == 6 && starts.windows(2).all(|pair| pair[1] - pair[0] >= 5), "{starts:?}");
    // A move waits for its permit with the old Pod running.
    let first = world.pods.keys().next().unwrap().clone();
    world.pods.get_mut(&first).unwrap().seen.course = Course::Leaves;
    let mut moved = Vec::new();
    for _ in 0..30 {
        let before = world.moves.len();
        world.tick();
        assert_eq!(world.running().len(), 6);
        moved.extend((before..world.moves.len()).map(|_| world.now));
    }
    assert!(moved.len() == 3 && moved.windows(2).all(|pair| pair[1] - pair[0] >= 5), "{moved:?}");
}

/// A Lease shows the last start alone.
#[test]
fn each_start_of_the_same_listener_is_counted() {
    let spec = json!({"rolloutRef": {"name": "web"}, "count": {"count": 1}, "startBudget": {"permits": 3, "periodSeconds": 600}});
    let mut world = World::new(&spec, 2);
    world.settle();
    world.run(600);
    let moves: Vec<bool> = (0..5).map(|_| moves_when_asked(&mut world)).collect();
    assert_eq!(moves, [true, true, true, false, false]);
}

/// Whether the first listener is on the other Pod soon after its release was asked for.
fn moves_when_asked(world: &mut World) -> bool {
    let other = world.pods.keys().find(|pod| **pod != world.running()["listener-0"]).unwrap().clone();
    let order = Release { listener: "listener-0".into(), at: Time(time(world.now)), force: false };
    world.set.spec.release = vec![order];
    world.run(20);
    world.running()["listener-0"] == other
}

#[test]
fn a_new_budget_counts_what_it_finds_by_its_age() {
    let mut world = World::of(4, 2);
    world.settle();
    world.run(600);
    world.set.spec.start_budget = Some(StartBudget { permits: 1, period_seconds: 600 });
    world.run(5);
    assert!(moves_when_asked(&mut world), "all that runs was started longer ago than a period");
    assert!(!moves_when_asked(&mut world));
}

/// What is stopped for a while, and started again elsewhere, was not handed over.
#[test]
fn a_rest_is_no_gap() {
    let mut world = World::of(2, 2);
    world.settle();
    let listeners = |state: &str| json!([{"name": "listener-0", "state": state}, {"name": "listener-1"}]);
    world.set.spec.count = None;
    world.set.spec.listeners = serde_json::from_value(listeners("Stopped")).unwrap();
    world.settle();
    world.set.spec.listeners = serde_json::from_value(listeners("Started")).unwrap();
    let planned = world.dry_look();
    assert!(
        planned.changes.iter().any(|change| matches!(change, SetChange::Assign { from: Origin::Rest, .. })),
        "{planned:?}"
    );
}

#[test]
fn what_does_not_let_go_is_killed_after_the_others_have_moved() {
    let mut world = World::of(4, 2);
    world.settle();
    let first = world.pods.keys().next().unwrap().clone();
    world.pods.get_mut(&first).unwrap().hangs = true;
    world.pods.get_mut(&first).unwrap().seen.course = Course::Leaves;
    for _ in 0..58 {
        world.tick();
        assert!(world.pods.contains_key(&first), "it has stopTimeoutSeconds + handoff.timeoutSeconds");
    }
    world.run(40);
    assert!(!world.pods.contains_key(&first));
    assert_eq!(world.running().len(), 4);
    assert!(world.moves.is_empty());
}

#[test]
fn what_one_pod_cannot_run_is_tried_on_another() {
    let mut world = World::of(4, 2);
    let first = world.pods.keys().next().unwrap().clone();
    world.pods.get_mut(&first).unwrap().cannot = ["listener-0".to_owned(), "listener-1".to_owned()].into();
    world.run(60);
    assert_eq!(world.running().len(), 4);
    // No Pod can: each tries it, and it does not go round and round.
    world.pods.values_mut().for_each(|pod| pod.cannot.extend(["listener-3".to_owned()]));
    let at = world.running()["listener-3"].clone();
    world.crash(&at);
    world.run(100);
    let moves = world.moves.clone();
    world.run(100);
    assert_eq!(world.moves, moves);
    let place = world.dry_look().listeners["listener-3"].clone();
    assert_eq!(place.stage, Stage::Failed, "{place:?}");
}

#[test]
fn the_fastest_profile_counts() {
    let mut world = World::of(2, 1);
    world.settle();
    world.sessions.values_mut().for_each(|seen| seen.other_profiles = vec![SessionProfile::Calm, SessionProfile::Fast]);
    assert!(
        world
            .tick()
            .changes
            .iter()
            .any(|change| matches!(change, SetChange::SetProfile { profile: SessionProfile::Fast, .. }))
    );
    assert!(world.tick().changes.is_empty());
    world.set.spec.session.profile = SessionProfile::Fast;
    world.sessions.values_mut().for_each(|seen| seen.other_profiles.clear());
    assert!(world.tick().changes.is_empty());
    world.set.spec.session.profile = SessionProfile::Calm;
    assert!(
        world
            .tick()
            .changes
            .iter()
            .any(|change| matches!(change, SetChange::SetProfile { profile: SessionProfile::Calm, .. }))
    );
}

/// A13
#[test]
fn an_emergency_release_takes_a_listener_from_its_holder() {
    for force in [false, true] {
        let mut world = World::of(4, 2);
        world.settle();
        let before = world.running()["listener-0"].clone();
        world.pods.get_mut(&before).unwrap().hangs = force;
        let at = crate::api::Time(time(world.now));
        world.set.spec.release = vec![crate::api::listener_set::Release { listener: "listener-0".into(), at, force }];
        world.pods_in_the_end = 2;
        if force {
            let planned = world.dry_look();
            assert!(
                planned
                    .changes
                    .iter()
                    .any(|change| matches!(change, SetChange::Assign { from: Origin::Force(..), .. })),
                "{planned:?}"
            );
            continue;
        }
        world.run(10);
        let after = world.running()["listener-0"].clone();
        assert_ne!(before, after);
        world.run(30);
        assert_eq!(world.running()["listener-0"], after, "once");
    }
}

/// L11: the source of the listeners is broken.
#[test]
fn what_runs_goes_on_when_the_listeners_are_not_known() {
    let mut world = World::of(4, 2);
    world.settle();
    world.set.spec.count = None;
    world.set.spec.config_map = Some(serde_json::from_value(json!({"name": "tokens"})).unwrap());
    world.run(20);
    assert_eq!(world.running().len(), 4);
    let first = world.pods.keys().next().unwrap().clone();
    world.delete_pod(&first);
    world.run(40);
    assert_eq!(world.running().len(), 4);
}

/// L4: the source of the listeners is broken, and what a Pod has handed back is started all the same, as long as
/// this operator knows what was asked for before; what was stopped stays so.
#[test]
fn what_was_asked_for_last_counts_while_the_listeners_are_not_known() {
    let spec = json!({"rolloutRef": {"name": "web"}, "listeners": [{"name": "a"}, {"name": "b", "state": "Stopped"}]});
    let mut world = World::new(&spec, 1);
    world.settle();
    world.set.spec.listeners = None;
    world.set.spec.config_map = Some(serde_json::from_value(json!({"name": "tokens"})).unwrap());
    let lease = world.leases.get_mut("a").unwrap();
    (lease.ownership.holder, lease.ownership.epoch) = (None, lease.ownership.epoch + 1);
    world.run(20);
    assert_eq!(world.running().keys().collect::<Vec<_>>(), ["a"]);
    // The next operator knows only what has an owner.
    let lease = world.leases.get_mut("a").unwrap();
    (lease.ownership.holder, lease.ownership.epoch) = (None, lease.ownership.epoch + 1);
    world.restart_operator();
    world.run(20);
    assert!(world.running().is_empty());
}

#[test]
fn a_set_that_is_deleted_writes_nothing() {
    let mut world = World::of(4, 2);
    world.set.metadata.deletion_timestamp = Some(crate::api::Time(time(0)));
    assert!(world.tick().changes.is_empty());
}

/// L4, L12
#[test]
fn a_thousand_listeners_are_soon_given_out() {
    let mut world = World::of(1_000, 10);
    assert!(seconds_until(&mut world, 1_000) < 5);
    assert_eq!(world.loads(), [100; 10]);
    // One node is lost: a fence, and a write for each of its listeners.
    let before = world.writes;
    let first = world.pods.keys().next().unwrap().clone();
    world.pods.get_mut(&first).unwrap().is_cut_off = true;
    world.run(20);
    assert_eq!(world.running().len(), 1_000);
    assert!(world.writes - before <= 110, "{}", world.writes - before);
}
