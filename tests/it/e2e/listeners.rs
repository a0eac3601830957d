//! Listeners in Pods of real nodes: moved, killed, stopped. Judged by the exchange that they read from, to which each says by the
//! machine's one clock when it did what, and by the processes that the kernel shows.
use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, api::DeleteParams};
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use super::equipment::{Drained, alone, containerd, real, stage, together};
use crate::cluster::listener_set::stage::{Listeners, agent, guard, process};

/// A namespace with an exchange, and what agents need.
pub async fn listeners(name: &str) -> Listeners {
    let stage = stage(name).await;
    tokio::task::block_in_place(|| stage.cluster.kubectl(&["get", "clusterrole", "baton-agent"]));
    Listeners::at(stage, &[]).await
}

pub fn three() -> Value {
    json!({"replicas": 3, "strategy": {"batchSize": 1, "maxSurge": 1, "maxUnavailable": 0}})
}

/// Sessions that outlast a machine which is busy with other things: planned moves do not depend on them. They are measured,
/// too, so each of these tests has the cluster for itself.
fn calm() -> Value {
    json!({"session": {"profile": "Calm"}})
}

/// Fails if any listener ran twice at the same time, or missed a message; and if it read one twice, unless `may_repeat`. Prints
/// and answers how long each ran nowhere, in milliseconds, for each time that another process of it began.
pub fn judge(what: &str, listeners: &Listeners, count: usize, may_repeat: bool) -> Vec<f64> {
    let namespace = &listeners.stage.namespace;
    assert_eq!(real().processes.overlaps(namespace), Vec::<String>::new());
    listeners.judge(count, may_repeat);
    let mut gaps = Vec::new();
    for (_, feed) in listeners.verdict() {
        let connections = feed["connections"].as_array().unwrap();
        let ended = |until: usize| connections[..until].iter().filter_map(|it| it["last"].as_u64()).max().unwrap();
        let began = |index: usize| connections[index]["opening"]["began"].as_u64().unwrap();
        gaps.extend((1..connections.len()).map(|index| (began(index) - ended(index)) as f64 / 1_000.0));
    }
    gaps.sort_by(f64::total_cmp);
    println!("containerd {}: {namespace}: {what}: each ran nowhere for (ms) {gaps:?}", containerd());
    gaps
}

/// Waits until the roll is done, and judges: each moved once, was read by one at a time, and nothing was lost.
async fn moved_once(listeners: &Listeners, count: usize) {
    listeners.stage.complete(180).await;
    listeners.running(60, count as i32).await;
    let gaps = judge("planned moves", listeners, count, false);
    assert_eq!(gaps.len(), count);
    assert!(gaps.iter().all(|gap| *gap < 5_000.0), "{gaps:?}");
    for (name, feed) in listeners.verdict() {
        assert_eq!(feed["connections"].as_array().map(Vec::len), Some(2), "{name} moves once: {feed:#}");
    }
}

#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn agents_of_images_hand_over_in_a_roll() {
    let _only = alone().await;
    let listeners = listeners("own").await;
    listeners.roll("1", three()).await;
    listeners.listen(6, calm()).await;
    listeners.running(90, 6).await;
    listeners.roll("2", three()).await;
    moved_once(&listeners, 6).await;
}

#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn agents_that_are_installed_hand_over_in_a_roll() {
    let _only = alone().await;
    let listeners = listeners("install").await;
    listeners.roll_installed("1").await;
    listeners.listen(4, calm()).await;
    listeners.running(90, 4).await;
    listeners.roll_installed("2").await;
    moved_once(&listeners, 4).await;
}

#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn agents_beside_an_application_hand_over_in_a_roll() {
    let _only = alone().await;
    let listeners = listeners("beside").await;
    listeners.roll_beside("1", three()).await;
    listeners.listen(6, calm()).await;
    listeners.running(90, 6).await;
    listeners.roll_beside("2", three()).await;
    moved_once(&listeners, 6).await;
}

