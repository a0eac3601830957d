//! Rows about the end of Pods.
use std::time::{Instant, SystemTime};

use futures::TryStreamExt;
use k8s_openapi::api::{
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, ResourceExt,
    api::{EvictParams, ListParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::{Value, json};

use super::fixture::{
    MUCH_SOONER, Space, condition, container, ended, idle, lives, looping, main, named_sh, phase, sh, stopped, until,
    with,
};

/// Takes no notice of SIGTERM.
fn stubborn() -> String {
    looping("")
}

/// A preStop hook that is over only when a second deletion shortens the grace period: there is time to look around.
fn long_hook() -> Value {
    json!({ "lifecycle": { "preStop": { "sleep": { "seconds": 200 } } } })
}

/// N20
#[tokio::test]
async fn a_process_that_ends_by_itself_is_not_waited_for_longer() {
    let space = Space::new("n20").await;
    space.run("nice", &sh(&idle())).await;
    space.until_up("nice").await;
    space.delete("nice").await;
    space.gone("nice", MUCH_SOONER).await;
}

/// N21
#[tokio::test]
async fn a_process_that_does_not_end_is_killed_after_the_grace_period() {
    let space = Space::new("n21").await;
    let spec = json!({ "terminationGracePeriodSeconds": 3, "containers": [sh(&stubborn())] });
    let pod = space.create("stubborn", spec).await;
    space.until_up("stubborn").await;
    let pid = space.pid(&pod, "main", 0);
    space.delete("stubborn").await;
    let took = space.gone("stubborn", MUCH_SOONER).await.as_secs_f32();
    assert!(took > 2.9, "{took}");
    assert!(!lives(pid));
}

/// Has a Pod deleted and returns it as it was last.
async fn last_of(space: &Space, name: &str, delete: impl AsyncFnOnce()) -> Pod {
    let now = space.pods().get(name).await.unwrap();
    let params = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(120);
    let history = space.pods().watch(&params, &now.resource_version().unwrap()).await.unwrap();
    delete().await;
    let mut history = std::pin::pin!(history);
    loop {
        let event = history.try_next().await.unwrap().expect("its deletion within 120 s");
        if let WatchEvent::Deleted(pod) = event {
            return pod;
        }
    }
}

/// N22
#[tokio::test]
async fn the_api_is_told_how_a_deleted_pod_ended_before_it_goes() {
    let space = Space::new("n22").await;
    for (name, code, phase_at_end) in [("well", 0, "Succeeded"), ("badly", 5, "Failed")] {
        space.run(name, &sh(&looping(&format!("exit {code}")))).await;
        space.until_up(name).await;
        let last = last_of(&space, name, async || space.delete(name).await).await;
        assert_eq!((phase(&last), ended(main(&last).unwrap()).unwrap().0), (phase_at_end, code));
    }
}

/// N23
#[tokio::test]
async fn a_pre_stop_hook_runs_first_and_takes_from_the_grace_period() {
    let space = Space::new("n23").await;
    let script = looping("echo term >>/shared/told; exit 0");
    let fields = json!({
        "volumeMounts": [{ "name": "shared", "mountPath": "/shared" }],
        "lifecycle": { "preStop": { "exec": { "command": ["sh", "-c", "echo hook >>/shared/told; sleep 1; echo done >>/shared/told"] } } },
    });
    space.create("hooked", json!({ "volumes": [space.shared()], "containers": [with(sh(&script), fields)] })).await;
    space.until_up("hooked").await;
    space.delete("hooked").await;
    let took = space.gone("hooked", MUCH_SOONER).await.as_secs_f32();
    assert!(took > 0.9, "{took}");
    assert_eq!(space.shared_file("told"), "hook\ndone\nterm\n");

    // A hook that outlasts the grace period: two more seconds are given.
    let fields = json!({ "lifecycle": { "preStop": { "sleep": { "seconds": 2 } } } });
    let spec = json!({ "terminationGracePeriodSeconds": 2, "containers": [with(sh(&stubborn()), fields)] });
    space.create("late", spec).await;
    space.until_up("late").await;
    space.delete("late").await;
    let took = space.gone("late", MUCH_SOONER).await.as_secs_f32();
    assert!(took > 3.9, "{took}");
}

/// N24
#[tokio::test]
async fn a_failing_pre_stop_hook_is_told_and_the_container_ends_all_the_same() {
    let space = Space::new("n24").await;
    let fields = json!({ "lifecycle": { "preStop": { "exec": { "command": ["sh", "-c", "echo oh no; exit 4"] } } } });
    space.run("hooked", &with(sh(&idle()), fields)).await;
    space.until_up("hooked").await;
    space.delete("hooked").await;
    space.gone("hooked", MUCH_SOONER).await;
    space.until_event("hooked", "FailedPreStopHook", "exited with 4: oh no").await;
}

/// N25
#[tokio::test]
async fn a_pod_deleted_by_force_is_gone_at_once_and_its_process_soon() {
    let space = Space::new("n25").await;
    let script = looping("date +%s.%N >/shared/told");
    let mount = json!({ "volumeMounts": [{ "name": "shared", "mountPath": "/shared" }] });
    let spec = json!({ "volumes": [space.shared()], "containers": [with(sh(&script), mount)] });
    let pod = space.create("forced", spec).await;
    space.until_up("forced").await;
    let pid = space.pid(&pod, "main", 0);
    let begun = SystemTime::now();
    space.delete_with_grace("forced", 0).await;
    assert!(space.pods().get_opt("forced").await.unwrap().is_none());
    until(MUCH_SOONER, "the process to be killed", async || (!lives(pid)).then_some(())).await;
    let ended = begun.elapsed().unwrap().as_secs_f64();
    assert!(ended > 1.9, "{ended}");
    // SIGTERM comes first: at least two seconds before SIGKILL, and that may be late on a busy machine.
    let told: f64 = space.shared_file("told").trim().parse().expect("SIGTERM reaches it");
    let told = told - begun.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(told < ended - 1.5, "{told} {ended}");
}

/// N26
#[tokio::test]
async fn a_node_can_be_told_to_keep_the_processes_of_pods_deleted_by_force() {
    let space = Space::on("process-2", "n26").await;
    space.control(&["keep-force-deleted", "4"]);
    // By force at once; or, as usual, after a deletion that the process has not obeyed.
    for (name, script, obeys) in [("at-once", idle(), true), ("later", stubborn(), false)] {
        let pod = space.run(name, &sh(&script)).await;
        space.until_up(name).await;
        let pid = space.pid(&pod, "main", 0);
        if !obeys {
            space.delete(name).await;
        }
        let begun = Instant::now();
        space.delete_with_grace(name, 0).await;
        until(MUCH_SOONER, "the process to end", async || (!lives(pid)).then_some(())).await;
        let took = begun.elapsed().as_secs_f32();
        assert!(took > 3.9, "{name}: {took}");
    }

    // Meanwhile another Pod may have the name: it is the one that is meant.
    space.control(&["keep-force-deleted", "3600"]);
    for round in 0..4 {
        let script = format!("echo round {round}; exec sleep 10000");
        let pod = space.run("twin", &sh(&script)).await;
        space.until_ready("twin").await;
        space.until_log("twin", &format!("round {round}\n")).await;
        let pid = space.pid(&pod, "main", 0);
        space.control(&["pause", &space.namespace, "twin"]);
        until(5, "it to stop", async || stopped(pid).then_some(())).await;
        space.delete_with_grace("twin", 0).await;
    }
}

/// N27
#[tokio::test]
async fn a_terminating_pod_leaves_its_service_while_its_own_condition_stays() {
    let space = Space::new("n27").await;
    let service =
        json!({ "metadata": { "name": "web" }, "spec": { "selector": { "app": "slow" }, "ports": [{ "port": 80 }] } });
    let services = Api::<Service>::namespaced(space.client.clone(), &space.namespace);
    services.create(&PostParams::default(), &serde_json::from_value(service).unwrap()).await.unwrap();
    space.run("slow", &with(sh(&idle()), long_hook())).await;
    space.until_up("slow").await;
    let slices = Api::<EndpointSlice>::namespaced(space.client.clone(), &space.namespace);
    let conditions = async || {
        let slices = slices.list(&ListParams::default().labels("kubernetes.io/service-name=web")).await.unwrap();
        let endpoint = slices.items.into_iter().filter_map(|slice| slice.endpoints).flatten().next()?;
        let conditions = endpoint.conditions?;
        Some((conditions.ready?, conditions.serving?, conditions.terminating?))
    };
    until(10, "the endpoint to be ready", async || (conditions().await? == (true, true, false)).then_some(())).await;
    space.delete("slow").await;
    until(5, "the endpoint to leave", async || (conditions().await? == (false, true, true)).then_some(())).await;
    let pod = space.pods().get("slow").await.unwrap();
    assert_eq!(condition(&pod, "Ready").status, "True");
    space.delete_with_grace("slow", 1).await;
    space.gone("slow", MUCH_SOONER).await;
}

/// N28
#[tokio::test]
async fn a_second_deletion_shortens_the_grace_period() {
    let space = Space::new("n28").await;
    space.run("shortened", &sh(&stubborn())).await;
    space.until_up("shortened").await;
    space.delete("shortened").await;
    space.until("shortened", 5, "deletionTimestamp", |pod| pod.metadata.deletion_timestamp.clone()).await;
    space.delete_with_grace("shortened", 1).await;
    space.gone("shortened", MUCH_SOONER).await;
}

/// N29
#[tokio::test]
async fn a_pod_of_which_nothing_has_started_is_gone_at_once() {
    let space = Space::new("n29").await;
    space.run("never", &with(sh(&idle()), json!({ "image": "example.local/none:1.0" }))).await;
    space.until_waiting("never", 10, "ErrImagePull").await;
    space.delete("never").await;
    space.gone("never", MUCH_SOONER).await;
}

/// N30
#[tokio::test]
async fn an_evicted_pod_ends_as_a_deleted_one() {
    let space = Space::new("n30").await;
    space.run("evicted", &with(sh(&idle()), long_hook())).await;
    space.until_up("evicted").await;
    let evict = async || {
        space.pods().evict("evicted", &EvictParams::default()).await.unwrap();
        let pod = space.until("evicted", 5, "DisruptionTarget", |pod| {
            (condition(pod, "DisruptionTarget").status == "True").then(|| pod.clone())
        });
        let pod = pod.await;
        assert!(pod.metadata.deletion_timestamp.is_some());
        assert!(main(&pod).unwrap().ready, "its hook runs first");
        space.delete_with_grace("evicted", 1).await;
    };
    let last = last_of(&space, "evicted", evict).await;
    assert_eq!((phase(&last), ended(main(&last).unwrap()).unwrap().0), ("Succeeded", 0));
    assert_eq!(condition(&last, "DisruptionTarget").status, "True");
}

/// N31
#[tokio::test]
async fn containers_are_not_restarted_once_their_pod_terminates() {
    let space = Space::new("n31").await;
    let quick = named_sh("quick", &looping("exit 1"));
    space.create("both", json!({ "containers": [quick, with(sh(&idle()), long_hook())] })).await;
    space.until_up("both").await;
    space.until_log_of("both", "quick", "up").await;
    space.delete("both").await;
    let pod = space
        .until("both", 5, "the first container's end", |pod| {
            (ended(container(pod, "quick")?)?.0 == 1).then(|| pod.clone())
        })
        .await;
    assert!(main(&pod).unwrap().ready, "the other still has its hook to run");
    assert_eq!(condition(&pod, "ContainersReady").message.as_deref(), Some("containers with unready status: [quick]"));
    assert_eq!(container(&pod, "quick").unwrap().restart_count, 0);
    space.delete_with_grace("both", 1).await;
    space.gone("both", MUCH_SOONER).await;
}
