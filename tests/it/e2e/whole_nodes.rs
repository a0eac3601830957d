//! Kubelets, containerds, shims, machines and the API server that end, in the middle of rolls.
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, ResourceExt, api::DeleteParams};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::{
    equipment::{Stopped, alone, real, stage, web},
    listeners::{all_flow, delete_by_force, holder, judge, listeners, spread, three, two_pods},
};
use crate::cluster::{
    listener_set::stage::{Listeners, agent},
    rollout::{
        bounds::{Bounds, Worst},
        stage::{Stage, reason},
    },
    support::processes,
};

/// A Rollout of web and one of Pods with listeners, both in the middle of a roll.
struct Rolling {
    web: Stage,
    bots: Listeners,
    bounds: Bounds,
}

impl Rolling {
    async fn new(name: &str) -> Self {
        let (web_stage, bots) = (stage(&format!("{name}-web")).await, listeners(&format!("{name}-bots")).await);
        let spec = json!({"replicas": 4, "strategy": {"batchSize": 1, "maxSurge": 1, "maxUnavailable": 0}});
        web_stage.roll("1", web("1.0", spec.clone())).await;
        bots.roll("1", three()).await;
        bots.listen(6, json!({})).await;
        web_stage.complete(90).await;
        bots.running(90, 6).await;
        let bounds = Bounds::watch(web_stage.pods(), 4).await;
        web_stage.roll("1", web("1.1", spec)).await;
        bots.roll("2", three()).await;
        tokio::time::sleep(Duration::from_secs(2)).await; // into the middle of it: what is tested begins now
        for stage in [&web_stage, &bots.stage] {
            let rollout = stage.rollouts().get("web").await.unwrap();
            assert_ne!(reason(&rollout), "Complete", "{} is in mid-roll", stage.namespace);
        }
        Self { web: web_stage, bots, bounds }
    }

    /// Waits until both are done: nobody was blamed, no listener ran twice, and no Pod was too many.
    async fn done(&self) -> Worst {
        self.web.complete(180).await;
        self.bots.stage.complete(180).await;
        self.bots.running(60, 6).await;
        judge("restarted in mid-roll", &self.bots, 6, true);
        let worst = self.bounds.worst();
        println!("{}: {worst:?}", self.web.namespace);
        assert!(worst.total_max <= 5, "{worst:?}");
        for namespace in [&self.web.namespace, &self.bots.stage.namespace] {
            let blamed = |state: &Value| state["object"]["status"]["failed"].is_object();
            let told = real().recorder.states("Rollout", namespace).into_iter().find(blamed);
            assert!(told.is_none(), "nobody is to blame: {}", told.unwrap_or_default()["object"]["status"]);
        }
        worst
    }
}

/// `cluster VERB NAME ARGS`.
fn cluster(args: &[&str]) {
    tokio::task::block_in_place(|| real().cluster.testbed(args));
}

/// Kills the first, with which the others end; all run again once the answer is dropped.
fn stop(names: &[&str]) -> Stopped {
    cluster(&["stop", names[0], "--kill"]);
    Stopped(names.iter().map(|name| (*name).to_owned()).collect())
}

/// Every running Pod is not Ready for some milliseconds, which the kubelet says and nobody can help.
#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_is_killed_in_mid_roll() {
    let _only = alone().await;
    let rolling = Rolling::new("kubelet").await;
    cluster(&["restart", "kubelet-1", "--kill"]);
    rolling.done().await;
}

#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn a_containerd_is_killed_in_mid_roll() {
    let _only = alone().await;
    let rolling = Rolling::new("containerd").await;
    cluster(&["restart", "containerd-1", "--kill"]);
    rolling.done().await;
}

#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_is_killed_in_mid_roll() {
    let _only = alone().await;
    let rolling = Rolling::new("api").await;
    tokio::task::block_in_place(|| real().cluster.restart_api_server(&["--kill"]));
    let worst = rolling.done().await;
    assert!(worst.available_min >= Some(4), "{worst:?}");
}

