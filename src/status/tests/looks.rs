//! One world, one status.
use serde_json::json;

use super::{condition, state, status_of};
use crate::{
    api::{
        ConditionStatus, ConditionType, RolloutStatus,
        rollout::{Abort, Approve, UpdateMethod},
    },
    plan::{
        Applied, Change, Outcome, PodReason, revision,
        rollout::plan,
        rollout::tests::fixture::{Fixture, at},
    },
    snapshot::{
        AgentSeen, Agents, Container, ContainerState, CreateRefusal, PodPhase, RefusalReason, Resize, ServiceSeen,
        SessionState, Switched, Telling, TemplateCheck,
    },
    status::{notices, rollout::status},
};

fn strategy(batch: i32, surge: i32, unavailable: i32) -> serde_json::Value {
    json!({"strategy": {"batchSize": batch, "maxSurge": surge, "maxUnavailable": unavailable}})
}

fn check(fixture: &Fixture, expected: &str) {
    assert_eq!(state(&status_of(&fixture.snapshot)), expected);
}

#[test]
fn at_rest_it_is_complete_and_waits_for_nothing() {
    let fixture = Fixture::new("a a a a", 'a', json!({})).settled();
    check(&fixture, "Current Complete: ");
    let status = status_of(&fixture.snapshot);
    assert_eq!(condition(&status, ConditionType::Available), Some((ConditionStatus::True, "MinimumReplicasAvailable")));
    assert_eq!(condition(&status, ConditionType::Progressing), Some((ConditionStatus::True, "Complete")));
    assert_eq!(condition(&status, ConditionType::Degraded), None);
    assert_eq!((status.replicas, status.ready_replicas, status.updated_replicas), (4, 4, 4));
    assert_eq!(status.selector.as_deref(), Some("app=web"));
}

/// Who counts, as `kubectl rollout status` does, must not take the old count for one of the new generation.
#[test]
fn nothing_is_updated_before_the_present_spec_has_a_revision() {
    let mut fixture = Fixture::new("a a a a", 'a', json!({})).settled();
    fixture.snapshot.rollout.spec.template =
        serde_json::from_value(json!({"metadata": {"labels": {"app": "web", "changed": "yes"}}})).unwrap();
    let status = status_of(&fixture.snapshot);
    assert_eq!((status.replicas, status.available_replicas, status.updated_replicas), (4, 4, 0));
}

#[test]
fn a_batch_names_its_worst_instance() {
    let mut fixture = Fixture::new("ab~ ab~ a a", 'b', strategy(2, 2, 0)).opened(2);
    let pulling = fixture.snapshot.pods_mut().find(|pod| pod.slot == 1 && pod.revision == "b").unwrap();
    pulling.phase = PodPhase::Pending;
    pulling.started_at = Some(at(-5));
    pulling.initialized_at = Some(at(-5));
    pulling.containers = vec![Container {
        name: "web".into(),
        state: ContainerState::Waiting { reason: "ImagePullBackOff".into(), message: "no such image".into() },
        ..Container::default()
    }];
    check(&fixture, "InProgress RollingOut: batch 1/2: web-1 (ImagePullBackOff) and 1 more");
    let status = status_of(&fixture.snapshot);
    let exceptions: Vec<_> = status.exceptions.iter().map(|e| (e.instance, &*e.state, &*e.reason)).collect();
    // Within its patience the image may still come: not failed yet.
    assert_eq!(exceptions, [(1, "NotReady", "ImagePullBackOff"), (0, "NotReady", "ReadinessGatesNotReady")]);
}

#[test]
fn an_instance_that_awaits_its_turn_is_no_exception() {
    let fixture = Fixture::new("b a a a", 'b', strategy(2, 1, 0)).opened(2);
    check(&fixture, "InProgress RollingOut: batch 1/2: web-1 (still runs a)");
    assert_eq!(status_of(&fixture.snapshot).exceptions, []);
}

