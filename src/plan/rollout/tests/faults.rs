//! What others do to a rollout, and what must not be mistaken for its failure.
use jiff::SignedDuration;
use serde_json::json;

use super::fixture::{Fixture, at, rollout, say};
use crate::{
    api::{Time, rollout::Abort},
    plan::{
        Change, HoldReason, Plan, PodAct, RevisionAct, RevisionMark,
        rollout::{
            fold::{End, World},
            plan,
        },
    },
    snapshot::{Container, ContainerState, CreateRefusal, Exit, PodPhase, RefusalReason, TemplateCheck},
};

pub(super) fn world(slots: &str, want: char, spec: serde_json::Value) -> World {
    World::new(Fixture::new(slots, want, spec).snapshot, 5)
}

pub(super) fn revisions_run(world: &World) -> String {
    world.snapshot.pods.iter().filter(|pod| pod.is_live()).map(|pod| pod.revision.as_str()).collect()
}

fn failed_reason(world: &World) -> Option<String> {
    world.snapshot.rollout.status.as_ref()?.failed.as_ref().map(|failed| failed.reason.clone())
}

/// Looks and acts for so many simulated seconds.
pub(super) fn live(world: &mut World, seconds: i64) {
    let end = world.snapshot.now + SignedDuration::from_secs(seconds);
    for _ in 0..10_000 {
        let planned = plan(&world.snapshot);
        if !world.is_quiet(&planned) {
            world.apply(&planned, &planned.changes);
            continue;
        }
        match world.next_event(planned.wake_at).filter(|next| *next <= end) {
            Some(next) => world.advance(next),
            None => break,
        }
    }
    world.advance(end);
}

pub(super) fn crash(world: &mut World, slot: i32) {
    let pod = world.snapshot.pods_mut().filter(|pod| pod.slot == slot).max_by_key(|pod| pod.created).unwrap();
    pod.ready_since = None;
    pod.resource_version.push('c');
    pod.containers = vec![container(false, 1, waiting("CrashLoopBackOff"))];
}

pub(super) fn waiting(reason: &str) -> ContainerState {
    ContainerState::Waiting { reason: reason.into(), message: "says the kubelet".into() }
}

pub(super) fn container(init: bool, restarts: i32, state: ContainerState) -> Container {
    Container { name: "web".into(), init, restarts, state, ..Container::default() }
}

const ONE_BY_ONE: fn(serde_json::Value) -> serde_json::Value = |more| {
    let mut strategy = json!({"batchSize": 1, "maxSurge": 1, "maxUnavailable": 0});
    strategy.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"progressDeadlineSeconds": 60, "strategy": strategy})
};

/// B7
#[test]
fn one_tolerated_failure_does_not_hide_that_another_instance_is_late() {
    let spec = json!({"progressDeadlineSeconds": 60,
        "strategy": {"batchSize": 2, "maxSurge": 2, "maxUnavailable": 0, "failureThreshold": 2}});
    let mut world = world("a a a a", 'b', spec);
    world.broken = vec!["b".into()];
    live(&mut world, 5);
    crash(&mut world, 0);
    live(&mut world, 300);
    assert_eq!(revisions_run(&world), "aaaa");
    assert_eq!(failed_reason(&world).as_deref(), Some("CrashLoopBackOff"));
}

/// B7
#[test]
fn a_threshold_above_the_number_of_instances_is_reached_when_all_have_failed() {
    let spec = json!({"progressDeadlineSeconds": 60, "strategy": {"failureThreshold": 5}});
    let mut world = world("a a", 'b', spec);
    world.broken = vec!["b".into()];
    live(&mut world, 300);
    assert_eq!(revisions_run(&world), "aa");
    assert_eq!(failed_reason(&world).as_deref(), Some("ProgressDeadlineExceeded"));
}

