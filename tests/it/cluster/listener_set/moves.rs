//! Planned moves: nothing lost, nothing twice, never two.
use std::{collections::BTreeSet, fmt::Debug};

use futures::TryStreamExt;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{ContainerStatus, Pod},
};
use kube::{
    Api, Resource, ResourceExt,
    api::{ListParams, WatchEvent, WatchParams},
};
use serde::de::DeserializeOwned;
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

/// Was it given the second image, while its container is of the first one?
fn is_changing(pod: &Pod) -> bool {
    let is_of = |image: Option<&str>, version| image.is_some_and(|image| image.ends_with(version));
    is_of(pod.spec.as_ref().unwrap().containers[0].image.as_deref(), ":2")
        && is_of(container(pod).map(|status| status.image.as_str()), ":1")
}

/// All that was written since, with its resourceVersion: of one API server these are comparable, whatever the kind.
async fn history<K>(api: &Api<K>, since: &str) -> Vec<(u64, K)>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let stream = api.watch(&WatchParams::default().timeout(1), since).await.unwrap();
    let events: Vec<_> = stream.try_collect().await.unwrap();
    let written = |event| match event {
        WatchEvent::Added(it) | WatchEvent::Modified(it) | WatchEvent::Deleted(it) => Some(it),
        WatchEvent::Bookmark(_) => None,
        WatchEvent::Error(error) => panic!("{error:?}"),
    };
    let version = |it: &K| it.resource_version().unwrap().parse().unwrap();
    events.into_iter().filter_map(written).map(|it| (version(&it), it)).collect()
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

    let mut holders = listeners.holders().await;
    let since = listeners.leases().list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    listeners.roll("2", spec).await;
    listeners.stage.complete(120).await;
    let pods = history(&listeners.stage.pods(), &since).await.into_iter().map(|(at, pod)| (at, Ok(pod)));
    let leases = history(&listeners.leases(), &since).await.into_iter().map(|(at, lease)| (at, Err(lease)));
    let mut written: Vec<(u64, Result<Pod, Lease>)> = pods.chain(leases).collect();
    written.sort_by_key(|(at, _)| *at);
    let (mut changing, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for (at, written) in written {
        match written {
            Ok(pod) if is_changing(&pod) => drop(changing.insert(pod.name_any())),
            Ok(pod) => drop(changing.remove(&pod.name_any())),
            Err(lease) => {
                let Some(name) = Listeners::listener_of(&lease) else { continue };
                match Listeners::holder_of(&lease) {
                    Some(holder) => drop(holders.insert(name, holder)),
                    None => drop(holders.remove(&name)),
                }
            }
        }
        assert!(!holders.values().any(|holder| changing.contains(holder)), "at {at}: {changing:?} {holders:?}");
        seen.extend(changing.iter().cloned());
    }
    assert_eq!(seen.len(), 3, "each was on its way: {seen:?}");
    listeners.running(30, 6).await;
    let live = listeners.stage.live().await;
    assert!(live.iter().all(|pod| container(pod).unwrap().restart_count == 1), "{live:#?}");
    assert_eq!(uids(live), before);
    let gaps = listeners.judge(6, false);
    println!("gaps in ms: {gaps:?}");
    assert!(gaps.len() >= 6, "each has moved, as each Pod was changed");
}
