//! What must not come back: each was found in review.
use std::{collections::BTreeSet, time::Duration};

use serde_json::json;

use super::world::{World, time};
use crate::{
    api::{bounds::FAST_PODS_MAX, session::SessionProfile},
    plan::listener_set::{
        change::{Origin, SetChange, Stage},
        plan,
        unit::Runs,
    },
    snapshot::{
        lease::{Claim, Holder},
        listener_set::Course,
        report::{Gap, Report},
    },
};

/// Something of it is in this Pod that has not stopped.
fn is_alive(world: &World, pod: &str, listener: &str) -> bool {
    let agents = world.pods.get(pod).and_then(|pod| pod.agent.as_ref());
    agents
        .into_iter()
        .flat_map(|agent| &agent.units)
        .any(|((name, _), unit)| name == listener && matches!(unit.runs, Runs::Epoch { .. } | Runs::Stops { .. }))
}

/// L1, L2: an operator that has seen it go, and one that begins after it.
#[test]
fn a_lease_that_is_deleted_while_it_is_held_is_made_again_once_its_holder_has_stopped() {
    for restarts in [false, true] {
        let mut world = World::of(4, 2);
        world.settle();
        let holder = world.running()["listener-0"].clone();
        world.pods.get_mut(&holder).unwrap().hangs = true;
        let epoch = world.epochs["listener-0"];
        world.delete_lease("listener-0");
        for second in 0..40 {
            if restarts && second == 2 {
                world.restart_operator();
            }
            world.tick();
            assert!(is_alive(&world, &holder, "listener-0") && !world.leases.contains_key("listener-0"));
        }
        let place = world.dry_look().listeners["listener-0"].clone();
        assert_eq!((place.stage, place.reason.as_str()), (Stage::Unassigned, "Vanished"));
        assert!(place.message.contains(&holder), "{}", place.message);
        world.pods.get_mut(&holder).unwrap().hangs = false;
        world.settle();
        assert_eq!(world.running().len(), 4);
        assert!(world.epochs["listener-0"] > epoch, "L2");
        assert!(world.memory.vanished.is_empty());
    }
}

/// L1: renewals overlap. One that was sent before the Lease was deleted, and says that nothing runs, proves nothing.
#[test]
fn a_report_from_before_a_lease_was_deleted_does_not_prove_that_its_holder_has_stopped() {
    let mut world = World::of(4, 2);
    world.settle();
    let holder = world.running()["listener-0"].clone();
    world.pods.get_mut(&holder).unwrap().hangs = true;
    world.tick();
    world.delete_lease("listener-0");
    for _ in 0..20 {
        world.tick();
    }
    let mut late = |seconds: i64| {
        let session = world.sessions.get_mut(&holder).unwrap();
        let own = session.watched.session.as_mut().unwrap();
        let sent_at = own.renewed_at.unwrap();
        own.renewed_at = Some(sent_at + jiff::SignedDuration::from_secs(seconds));
        let told = std::mem::take(&mut session.report);
        let reason = world.dry_look().listeners["listener-0"].reason.clone();
        let session = world.sessions.get_mut(&holder).unwrap();
        session.watched.session.as_mut().unwrap().renewed_at = Some(sent_at);
        session.report = told;
        reason
    };
    assert_eq!(late(-60), "Vanished");
    assert_ne!(late(1), "Vanished");
}

/// A13: the next operator knows by the Lease what was done, also where the node's clock is behind that has it now, and has
/// written when it was started again.
#[test]
fn what_was_taken_by_force_is_not_taken_again_by_the_next_operator() {
    for (forced_at, expected) in [(None, 1), (Some(0), 1), (Some(1_000), 0)] {
        let mut world = World::of(4, 2);
        world.settle();
        let before = world.running()["listener-0"].clone();
        let (_, heir) = world.pods.iter().find(|(name, _)| **name != before).unwrap();
        let heir = heir.agent.as_ref().unwrap().me.clone();
        let at = crate::api::Time(time(1_000));
        world.set.spec.release =
            vec![crate::api::listener_set::Release { listener: "listener-0".into(), at, force: true }];
        let lease = world.leases.get_mut("listener-0").unwrap();
        (lease.ownership.holder, lease.acquired_at) = (Some(heir), Some(time(940)));
        lease.forced_at = forced_at.map(time);
        world.restart_operator();
        let planned = world.dry_look().changes;
        let forced = |change: &&SetChange| matches!(change, SetChange::Assign { from: Origin::Force(..), .. });
        assert_eq!(planned.iter().filter(forced).count(), expected, "{forced_at:?}");
    }
}

