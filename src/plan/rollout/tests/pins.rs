//! Pins: chosen instances on a revision of their own, and RollbackFailed, which goes back with chosen ones by itself.
use serde_json::{Value, json};

use super::{
    faults::{crash, live, revisions_run, world},
    fixture::{Fixture, at, say},
};
use crate::{
    api::{
        Time,
        rollout::{Approve, Pin},
    },
    plan::{
        Change, PodReason,
        rollout::{
            fold::{End, World},
            pin_problems, plan,
        },
    },
    snapshot::TemplateCheck,
};

fn set_pins(world: &mut World, pins: Value) {
    world.snapshot.rollout.spec.pins = serde_json::from_value(pins).unwrap();
}

fn uids(world: &World) -> Vec<String> {
    world.snapshot.pods.iter().map(|pod| pod.uid.clone()).collect()
}

fn surging(more: &Value) -> Value {
    let mut spec =
        json!({"progressDeadlineSeconds": 60, "strategy": {"batchSize": 2, "maxSurge": 1, "maxUnavailable": 0}});
    spec["strategy"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

/// X1 C5
#[test]
fn one_instance_is_rolled_back_and_the_others_stay() {
    let mut world = world("a a a a a a a a", 'b', surging(&json!({})));
    assert_eq!(world.run(|_, _| ()), End::Done);
    let before = uids(&world);
    set_pins(&mut world, json!([{"instances": "3", "revision": "a"}]));
    let mut reasons = Vec::new();
    let end = world.run(|_, step| reasons.extend(step.changes.iter().map(|change| (change.verb(), change.reason()))));
    assert_eq!((end, revisions_run(&world).as_str()), (End::Done, "bbbabbbb"));
    assert_eq!(reasons, [("CreatePod", PodReason::Pin.as_str()), ("DeletePod", "Pin")]);
    let after = uids(&world);
    assert!((0..8).all(|slot| (before[slot] == after[slot]) == (slot != 3)), "only that Pod changes");
}

/// X3 R5
#[test]
fn three_versions_live_and_each_lost_pod_comes_back_at_its_own() {
    let pins = json!([{"instances": "1,4", "revision": "a"}, {"instances": "4-5", "revision": "c"}]);
    let mut world = world("a a a a a a", 'b', surging(&json!({})));
    set_pins(&mut world, pins);
    live(&mut world, 300);
    assert_eq!(revisions_run(&world), "babbac", "the first of two pins counts");
    for slot in 0..6 {
        world.snapshot.rollout.spec.paused = true;
        world.snapshot.pods.retain(|pod| pod.slot != slot);
        live(&mut world, 30);
        assert_eq!(revisions_run(&world), "babbac");
    }
}

/// C11: later rollouts pass pinned instances by, and batches count the others.
#[test]
fn pinned_instances_are_in_no_batch() {
    let mut world = world("a a a a a a a", 'b', surging(&json!({"batchSize": 2})));
    set_pins(&mut world, json!([{"instances": "0-1,5", "revision": "a"}]));
    let mut opened = Vec::new();
    let end = world.run(|_, step| {
        let batch = step.batch.as_ref().map(|batch| (batch.index, batch.count, batch.opened));
        if batch != opened.last().copied() {
            opened.extend(batch);
        }
    });
    assert_eq!((end, revisions_run(&world).as_str()), (End::Done, "aabbbab"));
    assert_eq!(opened, [(1, 2, 4), (2, 2, 7)], "slots 2 and 3, then 4 and 6");
    assert!(world.snapshot.rollout.status.as_ref().unwrap().batch.is_none(), "it has completed");
}

#[test]
fn what_is_unpinned_goes_to_the_present_revision_in_batches() {
    let mut world = world("a a a a a a", 'b', surging(&json!({"maxSurge": 6})));
    set_pins(&mut world, json!([{"instances": "0-4", "revision": "a"}]));
    assert_eq!(world.run(|_, _| ()), End::Done);
    assert_eq!(revisions_run(&world), "aaaaab");
    let run = world.snapshot.rollout.status.as_ref().unwrap().run;
    set_pins(&mut world, json!([]));
    let mut together = Vec::new();
    let end = world.run(|_, step| {
        let created = step.changes.iter().filter(|change| matches!(change, Change::CreatePod { .. })).count();
        together.extend((created > 0).then_some(created));
    });
    assert_eq!((end, revisions_run(&world).as_str()), (End::Done, "bbbbbb"));
    assert_eq!(together, [2, 2, 1]);
    assert_eq!(world.snapshot.rollout.status.as_ref().unwrap().run, run, "no run of its own");
}

/// A pin that says what differs has a revision made for it, once, that no spec has asked for.
#[test]
fn a_pin_by_what_differs_makes_its_revision() {
    let mut world = world("a a a", 'a', surging(&json!({})));
    let pin =
        json!({"base": "a", "version": "a-fixed", "images": {"web": "example.local/web:2"}, "request": {"by": "ann"}});
    let with = |instances: &str| {
        let mut pin = pin.clone();
        pin["instances"] = json!(instances);
        pin
    };
    set_pins(&mut world, json!([with("1"), with("2")]));
    live(&mut world, 100);
    let made: Vec<_> = world.snapshot.revisions.iter().filter(|revision| revision.number == 0).collect();
    assert_eq!(made.len(), 1);
    assert_eq!(made[0].data["version"], "a-fixed");
    assert_eq!(made[0].data["template"]["spec"]["containers"][0]["image"], "example.local/web:2");
    assert_eq!(made[0].change_cause.as_deref(), Some("by ann"));
    let runs = |slot: i32| world.snapshot.pods.iter().find(|pod| pod.slot == slot).unwrap().revision.clone();
    assert_eq!([runs(0), runs(1), runs(2)], ["a".to_owned(), made[0].name.clone(), made[0].name.clone()]);
    let status = world.snapshot.rollout.status.as_ref().unwrap();
    assert_eq!((status.update_revision.as_deref(), status.current_revision.as_deref()), (Some("a"), Some("a")));
}

/// What a pin names is kept, however old.
#[test]
fn a_pinned_revision_is_not_forgotten() {
    let spec = json!({"revisionHistoryLimit": 0, "pins": [{"instances": "0", "base": "c", "version": "x"}]});
    let fixture = Fixture::new("a a", 'a', spec).settled();
    assert!(!fixture.looks().contains("forget c"), "{}", fixture.looks());
    assert!(fixture.looks().contains("forget b"), "{}", fixture.looks());
}

#[test]
fn a_pin_that_means_nothing_leaves_its_instances_alone() {
    for (pin, why) in [
        (json!({"instances": "1", "revision": "z"}), "there is no ControllerRevision z"),
        (json!({"instances": "1", "base": "z", "version": "2"}), "there is no ControllerRevision z"),
        (json!({"instances": "1", "base": "a", "images": {"db": "x"}}), "images of a: it has no container db"),
    ] {
        let mut world = world("a c a", 'b', surging(&json!({})));
        set_pins(&mut world, json!([pin]));
        assert_eq!(world.run(|_, _| ()), End::Done);
        assert_eq!(revisions_run(&world), "bcb", "it keeps what it runs");
        let problems = pin_problems(&world.snapshot);
        assert!(problems[0].0 == "PinInvalid" && problems[0].1.contains(why), "{problems:?}");
        // Lost, what it ran is not known any more.
        world.snapshot.pods.retain(|pod| pod.slot != 1);
        live(&mut world, 30);
        assert_eq!(revisions_run(&world), "bbb");
    }
}

#[test]
fn a_pin_of_a_slot_that_is_gone_is_shown_and_counts_again_later() {
    let mut world = world("a a a", 'b', surging(&json!({})));
    set_pins(&mut world, json!([{"instances": "2", "revision": "a"}]));
    assert_eq!(world.run(|_, _| ()), End::Done);
    world.snapshot.rollout.spec.replicas = 2;
    assert_eq!(world.run(|_, _| ()), End::Done);
    let problems = pin_problems(&world.snapshot);
    assert!(problems[0].0 == "PinnedSlotGone" && problems[0].1.contains("web-2"), "{problems:?}");
    world.snapshot.rollout.spec.replicas = 3;
    assert_eq!(world.run(|_, _| ()), End::Done);
    assert_eq!(revisions_run(&world), "bba");
}

/// A pinned revision that the API server refuses costs nothing and stops nothing else.
#[test]
fn a_refused_pin_holds_itself_alone() {
    let mut world = world("a a a a", 'b', json!({"strategy": {"batchSize": 2, "maxSurge": 0, "maxUnavailable": 1}}));
    let refused = TemplateCheck::Refused { message: "no".into(), recheck_at: at(100_000) };
    world.snapshot.template_checks.insert("c".into(), refused);
    set_pins(&mut world, json!([{"instances": "0", "revision": "c"}]));
    live(&mut world, 600);
    assert_eq!(revisions_run(&world), "abbb");
    let said = say(&plan(&world.snapshot));
    assert!(said.starts_with("hold Pinned: pinned instances wait: c:"), "{said}");
}

#[test]
fn a_pin_waits_while_the_rollout_is_paused() {
    let mut world = world("a a", 'a', surging(&json!({})));
    live(&mut world, 10);
    world.snapshot.rollout.spec.paused = true;
    set_pins(&mut world, json!([{"instances": "0", "revision": "c"}]));
    live(&mut world, 60);
    assert_eq!(revisions_run(&world), "aa");
    world.snapshot.rollout.spec.paused = false;
    live(&mut world, 60);
    assert_eq!(revisions_run(&world), "ca");
}

/// A pinned instance that does not come up is the pin's matter: the run of the others completes.
#[test]
fn a_broken_pin_fails_no_run() {
    let mut world = world("a a a a", 'b', surging(&json!({"maxSurge": 2})));
    world.broken = vec!["c".into()];
    set_pins(&mut world, json!([{"instances": "1", "revision": "c"}]));
    live(&mut world, 5);
    crash(&mut world, 1);
    live(&mut world, 600);
    let status = world.snapshot.rollout.status.as_ref().unwrap();
    assert_eq!((status.current_revision.as_deref(), &status.failed), (Some("b"), &None));
    assert_eq!(revisions_run(&world), "bacbb", "its old Pod leaves once the new one is available");
}

/// X4
#[test]
fn rollback_failed_takes_back_the_failed_instances_alone() {
    let mut world = world("a a a a a a", 'b', surging(&json!({"batchSize": 3, "onFailure": "RollbackFailed"})));
    live(&mut world, 12);
    assert_eq!(revisions_run(&world).matches('b').count(), 3, "{}", revisions_run(&world));
    crash(&mut world, 1);
    live(&mut world, 300);
    assert_eq!(revisions_run(&world), "babaaa");
    let status = world.snapshot.rollout.status.clone().unwrap();
    assert_eq!(status.failed.as_ref().map(|failed| (failed.slots.as_str(), failed.at.is_some())), Some(("1", true)));
    assert_eq!((status.current_revision.as_deref(), status.target_revision.as_deref()), (Some("a"), Some("b")));
    // Lost, each comes back as it was.
    for slot in 0..6 {
        world.snapshot.pods.retain(|pod| pod.slot != slot);
        live(&mut world, 30);
        assert_eq!(revisions_run(&world), "babaaa");
    }
    // Tried again, all go.
    world.snapshot.rollout.spec.retry_at = Some(Time(world.snapshot.now));
    live(&mut world, 600);
    assert_eq!(revisions_run(&world), "bbbbbb");
}

/// X4: what fails later goes back, too.
#[test]
fn rollback_failed_takes_back_what_fails_later() {
    let mut world =
        world("a a a a a a", 'b', surging(&json!({"batchSize": 3, "maxSurge": 3, "onFailure": "RollbackFailed"})));
    live(&mut world, 2);
    crash(&mut world, 0);
    live(&mut world, 1);
    crash(&mut world, 2);
    live(&mut world, 100);
    assert_eq!(revisions_run(&world), "abaaaa");
    // Status is lost: what has gone back stays back.
    world.snapshot.rollout.status = None;
    live(&mut world, 1);
    for slot in 0..6 {
        world.snapshot.pods.retain(|pod| pod.slot != slot);
        live(&mut world, 30);
        assert_eq!(revisions_run(&world), "abaaaa");
    }
}

/// X4: what was broken in a version before the one that failed would stay so for ever, as nothing goes forward any more.
#[test]
fn rollback_failed_takes_back_what_a_superseded_version_has_broken() {
    let spec = surging(&json!({"failureThreshold": 1, "onFailure": "RollbackFailed"}));
    let mut world = World::new(Fixture::new("b! c! c a", 'b', spec).opened(3).snapshot, 5);
    live(&mut world, 300);
    assert_eq!(revisions_run(&world), "aaca", "an instance that works stays");
}

#[test]
fn a_failed_instance_that_goes_back_is_not_told_to_go_forward() {
    let mut world =
        world("a a a", 'b', surging(&json!({"maxSurge": 0, "maxUnavailable": 1, "onFailure": "RollbackFailed"})));
    live(&mut world, 2);
    crash(&mut world, 0);
    let mut made = Vec::new();
    world.run(|_, step| {
        let created = step.changes.iter().filter(|change| matches!(change, Change::CreatePod { .. }));
        made.extend(created.map(|change| (change.name().to_owned(), change.reason())));
    });
    assert_eq!(revisions_run(&world), "aaa");
    assert_eq!(made, [("web-0-a".to_owned(), "Back")]);
}

/// Thousands of them here and there are more than status has room for: who is left out would be made at the new version again.
#[test]
fn failed_instances_that_do_not_fit_status_stay_back() {
    let spec = json!({"strategy": {"onFailure": "RollbackFailed", "maxSurge": 0, "maxUnavailable": "50%"}});
    let mut world = World::new(Fixture::new(&"b! b ".repeat(2_500), 'b', spec).opened(5_000).snapshot, 5);
    live(&mut world, 60);
    let failed = |world: &World| world.snapshot.rollout.status.as_ref().unwrap().failed.as_ref().unwrap().slots.clone();
    assert!(failed(&world).len() <= crate::api::bounds::RANGES_CHARS_MAX);
    world.snapshot.pods.retain(|pod| pod.slot != 4_998);
    live(&mut world, 60);
    let is_back = |slot: i32| world.snapshot.pods.iter().filter(|pod| pod.slot == slot).all(|pod| pod.revision == "a");
    assert_eq!((0..5_000).step_by(2).find(|slot| !is_back(*slot)), None, "{}", failed(&world));
}

/// Pinning and unpinning meanwhile changes nothing: the pause after a batch is passed by its approval alone.
#[test]
fn pins_open_no_batch() {
    for (before, after, opened) in [("", "6-7", 4), ("0-1", "", 6), ("", "0", 4), ("", "0-3", 4), ("", "0-7", 4)] {
        let spec = json!({"strategy": {"batches": [{"upTo": 4, "pause": {}}], "maxSurge": 2}});
        let mut world = world("a a a a a a a a", 'b', spec);
        let pins = |instances: &str| match instances {
            "" => json!([]),
            instances => json!([{"instances": instances, "revision": "c"}]),
        };
        set_pins(&mut world, pins(before));
        live(&mut world, 200);
        let opened_now = |world: &World| world.snapshot.rollout.status.as_ref().unwrap().batch.as_ref().unwrap().opened;
        assert_eq!(opened_now(&world), opened);
        set_pins(&mut world, pins(after));
        live(&mut world, 200);
        assert_eq!(opened_now(&world), opened, "{before:?} then {after:?}: {}", say(&plan(&world.snapshot)));
        if after != "0-7" {
            let run = world.snapshot.rollout.status.as_ref().unwrap().run.unwrap();
            world.snapshot.rollout.spec.approve = Some(Approve { run, batch: 1, ..Approve::default() });
            live(&mut world, 600);
            assert!(world.snapshot.rollout.status.as_ref().unwrap().batch.is_none(), "{}", say(&plan(&world.snapshot)));
        }
    }
}

/// Who takes a canary back does not ask for another one.
#[test]
fn a_batch_that_was_pinned_away_opens_no_other() {
    let mut world = world("a a a a", 'b', surging(&json!({"batchSize": 1})));
    world.broken = vec!["b".into()];
    live(&mut world, 2);
    set_pins(&mut world, json!([{"instances": "0", "revision": "a"}]));
    live(&mut world, 600);
    assert_eq!(revisions_run(&world), "aaaa");
    let said = say(&plan(&world.snapshot));
    assert!(said.contains("every instance of batch 1/4 is pinned"), "{said}");
    world.broken.clear();
    set_pins(&mut world, json!([]));
    live(&mut world, 600);
    assert_eq!(revisions_run(&world), "bbbb");
}

/// A version that hangs is rolled back, also beside a pin.
#[test]
fn a_broken_pin_hides_no_broken_version() {
    let mut world = world("a a a a", 'b', json!({"progressDeadlineSeconds": 60}));
    world.broken = vec!["b".into(), "c".into()];
    set_pins(&mut world, json!([{"instances": "3", "revision": "c"}]));
    live(&mut world, 600);
    let status = world.snapshot.rollout.status.clone().unwrap();
    assert_eq!(status.target_revision.as_deref(), Some("a"), "{:?}", status.failed);
}

/// What runs nowhere has not completed.
#[test]
fn with_all_pinned_nothing_completes() {
    let mut world = world("a a", 'b', surging(&json!({})));
    set_pins(&mut world, json!([{"instances": "0-1", "revision": "a"}]));
    live(&mut world, 600);
    assert_eq!(world.snapshot.rollout.status.as_ref().unwrap().current_revision.as_deref(), Some("a"));
    assert!(say(&plan(&world.snapshot)).contains("hold Pinned: every instance is pinned"));
    set_pins(&mut world, json!([]));
    live(&mut world, 600);
    assert_eq!(revisions_run(&world), "bb");
    assert_eq!(world.snapshot.rollout.status.as_ref().unwrap().current_revision.as_deref(), Some("b"));
}

/// The revision that an instance is pinned to is deleted while it runs that.
#[test]
fn a_deleted_revision_takes_no_pod_with_it() {
    let mut world = world("a c a", 'a', surging(&json!({})));
    set_pins(&mut world, json!([{"instances": "1", "revision": "c"}]));
    live(&mut world, 60);
    world.snapshot.revisions.retain(|revision| revision.name != "c");
    let before = uids(&world);
    live(&mut world, 600);
    assert_eq!(uids(&world), before);
}

/// With no room for anything else a broken pin keeps others waiting, and none of them is blamed for it.
#[test]
fn a_broken_pin_that_uses_up_the_budget_blames_nobody() {
    for strategy in [json!({"batchSize": 1}), json!({"batchSize": 1, "maxSurge": 0, "maxUnavailable": 1})] {
        blames_nobody(&strategy);
    }
}

fn blames_nobody(strategy: &Value) {
    let mut world = world("a a a a", 'b', surging(strategy));
    world.broken = vec!["c".into()];
    live(&mut world, 12);
    set_pins(&mut world, json!([{"instances": "3", "revision": "c"}]));
    live(&mut world, 2_000);
    let status = world.snapshot.rollout.status.clone().unwrap();
    assert_eq!((&status.failed, status.target_revision.as_deref()), (&None, Some("b")));
    set_pins(&mut world, json!([]));
    live(&mut world, 600);
    assert_eq!(revisions_run(&world), "bbbb");
}

#[test]
fn pins_are_read_as_they_are_written() {
    let pin: Pin = serde_json::from_value(json!({"instances": "3,5-7", "revision": "a"})).unwrap();
    assert_eq!(serde_json::to_value(pin).unwrap(), json!({"instances": "3,5-7", "revision": "a"}));
}

/// X3: a scale-down takes no pin with it: not of the instances that stay, nor of those that come back.
#[test]
fn scaling_loses_no_pin() {
    let mut world = world("a a a a", 'b', surging(&json!({})));
    set_pins(&mut world, json!([{"instances": "2-3", "revision": "a"}]));
    assert_eq!((world.run(|_, _| ()), revisions_run(&world).as_str()), (End::Done, "bbaa"));
    for (replicas, expected) in [(3, "bba"), (4, "bbaa"), (1, "b"), (4, "bbaa")] {
        world.snapshot.rollout.spec.replicas = replicas;
        assert_eq!((world.run(|_, _| ()), revisions_run(&world).as_str()), (End::Done, expected));
    }
}
