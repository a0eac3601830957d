//! What is told of a version that no instance has run, and of instances that failed at it or never had it.
use serde_json::{Value, json};

use super::{condition, state, status_of};
use crate::{
    api::ConditionType,
    plan::rollout::tests::fixture::{Fixture, at},
    status::{NoticeKind, notices},
};

/// R13: nothing is to be done, and nothing is stable.
#[test]
fn without_instances_a_version_is_unproven() {
    let spec = json!({"strategy": {"batchSize": 2}});
    let mut fixture = Fixture::new("b~ a", 'b', spec.clone()).opened(2);
    let was = status_of(&fixture.snapshot);
    fixture.snapshot.rollout.status = Some(was.clone());
    fixture.snapshot.rollout.spec.replicas = 0;
    assert!(
        state(&status_of(&fixture.settled().snapshot)).starts_with("InProgress RollingOut"),
        "Pods have yet to leave"
    );

    let mut fixture = Fixture::new("", 'b', spec);
    fixture.snapshot.rollout.status = Some(was.clone());
    let fixture = fixture.settled();
    let status = status_of(&fixture.snapshot);
    assert_eq!(
        state(&status),
        "Current Unproven: spec.replicas is 0, so nothing has shown that b works. a stays the stable version; the run goes on once there are instances"
    );
    assert_eq!(status.current_revision.as_deref(), Some("a"));
    assert_eq!((condition(&status, ConditionType::Degraded), status.history[0].result.as_str()), (None, "InProgress"));
    let told = notices("web", &was, &status);
    let told: Vec<_> = told.iter().map(|notice| (notice.kind, notice.reason)).collect();
    assert_eq!(told, [(NoticeKind::Normal, "Unproven")]);
}

#[test]
fn a_first_creation_without_instances_is_unproven_and_a_stable_version_is_complete() {
    let mut first = Fixture::new("", 'b', json!({}));
    first.snapshot.revisions.retain(|revision| revision.name == "b");
    assert_eq!(
        state(&status_of(&first.settled().snapshot)),
        "Current Unproven: spec.replicas is 0, so nothing has shown that b works; the run goes on once there are instances"
    );
    assert_eq!(state(&status_of(&Fixture::new("", 'a', json!({})).settled().snapshot)), "Current Complete: ");
}

/// Those that failed have gone back, and there are no others.
#[test]
fn none_stay_where_all_have_gone_back() {
    let spec = json!({"strategy": {"onFailure": "RollbackFailed", "batchSize": 2, "maxSurge": 1}});
    let says = |before: &str, after: &str| {
        let mut fixture = Fixture::new(before, 'b', spec.clone()).opened(2).settled();
        let b = fixture.snapshot.revisions.iter_mut().find(|revision| revision.name == "b").unwrap();
        (b.failed_at, b.failed_reason) = (Some(at(0)), Some("CrashLoopBackOff: web-0: container web: Error".into()));
        fixture.snapshot.pods = Fixture::new(after, 'b', spec.clone()).snapshot.pods;
        state(&status_of(&fixture.settled().snapshot))
    };
    let all = says("b! b! a", "a a a");
    assert!(all.contains("; instances 0-1 run a again: change the spec"), "{all}");
    let others = says("b! b a", "a b a");
    assert!(others.contains("; instances 0 run a again, the others stay: change the spec"), "{others}");
    let spared = says("b! a a", "a a a");
    assert!(spared.contains("; instances 0-1 run a: change the spec"), "{spared}");
}

/// B7: what its Pod waits for is told beside that it came too late.
#[test]
fn an_event_of_a_late_instance_says_what_its_pod_waits_for() {
    let spec = json!({"progressDeadlineSeconds": 60, "strategy": {"batchSize": 2, "maxSurge": 1, "maxUnavailable": 0}});
    for on_failure in ["Rollback", "RollbackFailed", "Pause"] {
        let mut spec = spec.clone();
        spec["strategy"]["onFailure"] = json!(on_failure);
        tells_of(&spec);
    }
}

fn tells_of(spec: &Value) {
    let mut fixture = Fixture::new("ab~ a", 'b', spec.clone()).opened(2);
    let was = status_of(&fixture.snapshot);
    fixture.snapshot.rollout.status = Some(was.clone());
    for pod in fixture.snapshot.pods_mut().filter(|pod| pod.revision == "b") {
        pod.unschedulable = Some("0/3 nodes are available".into());
    }
    fixture.snapshot.now = at(61);
    let told = notices("web", &was, &status_of(&fixture.snapshot));
    let failed: Vec<_> = told.iter().filter(|notice| notice.reason == "InstanceFailed").collect();
    assert_eq!(failed.len(), 1, "{told:?}");
    assert_eq!(failed[0].note, "web-0 failed (ProgressDeadlineExceeded): Unschedulable: 0/3 nodes are available");
}
