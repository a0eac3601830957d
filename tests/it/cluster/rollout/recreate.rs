//! Strategy Recreate, with real processes.
use serde_json::json;

use super::{
    bounds::Bounds,
    stage::{Stage, real, reason, run},
};

fn spec() -> serde_json::Value {
    // A program that ends at once is Ready for a moment.
    json!({"replicas": 3, "minReadySeconds": 2, "progressDeadlineSeconds": 30, "strategy": {"type": "Recreate"}})
}

/// B1: no Pod of the new version is there before the last one of the old has gone; forward, and back again.
#[tokio::test]
async fn two_versions_never_run_at_once() {
    let stage = Stage::new(real(), "recreate-roll").await;
    stage.roll("1", spec()).await;
    stage.complete(60).await;
    let bounds = Bounds::watch(stage.pods(), 3).await;
    stage.roll("2", spec()).await;
    stage.complete(60).await;
    stage.roll("1", spec()).await;
    stage.complete(60).await;
    bounds.assert(0, 3).await;
    let worst = bounds.worst();
    assert_eq!((worst.revisions_max, worst.created.len()), (1, 6), "{worst:?}");
}

/// B1 B7: a version that does not start goes, and then the old one comes back. An operator that is killed on the way changes
/// nothing about that.
#[tokio::test]
async fn a_broken_version_ends_before_the_old_one_comes_back() {
    let mut stage = Stage::new(real(), "recreate-back").await;
    stage.roll("1", spec()).await;
    let before = stage.complete(60).await;
    let bounds = Bounds::watch(stage.pods(), 3).await;
    stage.roll("broken", spec()).await;
    stage.until(60, "a new run", |rollout| run(rollout) > run(&before)).await;
    stage.kill_operator();
    stage.start_operator();
    let back = stage.until(120, "RolledBack", |rollout| reason(rollout) == "RolledBack").await;
    assert_eq!(back.status.unwrap().versions[0].version, "1");
    bounds.assert(0, 3).await;
    assert_eq!(bounds.worst().revisions_max, 1, "{:?}", bounds.worst());
}
