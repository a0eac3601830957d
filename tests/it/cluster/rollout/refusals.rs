//! What the API server refuses, in mid-roll: nothing is lost, and the reason is shown.
use baton::{
    api::{ConditionStatus, ConditionType, Rollout},
    plan::revision,
};
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::json;

use super::{
    bounds::Bounds,
    stage::{Stage, reason, simulated, slots},
};

fn condition(rollout: &Rollout, type_: ConditionType) -> Option<ConditionStatus> {
    let conditions = &rollout.status.as_ref()?.conditions;
    conditions.iter().find(|condition| condition.type_ == type_).map(|condition| condition.status)
}

/// B7: a template that the API server refuses never costs a Pod.
#[tokio::test]
async fn a_refused_template_costs_no_pod() {
    let stage = Stage::new(simulated(), "refused-template").await;
    stage.roll("1", json!({"replicas": 3})).await;
    stage.complete(30).await;
    let before: Vec<_> = stage.live().await.into_iter().map(|pod| pod.metadata.uid).collect();
    let bad = json!({"replicas": 3, "template": {"spec": {"volumes": [{"name": "Not A Name", "emptyDir": {}}]}}});
    stage.roll("2", bad).await;
    let refused = stage
        .until(30, "TemplateValid=False", |rollout| {
            condition(rollout, ConditionType::TemplateValid) == Some(ConditionStatus::False)
        })
        .await;
    let status = refused.status.unwrap();
    assert!(status.waiting_for.contains("volumes"), "it names the field: {}", status.waiting_for);
    assert_eq!(before, stage.live().await.into_iter().map(|pod| pod.metadata.uid).collect::<Vec<_>>());
    stage.roll("3", json!({"replicas": 3, "template": {"spec": {"volumes": []}}})).await;
    stage.complete(30).await;
}

#[tokio::test]
async fn an_exhausted_quota_is_waited_for_and_then_met() {
    let stage = Stage::without_operator(simulated(), "refused-quota").await;
    let quotas: Api<ResourceQuota> = Api::namespaced(stage.client.clone(), &stage.namespace);
    let quota = json!({"metadata": {"name": "pods"}, "spec": {"hard": {"pods": "2"}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota).unwrap()).await.unwrap();
    let mut stage = stage;
    stage.start_operator();
    stage.roll("1", json!({"replicas": 4})).await;
    let held = stage.until(60, "QuotaExceeded", |rollout| reason(rollout) == "QuotaExceeded").await;
    assert!(held.status.unwrap().waiting_for.contains("quota"));
    assert_eq!(stage.live().await.len(), 2, "what fits is there");
    quotas.delete("pods", &DeleteParams::default()).await.unwrap();
    stage.complete(90).await;
}

/// A full quota leaves no room for surge: instances are retired first, as maxUnavailable allows.
#[tokio::test]
async fn without_room_for_surge_it_retires_first() {
    let stage = Stage::new(simulated(), "refused-surge").await;
    let spec = json!({"replicas": 4, "strategy": {"maxSurge": 1, "maxUnavailable": 1}});
    stage.roll("1", spec.clone()).await;
    stage.complete(30).await;
    let quotas: Api<ResourceQuota> = Api::namespaced(stage.client.clone(), &stage.namespace);
    let quota = json!({"metadata": {"name": "pods"}, "spec": {"hard": {"pods": "4"}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota).unwrap()).await.unwrap();
    let bounds = Bounds::watch(stage.pods(), 4).await;
    stage.roll("2", spec).await;
    let rollout = stage.complete(120).await;
    assert_eq!(rollout.status.unwrap().versions[0].version, "2");
    bounds.assert(3, 5).await;
}

#[tokio::test]
async fn a_pod_of_our_name_that_is_not_ours_is_left_alone() {
    let stage = Stage::without_operator(simulated(), "refused-name").await;
    stage.roll("1", json!({"replicas": 2})).await;
    let rollout = stage.rollouts().get("web").await.unwrap();
    let name = format!("web-1-{}", revision::hash(&revision::data(&rollout.spec)));
    let foreign = json!({
        "metadata": {"name": name, "labels": {"app": "web", "baton.dev/rollout": "web", "baton.dev/instance": "1"}},
        "spec": {"containers": [{"name": "foreign", "image": "example.local/foreign:1"}]},
    });
    stage.pods().create(&PostParams::default(), &serde_json::from_value::<Pod>(foreign).unwrap()).await.unwrap();
    let mut stage = stage;
    stage.start_operator();
    stage.complete(30).await;
    let live = stage.live().await;
    assert_eq!(live.len(), 3, "the foreign Pod and two of ours");
    let theirs = live.iter().find(|pod| pod.metadata.name.as_ref() == Some(&name)).unwrap();
    assert!(theirs.metadata.owner_references.is_none());
    assert!(live.iter().any(|pod| pod.metadata.name.as_ref() == Some(&format!("{name}-1"))));
}

/// HPA in mid-roll: what is new stays new, nothing goes back and forth.
#[tokio::test]
async fn scaling_10_4_10_in_mid_roll_moves_nothing_back() {
    let stage = Stage::new(simulated(), "scale-mid-roll").await;
    let spec = |replicas: i32| json!({"replicas": replicas, "minReadySeconds": 1, "strategy": {"batchSize": 2, "maxSurge": 1, "maxUnavailable": 1}});
    stage.roll("1", spec(10)).await;
    stage.complete(30).await;
    let throughout = Bounds::watch(stage.pods(), 10).await;
    let at_ten = Bounds::watch(stage.pods(), 10).await;
    stage.roll("2", spec(10)).await;
    let some = stage
        .until(30, "two instances updated", |r| {
            reason(r) == "RollingOut" && r.status.as_ref().unwrap().updated_replicas >= 2
        })
        .await;
    let new = some.status.unwrap().update_revision.unwrap();
    let is_new =
        |pod: &Pod| slots(std::slice::from_ref(pod)).iter().all(|(slot, revision)| *slot < 4 && *revision == new);
    let kept: Vec<Pod> = stage.live().await.into_iter().filter(is_new).collect();
    assert!(!kept.is_empty());
    at_ten.assert(9, 11).await;
    stage.patch(json!({"spec": {"replicas": 4}})).await;
    stage.until(60, "four left", |r| r.status.as_ref().unwrap().replicas <= 5).await;
    let at_ten_again = Bounds::watch(stage.pods(), 10).await;
    stage.patch(json!({"spec": {"replicas": 10}})).await;
    stage.complete(90).await;
    at_ten_again.assert(9, 11).await;
    throughout.assert(3, 11).await;
    let live = stage.live().await;
    assert_eq!(slots(&live), (0..10).map(|slot| (slot, new.clone())).collect::<Vec<_>>());
    for pod in kept {
        let uid = &pod.metadata.uid;
        assert!(live.iter().any(|live| live.metadata.uid == *uid), "{:?} was new and is gone", pod.metadata.name);
    }
}