/// B3: a third version waits for the one that clients used a moment ago: until when.
#[test]
fn a_third_set_waits_until_a_time() {
    let spec = json!({"strategy": {"type": "BlueGreen", "blueGreen": {"activeService": "web"}}});
    let mut fixture = Fixture::new("ab ab", 'c', spec).serving(Some('b'));
    let ServiceSeen::Seen(service) = &mut fixture.snapshot.services.active else { unreachable!() };
    service.switched = Some(Switched { from: "a".into(), at: at(-20) });
    fixture.snapshot.revisions.iter_mut().find(|known| known.name == "b").unwrap().completed_at = Some(at(-20));
    let until = "web-0-a (a) and 1 more must end before c starts; clients used them until a moment ago, they stay until 1970-01-12T13:46:50Z (spec.strategy.blueGreen.scaleDownDelaySeconds)";
    check(&fixture.opened(2).settled(), &format!("InProgress RollingOut: {until}"));
}

/// A template is accepted with a warning, which is told once and outlives the operator that was given it.
#[test]
fn what_the_api_server_warns_of_is_told() {
    let mut fixture = Fixture::new("a a", 'b', json!({})).opened(2).settled();
    let message = r#"unknown field "spec.containers[0].imagee""#.to_owned();
    fixture.snapshot.template_checks.insert("b".into(), TemplateCheck::Warned { message: message.clone() });
    let warned = status_of(&fixture.snapshot);
    let accepted = Some((ConditionStatus::True, "AcceptedWithWarnings"));
    assert_eq!(condition(&warned, ConditionType::TemplateValid), accepted);
    let notices = notices("web", &RolloutStatus::default(), &warned);
    let told = notices.iter().find(|notice| notice.reason == "TemplateWarning").unwrap();
    assert!(told.note.ends_with(&message), "{}", told.note);
    fixture.snapshot.template_checks.clear();
    fixture.snapshot.rollout.status = Some(warned);
    assert_eq!(condition(&status_of(&fixture.snapshot), ConditionType::TemplateValid), accepted);
}

#[test]
fn versions_are_observed_from_live_pods() {
    let status = status_of(&Fixture::new("b b~ ab a- .", 'b', strategy(3, 1, 1)).opened(3).snapshot);
    let versions: Vec<_> = status.versions.iter().map(|v| (&*v.revision, &*v.instances, &*v.ready)).collect();
    assert_eq!(versions, [("a", "2", "2"), ("b", "0-2", "0,2")]);
    let display = status.display.unwrap();
    assert_eq!((&*display.ready, &*display.batch, &*display.version), ("2/5", "1/2", "a → b"));
    assert_eq!((status.replicas, status.updated_replicas, status.terminating_replicas), (4, 3, 1));
    assert_eq!(status.batch.unwrap().updated, 2, "slots 0 and 2; 1 is not available");
}

#[test]
fn approval_is_asked_for_and_an_answer_to_a_run_to_come_is_named() {
    let spec = json!({"strategy": {"batches": [{"upTo": 2, "pause": {}}], "maxSurge": 1, "maxUnavailable": 0}});
    let mut fixture = Fixture::new("b b a a", 'b', spec).opened(2);
    check(
        &fixture,
        "InProgress AwaitingApproval: batch 1/2 is done; waiting for approval: kubectl baton approve web, or set spec.approve to {run: 1, batch: 1}",
    );
    fixture.snapshot.rollout.status.as_mut().unwrap().run = Some(4);
    fixture.snapshot.rollout.spec.approve = Some(Approve { run: 3, batch: 1, ..Approve::default() });
    check(
        &fixture,
        "InProgress AwaitingApproval: batch 1/2 is done; waiting for approval: kubectl baton approve web, or set spec.approve to {run: 4, batch: 1}",
    );
    assert_eq!(condition(&status_of(&fixture.snapshot), ConditionType::Degraded), None, "it may have been used");
    fixture.snapshot.rollout.spec.approve = Some(Approve { run: 5, batch: 1, ..Approve::default() });
    check(
        &fixture,
        "InProgress AwaitingApproval: batch 1/2 is done; waiting for approval: kubectl baton approve web, or set spec.approve to {run: 4, batch: 1} (spec.approve is about run 5: ignored)",
    );
    assert_eq!(condition(&status_of(&fixture.snapshot), ConditionType::Degraded).unwrap().1, "StaleAnswer");
}

