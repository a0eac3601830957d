//! Nodes of both kinds beside each other, and one that dies.
use std::fs;

use super::support::{TestCluster, eventually, output_of, processes_of, shared, sleepers};

#[test]
fn pods_outlive_their_node_process_but_not_their_cluster() {
    let cluster = TestCluster::start("nodes", "process,kwok:1");
    let of_pod = |path: &str| cluster.kubectl(&["get", "pod", "idle", "-o", &format!("jsonpath={{{path}}}")]);
    let node_is = |state: &str| {
        cluster.kubectl(&["get", "node", "process-1", "--no-headers"]).split_whitespace().nth(1) == Some(state)
    };

    fs::create_dir_all(cluster.dir.join("images/idle/1.0")).unwrap();
    cluster.kubectl(&["run", "idle", "--image=example.local/idle:1.0", "--command", "--", "sleep", "86399"]);
    cluster.kubectl(&["wait", "pod/idle", "--for=condition=Ready", "--timeout=30s"]);
    assert_eq!(of_pod(".spec.nodeName"), "process-1", "without a toleration a simulated node is no choice");
    let pids = sleepers("86399");
    assert_eq!(pids.len(), 1);

    cluster.testbed(&["stop", "process-1", "--kill"]);
    eventually(30, "the node to be NotReady", || node_is("NotReady"));
    assert_eq!(sleepers("86399"), pids);

    cluster.testbed(&["start", "process-1"]);
    eventually(30, "the node to be Ready again", || node_is("Ready"));
    eventually(30, "the Pod to be Ready again", || of_pod(".status.conditions[?(@.type==\"Ready\")].status") == "True");
    assert_eq!(sleepers("86399"), pids);
    assert_eq!(of_pod(".status.containerStatuses[0].restartCount"), "0");

    let dir = cluster.dir.clone();
    let shims = || processes_of(&dir).into_iter().filter(|line| line.contains("node-shim")).count();
    assert_eq!(shims(), 1, "it stands between the node and the Pod's process");
    drop(cluster);
    assert_eq!(sleepers("86399"), [0; 0]);
    assert_eq!(processes_of(&dir), [""; 0]);
}

/// A node process that nobody asked to end is as dead as one that was: the rest goes on.
#[test]
fn a_cluster_outlives_a_node_process_that_is_killed() {
    let cluster = TestCluster::start("node-death", "process");
    let pid = || cluster.pid("process-1");
    output_of(cluster.enter("sh").args(["-c", &format!("kill -KILL {}", pid().unwrap())]));
    eventually(10, "the supervisor to notice", || pid().is_none());
    cluster.testbed(&["start", "process-1"]);
    assert!(pid().is_some());
    let told = fs::read_to_string(cluster.dir.join("supervisor.log")).unwrap();
    assert!(told.contains("process-1 was killed by SIGKILL"), "{told}");
    cluster.kubectl(&["wait", "node/process-1", "--for=condition=Ready", "--timeout=30s"]);
}

/// As the node lifecycle controller makes it unready, whose node was silent for a while.
#[test]
fn a_simulated_pod_that_somebody_made_unready_is_ready_again() {
    let cluster = shared();
    cluster.kubectl(&["create", "namespace", "ready-again"]);
    let kubectl = |args: &[&str]| cluster.kubectl(&[&["--namespace=ready-again"], args].concat());
    let tolerates = r#"{"spec":{"nodeSelector":{"type":"kwok"},"tolerations":[{"operator":"Exists"}]}}"#;
    kubectl(&["run", "pod", "--image=example.local/idle:1.0", "--override-type=strategic", "--overrides", tolerates]);
    kubectl(&["wait", "pod/pod", "--for=condition=Ready", "--timeout=30s"]);
    let unready = r#"{"status":{"conditions":[{"type":"Ready","status":"False"}]}}"#;
    kubectl(&["patch", "pod", "pod", "--subresource=status", "--patch", unready]);
    let types = "jsonpath={.status.conditions[?(@.status==\"True\")].type}";
    let is_ready = || kubectl(&["get", "pod", "pod", "-o", types]).split(' ').any(|type_| type_ == "Ready");
    eventually(30, "the Pod to be Ready again", is_ready);
    assert_eq!(kubectl(&["get", "pod", "pod", "-o", types]).split(' ').count(), 5, "and all that it was before");
}

/// kwok once ended each Pod twice, by name: the second time it might meet the next Pod of that name.
#[test]
fn a_simulated_pod_is_ended_once() {
    let cluster = shared();
    cluster.kubectl(&["create", "namespace", "ended-once"]);
    let run = |name: &str, seconds: u32| {
        let grace = format!(r#"{{"spec":{{"terminationGracePeriodSeconds":{seconds}}}}}"#);
        let image = ["--image=example.local/idle:1.0", "--override-type=strategic"];
        let overrides = format!("--overrides={grace}");
        cluster.kubectl(&[&["run", name, "-n", "ended-once"][..], &image, &[&overrides]].concat());
        let pod = format!("pod/{name}");
        cluster.kubectl(&["wait", &pod, "-n", "ended-once", "--for=condition=Ready", "--timeout=30s"]);
    };
    // Also without grace, where nothing is left for kwok to do.
    for (name, seconds) in [("graceful", 30), ("abrupt", 0)] {
        run(name, seconds);
        cluster.kubectl(&["delete", "pod", name, "-n", "ended-once", "--timeout=30s"]);
    }
    run("last", 30); // kwok has seen the ends of the others by now
    let log = fs::read_to_string(cluster.dir.join("logs/kwok.log")).unwrap();
    let refused: Vec<&str> =
        log.lines().filter(|line| line.contains("ended-once/") && line.contains("ERROR")).collect();
    assert!(refused.is_empty(), "{refused:#?}");
}