/// B7
#[test]
fn what_has_recovered_is_not_given_up_for_what_it_was() {
    let spec = json!({"strategy": {"failureThreshold": 2, "batches": [{"upTo": 1, "pause": {}}]}});
    let mut world = world("a a a", 'b', spec);
    live(&mut world, 3);
    crash(&mut world, 0);
    live(&mut world, 1);
    let recovered = world.snapshot.pods_mut().find(|pod| pod.revision == "b").unwrap();
    (recovered.phase, recovered.ready_since, recovered.containers) = (PodPhase::Running, Some(at(4)), vec![]);
    live(&mut world, 60);
    assert_eq!(failed_reason(&world).as_deref(), Some("CrashLoopBackOff"), "remembered, and tolerated");
    world.snapshot.rollout.spec.replicas = 1;
    live(&mut world, 60);
    assert_eq!(revisions_run(&world), "b", "the one instance that is left is well");
}

/// B10: without a version to go back to, the run ends all the same.
#[test]
fn an_abort_with_nothing_to_go_back_to_stops_all_the_same() {
    let spec = json!({"strategy": {"batchSize": 1, "maxSurge": 0, "maxUnavailable": 1, "failureThreshold": 2}});
    let mut world = world("a a a a", 'b', spec);
    live(&mut world, 3);
    crash(&mut world, 0);
    live(&mut world, 1);
    world.snapshot.revisions.retain(|revision| revision.name != "a");
    let run = world.snapshot.rollout.status.as_ref().unwrap().run.unwrap();
    world.snapshot.rollout.spec.abort = Some(crate::api::rollout::Abort { run });
    let before = world.snapshot.rollout.status.clone().unwrap().batch.unwrap().opened;
    live(&mut world, 600);
    assert_eq!(world.snapshot.rollout.status.clone().unwrap().batch.unwrap().opened, before);
}

#[test]
fn a_pod_evicted_while_approval_is_awaited_is_replaced_and_no_failure() {
    let spec = json!({"progressDeadlineSeconds": 60, "strategy": {"batches": [{"upTo": 2, "pause": {}}]}});
    let mut world = world("a a a a", 'b', spec);
    live(&mut world, 3_600);
    world.snapshot.pods.retain(|pod| pod.slot != 1);
    live(&mut world, 600);
    assert_eq!(failed_reason(&world), None);
    assert_eq!(revisions_run(&world), "bbaa");
}

#[test]
fn a_pod_evicted_late_in_a_slow_batch_gets_its_own_time() {
    let spec = json!({"progressDeadlineSeconds": 60,
        "strategy": {"batchSize": 2, "maxSurge": 2, "maxUnavailable": 0, "failureThreshold": 2}});
    let mut world = world("a a a a", 'b', spec);
    world.broken = vec!["b".into()];
    live(&mut world, 58);
    world.snapshot.pods.retain(|pod| pod.slot != 1 || pod.revision == "a");
    world.broken.clear();
    live(&mut world, 3);
    let failed = world.snapshot.rollout.status.clone().unwrap().failed.unwrap();
    assert_eq!(failed.slots, "0", "slot 1 was recreated two seconds before the deadline");
}

#[test]
fn the_deadline_stands_still_while_paused_and_starts_anew() {
    let mut world = world("a a a a", 'b', ONE_BY_ONE(json!({})));
    world.ready_seconds = 40;
    live(&mut world, 10);
    world.snapshot.rollout.spec.paused = true;
    let partner = world.snapshot.pods_mut().find(|pod| pod.revision == "b").unwrap();
    partner.node = None;
    world.ready_seconds = 5_000;
    world.snapshot.pods.retain(|pod| pod.revision == "a"); // lost; its successor takes long
    live(&mut world, 3_600);
    world.snapshot.rollout.spec.paused = false;
    let planned = plan(&world.snapshot);
    assert!(planned.memory.failed.is_none(), "{:?}", planned.memory.failed);
}