#[test]
fn an_abort_of_another_run_is_stale() {
    let mut fixture = Fixture::new("b a a a", 'b', strategy(2, 1, 0)).opened(2);
    fixture.snapshot.rollout.status.as_mut().unwrap().run = Some(4);
    fixture.snapshot.rollout.spec.abort = Some(Abort { run: 3 });
    let degraded = |fixture: &Fixture| {
        let status = status_of(&fixture.snapshot);
        condition(&status, ConditionType::Degraded).map(|(_, reason)| reason.to_owned())
    };
    assert_eq!(degraded(&fixture).as_deref(), Some("StaleAnswer"));
    fixture.snapshot.rollout.spec.abort = None;
    assert_eq!(degraded(&fixture), None);
}

/// An approval of a run that is yet to come was told to be ignored, and then it was obeyed.
#[test]
fn an_answer_never_fits_a_run_that_begins_after_it() {
    let mut fixture = Fixture::new("a a a a", 'a', strategy(2, 1, 0)).settled();
    let known = fixture.snapshot.rollout.status.as_ref().and_then(|status| status.run).unwrap_or(0);
    fixture.snapshot.rollout.spec.approve = Some(Approve { run: known + 1, batch: 1, ..Approve::default() });
    let wanted = Fixture::new("", 'b', json!({})).snapshot.rollout.spec.version;
    fixture.snapshot.rollout.spec.version = wanted;
    let fixture = fixture.settled();
    assert!(fixture.snapshot.rollout.status.unwrap().run > Some(known + 1));
}

#[test]
fn paused_is_said_whether_something_waits_for_it_or_not() {
    let paused = json!({"paused": true});
    let waits = Fixture::new("a a a a", 'b', paused.clone()).opened(0);
    check(&waits, "InProgress Paused: spec.paused is true: kubectl baton resume web");
    let status = status_of(&waits.snapshot);
    assert_eq!(condition(&status, ConditionType::Paused), Some((ConditionStatus::True, "Paused")));
    assert_eq!(condition(&status, ConditionType::Progressing), Some((ConditionStatus::Unknown, "Paused")));
    let idle = Fixture::new("a a a a", 'a', paused).settled();
    let resume = "nothing new is begun: kubectl baton resume web";
    check(&idle, &format!("Current Paused: all 4 instances run a; spec.paused is true, {resume}"));
    let status = status_of(&idle.snapshot);
    assert_eq!(condition(&status, ConditionType::Ready), Some((ConditionStatus::True, "Paused")));
    let mut back = Fixture::new("a a a a", 'b', json!({"paused": true})).opened(1);
    back.snapshot.rollout.spec.abort = Some(Abort { run: 1 });
    for revision in back.snapshot.revisions.iter_mut().filter(|revision| revision.name == "b") {
        (revision.failed_at, revision.failed_reason) = (Some(at(-5)), Some("Aborted: run 1 was aborted".into()));
    }
    let told = status_of(&back.settled().snapshot).waiting_for;
    assert!(told.ends_with(&format!("to try it again; spec.paused is true, {resume}")), "{told}");
    assert_eq!(condition(&status, ConditionType::Progressing), Some((ConditionStatus::Unknown, "Paused")));
}

/// B7
#[test]
fn the_first_revision_has_nothing_to_go_back_to() {
    let mut fixture = Fixture::new("b! b b b", 'b', json!({}));
    fixture.snapshot.revisions.retain(|revision| revision.name == "b");
    check(
        &fixture.settled(),
        "Failed FirstRevisionFailed: b failed (CrashLoopBackOff: web-0: container web: Error, exit code 1): there is no earlier revision to go back to; change the spec, or kubectl baton retry web (spec.retryAt) to try it again",
    );
}

/// "2 failed" would be two of something.
#[test]
fn a_version_that_is_a_number_is_called_a_version() {
    let mut fixture = Fixture::new("b! b b b", 'b', json!({}));
    fixture.snapshot.revisions.retain(|revision| revision.name == "b");
    fixture.snapshot.rollout.spec.version = Some("2".into());
    fixture.snapshot.revisions[0].data = revision::data(&fixture.snapshot.rollout.spec);
    let status = status_of(&fixture.settled().snapshot);
    let ready = status.conditions.iter().find(|condition| condition.type_ == ConditionType::Ready).unwrap();
    assert!(ready.message.starts_with("version 2 failed ("), "{}", ready.message);
}

