//! Failed Pods that are kept for a look.
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{
    faults::{crash, live, revisions_run, world},
    fixture::{Fixture, at},
};
use crate::{
    plan::{
        Change, PodAct, PodReason,
        rollout::{fold::World, plan},
        specimen,
    },
    snapshot::{ChangeRefusal, CreateRefusal, RefusalReason, specimen::Specimen},
};

fn keeping(pods: i32, strategy: &Value) -> Value {
    let mut all = json!({"maxSurge": 2, "maxUnavailable": 0, "keepFailed": {"pods": pods, "seconds": 600}});
    all.as_object_mut().unwrap().extend(strategy.as_object().unwrap().clone());
    json!({"progressDeadlineSeconds": 60, "strategy": all})
}

/// Of four instances some crash at `b`, and all are back at `a`.
fn gone_back(spec: Value, crashed: &[i32]) -> World {
    let mut world = world("a a a a", 'b', spec);
    world.broken = vec!["b".into()];
    live(&mut world, 1);
    for slot in crashed {
        crash(&mut world, *slot);
    }
    live(&mut world, 20);
    assert_eq!(revisions_run(&world), "aaaa");
    world
}

fn kept(world: &World) -> Vec<&str> {
    world.snapshot.specimens.iter().map(|pod| pod.name.as_str()).collect()
}

/// B7: one that crashed stays; the others of its batch are deleted, and it goes when its time is over.
#[test]
fn a_failed_pod_is_kept_for_a_while() {
    let mut world = gone_back(keeping(1, &json!({"batchSize": 2})), &[0, 1]);
    assert_eq!(kept(&world), ["web-0-b"]);
    live(&mut world, 570);
    assert_eq!(kept(&world), ["web-0-b"]);
    live(&mut world, 20);
    assert_eq!(kept(&world), Vec::<&str>::new());
    assert_eq!(revisions_run(&world), "aaaa");
}

/// B7 R8: a policy demands the labels that would be taken; the Pod is deleted, and the way back goes on.
#[test]
fn a_pod_that_may_not_be_kept_is_deleted() {
    let mut world = world("a a a a", 'b', keeping(1, &json!({"batchSize": 2})));
    world.broken = vec!["b".into()];
    live(&mut world, 1);
    for pod in world.snapshot.pods.clone() {
        let refusal = ChangeRefusal { message: "denied".into(), retry_at: at(3600) };
        world.snapshot.change_refusals.insert(specimen::refusal_key(&pod.uid), refusal);
    }
    crash(&mut world, 0);
    live(&mut world, 20);
    assert_eq!((revisions_run(&world).as_str(), kept(&world).len()), ("aaaa", 0));
}

/// B7: unless it is asked for.
#[test]
fn without_keep_failed_none_is_kept() {
    let spec = json!({"strategy": {"batchSize": 2, "maxSurge": 2, "maxUnavailable": 0}});
    assert_eq!(kept(&gone_back(spec, &[0, 1])), Vec::<&str>::new());
}

/// As the CRD refuses it: there is no room for a Pod more.
#[test]
fn without_surge_none_is_kept() {
    let none = keeping(1, &json!({"batchSize": 1, "maxSurge": 0, "maxUnavailable": 1}));
    assert_eq!(kept(&gone_back(none, &[0])), Vec::<&str>::new());
}

/// What has not failed leaves as ever.
#[test]
fn only_what_failed_is_kept() {
    let world = gone_back(keeping(2, &json!({"batchSize": 2})), &[1]);
    assert_eq!(kept(&world), ["web-1-b"]);
}

/// B7: those that were late have failed, too.
#[test]
fn what_was_late_is_kept() {
    let mut world = world("a a a a", 'b', keeping(2, &json!({"batchSize": 2})));
    world.broken = vec!["b".into()];
    live(&mut world, 100);
    assert_eq!(revisions_run(&world), "aaaa");
    assert_eq!(kept(&world), ["web-0-b", "web-1-b"]);
}

/// Its listeners have another owner by then: two would run.
#[test]
fn a_pod_with_an_agent_is_never_kept() {
    let mut world = world("a a a a", 'b', keeping(1, &json!({"batchSize": 1})));
    world.broken = vec!["b".into()];
    live(&mut world, 1);
    world.snapshot.pods_mut().filter(|pod| pod.revision == "b").for_each(|pod| pod.has_agent = true);
    crash(&mut world, 0);
    live(&mut world, 20);
    assert_eq!((revisions_run(&world).as_str(), kept(&world)), ("aaaa", vec![]));
}

