//! Faults in mid-roll: Pods, nodes, the operator, the API server, the network.
use std::{
    collections::BTreeSet,
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use baton::api::{Rollout, RolloutStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{EvictParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::{
    bounds::Bounds,
    stage::{Stage, real, reason, run, simulated, slots, with_crds},
};
use crate::cluster::support::{TESTBED, TestCluster};

/// Slow enough to meddle with: a batch of one at a time, each available a second later.
fn slow(replicas: i32) -> Value {
    json!({"replicas": replicas, "minReadySeconds": 1, "strategy": {"batchSize": 1, "maxSurge": 1, "maxUnavailable": 0}})
}

async fn in_mid_roll(stage: &Stage, replicas: i32, done: i32) {
    stage.roll("1", slow(replicas)).await;
    stage.complete(60).await;
    stage.roll("2", slow(replicas)).await;
    stage
        .until(60, "in mid-roll", |r| r.status.as_ref().unwrap().updated_replicas >= done && reason(r) == "RollingOut")
        .await;
}

#[tokio::test]
async fn evicted_pods_are_replaced_and_are_no_failure() {
    let stage = Stage::new(simulated(), "fault-eviction").await;
    in_mid_roll(&stage, 5, 2).await;
    for pod in stage.live().await {
        let name = pod.metadata.name.unwrap();
        // The roll may have taken it away since.
        if let Err(error) = stage.pods().evict(&name, &EvictParams::default()).await {
            assert!(matches!(&error, kube::Error::Api(status) if status.is_not_found()), "{error}");
        }
    }
    let rollout = stage.complete(90).await;
    let status = rollout.status.unwrap();
    assert!(status.failed.is_none(), "{:?}", status.failed);
    assert_eq!(status.versions[0].version, "2");
    assert_eq!(stage.live().await.len(), 5);
}

#[tokio::test]
async fn status_wiped_by_hand_costs_nothing() {
    let stage = Stage::new(simulated(), "fault-status").await;
    in_mid_roll(&stage, 5, 2).await;
    let bounds = Bounds::watch(stage.pods(), 5).await;
    let before = stage.rollouts().get("web").await.unwrap();
    let new = before.status.unwrap().update_revision.unwrap();
    let done: Vec<Pod> =
        stage.live().await.into_iter().filter(|pod| slots(std::slice::from_ref(pod))[0].1 == new).collect();
    assert!(!done.is_empty());
    let wipe = json!([{"op": "replace", "path": "/status", "value": {"conditions": []}}]);
    let patch = Patch::<Value>::Json(serde_json::from_value(wipe).unwrap());
    stage.rollouts().patch_status("web", &PatchParams::default(), &patch).await.unwrap();
    stage.complete(90).await;
    bounds.assert(5, 6).await;
    let live = stage.live().await;
    assert_eq!(slots(&live), (0..5).map(|slot| (slot, new.clone())).collect::<Vec<_>>());
    for pod in done {
        assert!(
            live.iter().any(|live| live.metadata.uid == pod.metadata.uid),
            "{:?} was done and is gone",
            pod.metadata.name
        );
    }
}

#[tokio::test]
async fn deleted_and_recreated_while_its_pods_terminate() {
    let stage = Stage::new(simulated(), "fault-recreate").await;
    stage.roll("1", json!({"replicas": 2})).await;
    stage.complete(30).await;
    let hold = json!({"metadata": {"finalizers": ["test.baton.dev/hold"]}});
    let names: Vec<String> = stage.live().await.into_iter().filter_map(|pod| pod.metadata.name).collect();
    for name in &names {
        stage.pods().patch(name, &PatchParams::default(), &Patch::Merge(&hold)).await.unwrap();
    }
    stage.cluster.kubectl(&["-n", &stage.namespace, "delete", "rollout.baton.dev/web"]);
    stage.roll("1", json!({"replicas": 2})).await;
    stage.complete(60).await;
    let live = stage.live_are(90, 2).await; // the garbage collector learns of a new CRD only after half a minute
    assert!(
        live.iter().all(|pod| !names.contains(pod.metadata.name.as_ref().unwrap())),
        "the old ones hold their names"
    );
    let release = json!({"metadata": {"finalizers": null}});
    for name in &names {
        stage.pods().patch(name, &PatchParams::default(), &Patch::Merge(&release)).await.unwrap();
    }
    stage.complete(30).await;
    let uids: Vec<_> = live.iter().map(|pod| &pod.metadata.uid).collect();
    assert!(stage.live().await.iter().all(|pod| uids.contains(&&pod.metadata.uid)), "the new ones stay");
}

/// Killed without warning before, in and after every batch: each successor goes on where it was, bounds never broken.
#[tokio::test]
async fn the_operator_killed_before_during_and_after_batches() {
    let mut stage = Stage::new(simulated(), "fault-kill").await;
    let spec = json!({"replicas": 6, "minReadySeconds": 1,
        "strategy": {"batchSize": 2, "maxSurge": 1, "maxUnavailable": 1}});
    stage.roll("1", spec.clone()).await;
    let before = run(&stage.complete(60).await);
    let mut leaders = vec![stage.next_leader("").await];
    stage.kill_operator();
    let bounds = Bounds::watch(stage.pods(), 6).await;
    stage.roll("2", spec).await;
    // (batch in work, instances at the new version, all of them available) when the leader is killed
    let moments =
        [(1, 0, false), (1, 1, false), (1, 2, true), (2, 2, false), (2, 3, false), (3, 4, true), (3, 5, false)];
    let mut killed_in_batch = 0;
    for moment in moments {
        stage.start_operator();
        leaders.push(stage.next_leader(leaders.last().unwrap()).await);
        let is_reached = |rollout: &Rollout| run(rollout) > before && reached(rollout) >= moment;
        let rollout = stage.until(60, &format!("{moment:?}"), is_reached).await;
        stage.kill_operator();
        let batch = rollout.status.unwrap().batch.unwrap();
        killed_in_batch += usize::from(batch.updated < batch.opened);
    }
    assert!(killed_in_batch >= 3, "{killed_in_batch}: the roll is too fast for this test");
    stage.start_operator();
    let rollout = stage.complete(120).await;
    leaders.push(stage.next_leader(leaders.last().unwrap()).await);
    assert_eq!(leaders.iter().collect::<BTreeSet<_>>().len(), 2 + moments.len(), "each led: {leaders:?}");
    assert_eq!(run(&rollout), before + 1, "one run");
    assert_eq!(rollout.status.unwrap().versions[0].version, "2");
    bounds.assert(5, 7).await;
    assert_eq!(bounds.worst().created.len(), 6, "one new Pod an instance: {:?}", bounds.worst().created);
}

/// How far a run is: the batch in work, instances at its version, whether those of the batch are available.
fn reached(rollout: &Rollout) -> (i32, i32, bool) {
    let status = rollout.status.clone().unwrap_or_default();
    let batch = status.batch.unwrap_or_default();
    (batch.index, status.updated_replicas, batch.opened > 0 && batch.updated >= batch.opened)
}

/// A cluster whose API server and node are stopped at will: tests that use it take turns.
async fn broken_at_will() -> (&'static TestCluster, tokio::sync::MutexGuard<'static, ()>) {
    static CLUSTER: OnceLock<TestCluster> = OnceLock::new();
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let turn = TURN.lock().await;
    (CLUSTER.get_or_init(|| with_crds("rollouts-faults", "kwok:2,process")), turn)
}

/// The simulated nodes of a cluster with both kinds are tainted.
fn on_simulated_nodes(mut spec: Value) -> Value {
    let toleration = json!([{"key": "kwok.x-k8s.io/node", "operator": "Exists"}]);
    let pod = json!({"template": {"spec": {"tolerations": toleration, "nodeSelector": {"type": "kwok"}}}});
    super::stage::merge(&mut spec, pod);
    spec
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_server_restarted_in_mid_roll() {
    let (cluster, _turn) = broken_at_will().await;
    let stage = Stage::new(cluster, "fault-apiserver").await;
    stage.roll("1", on_simulated_nodes(slow(5))).await;
    stage.complete(60).await;
    let bounds = Bounds::watch(stage.pods(), 5).await;
    stage.roll("2", on_simulated_nodes(slow(5))).await;
    stage
        .until(60, "in mid-roll", |r| reason(r) == "RollingOut" && r.status.as_ref().unwrap().updated_replicas >= 2)
        .await;
    cluster.testbed(&["restart", "kube-apiserver", "--kill"]);
    let rollout = stage.complete(120).await;
    assert_eq!(rollout.status.unwrap().versions[0].version, "2");
    assert_eq!(stage.live().await.len(), 5);
    bounds.assert(5, 6).await;
    assert_eq!(bounds.worst().created.len(), 5, "{:?}", bounds.worst().created);
}

/// A node dies; its Pods are deleted and never end. Their slots are filled elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_with_its_pods_terminating() {
    let (cluster, _turn) = broken_at_will().await;
    let stage = Stage::new(cluster, "fault-node").await;
    let toleration = json!([{"key": "kwok.x-k8s.io/node", "operator": "Exists"}]);
    let prefers_real = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 100, "preference": {"matchExpressions": [{"key": "type", "operator": "NotIn", "values": ["kwok"]}]}}]}});
    let spec = json!({"replicas": 2, "template": {"spec": {"tolerations": toleration, "affinity": prefers_real}}});
    super::stage::image(cluster, "sleeper", "1", super::stage::SLEEPER);
    stage.roll("1", spec).await;
    stage.complete(60).await;
    cluster.testbed(&["stop", "process-1", "--kill"]);
    // The scheduler learns of a dead node only after its grace period; nothing new may land there until then.
    cluster.kubectl(&["cordon", "process-1"]);
    let names: Vec<String> = stage.live().await.into_iter().filter_map(|pod| pod.metadata.name).collect();
    for name in &names {
        stage.delete_pod(name).await;
    }
    // The deletions are never confirmed: the node is silent.
    let filled = |status: &RolloutStatus| status.available_replicas == 2 && status.terminating_replicas == 2;
    stage
        .until(120, "slots filled elsewhere, the old Pods still Terminating", |rollout| {
            reason(rollout) == "Complete" && rollout.status.as_ref().is_some_and(filled)
        })
        .await;
    cluster.testbed(&["start", "process-1"]);
    cluster.kubectl(&["uncordon", "process-1"]);
    stage.until(60, "the old Pods gone", |r| r.status.as_ref().unwrap().terminating_replicas == 0).await;
}

