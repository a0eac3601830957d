//! Health before service, drain before the end, and the soak.
use serde_json::{Value, json};

use super::{
    fixture::{Fixture, at, say},
    folds::{assert_all_at, tell, world},
};
use crate::{
    api::{RolloutStatus, rollout::Approve},
    plan::{
        Change, HoldReason, Plan, PodAct,
        rollout::{
            fold::{End, World},
            plan,
        },
    },
    snapshot::{Endpoints, Purpose, Snapshot, Telling},
};

fn health() -> Value {
    let checks = json!([{"name": "api", "httpGet": {"path": "/healthz", "port": 8080}}]);
    json!({"health": {"attempts": 3, "periodSeconds": 2, "timeoutSeconds": 5, "checks": checks}})
}

fn drain() -> Value {
    json!({"drain": {"timeoutSeconds": 30, "settleSeconds": 2, "httpPost": {"path": "/drain", "port": 8080}}})
}

/// Answers to the Pod of the slot, at the revision that is rolled out.
fn answer(snapshot: &mut Snapshot, slot: i32, purpose: Purpose, call: Telling) {
    let pod = snapshot.pods.iter().find(|pod| pod.slot == slot && pod.deletion.is_none()).unwrap();
    snapshot.calls.insert((pod.uid.clone(), purpose), call);
}

fn refused(of: i64, tries: u32, is_unreachable: bool) -> Telling {
    let said = if is_unreachable { "api: connection refused" } else { "api: answered 503: no database" };
    Telling {
        of: at(of),
        began_at: at(-1),
        tries,
        is_unreachable,
        asked_at: Some(at(-1)),
        answer: Some(Err(said.into())),
        ..Telling::default()
    }
}

/// A Pod of b in slot 0, whose containers are ready and whose gate is closed.
fn unchecked() -> Fixture {
    let mut spec = health();
    spec["strategy"] = json!({"batchSize": 1, "maxSurge": 0, "maxUnavailable": 1});
    let mut fixture = Fixture::new("b~ a a", 'b', spec).opened(1);
    let pod = fixture.snapshot.pod_mut(0);
    (pod.in_service, pod.containers_ready_since) = (Some(false), Some(at(-5)));
    fixture
}

fn gate(plan: &Plan, slot: usize, snapshot: &Snapshot) -> Option<bool> {
    plan.changes.iter().find_map(|change| match change {
        Change::Pod { seen, act: PodAct::SetInService { in_service, .. } } if seen.name == snapshot.pods[slot].name => {
            Some(*in_service)
        }
        _ => None,
    })
}

/// B9: the gate opens after all checks have passed, and not before.
#[test]
fn an_instance_goes_into_service_once_it_is_well() {
    let mut fixture = unchecked();
    let planned = plan(&fixture.snapshot);
    assert!(say(&planned).contains("Health"), "{}", say(&planned));
    assert_eq!(gate(&planned, 0, &fixture.snapshot), None);
    answer(&mut fixture.snapshot, 0, Purpose::Health, refused(-5, 1, false));
    assert_eq!(gate(&plan(&fixture.snapshot), 0, &fixture.snapshot), None);
    let passed = Telling { answer: Some(Ok(())), ..refused(-5, 2, false) };
    answer(&mut fixture.snapshot, 0, Purpose::Health, passed.clone());
    assert_eq!(gate(&plan(&fixture.snapshot), 0, &fixture.snapshot), Some(true));
    // What was said of the containers before does not count.
    fixture.snapshot.pod_mut(0).containers_ready_since = Some(at(-1));
    assert_eq!(gate(&plan(&fixture.snapshot), 0, &fixture.snapshot), None);
}

/// B9: after the last attempt the instance has failed, with the check and what it answered.
#[test]
fn an_instance_that_is_not_well_has_failed() {
    let mut fixture = unchecked();
    answer(&mut fixture.snapshot, 0, Purpose::Health, refused(-5, 2, false));
    assert_eq!(plan(&fixture.snapshot).memory.failed, None);
    answer(&mut fixture.snapshot, 0, Purpose::Health, refused(-5, 3, false));
    let failed = plan(&fixture.snapshot).memory.failed.unwrap();
    let expected = ("HealthCheckFailed", "web-0: health check api: answered 503: no database");
    assert_eq!((failed.reason.as_str(), failed.message.as_str()), expected);
}

