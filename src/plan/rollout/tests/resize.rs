//! Pods that are given other resources: in which order, at what cost, and what becomes of those whose node has no room.
use serde_json::{Value, json};

use super::{
    faults::{crash, live, revisions_run, world},
    fixture::{at, say},
    worlds::give_images,
};
use crate::{
    api::rollout::{Abort, UpdateMethod},
    plan::{
        Change, HoldReason, Memory, Plan, in_place,
        rollout::{
            fold::{End, World},
            plan,
            time::after,
        },
    },
    snapshot::{ChangeRefusal, Container, ContainerState, Resize, Snapshot, TemplateCheck},
};

/// Revision `a` runs with one CPU, `b` is to run with two; of one image, `policy` for both.
fn resized(slots: &str, want: char, spec: Value, policy: &str) -> World {
    let mut world = world(slots, want, spec);
    give_images(&mut world.snapshot);
    let container = |name: &str| {
        let cpu = if name == "b" { "2" } else { "1" };
        json!([{
            "name": "web", "image": "example.local/web:1", "resources": {"requests": {"cpu": cpu}},
            "resizePolicy": [{"resourceName": "cpu", "restartPolicy": policy}],
        }])
    };
    for revision in &mut world.snapshot.revisions {
        revision.data["template"]["spec"]["containers"] = container(&revision.name);
    }
    world.snapshot.rollout.spec.template.0["spec"]["containers"] = container(&want.to_string());
    world
}

fn uids(snapshot: &Snapshot) -> Vec<String> {
    snapshot.pods.iter().map(|pod| pod.uid.clone()).collect()
}

fn verbs(world: &mut World) -> (End, Vec<String>) {
    const OF_PODS: [&str; 7] =
        ["CreatePod", "DeletePod", "CheckResize", "ChangeInPlace", "Resize", "NoteResized", "SetInService"];
    let mut said = Vec::new();
    let end = world.run(|_, step| {
        let verbs: Vec<&str> = step.changes.iter().map(Change::verb).filter(|verb| OF_PODS.contains(verb)).collect();
        said.extend((!verbs.is_empty()).then(|| verbs.join(" ")));
    });
    (end, said)
}

/// Looks and acts until one of its Pods is to be resized.
fn until_due(world: &mut World) {
    for _ in 0..30 {
        let planned = plan(&world.snapshot);
        if world.is_quiet(&planned) {
            world.advance(world.next_event(planned.wake_at).unwrap());
        }
        world.apply(&planned, &planned.changes);
        if world.snapshot.pods.iter().any(|pod| pod.resize.is_some()) {
            return;
        }
    }
    panic!("{}", say(&plan(&world.snapshot)));
}

/// What is planned once all is remembered that has to be.
fn next(world: &mut World) -> Plan {
    loop {
        let planned = plan(&world.snapshot);
        if planned.memory == Memory::of(world.snapshot.rollout.status.as_ref()) {
            return planned;
        }
        world.apply(&planned, &[]);
    }
}

/// The node says this of the Pod's new resources from now on.
fn told(world: &mut World, slot: usize, reason: &str) {
    let now = world.snapshot.now;
    let pod = world.snapshot.pods_mut().nth(slot).unwrap();
    pod.resize = Some(Resize::Awaited { reason: reason.into(), message: "no room".into(), since: Some(now) });
}

/// B4: no Pod leaves service; and a batch is done once its Pods have what they were given.
#[test]
fn resources_are_given_to_pods_that_serve_on() {
    let spec = json!({"strategy": {"batchSize": 2, "maxUnavailable": 1}});
    let mut world = resized("a a a", 'b', spec, "NotRequired");
    let before = uids(&world.snapshot);
    let (end, said) = verbs(&mut world);
    assert_eq!((end, revisions_run(&world).as_str(), uids(&world.snapshot)), (End::Done, "bbb", before));
    let steps = ["CheckResize", "ChangeInPlace", "Resize", "NoteResized"];
    let batch = |count: usize| steps.map(|verb| vec![verb; count].join(" "));
    assert_eq!(said, [batch(2), batch(1)].concat());
    assert!(world.snapshot.pods.iter().all(|pod| pod.ready_since == Some(at(-400)) && pod.resize.is_none()));
}

