//! Rollouts of Pods that are replaced: good versions, bad ones, and people who intervene.
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, api::EvictParams};
use serde_json::{Value, json};

use super::equipment::{Drained, NODES, alone, node, restricted_stage, stage, together, web};
use crate::cluster::rollout::{
    bounds::Bounds,
    plugin,
    stage::{Stage, reason, slots},
};

/// The main job, where Pod security enforces the strictest level.
#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn a_version_replaces_another() {
    let _shared = together().await;
    let stage = restricted_stage("roll").await;
    let spec = json!({"replicas": 4, "strategy": {"batchSize": 2, "maxSurge": 1, "maxUnavailable": 0}});
    stage.roll("1", web("1.0", spec.clone())).await;
    stage.complete(60).await;
    let bounds = Bounds::watch(stage.pods(), 4).await;
    stage.roll("1", web("1.1", spec)).await;
    let rollout = stage.complete(120).await;
    assert_eq!(rollout.status.unwrap().versions[0].version, "1.1");
    bounds.assert(4, 5).await;
}

fn three() -> Value {
    json!({"replicas": 3, "strategy": {"batchSize": 1, "maxSurge": 1, "maxUnavailable": 0}})
}

/// Rolls what does not work, and waits until it is taken back; the reason that status tells.
async fn taken_back(stage: &Stage, spec: Value) -> String {
    let uids = |pods: Vec<Pod>| pods.iter().filter_map(ResourceExt::uid).collect::<Vec<_>>();
    let before = uids(stage.live_are(60, 3).await);
    stage.roll("1", spec).await;
    let rollout = stage.until(150, "RolledBack", |rollout| reason(rollout) == "RolledBack").await;
    assert_eq!(uids(stage.live_are(60, 3).await), before, "the old instances stay");
    rollout.status.unwrap().failed.unwrap().reason
}

#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_exits_is_taken_back() {
    let _shared = together().await;
    let stage = stage("exits").await;
    stage.roll("1", web("1.0", three())).await;
    stage.complete(60).await;
    let bounds = Bounds::watch(stage.pods(), 3).await;
    let mut broken = web("1.2-broken", three());
    broken["minReadySeconds"] = json!(5);
    let why = taken_back(&stage, broken).await;
    assert!(["CrashLoopBackOff", "Error", "ContainerFailed"].contains(&why.as_str()), "{why}");
    bounds.assert(3, 4).await;
}

#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_never_ready_is_taken_back() {
    let _shared = together().await;
    let stage = stage("unready").await;
    stage.roll("1", web("1.0", three())).await;
    stage.complete(60).await;
    let bounds = Bounds::watch(stage.pods(), 3).await;
    let mut never = web("1.1", three());
    never["progressDeadlineSeconds"] = json!(15);
    never["template"]["spec"]["containers"][0]["readinessProbe"]["httpGet"]["path"] = json!("/nowhere");
    assert_eq!(taken_back(&stage, never).await, "ProgressDeadlineExceeded");
    bounds.assert(3, 4).await;
}

#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn a_version_without_an_image_is_taken_back() {
    let _shared = together().await;
    let stage = stage("no-image").await;
    stage.roll("1", web("1.0", three())).await;
    stage.complete(60).await;
    let bounds = Bounds::watch(stage.pods(), 3).await;
    let why = taken_back(&stage, web("9.9", three())).await;
    assert!(["ErrImagePull", "ImagePullBackOff"].contains(&why.as_str()), "{why}");
    bounds.assert(3, 4).await;
}

#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn people_scale_undo_one_and_evict() {
    let _shared = together().await;
    let stage = stage("people").await;
    stage.roll("1", web("1.0", three())).await;
    stage.complete(60).await;
    for replicas in [5, 3] {
        stage.patch(json!({"spec": {"replicas": replicas}})).await;
        stage.complete(60).await;
        stage.live_are(60, replicas).await;
    }

    stage.roll("1", web("1.1", three())).await;
    stage.complete(120).await;
    let new = slots(&stage.live().await);
    let (code, said, complaint) = plugin::run(&stage, &["undo", "web", "--instances", "1"]);
    assert_eq!(code, Some(0), "{said}{complaint}");
    let has_one_back = |pods: &[Pod]| {
        let now = slots(pods);
        now.len() == 3 && now[1].1 != new[1].1 && (&now[0], &now[2]) == (&new[0], &new[2])
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_mins(1);
    while !has_one_back(&stage.live().await) {
        assert!(std::time::Instant::now() < deadline, "{:?}", slots(&stage.live().await));
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }

    stage.until(60, "at rest", |rollout| ["Complete", "Unproven", "Pinned"].contains(&reason(rollout))).await;
    let evicted = stage.live().await[0].clone();
    stage.pods().evict(&evicted.name_any(), &EvictParams::default()).await.unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_mins(1);
    loop {
        let live = stage.live().await;
        if live.len() == 3 && live.iter().all(|pod| pod.uid() != evicted.uid()) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "an evicted Pod is replaced");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let failed = stage.rollouts().get("web").await.unwrap().status.unwrap().failed;
    assert!(failed.is_none(), "nobody is blamed: {failed:?}");
}

/// `kubectl drain`, of the Pods of this test only.
#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_drained() {
    let _only = alone().await;
    let stage = stage("drain").await;
    let mut spec = web("1.0", three());
    spec["template"]["metadata"] = json!({"labels": {"drained": "yes"}});
    stage.roll("1", spec).await;
    stage.complete(60).await;
    assert!(stage.live().await.iter().any(|pod| node(pod) == NODES[1]), "Pods are on both nodes");
    let drained = Drained;
    let drain = ["drain", NODES[1], "--pod-selector=drained=yes", "--ignore-daemonsets", "--delete-emptydir-data"];
    tokio::task::block_in_place(|| stage.cluster.kubectl(&[&drain[..], &["--timeout=60s"]].concat()));
    let deadline = std::time::Instant::now() + std::time::Duration::from_mins(1);
    loop {
        let live = stage.live().await;
        if live.len() == 3 && live.iter().all(|pod| node(pod) == NODES[0]) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "all on the other node");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    drop(drained);
    stage.complete(60).await;
}
