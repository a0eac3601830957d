//! Planned moves: nothing lost, nothing twice, never two.
use std::collections::BTreeSet;

use serde_json::json;

use super::stage::Listeners;

/// A3, A5: every listener in exactly one Pod, evenly; the record is the Lease, owned by set and Pod.
/// A6, A14, X8: a Rollout moves each listener once, to its final place, and none is lost, doubled or run twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_takes_its_listeners_along() {
    let listeners = Listeners::new("moves").await;
    let strategy = json!({"batchSize": 1, "maxSurge": 1, "maxUnavailable": 0});
    listeners.roll("1", json!({"replicas": 3, "strategy": strategy})).await;
    listeners.listen(6, json!({})).await;
    listeners.running(60, 6).await;
    let before = listeners.holders().await;
    let pods: BTreeSet<_> = before.values().cloned().collect();
    assert_eq!((before.len(), pods.len()), (6, 3), "{before:?}");

    listeners.roll("2", json!({"replicas": 3, "strategy": strategy})).await;
    listeners.stage.complete(120).await;
    listeners.running(30, 6).await;
    let after = listeners.holders().await;
    assert!(after.values().all(|pod| !pods.contains(pod)), "{after:?}");
    let gaps = listeners.judge(6, false);
    for (name, feed) in listeners.verdict() {
        assert_eq!(feed["connections"].as_array().map(Vec::len), Some(2), "{name} moves once: {feed:#}");
    }
    println!("gaps in ms: {gaps:?}");
    assert_eq!(gaps.len(), 6);
}
