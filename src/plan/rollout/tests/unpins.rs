//! Pins that are taken away while a run is on.
use serde_json::{Value, json};

use super::{
    faults::{live, revisions_run, world},
    fixture::say,
};
use crate::{
    api::rollout::Approve,
    plan::{
        Change,
        rollout::{fold::World, plan},
    },
};

fn pin(world: &mut World, instances: &str) {
    let pins = if instances.is_empty() { json!([]) } else { json!([{"instances": instances, "revision": "a"}]) };
    world.snapshot.rollout.spec.pins = serde_json::from_value(pins).unwrap();
}

fn approve(world: &mut World) {
    let run = world.snapshot.rollout.status.as_ref().unwrap().run.unwrap();
    world.snapshot.rollout.spec.approve = Some(Approve { run, batch: -1, ..Approve::default() });
}

/// Eight instances at `a`, the first five pinned there; the sixth is the canary of `b`.
fn canary(strategy: &Value) -> World {
    let mut spec = json!({"strategy": {"maxSurge": 8, "batches": [{"upTo": 1, "pause": {}}]}});
    spec["strategy"].as_object_mut().unwrap().extend(strategy.as_object().unwrap().clone());
    let mut world = world("a a a a a a a a", 'b', spec);
    pin(&mut world, "0-4");
    live(&mut world, 100);
    assert_eq!(revisions_run(&world), "aaaaabaa", "{}", say(&plan(&world.snapshot)));
    world
}

/// Only the canary was approved.
#[test]
fn what_is_unpinned_in_mid_run_follows_once_that_has_completed() {
    let mut world = canary(&json!({}));
    pin(&mut world, "");
    live(&mut world, 100);
    assert_eq!(revisions_run(&world), "aaaaabaa", "{}", say(&plan(&world.snapshot)));
    // What is lost meanwhile comes back as what has not been opened.
    world.snapshot.pods.retain(|pod| pod.slot != 3);
    live(&mut world, 30);
    assert_eq!(revisions_run(&world), "aaaaabaa");
    approve(&mut world);
    let (mut together, mut ended) = (Vec::new(), None);
    world.run(|world, step| {
        let created = step.changes.iter().filter(|change| matches!(change, Change::CreatePod { .. })).count();
        together.extend((created > 0).then_some(created));
        let is_over = world.snapshot.rollout.status.as_ref().unwrap().batch.is_none();
        ended = ended.take().or_else(|| is_over.then(|| revisions_run(world)));
    });
    assert_eq!(revisions_run(&world), "bbbbbbbb");
    assert_eq!(together, [2, 1, 4], "the rest of the run; then those that were pinned, in batches");
    assert_eq!(ended.as_deref(), Some("aaaaabbb"), "the run has completed without them");
}

/// With all of the run pinned by now there is no other instance to begin with.
#[test]
fn those_who_are_unpinned_take_the_place_of_a_run_that_all_have_left() {
    let mut world = canary(&json!({}));
    pin(&mut world, "3-7");
    live(&mut world, 100);
    assert_eq!(revisions_run(&world), "baaaaaaa", "{}", say(&plan(&world.snapshot)));
    pin(&mut world, "");
    live(&mut world, 100);
    assert_eq!(revisions_run(&world), "baaaaaaa");
    approve(&mut world);
    live(&mut world, 600);
    assert_eq!(revisions_run(&world), "bbbbbbbb");
}

/// The way back knows no batches.
#[test]
fn what_is_unpinned_on_the_way_back_goes_with_the_others() {
    let mut world = canary(&json!({"maxSurge": 1, "maxUnavailable": 0}));
    pin(&mut world, "");
    world.snapshot.rollout.spec.pins =
        serde_json::from_value(json!([{"instances": "1", "revision": "c"}, {"instances": "2", "revision": "b"}]))
            .unwrap();
    live(&mut world, 100);
    assert_eq!(revisions_run(&world), "acbaabaa", "{}", say(&plan(&world.snapshot)));
    let run = world.snapshot.rollout.status.as_ref().unwrap().run.unwrap();
    world.snapshot.rollout.spec.abort = Some(crate::api::rollout::Abort { run });
    live(&mut world, 1);
    pin(&mut world, "");
    live(&mut world, 100);
    assert_eq!(revisions_run(&world), "aaaaaaaa", "{}", say(&plan(&world.snapshot)));
}

/// An instance that comes later has not failed.
#[test]
fn a_run_in_which_all_have_failed_is_given_up_whoever_waits_for_it() {
    let mut world = world("a a a a", 'b', json!({"progressDeadlineSeconds": 60, "strategy": {"failureThreshold": 9}}));
    world.broken = vec!["b".into()];
    pin(&mut world, "0-1");
    live(&mut world, 30);
    pin(&mut world, "");
    live(&mut world, 600);
    assert_eq!(revisions_run(&world), "aaaa", "{}", say(&plan(&world.snapshot)));
    assert_eq!(world.snapshot.rollout.status.unwrap().target_revision.as_deref(), Some("a"));
}

#[test]
fn a_strategy_that_changes_all_at_once_knows_no_later() {
    let mut world = canary(&json!({}));
    pin(&mut world, "");
    world.snapshot.rollout.spec.strategy = serde_json::from_value(json!({"type": "Recreate"})).unwrap();
    live(&mut world, 600);
    assert_eq!(revisions_run(&world), "bbbbbbbb", "{}", say(&plan(&world.snapshot)));
}