#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_deleted_by_force_where_no_kubelet_hears_it() {
    let _only = alone().await;
    let listeners = two_pods("unheard").await;
    let pod = holder(&listeners, "feed-0").await;
    let node = listeners.stage.pods().get(&pod).await.unwrap().spec.unwrap().node_name.unwrap();
    let stopped = stop(&[&node]);
    delete_by_force(&listeners, "feed-0").await;
    drop(stopped);
    all_flow(&listeners).await;
    judge("deleted by force, kubelet dead", &listeners, 4, true);
}

/// The process of the shim that runs this Pod's containers.
fn shim(pod: &Pod) -> Pid {
    let uid = pod.uid().unwrap();
    let cgroups = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let parent = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse::<u32>().ok()
    };
    let inside: Vec<u32> =
        processes().into_iter().map(|(pid, _)| pid).filter(|pid| cgroups(*pid).contains(&uid)).collect();
    let of_it = |pid: &u32| parent(*pid).filter(|parent| !inside.contains(parent));
    Pid::from_raw(inside.iter().find_map(of_it).expect("a shim").cast_signed())
}

/// The kubelet reports the end of each of the Pod's containers with exit code 255, which proves nothing: with containerd 2 the
/// processes live on, without a network. Others start only once these have ended, or are fenced.
#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn a_shim_is_killed() {
    let _only = alone().await;
    let listeners = listeners("shim").await;
    listeners.roll_installed("1").await;
    listeners.listen(4, json!({})).await;
    all_flow(&listeners).await;
    let pod = holder(&listeners, "feed-0").await;
    let (epoch, before) = listeners.ownership("feed-0").await;
    kill(shim(&listeners.stage.pods().get(&pod).await.unwrap()), Signal::SIGKILL).unwrap();
    listeners.taken_over("feed-0", (epoch, &before)).await;
    all_flow(&listeners).await;
    judge("shim killed", &listeners, 4, true);
}

/// Its listeners move when they are fenced; its Pods when somebody says that the node does not come back.
#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_goes_away_for_good() {
    let _only = alone().await;
    let listeners = listeners("gone").await;
    listeners.roll_as("1", json!({"replicas": 3}), spread).await;
    listeners.listen(4, json!({})).await;
    all_flow(&listeners).await;
    let is_on = |pod: &Pod, name: &str| pod.spec.as_ref().unwrap().node_name.as_deref() == Some(name);
    let lost: Vec<_> = listeners.stage.live().await.into_iter().filter(|pod| is_on(pod, "kubelet-2")).collect();
    assert!(!lost.is_empty(), "Pods are on both nodes");

    let stopped = stop(&["machine-2", "containerd-2", "kubelet-2"]);
    for pod in &lost {
        listeners.until_held_by_others(90, &pod.name_any()).await;
    }
    for feed in ["feed-0", "feed-1", "feed-2", "feed-3"] {
        listeners.flows(60, feed).await;
    }
    let nodes: Api<Node> = Api::all(listeners.stage.client.clone());
    nodes.delete("kubelet-2", &DeleteParams::default()).await.unwrap();
    listeners.stage.complete(180).await;
    assert!(listeners.stage.live_are(60, 3).await.iter().all(|pod| is_on(pod, "kubelet-1")));
    all_flow(&listeners).await;
    judge("machine gone", &listeners, 4, true);

    drop(stopped);
    let ready = ["wait", "node/kubelet-2", "--for=condition=Ready", "--timeout=5s"];
    tokio::task::block_in_place(|| {
        crate::cluster::support::eventually(90, "the node to come back", || {
            real().cluster.try_kubectl(&ready).status.success()
        });
    });
}

/// An agent dies while its kubelet is away, so its end is not reported: its listeners move once it is fenced.
#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_is_away_while_an_agent_dies() {
    let _only = alone().await;
    let listeners = two_pods("away").await;
    let (epoch, before) = listeners.ownership("feed-0").await;
    let pod = before.split('/').next().unwrap();
    let agent = agent(pod, "feed-0");
    let node = listeners.stage.pods().get(pod).await.unwrap().spec.unwrap().node_name.unwrap();
    let stopped = stop(&[&node]);
    kill(agent, Signal::SIGKILL).unwrap();
    listeners.taken_over("feed-0", (epoch, &before)).await;
    drop(stopped);
    all_flow(&listeners).await;
    judge("agent dies, kubelet dead", &listeners, 4, true);
}