#[test]
fn the_deadline_stands_still_while_creates_are_refused() {
    let mut world = world(
        "a a a a",
        'b',
        json!({"progressDeadlineSeconds": 60,
        "strategy": {"batchSize": 1, "maxSurge": 0, "maxUnavailable": 1}}),
    );
    let refused = CreateRefusal {
        reason: RefusalReason::QuotaExceeded,
        message: "exceeded quota".into(),
        since: at(0),
        retry_at: at(3_600),
    };
    world.snapshot.create_refusal = Some(refused);
    live(&mut world, 3_600);
    world.snapshot.create_refusal = None;
    assert_eq!(world.run(|_, _| ()), End::Done);
    assert_eq!(failed_reason(&world), None);
    assert_eq!(revisions_run(&world), "bbbb");
}

/// Seed 500005248: the create was done after all, its answer was lost, and no other was called for.
#[test]
fn a_refusal_of_the_past_does_not_stop_the_clock() {
    let spec = json!({"progressDeadlineSeconds": 60, "strategy": {"maxSurge": 1, "maxUnavailable": 0}});
    let mut world = world("a a a", 'b', spec);
    world.broken = vec!["b".into()];
    live(&mut world, 5);
    assert_eq!(revisions_run(&world), "abaa");
    world.snapshot.create_refusal = Some(CreateRefusal {
        reason: RefusalReason::QuotaExceeded,
        message: "exceeded quota".into(),
        since: at(0),
        retry_at: at(1),
    });
    live(&mut world, 120);
    assert_eq!(failed_reason(&world).as_deref(), Some("ProgressDeadlineExceeded"));
}

#[test]
fn a_surge_that_quota_refuses_is_what_it_waits_for() {
    let mut fixture = Fixture::new("a a a a", 'b', ONE_BY_ONE(json!({}))).opened(1);
    fixture.snapshot.create_refusal = Some(CreateRefusal {
        reason: RefusalReason::QuotaExceeded,
        message: "exceeded quota".into(),
        since: at(0),
        retry_at: at(30),
    });
    let hold = plan(&fixture.snapshot).hold.unwrap();
    assert_eq!(hold.reason, HoldReason::CreateRefused, "{hold:?}");
}

/// R1: Ready is what the node says; only for how long is a matter of clocks.
#[test]
fn a_clock_that_is_behind_takes_no_ready_pod_for_a_missing_one() {
    let deleted = |replicas: i32, min_ready_seconds: i32| {
        let spec = json!({"minReadySeconds": min_ready_seconds,
            "strategy": {"batchSize": 4, "maxSurge": 0, "maxUnavailable": 1}});
        let mut fixture = Fixture::new("a a a ab", 'b', spec).opened(4);
        fixture.snapshot.now = at(-900); // they are Ready since -400
        fixture.snapshot.rollout.spec.replicas = replicas;
        let changes = plan(&fixture.settled().snapshot).changes;
        changes.iter().filter(|change| matches!(change, Change::Pod { act: PodAct::Delete { .. }, .. })).count()
    };
    assert_eq!(deleted(4, 0), 2, "what stands beside its successor, and one more");
    assert_eq!(deleted(2, 0), 4, "those beyond replicas, and one more");
    // Where minReadySeconds counts, this clock cannot tell which may go: all stay until it has caught up.
    assert_eq!((deleted(4, 30), deleted(2, 30)), (0, 0));
}

/// With three replicas the default 25 % comes to no unavailable instance.
#[test]
fn one_broken_instance_elsewhere_does_not_keep_the_others_from_their_change() {
    let by_one = json!({"strategy": {"batchSize": 1}});
    let forward = Fixture::new("ab a a!", 'b', by_one.clone()).opened(1).looks();
    assert!(forward.starts_with("-web-0-a Forward"), "{forward}");
    let back = Fixture::new("ca a a!", 'a', by_one.clone()).settled().looks();
    assert!(back.starts_with("-web-0-c Back"), "{back}");
    let mut world = world("a a a!", 'b', by_one);
    assert_eq!(world.run(|_, _| ()), End::Done);
    assert_eq!((revisions_run(&world).as_str(), failed_reason(&world)), ("bbb", None));
}

