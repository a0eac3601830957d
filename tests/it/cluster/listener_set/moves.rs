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
    listeners.assert_owned("feed-0").await;
    let gaps = listeners.judge(6, false);
    for (name, feed) in listeners.verdict() {
        assert_eq!(feed["connections"].as_array().map(Vec::len), Some(2), "{name} moves once: {feed:#}");
    }
    println!("gaps in ms: {gaps:?}");
    assert_eq!(gaps.len(), 6);
}

/// A6, A14, X8: the same where an application on the SDK runs them, beside an agent that is a native sidecar.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_takes_the_listeners_of_applications_along() {
    let listeners = Listeners::new("beside").await;
    let strategy = json!({"batchSize": 1, "maxSurge": 1, "maxUnavailable": 0});
    listeners.roll_beside("1", json!({"replicas": 2, "strategy": strategy})).await;
    listeners.listen(6, json!({})).await;
    listeners.running(60, 6).await;
    let pods: BTreeSet<_> = listeners.holders().await.into_values().collect();
    assert_eq!(pods.len(), 2, "{pods:?}");

    listeners.roll_beside("2", json!({"replicas": 2, "strategy": strategy})).await;
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
