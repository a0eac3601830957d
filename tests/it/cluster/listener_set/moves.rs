//! Planned moves: nothing lost, nothing twice, never two.
use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;
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

fn container(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}

/// Pods that were given the second image, and whose container is of the first one.
async fn changing(listeners: &Listeners) -> BTreeSet<String> {
    let is_of = |image: Option<&str>, version| image.is_some_and(|image| image.ends_with(version));
    let is_given = |pod: &Pod| is_of(pod.spec.as_ref().unwrap().containers[0].image.as_deref(), ":2");
    let has_old = |pod: &Pod| is_of(container(pod).map(|status| status.image.as_str()), ":1");
    let live = listeners.stage.live().await;
    live.iter().filter(|pod| is_given(pod) && has_old(pod)).map(ResourceExt::name_any).collect()
}

/// B4 A6 A14 X8: a Pod that is given another image has given its listeners away by then; none is lost, doubled or run twice.
#[tokio::test(flavor = "multi_thread")]
async fn pods_that_are_changed_in_place_give_their_listeners_away_first() {
    let listeners = Listeners::new("moves-in-place").await;
    let spec = json!({"replicas": 3, "strategy": {"update": "InPlaceIfPossible", "maxUnavailable": 1}});
    listeners.roll("1", spec.clone()).await;
    listeners.listen(6, json!({})).await;
    listeners.running(60, 6).await;
    listeners.stage.complete(60).await;
    let uids = |pods: Vec<Pod>| pods.iter().filter_map(ResourceExt::uid).collect::<BTreeSet<_>>();
    let before = uids(listeners.stage.live().await);

    listeners.roll("2", spec).await;
    let mut seen = BTreeSet::new();
    let watch = async {
        loop {
            let (before, holders, after) =
                (changing(&listeners).await, listeners.holders().await, changing(&listeners).await);
            for pod in before.intersection(&after) {
                assert!(!holders.values().any(|holder| holder == pod), "{pod}: {holders:?}");
                seen.insert(pod.clone());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = watch => {}
        _ = listeners.stage.complete(120) => {}
    }
    assert!(!seen.is_empty(), "it was looked at no Pod on its way");
    listeners.running(30, 6).await;
    let live = listeners.stage.live().await;
    assert!(live.iter().all(|pod| container(pod).unwrap().restart_count == 1), "{live:#?}");
    assert_eq!(uids(live), before);
    let gaps = listeners.judge(6, false);
    println!("gaps in ms: {gaps:?}");
    assert!(gaps.len() >= 6, "each has moved, as each Pod was changed");
}