/// What is beyond replicas serves on while it makes up for what is broken below.
#[test]
fn a_pod_beyond_replicas_stays_until_enough_others_are_available() {
    let spec = json!({"replicas": 3, "strategy": {"maxSurge": 1, "maxUnavailable": 0}});
    let fixture = |pods: &str| Fixture::new(pods, 'a', spec.clone()).settled();
    assert!(fixture("a a a~ a").looks().starts_with("hold"), "{}", fixture("a a a~ a").looks());
    assert!(fixture("a a a a").looks().starts_with("-web-3-a Scale"));
    // Two Pods of one instance are one instance, and one of them is about to leave.
    let look = fixture("ac a a~ a").looks();
    assert!(look.starts_with("-web-0-c Back; hold"), "{look}");
}

/// An instance that has been ready for too short a time is none that may be lost, and none that must be kept.
#[test]
fn a_ready_pod_that_is_not_available_yet_gives_way_when_the_others_suffice() {
    let spec = json!({"minReadySeconds": 1_000, "strategy": {"batchSize": 4, "maxSurge": 0, "maxUnavailable": 1}});
    let mut fixture = Fixture::new("a a a a", 'b', spec).opened(4);
    for pod in fixture.snapshot.pods_mut() {
        pod.ready_since = Some(at(if pod.slot == 3 { -5 } else { -2_000 }));
    }
    let look = say(&plan(&fixture.snapshot));
    assert!(look.starts_with("-web-3-a Forward; hold"), "{look}");
}

#[test]
fn an_instance_on_a_lost_node_is_not_late() {
    let mut world = world("a a a a", 'b', ONE_BY_ONE(json!({})));
    world.broken = vec!["b".into()];
    live(&mut world, 10);
    world.snapshot.pods_mut().find(|pod| pod.revision == "b").unwrap().node = Some("gone".into());
    world.snapshot.lost_nodes.insert("gone".into());
    live(&mut world, 120);
    assert_eq!(failed_reason(&world), None);
}

#[test]
fn an_init_container_that_came_through_is_forgiven_its_restarts() {
    let mut fixture = Fixture::new("b a a a", 'b', ONE_BY_ONE(json!({}))).opened(1);
    let done = ContainerState::Terminated(Exit { reason: "Completed".into(), ..Exit::default() });
    fixture.snapshot.pod_mut(0).containers = vec![container(true, 4, done)];
    assert_eq!(plan(&fixture.snapshot).memory.failed, None);
    // A native sidecar that keeps restarting is as bad as any other container.
    fixture.snapshot.pod_mut(0).containers = vec![container(true, 4, ContainerState::Running)];
    assert_eq!(plan(&fixture.snapshot).memory.failed.unwrap().reason, "Restarting");
}

#[test]
fn the_patience_with_an_image_counts_from_the_last_thing_that_happened() {
    let mut fixture = Fixture::new("b~ a a a", 'b', ONE_BY_ONE(json!({}))).opened(1);
    let pod = fixture.snapshot.pod_mut(0);
    pod.containers = vec![container(false, 1, waiting("ErrImagePull"))];
    pod.containers_changed_at = Some(at(-20)); // the container ended, or the one before it was started, just now
    let planned = plan(&fixture.snapshot);
    assert_eq!(planned.memory.failed, None);
    assert_eq!(planned.wake_at, Some(at(40)));
}

/// A ConfigMap may come a moment later in the same `kubectl apply`.
#[test]
fn a_missing_config_is_waited_for_a_minute() {
    let mut fixture = Fixture::new("b~ a a a", 'b', ONE_BY_ONE(json!({}))).opened(1);
    let pod = fixture.snapshot.pod_mut(0);
    pod.created = at(-10);
    (pod.started_at, pod.initialized_at) = (Some(at(-10)), Some(at(-10)));
    pod.containers = vec![container(false, 0, waiting("CreateContainerConfigError"))];
    assert_eq!(plan(&fixture.snapshot).memory.failed, None);
    fixture.snapshot.now = at(51);
    assert_eq!(plan(&fixture.snapshot).memory.failed.unwrap().reason, "CreateContainerConfigError");
}

