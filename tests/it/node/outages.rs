//! Rows about the node itself: its death, its return, its silence.
use std::{fs, time::Duration};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, api::PostParams};
use serde_json::json;

use super::fixture::{
    Space, cluster, condition, ended, exists, idle, last_state, lives, looping, main, sh, signal, stat, state, until,
    with,
};

/// The status of the node's Ready condition.
async fn ready(space: &Space) -> String {
    let node = Api::<Node>::all(space.client.clone()).get(&space.node).await.unwrap();
    let conditions = node.status.unwrap().conditions.unwrap();
    conditions.into_iter().find(|condition| condition.type_ == "Ready").unwrap().status
}

async fn until_node(space: &Space, wanted: &str) {
    until(40, &format!("the node's Ready to be {wanted}"), async || (ready(space).await == wanted).then_some(())).await;
}

/// N66, N67, N68, N76
#[tokio::test]
async fn pods_outlive_their_node_and_are_taken_up_again() {
    let space = Space::on("process-3", "n66").await;
    for name in ["stays", "ends", "goes"] {
        space.run(name, &sh(&looping("exit 6"))).await;
    }
    let mut pids = Vec::new();
    for name in ["stays", "ends", "goes"] {
        let pod = space.until_up(name).await;
        pids.push(space.pid(&pod, "main", 0));
    }
    let before = space.pods().get("stays").await.unwrap();
    cluster().testbed(&["stop", "process-3", "--kill"]);
    assert!(pids.iter().all(|pid| lives(*pid)));
    // Meanwhile one is deleted, and the process of another ends.
    space.delete("goes").await;
    signal("TERM", pids[1]);
    until(5, "the process to end", async || (!lives(pids[1])).then_some(())).await;
    assert!(lives(pids[2]) && space.pods().get_opt("goes").await.unwrap().is_some(), "nobody ends it");
    assert_eq!(main(&space.pods().get("ends").await.unwrap()).unwrap().restart_count, 0, "nobody tells");

    cluster().testbed(&["start", "process-3"]);
    space.gone("goes", 15).await;
    assert!(!lives(pids[2]));
    let pod = space.until_restarted("ends", 15, 1).await;
    assert_eq!(last_state(main(&pod).unwrap()).terminated.unwrap().exit_code, 6);
    let after = space.until_ready("stays").await;
    assert_eq!(main(&after).unwrap().container_id, main(&before).unwrap().container_id);
    assert_eq!(after.status.unwrap().pod_ip, before.status.unwrap().pod_ip);
    assert!(lives(pids[0]));

    // The same when the node is asked to end.
    cluster().testbed(&["stop", "process-3"]);
    assert!(lives(pids[0]));
    cluster().testbed(&["start", "process-3"]);
    signal("TERM", pids[0]);
    let pod = space.until_restarted("stays", 15, 1).await;
    assert_eq!(last_state(main(&pod).unwrap()).terminated.unwrap().exit_code, 6);
}

/// N68
#[tokio::test]
async fn containers_of_which_the_api_has_never_heard_are_taken_up_too() {
    let space = Space::on("process-7", "n68").await;
    space.control(&["freeze"]); // nothing is told from now on
    let folder = space.folder();
    let probe = json!({ "readinessProbe": exists("ready"), "livenessProbe": exists("alive") });
    let mount = json!({ "volumeMounts": [{ "name": "shared", "mountPath": "/shared" }] });
    let probed = with(with(sh(&idle()), mount), probe);
    let pods = [
        space.run("plain", &sh(&idle())).await,
        space.create("probed", json!({ "volumes": [space.shared()], "containers": [probed] })).await,
    ];
    fs::write(folder.join("alive"), "").unwrap();
    for pod in &pods {
        until(30, "its process", async || space.start_of(pod, "main", 0).exists().then_some(())).await;
    }
    cluster().testbed(&["stop", "process-7", "--kill"]);
    for pod in &pods {
        let pod = space.pods().get(pod.metadata.name.as_ref().unwrap()).await.unwrap();
        assert!(main(&pod).is_none_or(|main| main.container_id.is_none()), "nobody has told");
    }

    cluster().testbed(&["start", "process-7"]);
    let plain = space.until_ready("plain").await;
    assert_eq!((main(&plain).unwrap().started, main(&plain).unwrap().restart_count), (Some(true), 0));
    // Both probes are asked: one that fails so far, and one that will.
    space.until_event("probed", "Unhealthy", "Readiness probe failed").await;
    fs::write(folder.join("ready"), "").unwrap();
    space.until_ready("probed").await;
    fs::remove_file(folder.join("alive")).unwrap();
    space.until_restarted("probed", 15, 1).await;

    // A Pod that cannot be taken up is tried again, without any news of it.
    cluster().testbed(&["stop", "process-7", "--kill"]);
    let alive = space.start_of(&pods[0], "main", 0).with_file_name("alive");
    fs::rename(&alive, alive.with_extension("away")).unwrap();
    cluster().testbed(&["start", "process-7"]);
    let log = || fs::read_to_string(cluster().dir.join("logs/process-7.log")).unwrap();
    until(10, "a failure", async || log().contains("Pod n68/plain: ").then_some(())).await;
    fs::rename(alive.with_extension("away"), &alive).unwrap();
    signal("TERM", space.pid(&pods[0], "main", 0));
    space.until_restarted("plain", 15, 1).await;
}