/// A watch that goes silent: the connection stays open, nothing comes. The watchdog rebuilds it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_goes_silent() {
    let mut stage = Stage::without_operator(simulated(), "fault-silent").await;
    let proxy = Proxy::start(&stage);
    stage.kubeconfig = proxy.kubeconfig(&stage);
    stage.bind = "127.0.0.1:18080".to_owned(); // below those that are given out
    stage.operator_args = ["--watch-silence-seconds", "6"].map(str::to_owned).into();
    stage.start_operator();
    stage.roll("1", slow(4)).await;
    let before = run(&stage.complete(60).await);
    let leader = stage.next_leader("").await;
    let bounds = Bounds::watch(stage.pods(), 4).await;
    stage.roll("2", slow(4)).await;
    stage
        .until(60, "in mid-roll", |r| reason(r) == "RollingOut" && r.status.as_ref().unwrap().updated_replicas >= 1)
        .await;
    let silences = |kind: &str| -> u64 {
        let counter = format!("baton_watch_ends_total{{kind=\"{kind}\",cause=\"silent\"}} ");
        stage.metrics().lines().find_map(|line| line.strip_prefix(&counter)?.parse().ok()).unwrap_or(0)
    };
    assert!(stage.metrics().contains("\nbaton_watch_ends"));
    let before_it = ["Pod", "Rollout"].map(silences); // a busy machine may have had one
    proxy.tell("freeze");
    let rollout = stage.complete(240).await;
    // Without these the fault was none.
    let since = ["Pod", "Rollout"].map(silences);
    assert!(since.iter().zip(before_it).all(|(now, before)| *now > before), "{}", stage.metrics());
    assert_eq!(rollout.status.as_ref().unwrap().versions[0].version, "2");
    assert_eq!(run(&rollout), before + 1);
    bounds.assert(4, 5).await;
    assert_eq!(bounds.worst().created.len(), 4, "{:?}", bounds.worst().created);
    assert_eq!(stage.next_leader("").await, leader, "the same process recovered");
}

