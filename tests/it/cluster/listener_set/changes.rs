//! What users change: listeners stopped, removed, set anew; releases that cannot run them; Pods without an agent.
use std::collections::BTreeSet;

use kube::api::{DeleteParams, ListParams};
use serde_json::json;

use super::stage::Listeners;

async fn two_pods(name: &str) -> Listeners {
    let listeners = Listeners::new(name).await;
    listeners.roll("1", json!({"replicas": 2})).await;
    listeners.listen(3, json!({})).await;
    listeners.running(60, 3).await;
    listeners
}

/// A9, A10: stopped, started, configured anew, removed: each listener by itself.
#[tokio::test(flavor = "multi_thread")]
async fn listeners_are_stopped_started_configured_and_removed() {
    let listeners = two_pods("change-listeners").await;
    let named = |rest: serde_json::Value| json!({"listeners": rest});
    let (one, two) = (json!({"name": "feed-1"}), json!({"name": "feed-2"}));
    listeners.listen(0, named(json!([{"name": "feed-0", "state": "Stopped"}, one, two]))).await;
    listeners.running(30, 2).await;
    assert_eq!(listeners.ownership("feed-0").await.1, "");
    listeners.listen(0, named(json!([{"name": "feed-0"}, {"name": "feed-1", "config": {"a": 1}}, two]))).await;
    listeners.running(30, 3).await;
    listeners.flows(10, "feed-0").await;
    assert_eq!(["feed-0", "feed-1", "feed-2"].map(|feed| listeners.connections(feed)), [2, 2, 1]);
    listeners.listen(0, named(json!([one]))).await;
    listeners
        .until(30, "the Leases of those removed are gone", |set| {
            set.status.as_ref().is_some_and(|status| status.listeners == 1 && status.epoch_floor > 0)
        })
        .await;
    listeners.running(30, 1).await;
    let held: BTreeSet<_> = listeners.holders().await.into_keys().collect();
    assert_eq!(held, ["feed-1".to_owned()].into());
    listeners.judge(3, false);
}

/// L8: with the set everything goes.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_set_leaves_nothing_running() {
    let listeners = two_pods("change-delete").await;
    for feed in ["feed-0", "feed-1", "feed-2"] {
        listeners.flows(30, feed).await;
    }
    listeners.sets().delete("bots", &DeleteParams::default()).await.unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_mins(1);
    loop {
        let leases = listeners.leases().list(&ListParams::default().labels("baton.dev/lease=listener")).await.unwrap();
        let position = |verdict: &std::collections::BTreeMap<String, serde_json::Value>| {
            verdict.values().map(|feed| feed["position"].as_u64().unwrap_or(0)).sum::<u64>()
        };
        let before = position(&listeners.verdict());
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        if leases.items.is_empty() && position(&listeners.verdict()) == before {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{}", listeners.explain());
    }
    listeners.judge(3, false);
}

/// A8, X8: a release whose listeners cannot connect goes back, and so do they.
#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_cannot_run_its_listeners_is_rolled_back() {
    let listeners = two_pods("change-broken").await;
    let strategy = json!({"batchSize": 1, "maxSurge": 1, "maxUnavailable": 0});
    let broken =
        json!({"replicas": 2, "strategy": strategy, "template": {"metadata": {"annotations": {"fails": "true"}}}});
    listeners.roll("fails", broken).await;
    listeners
        .stage
        .until(120, "it is rolled back", |rollout| crate::cluster::rollout::stage::reason(rollout) == "RolledBack")
        .await;
    let failed = listeners.stage.rollouts().get("web").await.unwrap().status.unwrap().failed.unwrap();
    assert_eq!(failed.reason, "ListenerFailed", "{failed:?}");
    assert!(failed.message.contains("ConnectTimeout"), "{failed:?}");
    listeners.running(60, 3).await;
    listeners.judge(3, false);
}

/// A16: Pods without an agent get nothing, and block nothing.
#[tokio::test(flavor = "multi_thread")]
async fn pods_without_an_agent_are_tolerated() {
    let listeners = Listeners::new("change-plain").await;
    listeners.stage.roll("1", json!({"replicas": 2, "template": {"spec": {"containers": [{"name": "web", "image": "example.local/sleeper:1", "command": ["/bin/sleep", "1000"]}]}}})).await;
    listeners.listen(2, json!({})).await;
    listeners.stage.complete(60).await;
    listeners
        .until(30, "it says what is missing", |set| {
            let Some(status) = &set.status else { return false };
            status.unassigned == 2 && status.conditions.iter().any(|condition| condition.message.contains("agent"))
        })
        .await;
    // A release with agents takes them up.
    listeners.roll("1", json!({"replicas": 2})).await;
    listeners.stage.complete(90).await;
    listeners.running(30, 2).await;
    for feed in ["feed-0", "feed-1"] {
        listeners.flows(20, feed).await;
    }
    listeners.judge(2, false);
}