/// L1, L2: deleted before the operator that has made it has seen it.
#[test]
fn a_lease_that_no_watch_has_shown_is_missed_all_the_same() {
    let mut world = World::of(1, 2);
    while world.leases.is_empty() {
        world.tick();
    }
    let holder = world.leases["listener-0"].ownership.holder.clone().unwrap().pod;
    world.pods.get_mut(&holder).unwrap().hangs = true;
    world.pass();
    assert_eq!(world.running()["listener-0"], holder);
    world.leases.remove("listener-0");
    for _ in 0..40 {
        world.tick();
        assert!(is_alive(&world, &holder, "listener-0") && world.leases.is_empty());
    }
    world.pods.get_mut(&holder).unwrap().hangs = false;
    world.settle();
    assert!(world.running().len() == 1 && world.epochs["listener-0"] > 1);
}

/// L4: the holder is dead, or cannot be heard.
#[test]
fn a_deleted_lease_of_a_dead_holder_is_made_again() {
    for (fault, most) in [("crash", 5), ("delete", 60), ("cut off", 25)] {
        let mut world = World::of(4, 2);
        world.settle();
        let holder = world.running()["listener-0"].clone();
        world.delete_lease("listener-0");
        match fault {
            "crash" => world.crash(&holder),
            "delete" => world.delete_pod(&holder),
            _ => world.pods.get_mut(&holder).unwrap().is_cut_off = true,
        }
        let took = (0..100).find(|_| {
            world.tick();
            world.running().get("listener-0").is_some_and(|at| fault == "crash" || *at != holder)
        });
        assert!(took.is_some_and(|took| took <= most), "{fault}: {took:?}");
    }
}

/// A session that is over says nothing of what still runs, and it is fenced although no Lease of this set names its boot.
#[test]
fn an_earlier_set_holds_back_until_its_holders_are_dead() {
    let mut world = World::of(2, 2);
    world.set.spec.count.as_mut().unwrap().count = 0;
    world.settle();
    let first = world.pods.keys().next().unwrap().clone();
    let seen = world.sessions.get_mut(&first).unwrap();
    (seen.holds_of_earlier_set, seen.report) = (true, None);
    world.set.spec.count.as_mut().unwrap().count = 2;
    world.run(10);
    assert!(world.leases.is_empty());
    assert_eq!(world.dry_look().listeners["listener-0"].reason, "EarlierSet");
    world.pods.get_mut(&first).unwrap().is_cut_off = true;
    world.run(25);
    assert_eq!(world.leases.len(), 2);
}

/// The same of a Pod that the set has nothing to do with, which is gone with its session: its D is waited for.
#[test]
fn an_earlier_set_of_other_pods_holds_back_for_d() {
    let mut world = World::of(2, 2);
    world.settle();
    let elsewhere = world.pods.keys().next().unwrap().clone();
    let mut seen = world.sessions[&elsewhere].clone();
    (seen.holds_of_earlier_set, seen.report) = (true, None);
    let holder = Holder { pod: "elsewhere".into(), uid: "uid-elsewhere".into(), boot: 1, random: "r".into() };
    seen.watched.session.as_mut().unwrap().claim = Claim::Held(holder);
    seen.watched.duration = Duration::from_secs(15);
    let mut fresh = World::of(2, 2);
    fresh.sessions.insert("elsewhere".into(), seen);
    fresh.run(5);
    assert!(fresh.leases.is_empty());
    fresh.sessions.remove("elsewhere");
    fresh.run(12);
    assert!(fresh.leases.is_empty());
    fresh.run(10);
    assert_eq!(fresh.leases.len(), 2);
}