/// A Pod that is changed in place hands over what it holds first; without surge a listener may go to a Pod whose turn comes.
#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn pods_that_are_changed_in_place_hand_over() {
    let _only = alone().await;
    let listeners = listeners("in-place-bots").await;
    let spec = json!({"replicas": 2, "strategy": {"update": "InPlaceIfPossible", "maxUnavailable": 1}});
    listeners.roll("1", spec.clone()).await;
    listeners.listen(4, calm()).await;
    all_flow(&listeners).await;
    let uids = |pods: Vec<Pod>| pods.iter().filter_map(ResourceExt::uid).collect::<BTreeSet<_>>();
    let before = uids(listeners.stage.live().await);
    listeners.roll("2", spec).await;
    listeners.stage.complete(180).await;
    all_flow(&listeners).await;
    assert_eq!(uids(listeners.stage.live().await), before, "the Pods stay");
    judge("changed in place", &listeners, 4, false);
}

/// `kubectl drain` of the node of two Pods of three.
#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn pods_of_a_drained_node_hand_over() {
    let _only = alone().await;
    let listeners = listeners("drained-bots").await;
    let spread = |template: &mut Value| {
        spread(template);
        template["metadata"]["labels"] = json!({"drained": "bots"});
    };
    listeners.roll_as("1", json!({"replicas": 3}), spread).await;
    listeners.listen(6, calm()).await;
    listeners.running(90, 6).await;
    let is_leaving = |pod: &Pod| pod.spec.as_ref().unwrap().node_name.as_deref() == Some("kubelet-2");
    assert!(listeners.stage.live().await.iter().any(is_leaving), "Pods are on both nodes");
    let drain = ["drain", "kubelet-2", "--pod-selector=drained=bots", "--ignore-daemonsets", "--delete-emptydir-data"];
    let drained = Drained;
    tokio::task::block_in_place(|| listeners.stage.cluster.kubectl(&[&drain[..], &["--timeout=60s"]].concat()));
    listeners.stage.complete(60).await;
    listeners.running(60, 6).await;
    for pod in listeners.stage.live().await {
        assert_eq!(pod.spec.unwrap().node_name.as_deref(), Some("kubelet-1"));
    }
    drop(drained);
    judge("drained", &listeners, 6, false);
}

/// Two Pods and four listeners that run.
pub async fn two_pods(name: &str) -> Listeners {
    let listeners = listeners(name).await;
    listeners.roll_as("1", json!({"replicas": 2}), spread).await;
    listeners.listen(4, json!({})).await;
    all_flow(&listeners).await;
    assert_eq!(real().processes.count(&listeners.stage.namespace), 4, "each has had one process");
    listeners
}

/// Has a template's Pods on as many nodes as there are.
pub fn spread(template: &mut Value) {
    template["spec"]["topologySpreadConstraints"] = json!([{
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app": "web"}},
    }]);
}

pub async fn all_flow(listeners: &Listeners) {
    listeners.running(120, 4).await;
    for feed in ["feed-0", "feed-1", "feed-2", "feed-3"] {
        listeners.flows(30, feed).await;
    }
}

/// The Pod of a listener.
pub async fn holder(listeners: &Listeners, feed: &str) -> String {
    let (_, holder) = listeners.ownership(feed).await;
    holder.split('/').next().unwrap().to_owned()
}

#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn processes_that_are_killed_are_succeeded() {
    let _shared = together().await;
    let listeners = two_pods("killed").await;
    let pod = holder(&listeners, "feed-0").await;
    kill(process(&pod, "listener", Some("feed-0")), Signal::SIGKILL).unwrap();
    all_flow(&listeners).await;
    let pod = holder(&listeners, "feed-1").await;
    kill(guard(&pod, "feed-1"), Signal::SIGKILL).unwrap();
    all_flow(&listeners).await;
    let (epoch, before) = listeners.ownership("feed-2").await;
    kill(agent(before.split('/').next().unwrap(), "feed-2"), Signal::SIGKILL).unwrap();
    listeners.taken_over("feed-2", (epoch, &before)).await;
    all_flow(&listeners).await;
    assert_eq!(listeners.connections("feed-0"), 2, "its process was killed");
    judge("killed: process, guard, agent", &listeners, 4, true);
}