/// N69
#[tokio::test]
async fn a_frozen_node_is_declared_dead_while_its_pods_go_on() {
    let space = Space::on("process-4", "n69").await;
    for name in ["works", "stays"] {
        space.run(name, &sh(&idle())).await;
    }
    let pod = space.until_ready("works").await;
    let stays = space.until_ready("stays").await;
    let pid = space.pid(&pod, "main", 0);
    space.control(&["freeze"]);
    until_node(&space, "Unknown").await;
    let unready =
        space.until("works", 15, "not Ready", |pod| (condition(pod, "Ready").status == "False").then(|| pod.clone()));
    assert!(state(main(&unready.await).unwrap()).running.is_some(), "the status is as the node told it last");
    // What happens on the node is not told.
    signal("KILL", pid);
    until(5, "a new process", async || space.start_of(&pod, "main", 1).exists().then_some(())).await;
    assert_eq!(main(&space.pods().get("works").await.unwrap()).unwrap().restart_count, 0);
    space.delete("works").await;
    space.control(&["thaw"]);
    until_node(&space, "True").await;
    space.gone("works", 15).await;
    let back = space.until_ready("stays").await;
    assert_eq!(main(&back).unwrap().container_id, main(&stays).unwrap().container_id);
}

/// N70
#[tokio::test]
async fn containers_of_a_node_that_has_lost_its_state_have_ended_somehow() {
    let space = Space::on("process-5", "n70").await;
    space.run("lost", &sh(&idle())).await;
    let spec = json!({ "restartPolicy": "Never", "containers": [sh(&idle())] });
    space.create("once", spec).await;
    let pod = space.until_ready("lost").await;
    let once = space.until_ready("once").await;
    cluster().testbed(&["stop", "process-5", "--kill"]);
    for pod in [&pod, &once] {
        signal("KILL", space.pid(pod, "main", 0));
    }
    fs::remove_dir_all(space.state().join("pods")).unwrap();
    cluster().testbed(&["start", "process-5"]);
    let again = space.until_restarted("lost", 15, 1).await;
    let status = main(&again).unwrap();
    assert_eq!(ended(status), Some((137, "ContainerStatusUnknown".into())));
    assert_ne!(status.container_id, main(&pod).unwrap().container_id);
    let once = space.until_phase("once", "Failed").await;
    assert_eq!(ended(main(&once).unwrap()), Some((137, "ContainerStatusUnknown".into())));
}

/// Kills the shim of the container that runs in this Pod; the process that was in its care.
fn kill_shim(space: &Space, pod: &Pod) -> i32 {
    let pid = space.pid(pod, "main", 0);
    signal("KILL", stat(pid).split(' ').nth(1).unwrap().parse().unwrap());
    pid
}

/// N79
#[tokio::test]
async fn a_container_ends_with_its_shim() {
    let space = Space::new("n79").await;
    let pod = space.run("ends", &sh(&idle())).await;
    space.until_up("ends").await;
    let pid = kill_shim(&space, &pod);
    let pod = space.until_restarted("ends", 15, 1).await;
    assert_eq!(ended(main(&pod).unwrap()), Some((255, "Error".into())));
    assert!(!lives(pid));
}

/// N85
#[tokio::test]
async fn a_process_outlives_its_shim_until_its_pod_is_deleted() {
    let space = Space::new("n85").await;
    let pod = json!({
        "metadata": { "name": "orphan", "annotations": { "testbed.baton.dev/outlives-shim": "true" } },
        "spec": { "nodeName": space.node, "terminationGracePeriodSeconds": 1, "containers": [sh(&idle())] },
    });
    let pod = space.pods().create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    space.until_up("orphan").await;
    let pid = kill_shim(&space, &pod);
    let pod = space.until_restarted("orphan", 15, 1).await;
    assert_eq!(ended(main(&pod).unwrap()), Some((255, "Error".into())));
    space.until_up("orphan").await;
    assert!(lives(pid), "it runs beside the new one");
    space.delete("orphan").await;
    space.gone("orphan", 15).await;
    until(5, "the end of the orphan", async || (!lives(pid)).then_some(())).await;
}

/// N71
#[tokio::test]
async fn a_hundred_pods_run_on_one_node() {
    const PODS: usize = 100;
    let space = Space::on("process-6", "n71").await;
    let probe = json!({ "exec": { "command": ["true"] }, "periodSeconds": 10 });
    for number in 0..PODS {
        let container =
            with(sh("sleep 10000"), if number % 10 == 0 { json!({ "readinessProbe": probe }) } else { json!({}) });
        space
            .create(&format!("pod-{number}"), json!({ "terminationGracePeriodSeconds": 0, "containers": [container] }))
            .await;
    }
    let ready = async || {
        let pods = space.pods().list(&kube::api::ListParams::default()).await.unwrap().items;
        let ready = |pod: &&Pod| condition(pod, "Ready").status == "True";
        (pods.iter().filter(ready).count() == PODS).then_some(())
    };
    until(120, "all to be Ready", ready).await;
    let pid = cluster().pid("process-6").unwrap();
    // utime and stime, in hundredths of a second: the 14th and 15th field.
    let ticks =
        || stat(pid.cast_signed()).split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>();
    // Until what the start of so many Pods has left to do is done.
    let mut used = Vec::new();
    while used.last().is_none_or(|used| *used > 50) {
        assert!(used.len() < 12, "an idle node with {PODS} Pods uses {used:?} hundredths of a second in each 5 s");
        let before = ticks();
        tokio::time::sleep(Duration::from_secs(5)).await; // measured over this time
        used.push(ticks() - before);
    }
    space.kubectl(&["delete", "pods", "--all", "--wait=false"]);
    let none =
        async || space.pods().list(&kube::api::ListParams::default()).await.unwrap().items.is_empty().then_some(());
    until(60, "all to be gone", none).await;
}
