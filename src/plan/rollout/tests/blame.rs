//! Who is blamed at the progress deadline, and what has shown that a version works.
use serde_json::{Value, json};

use super::{
    faults::{container, live, revisions_run, waiting, world},
    fixture::{Fixture, at},
};
use crate::{
    api::{
        Time,
        rollout::{Abort, OnFailure},
        status::Failed,
    },
    plan::rollout::{
        fold::{End, World},
        plan,
    },
    snapshot::{ContainerState, PodPhase, Service},
};

fn failed(world: &World) -> Failed {
    world.snapshot.rollout.status.clone().unwrap_or_default().failed.unwrap_or_default()
}

fn stable(world: &World) -> Option<String> {
    world.snapshot.rollout.status.clone()?.current_revision
}

/// Pods of `b` are created, and stand like this.
fn hang(world: &mut World, phase: PodPhase, state: &ContainerState) {
    for pod in world.snapshot.pods_mut().filter(|pod| pod.revision == "b") {
        (pod.phase, pod.started_at) = (phase, Some(pod.created));
        pod.containers = vec![container(false, 0, state.clone())];
    }
}

fn hangs(slots: &str, spec: Value, phase: PodPhase, state: &ContainerState) -> World {
    let mut world = world(slots, 'b', spec);
    world.broken = vec!["b".into()];
    live(&mut world, 1);
    hang(&mut world, phase, state);
    world
}

fn missing() -> ContainerState {
    let message = "configmap \"nope\" not found".into();
    ContainerState::Waiting { reason: "CreateContainerConfigError".into(), message }
}

/// B7: four instances, the default strategy, a ConfigMap that does not exist.
#[test]
fn those_that_hang_are_blamed_and_those_that_wait_for_their_turn_are_not() {
    let mut world = hangs("a a a a", json!({"progressDeadlineSeconds": 20}), PodPhase::Pending, &missing());
    let given: Vec<i32> =
        world.snapshot.pods.iter().filter(|pod| pod.revision == "b" && pod.is_live()).map(|pod| pod.slot).collect();
    assert_eq!(given, [0, 1]);
    live(&mut world, 300);
    assert_eq!(revisions_run(&world), "aaaa");
    let failed = failed(&world);
    assert_eq!((failed.slots.as_str(), failed.reason.as_str()), ("0-1", "ProgressDeadlineExceeded"));
    let why =
        "web-0: not available within 20 s: CreateContainerConfigError: container web: configmap \"nope\" not found";
    assert_eq!(failed.message, why);
    let b = world.snapshot.revisions.iter().find(|revision| revision.name == "b").unwrap();
    assert_eq!(b.failed_reason.as_deref(), Some(&*format!("ProgressDeadlineExceeded: {why}")), "it outlives status");
}

/// B7: `creationTimestamp` has whole seconds; two Pods created at once may seem one second apart.
#[test]
fn pods_created_on_both_sides_of_a_second_fail_together() {
    let mut world = hangs("a a a a", json!({"progressDeadlineSeconds": 20}), PodPhase::Pending, &missing());
    for pod in world.snapshot.pods_mut().filter(|pod| pod.revision == "b" && pod.slot == 1) {
        pod.created = pod.created.checked_add(jiff::SignedDuration::from_secs(1)).unwrap();
        pod.started_at = Some(pod.created);
    }
    live(&mut world, 300);
    assert_eq!(failed(&world).slots, "0-1");
}

/// B7: nothing but the revision keeps why a version failed, once it is aborted.
#[test]
fn an_abort_keeps_why_the_version_had_failed() {
    let spec = json!({"progressDeadlineSeconds": 20, "strategy": {"onFailure": "Pause"}});
    let mut world = hangs("a a a a", spec, PodPhase::Pending, &missing());
    live(&mut world, 60);
    let run = world.snapshot.rollout.status.as_ref().unwrap().run.unwrap();
    world.snapshot.rollout.spec.abort = Some(Abort { run });
    live(&mut world, 60);
    assert_eq!(revisions_run(&world), "aaaa");
    let b = world.snapshot.revisions.iter().find(|revision| revision.name == "b").unwrap();
    let reason = b.failed_reason.clone().unwrap();
    assert!(reason.starts_with("Aborted: run 1 was aborted; before, it had failed: ProgressDeadline"), "{reason}");
    assert!(reason.contains("configmap \"nope\" not found"), "{reason}");
}