fn mark_of(planned: &Plan) -> Option<&RevisionMark> {
    planned.changes.iter().find_map(|change| match change {
        Change::Revision { act: RevisionAct::Mark(mark), .. } => Some(mark),
        _ => None,
    })
}

#[test]
fn a_clock_that_stepped_back_neither_loses_a_completion_nor_a_failure() {
    let mut world = world("a a", 'b', ONE_BY_ONE(json!({})));
    world.snapshot.revisions.iter_mut().find(|r| r.name == "a").unwrap().completed_at = Some(at(100_000));
    let mut marks = 0;
    let mut see = |world: &World, planned: &Plan| {
        marks += usize::from(mark_of(planned).is_some());
        assert!(marks < 3, "{planned:?} at {}", world.snapshot.now);
    };
    for _ in 0..200 {
        let planned = plan(&world.snapshot);
        see(&world, &planned);
        world.apply(&planned, &planned.changes);
        if let Some(next) = world.next_event(planned.wake_at).filter(|_| world.is_quiet(&planned)) {
            world.advance(next);
        }
    }
    assert_eq!(revisions_run(&world), "bb");
    assert!(world.snapshot.rollout.status.unwrap().batch.is_none(), "the run has ended");

    // The same for a failure that seems older than an earlier completion of the same revision.
    let mut fixture = Fixture::new("ab! a", 'b', ONE_BY_ONE(json!({}))).opened(1).settled();
    fixture.snapshot.revisions.iter_mut().find(|r| r.name == "b").unwrap().completed_at = Some(at(100_000));
    fixture.snapshot.revisions.iter_mut().find(|r| r.name == "a").unwrap().completed_at = Some(at(100_001));
    let mut world = World::new(fixture.snapshot, 5);
    assert_eq!(world.run(|_, _| ()), End::Done);
    assert_eq!(revisions_run(&world), "aa");
}

#[test]
fn an_abort_is_noted_once_even_with_nothing_to_go_back_to() {
    let mut world = world("a a a", 'b', ONE_BY_ONE(json!({})));
    live(&mut world, 3);
    world.snapshot.revisions.retain(|revision| revision.name != "a"); // a person deleted it
    let run = world.snapshot.rollout.status.as_ref().unwrap().run.unwrap();
    world.snapshot.rollout.spec.abort = Some(Abort { run });
    let mut marks = 0;
    for _ in 0..20 {
        let planned = plan(&world.snapshot);
        marks += usize::from(mark_of(&planned).is_some());
        world.apply(&planned, &planned.changes);
        world.snapshot.now += SignedDuration::from_secs(1);
    }
    assert_eq!(marks, 1);
}

#[test]
fn without_its_stable_revision_a_run_still_goes_batch_by_batch() {
    let spec = json!({"strategy": {"batches": [{"upTo": 1, "pause": {}}]}});
    let mut world = world("a a a a", 'b', spec);
    live(&mut world, 60);
    world.snapshot.revisions.retain(|revision| revision.name != "a");
    live(&mut world, 60);
    assert_eq!(revisions_run(&world), "baaa");
}

#[test]
fn a_first_revision_that_comes_up_late_completes() {
    let mut world = world("", 'b', json!({"replicas": 2, "progressDeadlineSeconds": 30}));
    world.snapshot.revisions.clear();
    world.ready_seconds = 100;
    assert_eq!(world.run(|_, _| ()), End::Done);
    assert!(world.snapshot.revisions[0].completed_at.is_some());
    assert_eq!(failed_reason(&world), None);
}