#[test]
fn on_failure_pause_waits_for_a_person() {
    let spec = json!({"strategy": {"onFailure": "Pause", "batchSize": 2, "maxSurge": 1, "maxUnavailable": 0}});
    let fixture = Fixture::new("ab! a a a", 'b', spec).opened(2).settled();
    check(
        &fixture,
        "Failed FailureThreshold: b failed (CrashLoopBackOff: web-0: container web: Error, exit code 1); nothing moves forward: change the spec, kubectl baton retry web (spec.retryAt) to try again, or kubectl baton abort web (spec.abort: {run: 1}) to go back",
    );
    let status = status_of(&fixture.snapshot);
    assert_eq!(condition(&status, ConditionType::Degraded), Some((ConditionStatus::True, "InstanceFailed")));
    assert_eq!(condition(&status, ConditionType::Progressing), Some((ConditionStatus::False, "FailureThreshold")));
    assert_eq!(status.history[0].result, "Failed");
}

/// A run in which web-0 has failed and goes back alone; what its instances run by now.
fn partly(pods: &str) -> Fixture {
    let spec = json!({"progressDeadlineSeconds": 60, "strategy": {"onFailure": "RollbackFailed", "batchSize": 3, "maxSurge": 1, "maxUnavailable": 0}});
    let mut fixture = Fixture::new("b! b b a", 'b', spec.clone()).opened(3).settled();
    let b = fixture.snapshot.revisions.iter_mut().find(|revision| revision.name == "b").unwrap();
    (b.failed_at, b.failed_reason) = (Some(at(0)), Some("CrashLoopBackOff: web-0: container web: Error".into()));
    fixture.snapshot.pods = Fixture::new(pods, 'b', spec).snapshot.pods;
    fixture.settled()
}

/// B10 X4
#[test]
fn what_goes_back_alone_and_does_not_get_there_is_stuck_and_told() {
    let says = |fixture: &Fixture| state(&status_of(&fixture.snapshot));
    assert!(says(&partly("a b b a")).starts_with("Failed PartlyRolledBack"), "{}", says(&partly("a b b a")));
    assert!(says(&partly("b! b b a")).starts_with("InProgress RollingBack"));
    let mut starting = partly("a~ b b a");
    starting.snapshot.pods_mut().filter(|pod| pod.slot == 0).for_each(|pod| pod.created = at(-20));
    assert!(says(&starting).starts_with("Failed PartlyRolledBack"), "{}", says(&starting));
    assert_eq!(plan(&starting.snapshot).wake_at, Some(at(40)));
    starting.snapshot.now = at(40);
    let stuck = "Failed RollbackStuck: b failed (CrashLoopBackOff: web-0: container web: Error, exit code 1); going back to a does not get on: ";
    let remedy = ": change the spec, or kubectl baton retry web (spec.retryAt) to try it again";
    assert_eq!(says(&starting), format!("{stuck}web-0 (ReadinessGatesNotReady){remedy}"));
    assert_eq!(says(&partly("a! b b a")), format!("{stuck}web-0 (CrashLoopBackOff){remedy}"));
    let mut refused = partly("b! b b a");
    let check = TemplateCheck::Refused { message: "no".into(), recheck_at: at(60) };
    refused.snapshot.template_checks.insert("a".into(), check);
    assert_eq!(says(&refused), format!("{stuck}spec.template: the API server refuses its Pods: no{remedy}"));
    let mut full = partly(". b b a");
    full.snapshot.create_refusal = Some(CreateRefusal {
        reason: RefusalReason::QuotaExceeded,
        message: "exceeded quota: pods".into(),
        since: at(-5),
        retry_at: at(5),
    });
    assert_eq!(says(&full), "InProgress QuotaExceeded: Pods cannot be created: exceeded quota: pods");
}