/// B7
#[test]
fn a_readiness_that_never_comes_is_named() {
    let spec = json!({"progressDeadlineSeconds": 30, "strategy": {"batchSize": 2, "maxSurge": 1, "maxUnavailable": 0}});
    for on_failure in [OnFailure::Rollback, OnFailure::Pause, OnFailure::RollbackFailed] {
        let mut world = hangs("a a a a", spec.clone(), PodPhase::Running, &ContainerState::Running);
        world.snapshot.rollout.spec.strategy.on_failure = on_failure;
        live(&mut world, 300);
        let failed = failed(&world);
        assert_eq!(failed.slots, "0", "{on_failure:?}: web-1 was never touched");
        assert_eq!(
            failed.message,
            "web-0: not available within 30 s: ContainersNotReady: container web is not ready: its readiness or startup probe does not succeed"
        );
    }
}

/// B7: nothing moves any more, however many failures are tolerated.
#[test]
fn a_tolerated_failure_that_keeps_others_from_their_turn_ends_the_run() {
    let strategy = json!({"maxSurge": 1, "maxUnavailable": 0, "failureThreshold": 3});
    let spec = json!({"progressDeadlineSeconds": 30, "strategy": strategy});
    let mut world = hangs("a a a a", spec, PodPhase::Pending, &missing());
    live(&mut world, 300);
    assert_eq!((failed(&world).slots.as_str(), revisions_run(&world).as_str()), ("0", "aaaa"));
}

/// R6 R15: what is broken at the version before has used up what may be unavailable.
#[test]
fn a_run_that_can_give_the_version_to_none_ends_and_blames_none() {
    let spec = json!({"progressDeadlineSeconds": 30, "strategy": {"batchSize": 2, "maxSurge": 0, "maxUnavailable": 1}});
    let mut world = world("a a a a!", 'b', spec);
    live(&mut world, 300);
    let failed = failed(&world);
    assert!(failed.at.is_some());
    assert_eq!(
        (failed.slots.as_str(), failed.reason.as_str(), failed.message.as_str()),
        ("", "ProgressDeadlineExceeded", "web-0: was not given b within 30 s: waits for web-3 (CrashLoopBackOff)")
    );
    assert_eq!(revisions_run(&world), "aaaa");
}

/// B7 X4: those that had yet to be given the version keep the one before, also when they are lost.
#[test]
fn what_was_never_given_a_failed_version_stays_without_it() {
    let strategy = json!({"maxSurge": 1, "maxUnavailable": 0, "onFailure": "RollbackFailed"});
    let spec = json!({"progressDeadlineSeconds": 30, "strategy": strategy});
    let mut world = hangs("a a a a", spec, PodPhase::Pending, &missing());
    live(&mut world, 100);
    let told = failed(&world);
    assert_eq!((told.slots.as_str(), told.spared.as_str()), ("0", "1-3"));
    for slot in 0..4 {
        world.snapshot.pods.retain(|pod| pod.slot != slot);
        live(&mut world, 30);
        assert_eq!(revisions_run(&world), "aaaa");
    }
    assert_eq!(failed(&world), told);
    world.broken.clear();
    world.snapshot.rollout.spec.retry_at = Some(Time(world.snapshot.now));
    assert_eq!(world.run(|_, _| ()), End::Done);
    assert_eq!(revisions_run(&world), "bbbb");
}

/// B7: a container runtime that was restarted, or a ConfigMap that comes later in the same apply, passes by itself.
#[test]
fn what_may_pass_by_itself_has_a_minute() {
    for reason in
        ["ErrImagePull", "ImagePullBackOff", "CreateContainerConfigError", "CreateContainerError", "RunContainerError"]
    {
        let spec = json!({"strategy": {"batchSize": 1, "maxSurge": 1, "maxUnavailable": 0}});
        let mut world = hangs("a a", spec, PodPhase::Pending, &waiting(reason));
        live(&mut world, 55);
        assert_eq!(failed(&world), Failed::default(), "{reason}");
        live(&mut world, 10);
        assert_eq!((failed(&world).reason.as_str(), failed(&world).slots.as_str()), (reason, "0"));
        assert_eq!(failed(&world).message, "web-0: container web: says the kubelet");
    }
    let mut fixture = Fixture::new("b~ a", 'b', json!({"strategy": {"batchSize": 1}})).opened(1);
    fixture.snapshot.pod_mut(0).containers = vec![container(false, 0, waiting("InvalidImageName"))];
    assert_eq!(plan(&fixture.snapshot).memory.failed.unwrap().reason, "InvalidImageName");
}