/// The next run's first failed Pod takes the place of the oldest; its name is another one where the version is the same.
#[test]
fn the_oldest_makes_room_for_another_run() {
    let mut world = gone_back(keeping(1, &json!({"batchSize": 1})), &[0]);
    assert_eq!(kept(&world), ["web-0-b"]);
    world.snapshot.rollout.spec.retry_at = Some(crate::api::Time(world.snapshot.now));
    live(&mut world, 2);
    assert!(world.snapshot.pods.iter().any(|pod| pod.name == "web-0-b-1"), "{:?}", world.snapshot.pods);
    crash(&mut world, 0);
    live(&mut world, 20);
    assert_eq!((revisions_run(&world).as_str(), kept(&world)), ("aaaa", vec!["web-0-b-1"]));
}

/// R2: at every moment at most so many Pods more than the strategy allows.
#[test]
fn pods_that_are_kept_are_beyond_the_budget_by_no_more_than_asked_for() {
    for (most, crashed) in [(1, &[0, 1][..]), (2, &[0, 1]), (3, &[0])] {
        let mut world = world("a a a a", 'b', keeping(most, &json!({"batchSize": 2})));
        world.broken = vec!["b".into()];
        for round in 0..3 {
            world.snapshot.rollout.spec.retry_at = Some(crate::api::Time(world.snapshot.now)).filter(|_| round > 0);
            live(&mut world, 1);
            for slot in crashed {
                crash(&mut world, *slot);
            }
            for _ in 0..200 {
                let planned = plan(&world.snapshot);
                world.apply(&planned, &planned.changes);
                let there = world.snapshot.pods.len() + world.snapshot.specimens.len();
                assert!(there <= 6 + most as usize, "{there} Pods");
                let next = world.snapshot.now + SignedDuration::from_millis(100);
                world.advance(next);
            }
            assert_eq!(revisions_run(&world), "aaaa");
        }
    }
}

/// A Pod that was kept, of run 7.
pub(super) fn with_specimen(mut fixture: Fixture, until: i64) -> Fixture {
    let mut pod = Fixture::new("b!", 'b', json!({})).snapshot.pods.remove(0);
    let specimen = Specimen { until: at(until), run: 7, slot: 0, revision: "b".into(), labels: [].into() };
    std::sync::Arc::make_mut(&mut pod).specimen = Some(specimen);
    fixture.snapshot.specimens.push(pod);
    fixture
}

#[test]
fn what_is_kept_goes_when_its_time_is_over_or_nobody_wants_it() {
    let at_rest = |spec: Value| Fixture::new("a a", 'a', spec).settled();
    assert_eq!(with_specimen(at_rest(keeping(1, &json!({}))), 60).looks(), "");
    assert_eq!(plan(&with_specimen(at_rest(keeping(1, &json!({}))), 60).snapshot).wake_at, Some(at(60)));
    assert_eq!(with_specimen(at_rest(keeping(1, &json!({}))), 0).looks(), "-web-0-b Kept");
    assert_eq!(with_specimen(at_rest(json!({})), 60).looks(), "-web-0-b Kept");
    let mut deleted = with_specimen(at_rest(json!({})), 60);
    std::sync::Arc::make_mut(&mut deleted.snapshot.specimens[0]).deletion = Some(at(30));
    assert_eq!(deleted.looks(), "");
}

/// A Pod that serves comes before one to look at.
#[test]
fn what_is_kept_goes_where_a_pod_finds_no_quota_or_no_node() {
    let mut refused = with_specimen(Fixture::new("a .", 'a', keeping(1, &json!({}))).settled(), 60);
    refused.snapshot.create_refusal = Some(CreateRefusal {
        reason: RefusalReason::QuotaExceeded,
        message: "exceeded quota".into(),
        since: at(-1),
        retry_at: at(5),
    });
    let changes = plan(&refused.settled().snapshot).changes;
    assert!(
        matches!(&changes[..], [Change::Pod { act: PodAct::Delete { reason: PodReason::Kept, .. }, .. }]),
        "{changes:?}"
    );
    let mut unscheduled = with_specimen(Fixture::new("a a~", 'a', keeping(1, &json!({}))).settled(), 60);
    unscheduled.snapshot.pod_mut(1).unschedulable = Some("0/3 nodes are available".into());
    assert_eq!(unscheduled.looks().split(';').next(), Some("-web-0-b Kept"));
}

/// B1: no revision runs beside another, also after another strategy.
#[test]
fn what_is_kept_ends_before_another_version_starts_alone() {
    let recreate = || Fixture::new(". .", 'a', json!({"strategy": {"type": "Recreate"}})).settled();
    assert!(recreate().looks().starts_with("+web-0-a Back; +web-1-a Back"), "{}", recreate().looks());
    let mut kept = with_specimen(recreate(), 60).settled();
    let looks = kept.looks();
    assert!(looks.starts_with("-web-0-b Kept; hold OldPods: web-0-b (b) must end before a starts"), "{looks}");
    std::sync::Arc::make_mut(&mut kept.snapshot.specimens[0]).deletion = Some(at(30));
    assert!(kept.looks().starts_with("hold OldPods: web-0-b (b) must end before a starts"), "{}", kept.looks());
}
