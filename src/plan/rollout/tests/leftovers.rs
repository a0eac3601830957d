//! What an abandoned version has left beyond the batch that is worked on.
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
    snapshot::PodPhase,
};

/// R19
#[test]
fn a_broken_pod_of_a_third_revision_wakes_the_planner_when_patience_ends() {
    let mut fixture =
        Fixture::new("b c~ a a", 'b', json!({"strategy": {"batches": [{"upTo": 1, "pause": {}}]}})).opened(1);
    let pod = fixture.snapshot.pod_mut(1);
    pod.initialized_at = Some(at(-30));
    pod.phase = PodPhase::Pending;
    pod.containers = vec![container(false, 0, waiting("ImagePullBackOff"))];
    let fixture = fixture.settled();
    assert_eq!(plan(&fixture.snapshot).wake_at, Some(at(30)));
}

/// What an abandoned version has left beyond the batch uses up the budget: it goes back, or the batch would fail for it.
///
/// R19
#[test]
fn a_pod_of_a_third_revision_that_does_not_get_ready_makes_room() {
    let spec = || json!({"strategy": {"maxUnavailable": 1, "batches": [{"upTo": 1}]}});
    let unready = |since| {
        let mut fixture = Fixture::new("b a c~ a", 'b', spec()).opened(2);
        fixture.snapshot.pod_mut(2).unready_since = Some(at(since));
        fixture.settled()
    };
    let blinks = plan(&unready(-59).snapshot);
    assert_eq!((say(&blinks).contains("web-2"), blinks.wake_at), (false, Some(at(1))), "{}", say(&blinks));
    assert!(say(&plan(&unready(-60).snapshot)).contains("-web-2-c Back"));
    let mut world = World::new(unready(-60).snapshot, 5);
    assert_eq!(world.run(|_, _| ()), End::Done);
    assert_eq!(revisions_run(&world), "bbbb");
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