/// A container that has too little meanwhile fails no version: another Pod takes the place, as where there is no room.
#[test]
fn what_fails_before_it_has_them_is_replaced() {
    let spec = json!({"strategy": {"maxUnavailable": 1, "maxSurge": 0}});
    let mut world = resized("a a", 'b', spec, "NotRequired");
    until_due(&mut world);
    told(&mut world, 0, "Deferred");
    crash(&mut world, 0);
    let said = say(&next(&mut world));
    assert!(said.starts_with("-web-0-a Forward; "), "{said}");
    world.run(|_, _| {});
    assert_eq!(revisions_run(&world), "bb");
    assert_eq!(world.snapshot.rollout.status.as_ref().unwrap().failed, None);
}

/// Where only what fails goes back, nothing moves forward after that; but who stays at the version gets what belongs to it.
#[test]
fn what_stays_at_a_version_that_others_have_left_is_given_another_pod() {
    let strategy = json!({"maxUnavailable": 1, "maxSurge": 1, "onFailure": "RollbackFailed"});
    let mut world = resized("a a", 'b', json!({"strategy": strategy, "progressDeadlineSeconds": 7_200}), "NotRequired");
    let before = uids(&world.snapshot);
    until_due(&mut world);
    world.snapshot.pods_mut().nth(1).unwrap().resize = None;
    told(&mut world, 0, "Deferred");
    crash(&mut world, 1);
    live(&mut world, 50);
    let run = |world: &World| (revisions_run(world), uids(&world.snapshot)[0] == before[0]);
    assert_eq!(run(&world), ("ba".to_owned(), true));
    let mut paused = World::new(world.snapshot.clone(), 1);
    paused.snapshot.rollout.spec.paused = true;
    live(&mut paused, 60);
    assert_eq!(run(&paused), ("ba".to_owned(), true), "a person holds it");
    live(&mut world, 60);
    assert_eq!(run(&world), ("ba".to_owned(), false));
    assert!(world.snapshot.pods.iter().all(|pod| pod.resize.is_none() && pod.is_ready()));
}

/// What is refused again and again, or taken back by another writer, is given up for good: one that is given up for as long as a
/// refusal is remembered would be wanted again while another takes its place.
#[test]
fn what_is_never_written_is_given_up_for_good() {
    let spec = json!({"strategy": {"maxUnavailable": 1, "maxSurge": 1}});
    let mut world = resized("a", 'b', spec, "NotRequired");
    until_due(&mut world);
    world.snapshot.pods_mut().next().unwrap().resize = Some(Resize::Due);
    world.snapshot.now = after(world.snapshot.now, 61);
    let planned = next(&mut world);
    assert!(planned.changes.iter().any(|change| matches!(change, Change::CreatePod { .. })), "{}", say(&planned));
}

/// B4: a container that has to start anew for them is out of service meanwhile, one instance at a time.
#[test]
fn a_container_that_starts_anew_for_them_leaves_service_first() {
    let spec = json!({"strategy": {"maxUnavailable": 1}});
    let mut world = resized("a a", 'b', spec, "RestartContainer");
    let before = uids(&world.snapshot);
    let (end, said) = verbs(&mut world);
    assert_eq!((end, revisions_run(&world).as_str(), uids(&world.snapshot)), (End::Done, "bb", before));
    let steps = ["CheckResize", "SetInService", "ChangeInPlace", "Resize", "NoteResized", "SetInService"];
    assert_eq!(said, steps.repeat(2));
}

/// Nothing is taken out of service, and no listener moves, for what the API server would refuse.
#[test]
fn it_is_asked_whether_a_pod_would_get_them_before_it_leaves_service() {
    let mut world = resized("a a", 'b', json!({"strategy": {"maxUnavailable": 1}}), "RestartContainer");
    world.snapshot.rollout.spec.strategy.update = UpdateMethod::InPlaceOnly;
    let refusal = |at| ChangeRefusal { message: "resize: node is too small".into(), retry_at: at };
    let keys: Vec<String> = uids(&world.snapshot).iter().map(|uid| ChangeRefusal::key_of("b", uid)).collect();
    for _ in 0..3 {
        let asked = next(&mut world);
        assert!(say(&asked).starts_with("check web-0-a for b"), "{}", say(&asked));
        assert_eq!((asked.changes.len(), asked.leaving), (1, Some([].into())));
        let retry_at = after(world.snapshot.now, 60);
        world.snapshot.change_refusals = keys.iter().map(|key| (key.clone(), refusal(retry_at))).collect();
        let refused = next(&mut world);
        assert_eq!((refused.changes, refused.leaving, refused.wake_at), (vec![], Some([].into()), Some(retry_at)));
        world.snapshot.now = retry_at;
    }
}

