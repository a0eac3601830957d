//! Versions that hang: who is blamed for it, with which words, and what is stable meanwhile.
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use baton::{
    api::{
        Rollout, RolloutStatus,
        names::{ANNOTATION_FAILED_REASON, LABEL_REVISION},
    },
    snapshot::Ranges,
};
use k8s_openapi::api::{apps::v1::ControllerRevision, events::v1::Event};
use kube::{Api, api::ListParams};
use serde_json::{Value, json};

use super::stage::{Stage, real, reason, slots};

/// Four instances at version 1, and a version that hangs in so many: which.
async fn hang(stage: &Stage, spec: &Value, with: &Value, count: i32) -> BTreeSet<i32> {
    stage.roll("1", spec.clone()).await;
    stage.complete(60).await;
    let container = json!({"name": "web", "image": "example.local/sleeper:2", "command": ["sleeper"]});
    let mut container = container.as_object().unwrap().clone();
    container.extend(with.as_object().unwrap().clone());
    let mut spec = spec.clone();
    spec["template"] = json!({"spec": {"containers": [container]}});
    stage.roll("2", spec).await;
    given(stage, count).await
}

/// Instances with a Pod of the version that is worked towards, once there are so many and stay the same for a second: a surplus
/// Pod may make way for another one first.
async fn given(stage: &Stage, count: i32) -> BTreeSet<i32> {
    let is_on = |rollout: &Rollout| {
        let updated = rollout.status.as_ref().map_or(0, |status| status.updated_replicas);
        reason(rollout) == "RollingOut" && updated == count
    };
    let mut before = BTreeSet::new();
    loop {
        let status = stage.until(30, "Pods of version 2", is_on).await.status.unwrap();
        let live = slots(&stage.live().await);
        let wanted = status.update_revision.unwrap();
        let given: BTreeSet<i32> =
            live.into_iter().filter(|(_, revision)| *revision == wanted).map(|(slot, _)| slot).collect();
        if given.len() == usize::try_from(count).unwrap() && given == before {
            return given;
        }
        before = given;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Notes of the Events `InstanceFailed`.
async fn told(stage: &Stage) -> Vec<String> {
    let api: Api<Event> = Api::namespaced(stage.client.clone(), &stage.namespace);
    let events = api.list(&ListParams::default()).await.unwrap().items;
    let failed = events.into_iter().filter(|event| event.reason.as_deref() == Some("InstanceFailed"));
    failed.filter_map(|event| event.note).collect()
}

/// B7: wherever a person looks, those that hung are named, and what their Pods waited for.
async fn tells(stage: &Stage, status: &RolloutStatus, blamed: &BTreeSet<i32>, why: &str) {
    let failed = status.failed.as_ref().unwrap();
    assert_eq!(Ranges::parse(&failed.slots).0, *blamed, "{failed:?}");
    let first = format!("web-{}: not available within 20 s: ", blamed.first().unwrap());
    assert!(failed.message.starts_with(&first) && failed.message.contains(why), "{failed:?}");
    assert!(status.waiting_for.contains(&failed.message), "{}", status.waiting_for);
    let revisions: Api<ControllerRevision> = Api::namespaced(stage.client.clone(), &stage.namespace);
    let revision = revisions.get(status.update_revision.as_deref().unwrap()).await.unwrap();
    let noted = revision.metadata.annotations.unwrap()[ANNOTATION_FAILED_REASON].clone();
    assert!(noted.contains(&failed.message), "{noted}");
    let deadline = Instant::now() + Duration::from_secs(20);
    // Events are written after the status.
    while told(stage).await.len() < blamed.len() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let events = told(stage).await;
    assert_eq!(events.len(), blamed.len(), "{events:?}");
    for slot in blamed {
        let of_it = events.iter().find(|note| note.starts_with(&format!("web-{slot} failed")));
        assert!(of_it.is_some_and(|note| note.contains(why)), "web-{slot}: {events:?}");
    }
}

/// B7: with the default strategy two of four are given a ConfigMap that does not exist.
#[tokio::test]
async fn a_missing_config_map_blames_those_that_wait_for_it() {
    let stage = Stage::new(real(), "blame-config").await;
    let spec = json!({"replicas": 4, "progressDeadlineSeconds": 20});
    let blamed = hang(&stage, &spec, &json!({"envFrom": [{"configMapRef": {"name": "nope"}}]}), 2).await;
    let rollout = stage.until(120, "RolledBack", |rollout| reason(rollout) == "RolledBack").await;
    let status = rollout.status.unwrap();
    let why = "CreateContainerConfigError: container web: configmap \"nope\" not found";
    tells(&stage, &status, &blamed, why).await;
    let back = &status.history[0];
    assert_eq!(back.kind, "Rollback");
    assert!(back.reason.as_deref().unwrap().contains(why), "{back:?}");
}

/// B7: what may pass by itself has a minute, not the whole of `progressDeadlineSeconds`.
#[tokio::test]
async fn a_missing_config_map_is_waited_for_a_minute() {
    let stage = Stage::new(real(), "blame-patience").await;
    let blamed =
        hang(&stage, &json!({"replicas": 4}), &json!({"envFrom": [{"configMapRef": {"name": "nope"}}]}), 2).await;
    let rollout = stage.until(120, "RolledBack", |rollout| reason(rollout) == "RolledBack").await;
    let failed = rollout.status.unwrap().failed.unwrap();
    let slots = Ranges::parse(&failed.slots).0;
    let first = slots.first().unwrap();
    assert!(slots.is_subset(&blamed), "the first that fails ends the run: {slots:?} of {blamed:?}");
    assert_eq!(
        (failed.reason.as_str(), failed.message),
        ("CreateContainerConfigError", format!("web-{first}: container web: configmap \"nope\" not found"))
    );
}

/// B7 X4
#[tokio::test]
async fn a_readiness_that_never_comes_blames_those_that_wait_for_it() {
    let stage = Stage::new(real(), "blame-readiness").await;
    let strategy = json!({"batchSize": 2, "maxSurge": 1, "maxUnavailable": 0, "onFailure": "RollbackFailed"});
    let spec = json!({"replicas": 4, "progressDeadlineSeconds": 20, "strategy": strategy});
    let probe = json!({"exec": {"command": ["false"]}, "periodSeconds": 1});
    let blamed = hang(&stage, &spec, &json!({"readinessProbe": probe}), 1).await;
    let rollout = stage.until(120, "PartlyRolledBack", |rollout| reason(rollout) == "PartlyRolledBack").await;
    let status = rollout.status.unwrap();
    let why = "container web is not ready: its readiness or startup probe does not succeed";
    tells(&stage, &status, &blamed, why).await;
    assert_eq!(status.versions.len(), 1, "{:?}", status.versions);
    assert!(!status.waiting_for.contains("the others stay"), "{}", status.waiting_for);
}

/// R13: instances go away in mid-run of a version that does not work, and come back.
#[tokio::test]
async fn a_version_is_not_stable_because_nothing_runs() {
    let stage = Stage::new(real(), "blame-unproven").await;
    let spec = json!({"replicas": 4, "progressDeadlineSeconds": 20});
    hang(&stage, &spec, &json!({"envFrom": [{"configMapRef": {"name": "nope"}}]}), 2).await;
    stage.patch(json!({"spec": {"replicas": 0}})).await;
    let status = stage.until(60, "Unproven", |rollout| reason(rollout) == "Unproven").await.status.unwrap();
    assert_ne!(status.current_revision, status.update_revision);
    assert!(
        status.waiting_for.contains("nothing has shown that version 2 works. version 1 stays"),
        "{}",
        status.waiting_for
    );
    stage.patch(json!({"spec": {"replicas": 4}})).await;
    let back = stage.until(120, "RolledBack", |rollout| reason(rollout) == "RolledBack").await.status.unwrap();
    assert_eq!(back.current_revision, status.current_revision);
    let live = stage.live().await;
    assert_eq!(live.len(), 4);
    let stable = back.current_revision.unwrap();
    assert!(live.iter().all(|pod| pod.metadata.labels.as_ref().unwrap()[LABEL_REVISION] == stable));
}