/// HandingOver without end: 9 listeners on 5 and 4, a Pod that never comes, and a share of 3.
#[test]
fn what_a_rollout_waits_for_goes_beyond_a_share() {
    let mut world = World::of(9, 2);
    world.settle();
    let old: Vec<String> = world.pods.keys().cloned().collect();
    world.pods_in_the_end = 3;
    world.is_rolling = true;
    let broken = world.add_pod(2);
    world.pods.get_mut(&broken).unwrap().seen.is_ready = false;
    let leaves = &old[0];
    world.pods.get_mut(&old[1]).unwrap().seen.course = Course::Stays;
    world.pods.get_mut(leaves).unwrap().seen.course = Course::Leaves;
    world.leaving = BTreeSet::from([leaves.clone()]);
    world.add_pod(0);
    let most = (0..60).find(|_| {
        world.tick();
        assert_eq!(world.running().len(), 9);
        world.running().values().all(|at| at != leaves)
    });
    assert!(most.is_some_and(|most| most >= 5), "{most:?} {:?}", world.loads());
    assert!(world.moves.values().all(|moves| *moves == 1), "{:?}", world.moves);
}

/// HandingOver without end: without surge a Pod must go before the next one can come, and the others are full.
#[test]
fn what_a_rollout_waits_for_is_put_down_where_nobody_has_room() {
    let spec = json!({"rolloutRef": {"name": "web"}, "count": {"count": 4}, "placement": {"maxPerPod": 2}});
    let mut world = World::new(&spec, 2);
    world.settle();
    let old: Vec<String> = world.pods.keys().cloned().collect();
    world.is_rolling = true;
    for name in &old {
        world.pods.get_mut(name).unwrap().seen.course = Course::Stays;
    }
    world.pods.get_mut(&old[0]).unwrap().seen.course = Course::Leaves;
    world.leaving = BTreeSet::from([old[0].clone()]);
    world.run(4);
    assert_eq!(world.running().len(), 4, "another may come");
    world.run(6);
    assert_eq!(world.dry_look().listeners.values().filter(|place| place.reason == "NoRoom").count(), 2);
    assert!(world.running().values().all(|at| *at == old[1]), "it is empty: {:?}", world.loads());
    world.delete_pod(&old[0]);
    world.leaving.clear();
    world.add_pod(0);
    world.run(5);
    assert_eq!((world.running().len(), world.loads()), (4, vec![2, 2]));
}

/// The Rollout fails its batch for so many.
#[test]
fn a_listener_stays_on_a_new_pod_until_it_fails_the_batch() {
    for (is_rolling, least) in [(false, 2), (true, 3)] {
        let mut world = World::of(1, 1);
        world.is_rolling = is_rolling;
        let first = world.pods.keys().next().unwrap().clone();
        world.pods.get_mut(&first).unwrap().cannot = BTreeSet::from(["listener-0".to_owned()]);
        world.run(3);
        world.add_pod(1);
        world.pods_in_the_end = 2;
        let mut failures = 0;
        for _ in 0..60 {
            world.tick();
            if world.running().contains_key("listener-0") {
                break;
            }
            let report = world.sessions[&first].report.as_ref().unwrap();
            failures = report.units.get("listener-0").map_or(0, |unit| unit.failures).max(failures);
        }
        assert_eq!((world.running().len(), failures), (1, least), "{is_rolling}");
    }
}

/// Two sets write the same profile, whichever looks, however many Pods each of them has.
#[test]
fn sets_that_share_pods_agree_on_the_profile() {
    let mut world = World::of(1, FAST_PODS_MAX + 1);
    world.set.spec.session.profile = SessionProfile::Fast;
    world.tick();
    let wanted = |world: &mut World| {
        let changes = world.dry_look().changes;
        changes.into_iter().find_map(|change| match change {
            SetChange::SetProfile { profile, .. } => Some(profile),
            _ => None,
        })
    };
    assert_eq!(wanted(&mut world), None);
    world.sessions.values_mut().for_each(|seen| seen.other_profiles = vec![SessionProfile::Calm]);
    assert_eq!(wanted(&mut world), None);
    world.set.spec.session.profile = SessionProfile::Calm;
    world.sessions.values_mut().for_each(|seen| seen.other_profiles = vec![SessionProfile::Default]);
    assert_eq!(wanted(&mut world), None, "the same as the other set has written");
    world.sessions.values_mut().for_each(|seen| seen.other_profiles = vec![SessionProfile::Fast]);
    assert_eq!(wanted(&mut world), Some(SessionProfile::Fast), "that set is smaller");
}