/// Seed 1650001593: an instance that is broken at the version before has used up what may be unavailable.
///
/// B10 X4
#[test]
fn what_goes_back_alone_and_waits_for_what_does_not_come_up_is_stuck() {
    let spec = json!({"strategy": {"onFailure": "RollbackFailed", "batchSize": 3, "maxSurge": 0, "maxUnavailable": 1}});
    let says = |pods: &str| {
        let mut fixture = Fixture::new("b! b b a", 'b', spec.clone()).opened(3).settled();
        let b = fixture.snapshot.revisions.iter_mut().find(|revision| revision.name == "b").unwrap();
        (b.failed_at, b.failed_reason) = (Some(at(0)), Some("CrashLoopBackOff: web-0: container web: Error".into()));
        fixture.snapshot.pods = Fixture::new(pods, 'b', spec.clone()).snapshot.pods;
        state(&status_of(&fixture.settled().snapshot))
    };
    let stuck = says("c b b a!");
    assert!(stuck.starts_with("Failed RollbackStuck"), "{stuck}");
    assert!(stuck.contains("web-0 waits for web-3 (CrashLoopBackOff)"), "{stuck}");
    assert!(says("c b b a~").starts_with("InProgress RollingBack"), "it may come up: {}", says("c b b a~"));
    assert!(says("c b b a").starts_with("InProgress RollingBack"), "{}", says("c b b a"));
}

/// It has failed at another version.
#[test]
fn what_has_gone_back_and_blinks_has_not_failed() {
    let mut blinking = partly("a~ b b a");
    blinking.snapshot.pods_mut().filter(|pod| pod.slot == 0).for_each(|pod| pod.unready_since = Some(at(-3)));
    let status = status_of(&blinking.snapshot);
    assert!(state(&status).starts_with("Failed PartlyRolledBack"), "{}", state(&status));
    let told = &status.exceptions[0];
    assert_eq!((told.state.as_str(), told.reason.as_str()), ("NotReady", "ReadinessGatesNotReady"));
    assert_eq!(condition(&status, ConditionType::Degraded), None);
}

/// It says at once that it is of the version from before, and has yet to become it.
#[test]
fn what_has_yet_to_get_what_it_had_is_on_its_way_back() {
    let says = |fixture: &Fixture| state(&status_of(&fixture.snapshot));
    let mut resized = partly("a b b a");
    let pod = resized.snapshot.pod_mut(0);
    pod.resize = Some(Resize::Awaited { reason: String::new(), message: String::new(), since: None });
    pod.in_place = serde_json::from_value(json!({"at": at(0)})).unwrap();
    resized.snapshot.rollout.spec.strategy.update = UpdateMethod::InPlaceOnly;
    let mut untold = partly("a b b a");
    let strategy = &mut untold.snapshot.rollout.spec.strategy;
    strategy.update = UpdateMethod::HotReload;
    strategy.hot_reload =
        serde_json::from_value(json!({"httpPost": {"path": "/reload", "port": 8080}, "timeoutSeconds": 60})).unwrap();
    let pod = untold.snapshot.pod_mut(0);
    pod.in_place = serde_json::from_value(json!({"at": at(0), "reload": {}})).unwrap();
    for fixture in [&mut resized, &mut untold] {
        assert!(says(fixture).starts_with("InProgress RollingBack"), "{}", says(fixture));
        assert_eq!(plan(&fixture.snapshot).wake_at, Some(at(60)));
        fixture.snapshot.now = at(60);
    }
    assert!(says(&resized).contains("RollbackStuck"), "{}", says(&resized));
    assert!(says(&untold).starts_with("InProgress RollingBack"), "the request was not in vain: {}", says(&untold));
    let (uid, answer) = (untold.snapshot.pods[0].uid.clone(), Some(Err("answered 503".into())));
    let telling =
        Telling { of: at(0), began_at: at(60), asked_at: Some(at(60)), tries: 9, answer, ..Telling::default() };
    untold.snapshot.tellings.insert(uid, telling);
    assert!(says(&untold).contains("RollbackStuck") && says(&untold).contains("(ReloadFailed)"), "{}", says(&untold));
}

#[test]
fn a_refused_template_is_an_invalid_spec() {
    let mut fixture = Fixture::new("a a", 'b', json!({}));
    let refused =
        TemplateCheck::Refused { message: "spec.containers[0].image: Required value".into(), recheck_at: at(60) };
    fixture.snapshot.template_checks.insert("b".into(), refused);
    let fixture = fixture.settled();
    check(
        &fixture,
        "Failed InvalidSpec: spec.template: the API server refuses its Pods: spec.containers[0].image: Required value",
    );
    let status = status_of(&fixture.snapshot);
    assert_eq!(condition(&status, ConditionType::TemplateValid), Some((ConditionStatus::False, "Refused")));
}

