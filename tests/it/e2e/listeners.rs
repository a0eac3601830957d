//! Listeners in Pods of real nodes: moved, killed, stopped. Judged by the exchange that they read from, to which each says by the
//! machine's one clock when it did what, and by the processes that the kernel shows.
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, api::DeleteParams};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::{
    equipment::{Drained, NODES, alone, node, real, restricted_stage, spread, together},
    processes::lives,
};
use crate::cluster::listener_set::stage::{Listeners, agent, find_process, guard, process};

/// A namespace with an exchange, and what agents need, where Pod security is strict.
pub async fn listeners(name: &str) -> Listeners {
    let stage = restricted_stage(name).await;
    tokio::task::block_in_place(|| stage.cluster.kubectl(&["get", "clusterrole", "baton-agent"]));
    Listeners::at(stage, &[]).await
}

/// Namespaces whose listeners run in the processes of applications.
const IN_ONE_PROCESS: [&str; 3] = ["beside", "sidecar", "shim-sidecar"];

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
    real().processes.assert_watching();
    // Beside an application there is none for each: the exchange alone judges.
    let processes = real().processes.count(namespace);
    assert!(processes >= count || IN_ONE_PROCESS.contains(&namespace.as_str()), "{processes} processes were seen");
    assert_eq!(real().processes.overlaps(namespace), Vec::<String>::new());
    listeners.judge(count, may_repeat);
    let mut gaps = Vec::new();
    for (_, feed) in listeners.verdict() {
        let connections = feed["connections"].as_array().unwrap();
        let ended = |until: usize| connections[..until].iter().filter_map(|it| it["last"].as_u64()).max().unwrap();
        let began = |index: usize| connections[index]["opening"]["began"].as_u64().unwrap();
        gaps.extend((1..connections.len()).map(|index| (began(index) - ended(index)) as f64 / 1_000.0));
    }
    if !may_repeat {
        let is_clean = |connections: &[Value]| connections.iter().rev().skip(1).all(|it| it["bye"].is_u64());
        let verdict = listeners.verdict();
        let dirty = verdict.iter().find(|(_, feed)| !is_clean(feed["connections"].as_array().unwrap()));
        assert!(dirty.is_none(), "it was killed instead of handed over: {dirty:#?}");
    }
    gaps.sort_by(f64::total_cmp);
    println!("{namespace}: {what}: each ran nowhere for (ms) {gaps:.0?}");
    gaps
}

/// Waits until the roll is done, and judges: each moved once, was read by one at a time, and nothing was lost.
async fn moved_once(listeners: &Listeners, count: usize) {
    listeners.stage.complete(180).await;
    listeners.running(60, count as i32).await;
    let gaps = judge("planned moves", listeners, count, false);
    assert_eq!(gaps.len(), count);
    assert!(gaps.iter().all(|gap| *gap < 20_000.0), "{gaps:?}");
    for (name, feed) in listeners.verdict() {
        assert_eq!(feed["connections"].as_array().map(Vec::len), Some(2), "{name} moves once: {feed:#}");
    }
}

#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn agents_of_images_hand_over_in_a_roll() {
    let _only = alone().await;
    let listeners = listeners("own").await;
    listeners.roll_as("1", three(), spread).await;
    listeners.listen(6, calm()).await;
    listeners.running(90, 6).await;
    listeners.roll_as("2", three(), spread).await;
    moved_once(&listeners, 6).await;
}

#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn agents_that_are_installed_hand_over_in_a_roll() {
    let _only = alone().await;
    let listeners = listeners("install").await;
    listeners.roll_installed_as("1", spread).await;
    listeners.listen(4, calm()).await;
    listeners.running(90, 4).await;
    listeners.roll_installed_as("2", spread).await;
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
    listeners.roll_as("1", spec.clone(), spread).await;
    listeners.listen(4, calm()).await;
    all_flow(&listeners).await;
    let uids = |pods: Vec<Pod>| pods.iter().filter_map(ResourceExt::uid).collect::<BTreeSet<_>>();
    let before = uids(listeners.stage.live().await);
    listeners.roll_as("2", spec, spread).await;
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
    held_on(&listeners, NODES[1]).await;
    let drain = ["drain", NODES[1], "--pod-selector=drained=bots", "--ignore-daemonsets", "--delete-emptydir-data"];
    let drained = Drained;
    tokio::task::block_in_place(|| listeners.stage.cluster.kubectl(&[&drain[..], &["--timeout=60s"]].concat()));
    listeners.stage.complete(60).await;
    listeners.running(60, 6).await;
    for pod in listeners.stage.live().await {
        assert_eq!(node(&pod), NODES[0]);
    }
    drop(drained);
    assert!(!judge("drained", &listeners, 6, false).is_empty(), "some have moved");
}