/// What the API server has not answered about one Pod keeps no other waiting, and no Pod from service.
#[test]
fn an_answer_that_could_not_be_had_is_about_one_pod() {
    let mut world = resized("a a", 'b', json!({"strategy": {"maxUnavailable": 1}}), "RestartContainer");
    let before = uids(&world.snapshot);
    let unknown = TemplateCheck::Unknown { message: "etcd".into(), recheck_at: at(100) };
    world.snapshot.template_checks.insert(ChangeRefusal::key_of("b", &before[0]), unknown);
    live(&mut world, 99);
    assert_eq!(revisions_run(&world), "ab");
    assert!(world.snapshot.pods.iter().all(|pod| pod.is_ready()));
    let hold = next(&mut world).hold.unwrap();
    assert_eq!((hold.reason, hold.until), (HoldReason::TemplateUnchecked, Some(at(100))));
    assert!(hold.message.contains("web-0-a") && hold.message.ends_with(": etcd"), "{}", hold.message);
    live(&mut world, 60);
    assert_eq!((revisions_run(&world).as_str(), uids(&world.snapshot)), ("bb", before));
}

/// No instance is late for want of an answer: the version has not been tried. An instance that is given it later has its whole time.
#[test]
fn what_the_api_server_does_not_answer_fails_no_version() {
    let spec = json!({"strategy": {"maxUnavailable": 1}, "progressDeadlineSeconds": 60});
    let mut world = resized("a a", 'b', spec, "RestartContainer");
    let before = uids(&world.snapshot);
    let keys: Vec<String> = before.iter().map(|uid| ChangeRefusal::key_of("b", uid)).collect();
    let mut stops = 0;
    let deadline_from = |world: &World| world.snapshot.rollout.status.clone().unwrap().batch.unwrap().deadline_from;
    next(&mut world);
    for second in 0..60 {
        let recheck_at = at(second * 10 + 10);
        let unknown = TemplateCheck::Unknown { message: "etcd".into(), recheck_at };
        world.snapshot.template_checks.extend(keys.iter().map(|key| (key.clone(), unknown.clone())));
        let ran = deadline_from(&world).is_some();
        next(&mut world);
        stops += i32::from(ran && deadline_from(&world).is_none());
        world.snapshot.now = recheck_at;
        assert!(say(&next(&mut world)).starts_with("check web-0-a for b"), "{}", say(&next(&mut world)));
    }
    assert_eq!((stops, revisions_run(&world).as_str()), (1, "aa"), "and status is not written again and again");
    // It is forgotten once it is not asked any more.
    world.snapshot.rollout.spec.strategy.update = UpdateMethod::Replace;
    world.broken = vec!["b".into()];
    live(&mut world, 300);
    let failed = world.snapshot.rollout.status.as_ref().unwrap().failed.clone();
    assert_eq!(failed.unwrap().reason, "ProgressDeadlineExceeded");
}

/// Until its container has started anew it stays out of service, and what then counts as a restart is not that one.
#[test]
fn what_starts_anew_is_out_of_service_until_it_has_them() {
    let mut world = resized("a a", 'b', json!({"strategy": {"maxUnavailable": 1}}), "RestartContainer");
    world.snapshot.pods_mut().for_each(|pod| {
        pod.containers = vec![Container { name: "web".into(), ready: true, restarts: 4, ..Container::default() }];
    });
    until_due(&mut world);
    told(&mut world, 0, "");
    let said = say(&next(&mut world));
    assert!(
        !said.contains("in service") && said.contains("web-0 (Resizing: it has yet to get its resources)"),
        "{said}"
    );
    assert!(next(&mut world).leaving.unwrap().contains("web-0-a"), "nothing is handed to it");
    let pod = world.snapshot.pods_mut().next().unwrap();
    pod.resize = None;
    pod.containers = vec![Container { name: "web".into(), ready: true, restarts: 5, ..Container::default() }];
    assert_eq!(pod.restarts_of(&pod.containers[0]), 0);
    assert!(say(&next(&mut world)).contains("web-0-a in service: true"));
}