/// A byte forwarder in front of the API server.
pub struct Proxy {
    process: Child,
    pub address: String,
    control: std::path::PathBuf,
}

impl Proxy {
    pub fn start(stage: &Stage) -> Self {
        use std::io::{BufRead, BufReader};
        let kubeconfig = std::fs::read_to_string(&stage.cluster.kubeconfig).unwrap();
        let server = kubeconfig
            .split("https://")
            .nth(1)
            .unwrap()
            .split_whitespace()
            .next()
            .unwrap()
            .trim_matches('"')
            .to_owned();
        let control = stage.cluster.dir.join(format!("{}.sock", stage.namespace));
        // Inside, where the operator is: its 127.0.0.1 is not the machine's.
        let mut process = stage
            .cluster
            .enter(TESTBED)
            .args(["proxy", "--listen", "127.0.0.1:0", "--upstream", &server, "--control"])
            .arg(&control)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().unwrap().to_owned();
        Self { process, address, control }
    }

    fn kubeconfig(&self, stage: &Stage) -> std::path::PathBuf {
        let text = std::fs::read_to_string(&stage.cluster.kubeconfig).unwrap();
        let server =
            text.split("https://").nth(1).unwrap().split_whitespace().next().unwrap().trim_matches('"').to_owned();
        let path = stage.cluster.dir.join(format!("{}.kubeconfig", stage.namespace));
        std::fs::write(&path, text.replace(&server, &self.address)).unwrap();
        path
    }

