//! Kubelets, containerds, shims, machines and the API server that end, in the middle of rolls.
use std::time::Duration;

use baton::api::Rollout;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, ResourceExt, api::DeleteParams};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::{
    equipment::{NODES, Stopped, alone, node, real, runtime, spread, stage, web},
    listeners::{
        all_flow, delete_by_force, held_on, holder, judge, listeners, process_of, three, two_pods, with_sidecar,
    },
    processes::lives,
};
use crate::cluster::{
    listener_set::stage::{Listeners, agent},
    rollout::{
        bounds::{Bounds, Worst},
        stage::{Stage, reason},
    },
    support::processes,
};

/// Of both nodes.
const CONTAINERDS: [&str; 2] = ["containerd-1", "containerd-2"];

/// A Rollout of web and one of Pods with listeners, which are rolled again and again.
struct Rolling {
    web: Stage,
    bots: Listeners,
}

impl Rolling {
    async fn new() -> Self {
        let rolling = Self { web: stage("mid-roll-web").await, bots: listeners("mid-roll-bots").await };
        rolling.roll("1.0", "1").await;
        rolling.bots.listen(6, json!({})).await;
        rolling.web.complete(90).await;
        rolling.bots.running(90, 6).await;
        rolling
    }

    async fn roll(&self, web_version: &str, bots_version: &str) {
        let spec = json!({"replicas": 4, "strategy": {"batchSize": 1, "maxSurge": 1, "maxUnavailable": 0}});
        self.web.roll("1", web(web_version, spec)).await;
        self.bots.roll_as(bots_version, three(), spread).await;
    }

    /// Rolls both to this version, has `disturb` happen in the middle, and waits until both are done: no version was blamed, no
    /// listener ran twice, and no Pod was too many.
    async fn disturbed(&self, what: &str, (web_version, bots_version): (&str, &str), disturb: impl FnOnce()) -> Worst {
        let bounds = Bounds::watch(self.web.pods(), 4).await;
        self.roll(web_version, bots_version).await;
        tokio::time::sleep(Duration::from_secs(2)).await; // into the middle of it: what is tested begins now
        for stage in [&self.web, &self.bots.stage] {
            let rollout = stage.until(10, "the roll has begun", is_seen).await;
            assert_ne!(reason(&rollout), "Complete", "{} is in mid-roll", stage.namespace);
        }
        tokio::task::block_in_place(disturb);
        self.web.complete(180).await;
        self.bots.stage.complete(180).await;
        self.bots.running(60, 6).await;
        judge(&format!("{what} killed in mid-roll"), &self.bots, 6, true);
        bounds.assert(0, 5).await;
        let worst = bounds.worst();
        println!("{what} killed in mid-roll: {worst:?}");
        for namespace in [&self.web.namespace, &self.bots.stage.namespace] {
            let is_blamed = |state: &Value| state["object"]["status"]["failed"].is_object();
            let blamed = real().recorder.states("Rollout", namespace).into_iter().find(is_blamed);
            assert!(blamed.is_none(), "no version is to blame: {}", blamed.unwrap_or_default()["object"]["status"]);
        }
        worst
    }
}

/// A kubelet that was killed reports each of its Pods as not Ready for some milliseconds, so no floor is asserted for it.
#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn components_are_killed_in_mid_roll() {
    let _only = alone().await;
    let rolling = Rolling::new().await;
    rolling.disturbed("kubelet", ("1.1", "2"), || cluster(&["restart", "kubelet-1", "--kill"])).await;
    let both = || CONTAINERDS.iter().for_each(|name| cluster(&["restart", name, "--kill"]));
    rolling.disturbed("both containerds", ("1.0", "1"), both).await;
    let api_server = || real().cluster.restart_api_server(&["--kill"]);
    let worst = rolling.disturbed("API server", ("1.1", "2"), api_server).await;
    assert!(worst.available_min >= Some(4), "{worst:?}");
}