/// The node's capacity is not the version's fault: another Pod takes its place, and no run fails for it.
#[test]
fn where_a_node_has_no_room_another_pod_takes_the_place() {
    for (reason, seconds) in [("Infeasible", 0), ("Deferred", 60), ("Error", 60)] {
        let mut world = resized("a a", 'b', json!({"strategy": {"maxUnavailable": 1, "maxSurge": 1}}), "NotRequired");
        let before = uids(&world.snapshot);
        until_due(&mut world);
        told(&mut world, 0, reason);
        told(&mut world, 1, "");
        if seconds > 0 {
            let planned = next(&mut world);
            assert!(planned.changes.is_empty(), "{reason}: {}", say(&planned));
            let told = format!("web-0 (Resize{reason}: no room)");
            assert!(say(&planned).contains(&told), "{}", say(&planned));
            assert_eq!(planned.wake_at, Some(at(seconds)));
        }
        world.snapshot.now = at(seconds);
        world.snapshot.pods_mut().nth(1).unwrap().resize = Some(Resize::Done);
        let said = say(&next(&mut world));
        assert!(said.contains("+web-0-b-1 Forward") && !said.contains("-web-0-a"), "{reason}: {said}");
        live(&mut world, 30);
        assert_eq!(revisions_run(&world), "bb");
        let after = uids(&world.snapshot);
        assert!(after[0] != before[0] && after[1] == before[1], "{reason}: {after:?}");
        assert_eq!(world.snapshot.rollout.status.as_ref().unwrap().failed, None);
    }
}

/// What was aborted goes back through a pause, all at once, also where a node does not give back what there was.
#[test]
fn a_node_without_room_holds_up_no_way_back() {
    let batches = json!([{"upTo": 1}, {"upTo": 2, "pause": {}}]);
    let spec = json!({"strategy": {"batches": batches, "maxUnavailable": 2, "maxSurge": 0}});
    let mut world = resized("a a a", 'b', spec, "NotRequired");
    live(&mut world, 30);
    assert_eq!(revisions_run(&world), "bba");
    let run = world.snapshot.rollout.status.as_ref().unwrap().run.unwrap();
    (world.snapshot.rollout.spec.abort, world.snapshot.rollout.spec.paused) = (Some(Abort { run }), true);
    until_due(&mut world);
    (0..2).for_each(|slot| told(&mut world, slot, "Infeasible"));
    let said = say(&next(&mut world));
    assert!(said.starts_with("-web-0-a Back; -web-1-a Back; "), "{said}");
    live(&mut world, 30);
    assert_eq!(revisions_run(&world), "aaa");
}

/// Where only changes in place are permitted it waits for its node, and its deadline goes by.
#[test]
fn in_place_only_waits_for_the_node() {
    let spec = json!({"progressDeadlineSeconds": 600, "strategy": {"maxUnavailable": 1}});
    let mut world = resized("a a", 'b', spec, "NotRequired");
    world.snapshot.rollout.spec.strategy.update = UpdateMethod::InPlaceOnly;
    let before = uids(&world.snapshot);
    until_due(&mut world);
    told(&mut world, 0, "Infeasible");
    told(&mut world, 1, "Infeasible");
    live(&mut world, 500);
    assert_eq!(revisions_run(&world), "bb");
    let said = say(&next(&mut world));
    assert!(
        said.contains("hold PreviousBatchNotHealthy") && said.contains("web-0 (ResizeInfeasible: no room)"),
        "{said}"
    );
    live(&mut world, 200);
    assert_eq!((revisions_run(&world).as_str(), uids(&world.snapshot)), ("aa", before), "they go back as they came");
    assert!(world.snapshot.pods.iter().all(|pod| pod.resize.is_none()));
}

/// What the API server refuses depends on the Pod's node: only that Pod is replaced, or waits.
#[test]
fn what_is_refused_is_about_one_pod() {
    let mut world = resized("a a", 'b', json!({"strategy": {"maxUnavailable": 1, "maxSurge": 0}}), "NotRequired");
    let before = uids(&world.snapshot);
    let refusal = ChangeRefusal { message: "resize: node is too small".into(), retry_at: at(60) };
    world.snapshot.change_refusals = [(ChangeRefusal::key_of("b", &before[0]), refusal)].into();
    let mut only = World::new(world.snapshot.clone(), 1);
    live(&mut world, 30);
    let after = uids(&world.snapshot);
    assert_eq!(revisions_run(&world), "bb");
    assert!(after[0] != before[0] && after[1] == before[1], "{after:?}");

    only.snapshot.rollout.spec.strategy.update = UpdateMethod::InPlaceOnly;
    live(&mut only, 50);
    let hold = next(&mut only).hold.unwrap();
    assert_eq!((hold.reason, hold.until), (HoldReason::NotInPlace, Some(at(60))));
    assert!(hold.message.ends_with("resize: node is too small"), "{}", hold.message);
    live(&mut only, 60);
    assert_eq!((revisions_run(&only).as_str(), uids(&only.snapshot)), ("bb", before), "and is asked again");
}

