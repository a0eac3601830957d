//! Rollouts of Pods that are replaced: good versions, bad ones, and people who intervene.
use serde_json::json;

use super::equipment::{restricted_stage, together, web};
use crate::cluster::rollout::bounds::Bounds;

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