    pub fn tell(&self, word: &str) {
        let told =
            Command::new(TESTBED).args(["proxy", "--tell", word, "--control"]).arg(&self.control).status().unwrap();
        assert!(told.success());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// B7 B10: a version that exits at start; the old instances stay.
#[tokio::test]
async fn a_version_that_exits_at_start_is_rolled_back() {
    let stage = Stage::new(real(), "fault-crash").await;
    // Without a probe a container is Ready as soon as it runs, for a moment also this one.
    let spec =
        json!({"replicas": 4, "minReadySeconds": 2, "strategy": {"batchSize": 2, "maxSurge": 1, "maxUnavailable": 1}});
    stage.roll("1", spec.clone()).await;
    stage.complete(60).await;
    let bounds = Bounds::watch(stage.pods(), 4).await;
    let before = run(&stage.rollouts().get("web").await.unwrap());
    stage.roll("broken", spec).await;
    let rollout = stage.until(120, "RolledBack", |rollout| reason(rollout) == "RolledBack").await;
    assert_eq!(run(&rollout), before + 2, "the run that failed, and the way back");
    let status = rollout.status.unwrap();
    assert_eq!((status.versions.len(), status.versions[0].version.as_str()), (1, "1"));
    assert_eq!(status.failed.unwrap().reason, "CrashLoopBackOff");
    bounds.assert(3, 5).await;
}

/// B7: an image that does not exist is given a minute, then it is rolled back.
#[tokio::test]
async fn an_image_that_does_not_exist_is_rolled_back() {
    let stage = Stage::new(real(), "fault-image").await;
    let spec = json!({"replicas": 2, "strategy": {"maxSurge": 1, "maxUnavailable": 0}});
    stage.roll("1", spec.clone()).await;
    stage.complete(60).await;
    let old: Vec<_> = stage.live().await.into_iter().map(|pod| pod.metadata.uid).collect();
    stage.roll("missing", spec).await;
    let rollout = stage.until(150, "RolledBack", |rollout| reason(rollout) == "RolledBack").await;
    let failed = rollout.status.unwrap().failed.unwrap();
    assert!(matches!(failed.reason.as_str(), "ErrImagePull" | "ImagePullBackOff"), "{failed:?}");
    let live: Vec<_> = stage.live().await.into_iter().map(|pod| pod.metadata.uid).collect();
    assert_eq!(old, live, "the old instances never left");
}