/// A Pod that has too little to run is not asked to run on.
#[test]
fn what_does_not_run_is_replaced() {
    let mut world = resized("a! a", 'b', json!({"strategy": {"maxUnavailable": 1, "maxSurge": 0}}), "NotRequired");
    let before = uids(&world.snapshot);
    live(&mut world, 60);
    let after = uids(&world.snapshot);
    assert_eq!(revisions_run(&world), "bb");
    assert!(after[0] != before[0] && after[1] == before[1], "{after:?}");
}

fn of(container: &Value) -> Value {
    json!({"template": {"spec": {"containers": [container]}}})
}

fn difference(from: &Value, to: &Value) -> Result<Value, String> {
    let container = |resources: &Value| of(&json!({"name": "web", "image": "web:1", "resources": resources}));
    let found = in_place::difference(&container(from), &container(to))?;
    Ok(json!(found.resources))
}

#[test]
fn what_differs_of_resources() {
    let cpu = |cpu: Value| json!({"requests": {"cpu": cpu}});
    assert_eq!(difference(&cpu(json!(1)), &cpu(json!("1000m"))), Ok(json!({})), "in other words");
    assert_eq!(difference(&cpu(json!(1)), &cpu(json!(2))), Ok(json!({"web": {"requests": {"cpu": "2"}}})));
    let limited = json!({"limits": {"memory": "2Gi"}});
    assert_eq!(
        difference(&json!({"limits": {"memory": "1Gi"}}), &limited),
        Ok(json!({"web": {"limits": {"memory": "2Gi"}, "requests": {"memory": "2Gi"}}})),
        "what is limited and not requested is requested"
    );
    assert_eq!(
        difference(&limited, &json!({})),
        Ok(json!({"web": {"limits": {"memory": null}, "requests": {"memory": null}}}))
    );
    let other = difference(&json!({}), &json!({"requests": {"cpu": "1", "ephemeral-storage": "1Gi"}})).unwrap_err();
    assert!(other.starts_with("spec.template.spec.containers[web].resources differs"), "{other}");
    let claims = difference(&cpu(json!(1)), &json!({"requests": {"cpu": 1}, "claims": []})).unwrap_err();
    assert!(claims.starts_with("spec.template.spec.containers[web].resources differs"), "{claims}");
}

#[test]
fn the_policy_of_a_resource_that_changes_counts() {
    let anew = |resource: &str, policy: Value| {
        let container = |amount: &str| {
            of(&json!({"name": "web", "resizePolicy": policy, "resources": {"limits": {resource: amount}}}))
        };
        in_place::difference(&container("1"), &container("2")).map(|found| found.restarts())
    };
    let policy = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
    assert_eq!(anew("memory", policy.clone()), Ok(true));
    assert_eq!(anew("cpu", policy), Ok(false));
    assert_eq!(anew("memory", json!([{"resourceName": "memory", "restartPolicy": "NotRequired"}])), Ok(false));
    assert_eq!(anew("memory", Value::Null), Ok(false));
}

/// B4: Pods as they are in a cluster, which have been given other resources before.
#[test]
fn resources_are_given_again_and_again() {
    for policy in ["NotRequired", "RestartContainer"] {
        let mut world = resized("a a", 'b', json!({"strategy": {"maxUnavailable": 1}}), policy);
        let running = Container {
            name: "web".into(),
            ready: true,
            restarts: 1,
            state: ContainerState::Running,
            id: "id-1".into(),
            started_at: Some(at(-400)),
            ..Container::default()
        };
        for pod in world.snapshot.pods_mut() {
            pod.containers = vec![running.clone()];
            let note = json!({"at": at(-400), "containers": {"web": {"restarts": 0, "resized": true}}});
            pod.in_place = serde_json::from_value(note).unwrap();
        }
        assert_eq!((verbs(&mut world).0, revisions_run(&world).as_str()), (End::Done, "bb"), "{policy}");
    }
}