#[test]
fn a_quota_is_waited_for() {
    let mut fixture = Fixture::new("a . a a", 'a', json!({})).settled();
    fixture.snapshot.create_refusal = Some(CreateRefusal {
        reason: RefusalReason::QuotaExceeded,
        message: "exceeded quota: pods".into(),
        since: at(-5),
        retry_at: at(5),
    });
    check(&fixture, "InProgress QuotaExceeded: Pods cannot be created: exceeded quota: pods");
    assert_eq!(status_of(&fixture.snapshot).exceptions[0].reason, "QuotaExceeded");
}

#[test]
fn a_lost_instance_is_no_rollout() {
    let with = |pods: &str| {
        let mut fixture = Fixture::new("a a a a", 'a', json!({})).settled();
        fixture.snapshot.pods = Fixture::new(pods, 'a', json!({})).snapshot.pods;
        fixture
    };
    check(&with("a . a a"), "InProgress InstancesUnavailable: web-1 (Missing)");
    check(&with("a a- a a"), "InProgress InstancesUnavailable: web-1 (Terminating)");
    check(&with("a ax a a"), "InProgress InstancesUnavailable: web-1 (Evicted)");
    check(&with("a a a a a"), "InProgress InstancesUnavailable: 1 Pod beyond spec.replicas yet to leave");
}

/// What listeners do between Pods that stay is no matter of the Rollout's; in a run it waits for them, and says so.
#[test]
fn listeners_that_have_yet_to_run_hold_up_a_run_and_nothing_else() {
    let starting = |mut fixture: Fixture| {
        let agent = AgentSeen { session: SessionState::Held, held: 2, running: 1, ..AgentSeen::default() };
        let pods = fixture.snapshot.pods.iter().map(|pod| (pod.name.clone(), agent.clone()));
        fixture.snapshot.agents = Agents::Seen(pods.collect());
        fixture
    };
    check(&starting(Fixture::new("a a", 'a', json!({})).settled()), "Current Complete: ");
    let strategy = json!({"strategy": {"batchSize": 1, "maxSurge": 1, "maxUnavailable": 0}});
    let roll = |pods: &str| starting(Fixture::new(pods, 'b', strategy.clone()).opened(1));
    check(&roll("b a"), "InProgress RollingOut: batch 1/2: web-0 (its listeners have yet to run)");
    check(&roll("ab a"), "InProgress RollingOut: batch 1/2: web-0 (its old Pod has yet to leave)");
    let mut one_gone = Fixture::new("a a", 'a', json!({})).settled();
    one_gone.snapshot.pods = Fixture::new("a .", 'a', json!({})).snapshot.pods;
    check(&starting(one_gone), "InProgress InstancesUnavailable: web-1 (Missing) and 1 more");
}

#[test]
fn a_spec_that_is_not_recorded_yet_is_never_judged_by_the_one_before() {
    let mut fixture = Fixture::new("a a", 'a', json!({})).settled();
    fixture.snapshot.rollout.spec.version = Some("new".into());
    check(&fixture, "InProgress RollingOut: recording the revision of the present spec");
}

#[test]
fn a_name_that_is_taken_is_shown() {
    let mut fixture = Fixture::new("a .", 'a', json!({})).settled();
    let create = |name: &str| Change::CreatePod {
        name: name.into(),
        slot: 1,
        revision: "a".into(),
        restarted_at: None,
        reason: PodReason::Refill,
    };
    let outcome = Outcome { change: create("web-1-a"), result: Applied::NameTaken };
    let seen = status(&fixture.snapshot, &plan(&fixture.snapshot), &[outcome]);
    assert_eq!(condition(&seen, ConditionType::Degraded), Some((ConditionStatus::True, "PodConflict")));
    fixture.snapshot.taken_names.insert("web-1-a".into());
    let later = status_of(&fixture.snapshot);
    assert_eq!(condition(&later, ConditionType::Degraded), Some((ConditionStatus::True, "PodConflict")));
}

