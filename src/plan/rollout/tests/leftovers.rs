//! What an abandoned version has left beyond the batch that is worked on.
use std::collections::BTreeMap;

use serde_json::json;

use super::{
    faults::{container, revisions_run, waiting},
    fixture::{Fixture, at, say},
};
use crate::{
    plan::rollout::{
        fold::{End, World},
        plan,
    },
    snapshot::{
        ContainerState, InPlace, Pod, PodPhase,
        in_place::{Before, Ran},
    },
};

/// R19
#[test]
fn a_broken_pod_of_a_third_revision_wakes_the_planner_when_patience_ends() {
    let mut fixture =
        Fixture::new("b c~ a a", 'b', json!({"strategy": {"batches": [{"upTo": 1, "pause": {}}]}})).opened(1);
    let pod = fixture.snapshot.pod_mut(1);
    (pod.initialized_at, pod.unready_since) = (Some(at(-30)), Some(at(-40)));
    pod.phase = PodPhase::Pending;
    pod.containers = vec![container(false, 0, waiting("ImagePullBackOff"))];
    let fixture = fixture.settled();
    assert_eq!(plan(&fixture.snapshot).wake_at, Some(at(30)));
}

/// What an abandoned version has left beyond the batch uses up the budget: it goes back, or the batch would fail for it.
///
/// R19
#[test]
fn a_pod_of_a_third_revision_that_never_gets_ready_makes_room() {
    let spec = || json!({"strategy": {"maxUnavailable": 1, "batches": [{"upTo": 1}]}});
    let left = |created, change: fn(&mut Pod)| {
        let mut fixture = Fixture::new("b a c~ a", 'b', spec()).opened(2);
        let pod = fixture.snapshot.pod_mut(2);
        (pod.created, pod.started_at, pod.unready_since) = (at(created), Some(at(created)), Some(at(created)));
        change(pod);
        fixture.settled()
    };
    let young = plan(&left(-59, |_| ()).snapshot);
    assert_eq!((say(&young).contains("web-2"), young.wake_at), (false, Some(at(1))), "{}", say(&young));
    assert!(say(&plan(&left(-60, |_| ()).snapshot)).contains("-web-2-c Back"));
    let unreadable = left(-60, |pod| pod.is_unreadable = true);
    assert!(!say(&plan(&unreadable.snapshot)).contains("web-2"), "it may be anything: left alone");
    let unscheduled = left(-60, |pod| (pod.started_at, pod.unready_since) = (None, None));
    assert!(say(&plan(&unscheduled.snapshot)).contains("-web-2-c Back"));
    let blinks = left(-500, |pod| pod.unready_since = Some(at(-100)));
    assert!(!say(&plan(&blinks.snapshot)).contains("web-2"), "it was ready once");
    let mut world = World::new(left(-60, |_| ()).snapshot, 5);
    assert_eq!(world.run(|_, _| ()), End::Done);
    assert_eq!(revisions_run(&world), "bbbb");
}

/// Seed 1650003368: it left service for a change in place, by a node's clock that is ahead of the operator's.
///
/// R19
#[test]
fn what_never_got_ready_since_a_change_in_place_makes_room_whatever_the_nodes_clock_says() {
    let looks = |restarts| {
        let spec = json!({"strategy": {"maxUnavailable": 1, "batches": [{"upTo": 1}]}});
        let mut fixture = Fixture::new("b a c~ a", 'b', spec).opened(2);
        let pod = fixture.snapshot.pod_mut(2);
        (pod.created, pod.started_at, pod.unready_since) = (at(-900), Some(at(-900)), Some(at(30)));
        let ran = Some(Ran { id: "one".into(), ..Ran::default() });
        let before = Before { ran, ..Before::default() };
        let containers = BTreeMap::from([("web".to_owned(), before)]);
        pod.in_place = Some(InPlace { at: at(-60), containers, resources: BTreeMap::new(), reload: None });
        // The restart that the change itself makes is no other.
        let mut anew = container(false, restarts, ContainerState::Running);
        (anew.id, anew.started_at) = ("two".into(), Some(at(31)));
        pod.containers = vec![anew];
        fixture.settled().looks()
    };
    assert!(looks(1).contains("-web-2-c Back"), "{}", looks(1));
    assert!(!looks(2).contains("web-2"), "it may have been ready before it ended by itself: {}", looks(2));
}

/// Forward is forward, also for what is broken.
#[test]
fn without_a_stable_revision_a_pause_holds_what_is_broken_beyond_the_batch() {
    let spec = json!({"paused": true, "strategy": {"maxUnavailable": 1, "batches": [{"upTo": 1}]}});
    let mut fixture = Fixture::new("b a c! a", 'b', spec).opened(2).settled();
    fixture.snapshot.revisions.retain(|revision| revision.name != "a");
    assert!(!say(&plan(&fixture.snapshot)).contains("web-2"), "{}", say(&plan(&fixture.snapshot)));
}