/// R13: a version that no instance has run is not stable.
#[test]
fn a_run_without_instances_completes_nothing_and_goes_on_later() {
    let spec = json!({"progressDeadlineSeconds": 60, "strategy": {"batchSize": 2, "maxSurge": 1, "maxUnavailable": 0}});
    for is_lost in [false, true] {
        let mut world = hangs("a a a a", spec.clone(), PodPhase::Pending, &missing());
        world.snapshot.rollout.spec.replicas = 0;
        live(&mut world, 100_000);
        assert_eq!((stable(&world).as_deref(), revisions_run(&world).as_str()), (Some("a"), ""));
        if is_lost {
            world.snapshot.rollout.status = None;
        }
        world.snapshot.rollout.spec.replicas = 4;
        live(&mut world, 30);
        assert_eq!(revisions_run(&world).matches('b').count(), 2, "batch by batch: {}", revisions_run(&world));
        live(&mut world, 300);
        assert_eq!((stable(&world).as_deref(), revisions_run(&world).as_str()), (Some("a"), "aaaa"));
        assert_eq!(failed(&world).slots, "0-1");
    }
}

/// R13
#[test]
fn a_version_that_was_asked_for_without_instances_completes_once_it_runs() {
    let mut world = world("", 'b', json!({"strategy": {"batches": [{"upTo": 1, "pause": {}}]}}));
    live(&mut world, 100_000);
    assert_eq!(stable(&world).as_deref(), Some("a"));
    world.snapshot.rollout.spec.replicas = 3;
    live(&mut world, 60);
    assert_eq!(revisions_run(&world), "baa", "and its approval is waited for");
    assert_eq!(world.run(|_, _| ()), End::Done);
    assert_eq!((stable(&world).as_deref(), revisions_run(&world).as_str()), (Some("b"), "bbb"));
}

#[test]
fn a_first_creation_without_instances_is_still_the_first_later() {
    let mut world = world("", 'b', json!({"progressDeadlineSeconds": 60, "strategy": {"batchSize": 1}}));
    world.snapshot.revisions.clear();
    live(&mut world, 100_000);
    assert_eq!((stable(&world), failed(&world)), (None, Failed::default()));
    world.snapshot.rollout.spec.replicas = 3;
    live(&mut world, 2);
    assert_eq!(world.snapshot.pods.len(), 3, "all at once, and not late");
    assert_eq!(world.run(|_, _| ()), End::Done);
    assert_eq!(failed(&world), Failed::default());
    assert!(stable(&world).is_some());
}

/// B3: clients are switched to no set that does not exist.
#[test]
fn no_service_is_switched_while_there_are_no_instances() {
    let spec = json!({"strategy": {"type": "BlueGreen", "blueGreen": {"activeService": "web", "promote": "Auto"}}});
    let selected = |world: &World| {
        world.snapshot.services.active.seen().and_then(Service::revision).map(str::to_owned).unwrap_or_default()
    };
    let mut world = World::new(Fixture::new("a a", 'b', spec).serving(Some('a')).snapshot, 5);
    live(&mut world, 2);
    world.snapshot.rollout.spec.replicas = 0;
    live(&mut world, 1_000);
    assert_eq!((stable(&world).as_deref(), selected(&world).as_str()), (Some("a"), "a"));
    world.snapshot.rollout.spec.replicas = 2;
    assert_eq!(world.run(|_, _| ()), End::Done);
    assert_eq!((stable(&world).as_deref(), selected(&world).as_str()), (Some("b"), "b"));
    assert_eq!(revisions_run(&world), "bb");
    assert!(world.snapshot.now > at(1_000));
}