/// B4: what an instance waits for that serves on with what it has.
#[test]
fn an_instance_whose_node_has_no_room_says_so() {
    let mut fixture = Fixture::new("b b b", 'b', strategy(3, 0, 1)).opened(3);
    let was = status_of(&fixture.snapshot);
    for (slot, reason) in [(0, "Deferred"), (1, "Deferred"), (2, "")] {
        let awaited = Resize::Awaited { reason: reason.into(), message: "no room".into(), since: None };
        fixture.snapshot.pod_mut(slot).resize = Some(awaited);
    }
    let now = status_of(&fixture.snapshot);
    let told = now.exceptions.iter().map(|it| (it.state.as_str(), it.reason.as_str(), it.message.as_str()));
    let held = ("Starting", "ResizeDeferred", "no room");
    assert_eq!(told.collect::<Vec<_>>(), [held, held, ("Starting", "Resizing", "it has yet to get its resources")]);
    assert!(state(&now).ends_with("web-0 (ResizeDeferred) and 2 more"), "{}", state(&now));
    let is_brief = crate::status::are_resources_newly_held;
    assert!(is_brief(&was, &now) && !is_brief(&now, &now) && !is_brief(&now, &was));
    let told = crate::status::notices("web", &was, &now);
    let held = told.iter().find(|notice| notice.reason == "ResourcesHeld").unwrap();
    assert_eq!(held.note, "web-0: ResizeDeferred: no room; 1 further instance as well");
    assert!(!crate::status::notices("web", &now, &now).iter().any(|notice| notice.reason == "ResourcesHeld"));
}

/// B10
#[test]
fn a_way_back_that_does_not_get_on_is_stuck_and_told() {
    let spec = json!({"progressDeadlineSeconds": 60, "strategy": {"maxSurge": 1, "maxUnavailable": 0}});
    let mut fixture = Fixture::new("ca~ c", 'a', spec).settled();
    let goes = status_of(&fixture.snapshot);
    assert!(state(&goes).starts_with("InProgress RollingBack"), "{}", state(&goes));
    fixture.snapshot.rollout.status = Some(goes.clone());
    fixture.snapshot.now = at(61);
    let stuck = status_of(&fixture.snapshot);
    assert_eq!(
        state(&stuck),
        "Failed RollbackStuck: going back to a does not get on: batch 1/1: web-0 (not ready) and 1 more"
    );
    let told = crate::status::notices("web", &goes, &stuck);
    assert_eq!(told.iter().map(|notice| notice.reason).collect::<Vec<_>>(), ["RollbackStuck"]);
}

/// B10
#[test]
fn a_way_back_whose_revision_was_deleted_is_stuck_and_told() {
    let mut fixture = Fixture::new("b! b!", 'b', json!({})).opened(2).settled();
    fixture.snapshot.revisions.retain(|revision| revision.name != "a");
    let stuck = status_of(&fixture.snapshot);
    let state = state(&stuck);
    assert!(state.starts_with("Failed RollbackStuck: b failed (CrashLoopBackOff: "), "{state}");
    assert!(
        state.contains("cannot go back: ControllerRevision a was deleted: change the spec, or kubectl baton retry"),
        "{state}"
    );
}

#[test]
fn deletion_is_told() {
    let mut fixture = Fixture::new("a a", 'a', json!({})).settled();
    fixture.snapshot.rollout.metadata.deletion_timestamp = Some(crate::api::Time(at(0)));
    check(&fixture, "InProgress Deleting: being deleted; Kubernetes removes its Pods");
}

#[test]
fn a_verdict_on_the_template_outlives_the_operator_that_asked() {
    let mut fixture = Fixture::new(". .", 'a', json!({})).settled();
    let asked = status_of(&fixture.snapshot);
    assert_eq!(condition(&asked, ConditionType::TemplateValid), Some((ConditionStatus::True, "Accepted")));
    fixture.snapshot.rollout.status = Some(asked);
    fixture.snapshot.template_checks.clear();
    let of = |fixture: &Fixture| {
        let status: RolloutStatus = status_of(&fixture.snapshot);
        condition(&status, ConditionType::TemplateValid).map(|(status, _)| status)
    };
    assert_eq!(of(&fixture), Some(ConditionStatus::True));
    fixture.snapshot.rollout.metadata.generation = Some(2);
    assert_eq!(of(&fixture), Some(ConditionStatus::Unknown), "a new spec is asked about anew");
}