/// Its status is about the present spec.
fn is_seen(rollout: &Rollout) -> bool {
    rollout.status.as_ref().and_then(|status| status.observed_generation) == rollout.metadata.generation
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

#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_deleted_by_force_where_no_kubelet_hears_it() {
    let _only = alone().await;
    let listeners = two_pods("unheard", "Fast").await;
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

/// How often what depends on the moment is tried; a run of all tests tries it once.
fn rounds() -> usize {
    std::env::var("ROUNDS").map_or(1, |rounds| rounds.parse().expect("ROUNDS is a number"))
}

/// D1, D5: the kubelet reports the end of each of the Pod's containers with exit code 255, which proves nothing: with containerd 2
/// the processes live on, without a network. Others start only once these have ended, or are fenced.
#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn a_shim_is_killed() {
    let _only = alone().await;
    for (index, agent) in ["own", "install", "sidecar"].into_iter().enumerate() {
        let listeners = listeners(&format!("shim-{agent}")).await;
        match agent {
            "own" => listeners.roll_as("1", three(), spread).await,
            "install" => listeners.roll_installed_as("1", spread).await,
            _ => listeners.roll_as("1", three(), with_sidecar).await,
        }
        listeners.listen(4, json!({})).await;
        all_flow(&listeners).await;
        for round in 1..=rounds() {
            let node = NODES[(index + round) % NODES.len()];
            kill_a_shim(&listeners, node).await;
            judge(
                &format!("{agent}, shim killed under {}", runtime(&listeners.stage, node).await),
                &listeners,
                4,
                true,
            );
        }
        let delete = ["-n", &listeners.stage.namespace, "delete", "rollouts.baton.dev", "web", "--wait=false"];
        tokio::task::block_in_place(|| real().cluster.kubectl(&delete));
    }
}

/// Kills the shim of a Pod on this node that holds listeners, and waits until these run elsewhere and the Pod has come back by itself.
async fn kill_a_shim(listeners: &Listeners, node: &str) {
    let (feed, pod) = held_on(listeners, node).await;
    let (epoch, before) = listeners.ownership(&feed).await;
    let old = process_of(&pod, &feed).unwrap().as_raw().cast_unsigned();
    kill(shim(&listeners.stage.pods().get(&pod).await.unwrap()), Signal::SIGKILL).unwrap();
    listeners.taken_over(&feed, (epoch, &before)).await;
    all_flow(listeners).await;
    // Its processes may have lived on: they end by themselves then.
    listeners.stage.until_ready(120, &pod).await;
    listeners.running(60, 4).await;
    assert!(!lives(old), "what was left has ended");
}

/// A good version is not blamed for a containerd that is killed at any moment of a container's creation.
#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn containerd_is_killed_while_it_makes_containers() {
    let _only = alone().await;
    let stage = stage("creation").await;
    let spec = json!({"replicas": 4, "strategy": {"batchSize": 4, "maxSurge": 0, "maxUnavailable": 4}});
    stage.roll("1", web("1.0", spec.clone())).await;
    stage.complete(90).await;
    for round in 1..=rounds() {
        let version = ["1.0", "1.1"][round % 2];
        stage.roll("1", web(version, spec.clone())).await;
        let is_made = |pod: &Pod| json!(pod.spec)["containers"][0]["image"] == format!("example.local/web:{version}");
        while !stage.live().await.iter().any(|pod| is_made(pod) && !node(pod).is_empty()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // From the moment at which it was scheduled to the one at which its container runs: 2 s.
        tokio::time::sleep(Duration::from_millis(100) * (round % 20) as u32).await;
        for name in CONTAINERDS {
            cluster(&["restart", name, "--kill"]);
        }
        stage.complete(180).await;
        println!("containerd killed {} ms after a Pod was scheduled", 100 * (round % 20));
    }
    let is_blamed = |state: &Value| state["object"]["status"]["failed"].is_object();
    let blamed = real().recorder.states("Rollout", &stage.namespace).into_iter().find(is_blamed);
    assert!(blamed.is_none(), "no version is to blame: {}", blamed.unwrap_or_default()["object"]["status"]);
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
    let lost: Vec<_> = listeners.stage.live().await.into_iter().filter(|pod| node(pod) == NODES[1]).collect();
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
    assert!(listeners.stage.live_are(60, 3).await.iter().all(|pod| node(pod) == NODES[0]));
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
    let listeners = two_pods("away", "Fast").await;
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