/// The agent is a container that Baton adds, and the application runs all listeners of its Pod by the SDK.
#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn agents_that_are_added_beside_an_application_hand_over_in_a_roll() {
    let _only = alone().await;
    let listeners = listeners("sidecar").await;
    listeners.roll_as("1", three(), with_sidecar).await;
    listeners.listen(6, calm()).await;
    listeners.running(90, 6).await;
    listeners.roll_as("2", three(), with_sidecar).await;
    moved_once(&listeners, 6).await;
}

/// Makes of a template with an agent one whose listeners run in one process on the SDK, beside an agent that Baton adds.
pub fn with_sidecar(template: &mut Value) {
    spread(template);
    template["metadata"]["annotations"] = json!({"baton.dev/agent": "sidecar"});
    let container = template["spec"]["containers"][0].as_object_mut().unwrap();
    container.insert("command".into(), json!(["/image/listener-sdk"]));
    container.remove("volumeMounts");
    container["env"].as_array_mut().unwrap().retain(|variable| variable["name"] != "BATON_PORT");
    template["spec"].as_object_mut().unwrap().remove("volumes");
}

/// The process in this Pod that runs this listener: one of its own, or the application's.
pub fn process_of(pod: &str, feed: &str) -> Option<Pid> {
    find_process(pod, "listener", Some(feed)).or_else(|| find_process(pod, "listener-sdk", None))
}

/// Two Pods, one on each node, and four listeners that run, with this session profile.
pub async fn two_pods(name: &str, profile: &str) -> Listeners {
    let listeners = listeners(name).await;
    listeners.roll_as("1", json!({"replicas": 2}), spread).await;
    listeners.listen(4, json!({"session": {"profile": profile}})).await;
    all_flow(&listeners).await;
    let live = listeners.stage.live().await;
    assert!(NODES.iter().all(|name| live.iter().any(|pod| node(pod) == *name)), "Pods are on both nodes");
    listeners
}

/// A listener that runs in a Pod on this node, once there is one, and its Pod.
pub async fn held_on(listeners: &Listeners, name: &str) -> (String, String) {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let live = listeners.stage.live().await;
        let is_there = |holder: &String| live.iter().any(|pod| pod.name_any() == *holder && node(pod) == name);
        let runs = |feed: &String, holder: &String| process_of(holder, feed).is_some();
        let mut holders = listeners.holders().await.into_iter();
        if let Some(found) = holders.find(|(feed, holder)| is_there(holder) && runs(feed, holder)) {
            return found;
        }
        assert!(Instant::now() < deadline, "{name} holds nothing: {}", listeners.explain());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
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
    let listeners = two_pods("killed", "Default").await;
    for name in NODES {
        let (feed, pod) = held_on(&listeners, name).await;
        let before = listeners.connections(&feed);
        kill(process(&pod, "listener", Some(&feed)), Signal::SIGKILL).unwrap();
        all_flow(&listeners).await;
        assert!(listeners.connections(&feed) > before, "its process was killed");
        let (feed, pod) = held_on(&listeners, name).await;
        kill(guard(&pod, &feed), Signal::SIGKILL).unwrap();
        all_flow(&listeners).await;
        let (feed, pod) = held_on(&listeners, name).await;
        let (epoch, before) = listeners.ownership(&feed).await;
        kill(agent(&pod, &feed), Signal::SIGKILL).unwrap();
        listeners.taken_over(&feed, (epoch, &before)).await;
        all_flow(&listeners).await;
    }
    judge("killed on each node: process, guard, agent", &listeners, 4, true);
}

#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_stands_still_loses_its_listeners() {
    let _shared = together().await;
    let listeners = two_pods("stopped", "Default").await;
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
    let listeners = two_pods("forced", "Default").await;
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
    let listeners = two_pods("evicted", "Default").await;
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
            spread(template);
            template["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "500m", "memory": "100Mi"}});
        })
        .await;
    listeners.listen(4, json!({})).await;
    all_flow(&listeners).await;
    for (name, command) in NODES.into_iter().flat_map(|name| [(name, "listener"), (name, "agent")]) {
        let (feed, pod) = held_on(&listeners, name).await;
        let (epoch, _) = listeners.ownership(&feed).await;
        let victim = if command == "agent" { agent(&pod, &feed) } else { process(&pod, command, Some(&feed)) };
        starve(&listeners, &pod, victim);
        let deadline = Instant::now() + Duration::from_mins(1);
        while listeners.ownership(&feed).await.0 == epoch {
            assert!(Instant::now() < deadline, "{name} {command} {victim}: {}", listeners.explain());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(!lives(victim.as_raw().cast_unsigned()), "{command} {victim} was killed");
        all_flow(&listeners).await;
    }
    judge("out of memory on each node: process, agent", &listeners, 4, true);
}