/// Seed 420182952: with nothing to go back to, such a Pod goes forward, as an empty slot does.
///
/// R19
#[test]
fn a_broken_pod_of_a_third_revision_makes_room_also_when_the_stable_one_was_deleted() {
    let spec = json!({"strategy": {"maxUnavailable": 1, "batches": [{"upTo": 1}]}});
    let mut fixture = Fixture::new("b a c! a", 'b', spec).opened(2).settled();
    fixture.snapshot.revisions.retain(|revision| revision.name != "a");
    let mut world = World::new(fixture.snapshot, 5);
    assert_eq!(world.run(|_, _| ()), End::Done);
    assert_eq!(revisions_run(&world), "bbbb");
}

/// Found by a property: what a lost status or a pin has left at the very version that is rolled out is no better.
///
/// R15
#[test]
fn a_broken_pod_of_the_present_revision_makes_room_before_its_turn() {
    let spec = json!({"strategy": {"maxSurge": 0, "maxUnavailable": 1, "batchSize": 1, "failureThreshold": 2}});
    let fixture = Fixture::new("b a b!", 'b', spec).opened(2).settled();
    assert!(fixture.looks().starts_with("-web-2-b Back; hold"), "{}", fixture.looks());
    let mut world = World::new(fixture.snapshot, 5);
    assert_eq!(world.run(|_, _| ()), End::Done);
    assert_eq!(revisions_run(&world), "bbb");
}

/// Found by a property: only a person ends that, so it is said.
///
/// R15
#[test]
fn a_pinned_instance_that_has_failed_is_named_by_what_waits_for_the_budget() {
    let pins = json!([{"instances": "2", "revision": "b"}]);
    let spec = json!({"pins": pins, "strategy": {"maxSurge": 0, "maxUnavailable": 1}});
    let looks = Fixture::new("a c b!", 'a', spec).settled().looks();
    assert_eq!(
        looks,
        "hold Pinned: web-1 waits: 2 available of at least 2, 3 Pods of at most 3; web-2 is pinned and has failed: unpin it"
    );
}

/// Found by a property: maxSurge was lowered while the Pod that is to take over crashes, and another instance was lost. Once
/// the lost one is on its way, the Pod that makes room is made anew, in its turn.
///
/// R15
#[test]
fn a_pod_that_cannot_take_over_makes_room_for_an_instance_without_one() {
    let spec = || json!({"strategy": {"maxSurge": 0, "maxUnavailable": 1, "failureThreshold": 2}});
    let looks = |slots| Fixture::new(slots, 'b', spec()).opened(3).settled().looks();
    assert!(looks("b!a a .").starts_with("-web-0-b Surplus; hold"), "{}", looks("b!a a ."));
    assert!(!looks("b!a a a").contains("Surplus"), "no instance waits");
    assert!(!looks("b!a a a-").contains("Surplus"), "one that ends makes room by itself");
    assert!(looks("b~a a .").starts_with("-web-0-b Surplus; hold"), "more than there may be: {}", looks("b~a a ."));
    // One too few is there, because one beyond replicas stays until enough others are available.
    let scaled = |slots| {
        let spec = json!({"replicas": 3, "strategy": {"maxSurge": 1, "maxUnavailable": 0, "failureThreshold": 2}});
        let mut fixture = Fixture::new(slots, 'b', spec).opened(3);
        for pod in fixture.snapshot.pods_mut().filter(|pod| pod.revision == "b") {
            pod.created = at(-5);
        }
        fixture.settled().looks()
    };
    assert!(!scaled("b~a a . a").contains("Surplus"), "it may come up: {}", scaled("b~a a . a"));
    assert!(scaled("b!a a . a").starts_with("-web-0-b Surplus"), "{}", scaled("b!a a . a"));
    let mut fixture = Fixture::new("b!a a .", 'b', spec()).opened(3).settled();
    fixture.snapshot.rollout.spec.paused = true;
    let mut world = World::new(fixture.snapshot, 5);
    world.run(|_, _| ());
    assert_eq!(revisions_run(&world), "aab", "web-2 is back");
}

/// Found by a property: a restart that becomes due because something before it is done does not overtake what was due.
///
/// R20
#[test]
fn a_restart_waits_for_what_comes_to_another_revision() {
    let spec = json!({"restartAt": at(0).to_string(), "strategy": {"maxSurge": 0, "maxUnavailable": 1}});
    let fixture = Fixture::new("a a b", 'a', spec);
    assert!(say(&plan(&fixture.settled().snapshot)).starts_with("-web-2-b Back; hold"));
}