/// B9: what reaches no application at all is held against the version only if one of the stable version is reached.
#[test]
fn an_operator_that_reaches_nobody_blames_nobody() {
    let mut fixture = unchecked();
    answer(&mut fixture.snapshot, 0, Purpose::Health, refused(-5, 3, true));
    let planned = plan(&fixture.snapshot);
    assert_eq!(planned.memory.failed, None);
    assert!(say(&planned).contains("Reference"), "{}", say(&planned));
    answer(&mut fixture.snapshot, 1, Purpose::Reference, refused(-5, 1, true));
    let planned = plan(&fixture.snapshot);
    assert_eq!(planned.memory.failed, None);
    assert_eq!(planned.hold.map(|hold| hold.reason), Some(HoldReason::CheckUnreachable));
    assert_eq!(planned.memory.batch.unwrap().deadline_from, None, "the clock stands still");
    let reached = Telling { answer: Some(Ok(())), ..refused(-5, 1, false) };
    answer(&mut fixture.snapshot, 1, Purpose::Reference, reached);
    assert_eq!(plan(&fixture.snapshot).memory.failed.unwrap().reason, "HealthCheckFailed");
}

/// R15
#[test]
fn a_fold_with_health_drain_and_soak_completes() {
    let mut spec = health();
    spec["drain"] = drain()["drain"].clone();
    spec["soak"] = json!({"seconds": 600});
    spec["strategy"] = json!({"batchSize": 1, "maxSurge": 1, "maxUnavailable": 0});
    let mut world = world("a a", 'b', spec);
    for pod in world.snapshot.pods_mut() {
        (pod.in_service, pod.in_service_since) = (Some(true), Some(at(-500)));
    }
    let (story, end) = tell(&mut world);
    assert_eq!(end, End::Done, "{story}");
    assert_all_at(&world, 'b');
    insta::assert_snapshot!(story);
}

/// One old Pod in service that is to leave; a new one is available beside it.
fn leaving() -> Fixture {
    let mut spec = drain();
    spec["strategy"] = json!({"maxSurge": 1, "maxUnavailable": 0});
    let mut fixture = Fixture::new("ba", 'b', spec).opened(1);
    for pod in fixture.snapshot.pods_mut() {
        (pod.in_service, pod.in_service_since) = (Some(true), Some(at(-500)));
    }
    fixture.snapshot.endpoints = Endpoints::Serving(fixture.snapshot.pods.iter().map(|pod| pod.uid.clone()).collect());
    fixture
}

fn old(snapshot: &Snapshot) -> usize {
    snapshot.pods.iter().position(|pod| pod.revision == "a").unwrap()
}

fn is_deleted(plan: &Plan) -> bool {
    plan.changes.iter().any(|change| matches!(change, Change::Pod { act: PodAct::Delete { .. }, .. }))
}

/// B5 X7: gate, endpoint, the Pod's word, and only then the end.
#[test]
fn a_pod_leaves_its_services_then_is_asked_then_goes() {
    let mut fixture = leaving();
    let old = old(&fixture.snapshot);
    let planned = plan(&fixture.snapshot);
    assert_eq!((gate(&planned, old, &fixture.snapshot), is_deleted(&planned)), (Some(false), false));
    let pod = fixture.snapshot.pod_mut(old);
    (pod.in_service, pod.in_service_since, pod.ready_since) = (Some(false), Some(at(-1)), None);
    let uid = pod.uid.clone();
    let planned = plan(&fixture.snapshot);
    assert!(!is_deleted(&planned) && !say(&planned).contains("ask "), "still an endpoint: {}", say(&planned));
    assert_eq!(gate(&planned, old, &fixture.snapshot), None, "the gate stays closed");
    fixture.snapshot.endpoints = Endpoints::Serving([].into());
    let planned = plan(&fixture.snapshot);
    assert!(!is_deleted(&planned) && say(&planned).contains("ask"), "{}", say(&planned));
    let busy = Telling { answer: Some(Err("answered 202".into())), ..refused(-1, 1, false) };
    fixture.snapshot.calls.insert((uid.clone(), Purpose::Drain), busy);
    let planned = plan(&fixture.snapshot);
    assert!(!is_deleted(&planned));
    let hold = planned.hold.unwrap();
    assert!(hold.message.contains("answered 202"), "{}", hold.message);
    let drained = Telling { answer: Some(Ok(())), ..refused(-1, 2, false) };
    fixture.snapshot.calls.insert((uid, Purpose::Drain), drained);
    let planned = plan(&fixture.snapshot);
    assert!(is_deleted(&planned) && planned.drained_late.is_empty());
}

/// B5 X7: a Pod that never says so goes at the deadline, and that is told.
#[test]
fn a_pod_that_is_not_drained_in_time_goes_all_the_same() {
    let mut fixture = leaving();
    let old = old(&fixture.snapshot);
    let pod = fixture.snapshot.pod_mut(old);
    (pod.in_service, pod.in_service_since, pod.ready_since) = (Some(false), Some(at(-29)), None);
    let planned = plan(&fixture.snapshot);
    assert!(!is_deleted(&planned));
    assert_eq!(planned.wake_at, Some(at(1)));
    fixture.snapshot.now = at(1);
    let planned = plan(&fixture.snapshot);
    assert!(is_deleted(&planned));
    assert_eq!(planned.drained_late.len(), 1);
}