/// An ownership without its label is not seen by its holder any more.
#[test]
fn what_is_not_told_for_long_does_not_count_as_running() {
    let mut world = World::new(
        &json!({"rolloutRef": {"name": "web"}, "count": {"count": 2}, "defaults": {"startTimeoutSeconds": 20}}),
        1,
    );
    world.settle();
    let stage = |world: &mut World| {
        world.pass();
        // The agent tells of others.
        world
            .sessions
            .values_mut()
            .for_each(|seen| seen.report = Some(Report { held: "others".into(), ..Report::default() }));
        world.remember();
        world.dry_look().listeners["listener-0"].stage
    };
    for _ in 0..19 {
        assert_eq!(stage(&mut world), Stage::Running);
    }
    assert_eq!((0..3).map(|_| stage(&mut world)).next_back(), Some(Stage::Starting));
}

/// L4: agents restart in place without asking.
#[test]
fn what_fails_in_place_leaves_a_permit_for_what_has_lost_its_pod() {
    let spec = json!({"rolloutRef": {"name": "web"}, "count": {"count": 4}, "startBudget": {"permits": 1, "periodSeconds": 10}});
    let mut world = World::new(&spec, 2);
    world.settle();
    let (first, second) = (world.running()["listener-0"].clone(), world.running()["listener-1"].clone());
    assert_ne!(first, second);
    let fails = BTreeSet::from(["listener-0".to_owned()]);
    world.pods.get_mut(&first).unwrap().cannot = fails;
    world.crash(&first);
    world.run(60);
    world.delete_pod(&second);
    world.run(60);
    let running: Vec<String> = world.running().into_keys().collect();
    assert_eq!(running, ["listener-1", "listener-2", "listener-3"]);
}

/// With a start budget nothing is started without a permit, not even where it has run.
#[test]
fn what_has_ended_in_place_is_started_again_in_turn() {
    let spec = json!({"rolloutRef": {"name": "web"}, "count": {"count": 3}, "startBudget": {"permits": 1, "periodSeconds": 10}});
    let mut world = World::new(&spec, 1);
    world.settle();
    world.run(10);
    let pod = world.pods.keys().next().unwrap().clone();
    for unit in world.pods.get_mut(&pod).unwrap().agent.as_mut().unwrap().units.values_mut() {
        let Runs::Epoch { epoch, .. } = unit.runs else { panic!("{unit:?}") };
        (unit.runs, unit.tombstone) = (Runs::Nothing, epoch);
    }
    let ended_at = time(world.now);
    world.run(3);
    let waits = world.dry_look().listeners.values().filter(|place| place.reason == "StartBudget").count();
    assert_eq!((world.running().len(), waits), (1, 2));
    world.run(30);
    assert_eq!(world.running().len(), 3);
    let mut starts: Vec<_> = world.leases.values().filter_map(|seen| seen.acquired_at).collect();
    starts.sort();
    assert!(starts[0] >= ended_at, "{starts:?}");
    assert!(starts.windows(2).all(|two| two[1].duration_since(two[0]).as_secs() >= 10), "{starts:?}");
}

/// One that a Pod cannot prepare is not put down for it: there is room.
#[test]
fn what_nobody_else_can_run_goes_on_where_it_is() {
    let spec = json!({"rolloutRef": {"name": "web"}, "count": {"count": 1}, "placement": {"maxPerPod": 100}});
    let mut world = World::new(&spec, 1);
    world.settle();
    let old = world.pods.keys().next().unwrap().clone();
    world.is_rolling = true;
    let new = world.add_pod(0);
    world.pods.get_mut(&new).unwrap().cannot = BTreeSet::from(["listener-0".to_owned()]);
    world.pods.get_mut(&old).unwrap().seen.course = Course::Leaves;
    world.leaving = BTreeSet::from([old.clone()]);
    for second in 0..200 {
        world.tick();
        assert_eq!(world.running().get("listener-0"), Some(&old), "after {second} s");
    }
    let place = world.tick().listeners["listener-0"].clone();
    assert_eq!(
        (place.stage, place.reason.as_str()),
        (Stage::Moving, "NoHeir"),
        "its Rollout waits, and people see for what"
    );
}

/// A restart counts from when it is asked for: the Lease shows it only once the old one has stopped.
#[test]
fn restarts_for_new_settings_keep_to_the_budget_while_they_stop() {
    let spec = json!({"rolloutRef": {"name": "web"}, "count": {"count": 4}, "startBudget": {"permits": 1, "periodSeconds": 5}});
    let mut world = World::new(&spec, 1);
    world.settle();
    world.run(10);
    let pod = world.pods.keys().next().unwrap().clone();
    world.pods.get_mut(&pod).unwrap().hangs = true;
    world.set.spec.recover_at = Some(crate::api::Time(time(world.now)));
    for _ in 0..8 {
        world.tick();
        assert!(world.memory.restarting.len() <= 1, "{:?}", world.memory.restarting.keys());
    }
    assert_eq!(world.memory.restarting.len(), 1);
}

