//! A node that is lost, and one whose kubelet alone is.
use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use serde_json::json;

use super::stage::{Listeners, cluster_of, kill_all};
use crate::cluster::support::{TestCluster, eventually};

fn two_nodes() -> &'static TestCluster {
    static CLUSTER: OnceLock<TestCluster> = OnceLock::new();
    CLUSTER.get_or_init(|| cluster_of("listener-nodes", "process:2"))
}

/// L1, L11: a kubelet that is dead says nothing of its Pods, which go on: nothing moves. Once the machine is dead, too,
/// others take over after D, and nobody needs to be told by anybody.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_lost() {
    let cluster = two_nodes();
    let listeners = Listeners::on(cluster, "node-lost", &[]).await;
    let apart = json!([{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}}}]);
    let template = json!({"spec": {"topologySpreadConstraints": apart}});
    listeners.roll("1", json!({"replicas": 2, "template": template})).await;
    listeners.listen(4, json!({})).await;
    listeners.running(60, 4).await;
    let before = listeners.holders().await;
    let (_, holder) = listeners.ownership("feed-0").await;
    let pod = holder.split('/').next().unwrap().to_owned();
    let node = listeners.stage.pods().get(&pod).await.unwrap().spec.unwrap().node_name.unwrap();
    cluster.testbed(&["stop", &node, "--kill"]);
    eventually(30, "the node to be NotReady", || {
        cluster.kubectl(&["get", "node", &node, "--no-headers"]).split_whitespace().nth(1) == Some("NotReady")
    });
    tokio::time::sleep(Duration::from_secs(16)).await; // D
    assert_eq!(listeners.holders().await, before, "it lives, and holds what it has");
    for feed in listeners.verdict().values() {
        assert_eq!(feed["connections"].as_array().map(Vec::len), Some(1), "nothing has stopped: {feed:#}");
    }
    let killed_at = Instant::now();
    kill_all(&pod);
    listeners.until_held_by_others(60, &pod).await;
    println!("taken over {:.1} s after the machine was lost", killed_at.elapsed().as_secs_f64());
    listeners.flows(30, "feed-0").await;
    cluster.testbed(&["start", &node]);
    listeners.running(90, 4).await;
    listeners.judge(4, true);
}