/// B5 X7: a drain that is cancelled puts the instance back.
#[test]
fn a_pod_that_is_to_stay_is_put_back_in_service() {
    let mut fixture = leaving();
    let old = old(&fixture.snapshot);
    let pod = fixture.snapshot.pod_mut(old);
    (pod.in_service, pod.in_service_since, pod.ready_since) = (Some(false), Some(at(-1)), None);
    fixture.snapshot.rollout.spec.replicas = 1;
    fixture.snapshot.rollout.spec.version = Some("a".into());
    let fixture = fixture.settled();
    let planned = plan(&fixture.snapshot);
    assert_eq!(gate(&planned, old, &fixture.snapshot), Some(true), "{}", say(&planned));
}

/// X13: a Pod that somebody else deletes is asked as long as it lives.
#[test]
fn a_pod_that_others_delete_is_asked_too() {
    let mut fixture = leaving();
    let old = old(&fixture.snapshot);
    fixture.snapshot.pod_mut(old).deletion = Some(at(20));
    let planned = plan(&fixture.snapshot);
    assert!(say(&planned).contains("Drain"), "{}", say(&planned));
}

/// All instances at b and available; the soak has begun.
fn soaking(on_breach: &str) -> World {
    let spec = json!({"soak": {"seconds": 600, "onBreach": on_breach}, "strategy": {"maxUnavailable": 1}});
    let mut world = World::new(Fixture::new("b b", 'b', spec).opened(2).snapshot, 1);
    for _ in 0..5 {
        let planned = plan(&world.snapshot);
        planned.memory.write(world.snapshot.rollout.status.get_or_insert_with(RolloutStatus::default));
    }
    assert_eq!(plan(&world.snapshot).hold.map(|hold| hold.reason), Some(HoldReason::Soaking));
    world
}

fn restart(world: &mut World) {
    let pod = world.snapshot.pod_mut(1);
    pod.containers.push(crate::snapshot::Container { name: "web".into(), restarts: 1, ..Default::default() });
    pod.containers[0].state = crate::snapshot::ContainerState::Running;
}

/// B12: the run completes at the end of the time, without a write in between.
#[test]
fn a_quiet_soak_completes_the_run() {
    let mut world = soaking("Rollback");
    let before = plan(&world.snapshot);
    assert_eq!(before.wake_at, Some(at(600)));
    world.snapshot.now = at(300);
    let during = plan(&world.snapshot);
    assert_eq!((before.memory, before.hold), (during.memory, during.hold));
    world.snapshot.now = at(600);
    assert!(say(&plan(&world.snapshot)).contains("b completed"));
}

/// B12: a broken limit is told, waits for a person, or fails the run.
#[test]
fn a_broken_limit_does_what_it_is_to_do() {
    for on_breach in ["Notify", "Pause", "Rollback"] {
        let mut world = soaking(on_breach);
        restart(&mut world);
        let planned = plan(&world.snapshot);
        let breach = planned.memory.soak.clone().unwrap().breaches[0].clone();
        assert_eq!((breach.instance, breach.message.as_str()), (1, "1 restarts of at most 0"));
        planned.memory.write(world.snapshot.rollout.status.as_mut().unwrap());
        world.snapshot.now = at(600);
        let planned = plan(&world.snapshot);
        let said = say(&planned);
        match on_breach {
            "Notify" => assert!(said.contains("b completed"), "{said}"),
            "Pause" => {
                assert_eq!(planned.hold.unwrap().reason, HoldReason::AwaitingApproval);
                world.snapshot.rollout.spec.approve = Some(Approve { run: 1, batch: 1, ..Approve::default() });
                let early = plan(&world.snapshot).hold.map(|hold| hold.reason);
                assert_eq!(
                    early,
                    Some(HoldReason::AwaitingApproval),
                    "an approval of the last batch is not one of this"
                );
                world.snapshot.rollout.spec.approve = Some(Approve { run: 1, batch: 2, ..Approve::default() });
                let said = say(&plan(&world.snapshot));
                assert!(said.contains("b completed"), "{said}");
            }
            _ => assert!(said.contains("b failed (SoakBreach: web-1: 1 restarts of at most 0)"), "{said}"),
        }
    }
}

/// B12: a check that fails for long enough, and often enough.
#[test]
fn a_check_that_keeps_failing_breaks_the_soak() {
    let mut world = soaking("Notify");
    let failing = Telling { failures: 3, failing_since: Some(at(-30)), ..refused(0, 3, false) };
    answer(&mut world.snapshot, 1, Purpose::Soak, failing.clone());
    let planned = plan(&world.snapshot);
    assert_eq!(planned.memory.soak.unwrap().breaches[0].what, "check");
    let brief = Telling { failures: 2, ..failing };
    answer(&mut world.snapshot, 1, Purpose::Soak, brief);
    assert!(plan(&world.snapshot).memory.soak.unwrap().breaches.is_empty());
}