/// All Pods are lost at once and come back within the second: what the first of them took beyond its share moved again.
#[test]
fn what_has_lost_its_pod_is_spread_over_pods_that_are_about_to_be_ready() {
    for ready_first in [1, 2] {
        let mut world = World::of(9, 3);
        world.settle();
        let names: Vec<String> = world.pods.keys().cloned().collect();
        for name in &names {
            world.pods.get_mut(name).unwrap().seen.is_ready = false;
            world.crash(name);
        }
        for name in &names[..ready_first] {
            world.pods.get_mut(name).unwrap().seen.is_ready = true;
        }
        // The long wait is over: half of the Pods have been missing for some time.
        world.memory.crowded_since = Some(Duration::from_secs(world.now - 10));
        world.tick();
        world.pods.values_mut().for_each(|pod| pod.seen.is_ready = true);
        world.run(5);
        assert_eq!((world.loads(), world.running().len()), (vec![3, 3, 3], 9), "{ready_first}");
        world.settle();
        assert_eq!(world.moves.len(), 0, "{ready_first}: {:?}", world.moves);
    }
}

/// Nor does that wait last, or begin where the Pod that is missing is the one that was lost.
#[test]
fn what_has_lost_its_pod_waits_for_no_other_than_those() {
    let mut world = World::of(9, 3);
    world.settle();
    let names: Vec<String> = world.pods.keys().cloned().collect();
    let lost = world.pods.get_mut(&names[0]).unwrap();
    (lost.has_agent, lost.seen.is_ready) = (false, false);
    world.crash(&names[0]);
    let assigned =
        |changes: &[SetChange]| changes.iter().filter(|change| matches!(change, SetChange::Assign { .. })).count();
    assert_eq!(assigned(&world.dry_look().changes), 3, "at once");
    world.settle();
    assert_eq!(world.loads(), [0, 5, 4]);
    // Its agent is back, and never Ready: the next loss waits for a second.
    world.pods.get_mut(&names[0]).unwrap().has_agent = true;
    world.tick();
    let lost = world.pods.get_mut(&names[1]).unwrap();
    (lost.has_agent, lost.seen.is_ready) = (false, false);
    world.crash(&names[1]);
    world.memory.crowded_since = Some(Duration::from_secs(world.now - 10)); // the long wait is over
    let planned = world.look();
    assert_eq!((assigned(&planned.changes), planned.wake_after), (0, Some(Duration::from_secs(1))));
    assert!(planned.listeners.values().any(|place| place.reason == "AwaitingPods"), "{:?}", planned.listeners);
    world.run(3);
    assert_eq!(world.loads(), [0, 0, 9]);
}

/// L12: agents of one move report with their next renewal, in profile Calm up to ten seconds one after the other.
#[test]
fn moves_are_over_when_every_agent_has_had_time_to_report() {
    for (profile, reported_after, over_after) in
        [(SessionProfile::Fast, 0, 2), (SessionProfile::Default, 3, 4), (SessionProfile::Calm, 10, 11)]
    {
        let mut world = World::of(2, 2);
        world.settle();
        let (mut snapshot, mut memory) = (world.snapshot(), world.memory.clone());
        for session in snapshot.sessions.values_mut() {
            session.watched.duration = profile.times().expire;
        }
        let mut counts = |waits: u64, epoch: Option<u32>| {
            snapshot.uptime += Duration::from_secs(waits);
            let report = snapshot.sessions.values_mut().next().unwrap().report.as_mut().unwrap();
            report.gaps.extend(epoch.map(|epoch| Gap { listener: "listener-0".into(), epoch, millis: 10 }));
            memory = plan(&snapshot, &memory).1;
            memory.gaps_of_last_moves().len()
        };
        assert_eq!(counts(1, Some(7)), 0, "{profile:?}");
        assert_eq!(counts(reported_after, Some(8)), 0, "{profile:?}: of the same moves");
        assert_eq!(counts(over_after - 1, None), 0, "{profile:?}");
        assert_eq!(counts(1, None), 2, "{profile:?}");
    }
}