#[test]
fn a_spec_set_back_after_an_automatic_rollback_forgets_the_failure() {
    let mut world = world("a a a a", 'b', ONE_BY_ONE(json!({})));
    world.broken = vec!["b".into()];
    assert_eq!(world.run(|_, _| ()), End::Done);
    assert_eq!(failed_reason(&world).as_deref(), Some("ProgressDeadlineExceeded"));
    world.snapshot.rollout.spec.version = rollout("a", json!({})).spec.version;
    assert_eq!(world.run(|_, _| ()), End::Done);
    assert_eq!(failed_reason(&world), None);
}

/// R5
#[test]
fn a_refusal_from_long_ago_does_not_stop_a_refill_for_ever() {
    let refused = |at| TemplateCheck::Refused { message: "policy".into(), recheck_at: at };
    let mut world = world(". a", 'a', json!({}));
    world.snapshot.template_checks.insert("a".into(), refused(at(-1)));
    assert_eq!(world.run(|_, _| ()), End::Done);
    assert_eq!(revisions_run(&world), "aa");

    let mut back = Fixture::new("c a", 'a', json!({})).snapshot;
    back.template_checks.insert("a".into(), refused(at(30)));
    let mut world = World::new(back, 5);
    assert_eq!(world.run(|_, _| ()), End::Done);
    assert_eq!(revisions_run(&world), "aa");
}

/// The first create is carried out after its time-out, when nothing that was there when its name was chosen still is.
#[test]
fn a_create_that_commits_late_is_met_by_its_own_name() {
    let mut world = World::new(Fixture::new("a- a", 'a', json!({})).snapshot, 5);
    let attempt = |world: &mut World| {
        let planned = plan(&world.snapshot); // what is remembered is written; the create is sent, and not answered
        world.apply(&planned, &[]);
        let create = planned.changes.iter().find(|change| matches!(change, Change::CreatePod { .. })).cloned();
        create.map(|change| (planned, change))
    };
    world.snapshot.rollout.spec.strategy.max_surge = crate::api::IntOrPercent::Count(2);
    let first = (0..5).find_map(|_| attempt(&mut world)).unwrap();
    assert!(say(&first.0).starts_with("+web-0-a-1 "), "{}", say(&first.0));
    world.snapshot.pods.retain(|pod| pod.deletion.is_none());
    let second = (0..5).find_map(|_| attempt(&mut world)).unwrap();
    assert!(say(&second.0).starts_with("+web-0-a-1 "), "{}", say(&second.0));
    for (planned, change) in [first, second] {
        world.apply(&Plan { memory: plan(&world.snapshot).memory, ..planned }, &[change]);
    }
    assert_eq!(world.snapshot.pods.len(), 2);
    // With its Pod seen, the number is what that Pod carries; with the Pod gone, and another come, it is forgotten.
    live(&mut world, 60);
    assert_eq!(plan(&world.snapshot).memory.attempts[0].instances, "0");
    world.snapshot.pod_mut(0).name = "web-0-a".into();
    assert_eq!(plan(&world.snapshot).memory.attempts, []);
}

#[test]
fn a_slots_second_pod_of_a_revision_never_takes_the_first_name() {
    let restart = json!({"restartAt": Time(at(-1)), "strategy": {"maxSurge": 1, "maxUnavailable": 0}});
    let mut fixture = Fixture::new("a", 'a', restart);
    fixture.snapshot.pod_mut(0).name = "web-0-a-1".into();
    let look = fixture.settled().looks();
    assert!(look.starts_with("+web-0-a-2 Restart"), "{look}");
}

/// What status cannot hold would be refused with every write, for ever.
#[test]
fn remembered_ranges_fit_into_status() {
    let slots = vec!["a"; 4_000].join(" ");
    let mut fixture = Fixture::new(&slots, 'a', json!({}));
    for pod in fixture.snapshot.pods_mut().filter(|pod| pod.slot % 2 == 0) {
        pod.name.push_str("-1");
    }
    let memory = plan(&fixture.snapshot).memory;
    assert!(memory.attempts[0].instances.len() <= crate::api::bounds::RANGES_CHARS_MAX);
    assert!(memory.attempts[0].instances.starts_with("0,2,4,"));
}
