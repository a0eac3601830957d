//! Restarts and retries, by clocks that disagree.
use jiff::SignedDuration;
use serde_json::json;

use super::{
    faults::{crash, live, revisions_run, world},
    fixture::{Fixture, at},
};
use crate::{
    api::Time,
    plan::rollout::{fold::World, plan},
};

/// The API server stamps Pods by its own clock: what was made after a restart may look older than that.
#[test]
fn a_restart_is_done_once_although_the_api_servers_clock_is_behind() {
    let spec = json!({"restartAt": Time(at(10)), "strategy": {"maxSurge": 1, "maxUnavailable": 0}});
    let mut world = world("a a a", 'a', spec);
    let mut created = 0;
    for _ in 0..200 {
        let planned = plan(&world.snapshot);
        let before: Vec<String> = world.snapshot.pods.iter().map(|pod| pod.uid.clone()).collect();
        let quiet = world.is_quiet(&planned);
        world.apply(&planned, &planned.changes);
        for pod in world.snapshot.pods_mut().filter(|pod| !before.contains(&pod.uid)) {
            pod.created -= SignedDuration::from_secs(90);
            created += 1;
        }
        match world.next_event(planned.wake_at).filter(|_| quiet) {
            Some(next) => world.advance(next),
            None if quiet => break,
            None => {}
        }
    }
    assert_eq!(created, 3);
}

#[test]
fn a_retry_gives_each_failed_pod_one_more_try_although_the_api_servers_clock_is_behind() {
    let spec = json!({"strategy": {"batchSize": 2, "onFailure": "Pause", "maxSurge": 0, "maxUnavailable": 2}});
    let mut world = world("a a a", 'b', spec);
    world.broken = vec!["b".into()];
    live(&mut world, 5);
    crash(&mut world, 0);
    live(&mut world, 5);
    world.snapshot.rollout.spec.retry_at = Some(Time(world.snapshot.now));
    for _ in 0..20 {
        live(&mut world, 1);
        let new = world.snapshot.pods_mut().filter(|pod| pod.restarted_at.is_some() && pod.created > at(0));
        new.for_each(|pod| pod.created = at(-90));
    }
    let second = world.snapshot.pods.iter().find(|pod| pod.slot == 0).unwrap();
    assert!(second.restarted_at.is_some());
    let uid = second.uid.clone();
    live(&mut world, 20);
    assert!(world.snapshot.pods.iter().any(|pod| pod.uid == uid), "not replaced again");
}

#[test]
fn an_old_retry_is_no_reason_to_kill_a_stable_pod_that_blinks() {
    let spec = json!({"retryAt": Time(at(-100)), "strategy": {"batches": [{"upTo": 1, "pause": {}}]}});
    let fixture = Fixture::new("b a~ a a", 'b', spec).opened(1);
    let planned = plan(&fixture.snapshot);
    assert!(planned.changes.is_empty(), "{:?}", planned.changes);
}

#[test]
fn a_restart_does_not_wait_for_slots_that_a_superseded_run_left_behind() {
    let spec = json!({"restartAt": Time(at(-5)), "strategy": {"batches": [{"upTo": 1, "pause": {}}, {"upTo": 2}], "maxSurge": 1}});
    let mut fixture = Fixture::new("b c a a", 'b', spec).opened(1);
    fixture.snapshot.pod_mut(0).created = at(-4);
    let mut world = World::new(fixture.snapshot, 5);
    live(&mut world, 300);
    assert_eq!(revisions_run(&world), "bcaa");
    assert!(world.snapshot.pods.iter().filter(|pod| pod.slot > 1).all(|pod| pod.created > at(-5)), "restarted");
}