#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_stands_still_loses_its_listeners() {
    let _shared = together().await;
    let listeners = two_pods("stopped").await;
    let (epoch, before) = listeners.ownership("feed-0").await;
    let agent = agent(before.split('/').next().unwrap(), "feed-0");
    kill(agent, Signal::SIGSTOP).unwrap();
    listeners.taken_over("feed-0", (epoch, &before)).await;
    kill(agent, Signal::SIGCONT).unwrap();
    all_flow(&listeners).await;
    judge("agent stopped (SIGSTOP)", &listeners, 4, true);
}

/// Deletes the Pod of a listener by force: its object is gone at once, whatever its processes do. Returns when another Pod has
/// the listener; that may be of the same name.
pub async fn delete_by_force(listeners: &Listeners, feed: &str) {
    let (epoch, before) = listeners.ownership(feed).await;
    let by_force = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::background() };
    listeners.stage.pods().delete(before.split('/').next().unwrap(), &by_force).await.unwrap();
    listeners.taken_over(feed, (epoch, &before)).await;
}

#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_deleted_by_force_is_not_dead() {
    let _shared = together().await;
    let listeners = two_pods("forced").await;
    delete_by_force(&listeners, "feed-0").await;
    all_flow(&listeners).await;
    judge("deleted by force", &listeners, 4, true);

    // The same of one that hears nothing.
    let pod = holder(&listeners, "feed-1").await;
    kill(agent(&pod, "feed-1"), Signal::SIGSTOP).unwrap();
    delete_by_force(&listeners, "feed-1").await;
    all_flow(&listeners).await;
    judge("… and another by force, its agent stopped", &listeners, 4, true);
}

#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn an_evicted_pod_hands_over() {
    let _shared = together().await;
    let listeners = two_pods("evicted").await;
    let pod = holder(&listeners, "feed-0").await;
    listeners.stage.pods().evict(&pod, &kube::api::EvictParams::default()).await.unwrap();
    listeners.until_held_by_others(60, &pod).await;
    all_flow(&listeners).await;
    judge("evicted", &listeners, 4, false);
}

/// Makes the kernel end a process for want of memory: it is the first choice, and another takes all that there is. That one
/// must not be a first choice itself, as those of Pods without guarantees are.
fn starve(listeners: &Listeners, pod: &str, process: nix::unistd::Pid) {
    std::fs::write(format!("/proc/{process}/oom_score_adj"), "1000").unwrap();
    let namespace = listeners.stage.namespace.as_str();
    let command = ["-n", namespace, "exec", pod, "-c", "web", "--", "tail", "/dev/zero"];
    let told = tokio::task::block_in_place(|| listeners.stage.cluster.try_kubectl(&command));
    println!("the eater ended with {}", told.status);
}

#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn processes_without_memory_are_succeeded() {
    let _shared = together().await;
    let listeners = listeners("starved").await;
    listeners
        .roll_as("1", json!({"replicas": 2}), |template| {
            template["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "500m", "memory": "100Mi"}});
        })
        .await;
    listeners.listen(4, json!({})).await;
    all_flow(&listeners).await;
    for command in ["listener", "agent"] {
        let (epoch, before) = listeners.ownership("feed-0").await;
        let pod = before.split('/').next().unwrap().to_owned();
        let victim = if command == "agent" { agent(&pod, "feed-0") } else { process(&pod, command, Some("feed-0")) };
        starve(&listeners, &pod, victim);
        let deadline = std::time::Instant::now() + Duration::from_mins(1);
        while listeners.ownership("feed-0").await.0 == epoch {
            assert!(std::time::Instant::now() < deadline, "{command} {victim}: {}", listeners.explain());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        all_flow(&listeners).await;
    }
    judge("out of memory: process, agent", &listeners, 4, true);
}
