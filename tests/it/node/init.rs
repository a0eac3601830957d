//! Rows about init containers and sidecars.
use std::fs;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::fixture::{
    Space, condition, container, ended, exists, idle, last_state, looping, main, named_sh, phase, sh, signal, state,
    waiting, with,
};

/// Writes its beginning and end to /shared/order.
fn noted(name: &str, script: &str) -> Value {
    let script = format!("trap 'echo {name}- >>/shared/order; exit 0' TERM; echo {name}+ >>/shared/order; {script}");
    with(named_sh(name, &script), json!({ "volumeMounts": [{ "name": "shared", "mountPath": "/shared" }] }))
}

fn sidecar(container: Value) -> Value {
    with(container, json!({ "restartPolicy": "Always" }))
}

const LOOP: &str = "while :; do sleep 0.1; done";

/// N43
#[tokio::test]
async fn init_containers_run_one_after_the_other_before_the_main_ones() {
    let space = Space::new("n43").await;
    let wait = "until [ -e /shared/go ]; do sleep 0.1; done; echo one- >>/shared/order";
    let init = [noted("one", wait), noted("two", "echo two- >>/shared/order")];
    let spec = json!({ "volumes": [space.shared()], "initContainers": init, "containers": [noted("main", LOOP)] });
    space.create("ordered", spec).await;
    let pod = space
        .until("ordered", 10, "the first init container", |pod| {
            state(container(pod, "one")?).running.map(|_| pod.clone())
        })
        .await;
    assert_eq!(phase(&pod), "Pending");
    assert_eq!(condition(&pod, "Initialized").status, "False");
    assert_eq!(condition(&pod, "Initialized").message.as_deref(), Some("containers with incomplete status: [one two]"));
    for name in ["two", "main"] {
        assert_eq!(waiting(container(&pod, name).unwrap()).unwrap().0, "PodInitializing");
    }
    fs::write(space.folder().join("go"), "").unwrap();
    let pod = space.until_ready("ordered").await;
    space.until_file("order", "one+\none-\ntwo+\ntwo-\nmain+\n").await;
    assert_eq!(condition(&pod, "Initialized").status, "True");
    assert_eq!(ended(container(&pod, "one").unwrap()), Some((0, "Completed".into())));
    assert!(container(&pod, "two").unwrap().ready, "an init container that has succeeded is ready");
}

/// N44
#[tokio::test]
async fn a_failing_init_container_is_retried_with_back_off() {
    let space = Space::new("n44").await;
    space.create("stuck", json!({ "initContainers": [named_sh("init", "exit 9")], "containers": [sh(&idle())] })).await;
    let check = |pod: &Pod| (waiting(container(pod, "init")?)?.0 == "CrashLoopBackOff").then(|| pod.clone());
    let pod = space.until("stuck", 10, "CrashLoopBackOff", check).await;
    let init = container(&pod, "init").unwrap();
    assert_eq!((init.restart_count, last_state(init).terminated.unwrap().exit_code), (1, 9));
    assert_eq!(phase(&pod), "Pending");
    assert_eq!(waiting(main(&pod).unwrap()).unwrap().0, "PodInitializing");
}

/// N45
#[tokio::test]
async fn a_failing_init_container_fails_the_pod_under_never() {
    let space = Space::new("n45").await;
    let spec = json!({
        "restartPolicy": "Never", "initContainers": [named_sh("init", "exit 9")], "containers": [sh(&idle())],
    });
    space.create("failed", spec).await;
    let pod = space.until_phase("failed", "Failed").await;
    assert_eq!(ended(container(&pod, "init").unwrap()).unwrap().0, 9);
    assert!(main(&pod).unwrap().container_id.is_none());
    assert_eq!(condition(&pod, "Initialized").status, "False");
}

/// N46, N49
#[tokio::test]
async fn sidecars_start_in_order_and_gate_what_follows() {
    let space = Space::new("n46").await;
    let probe =
        json!({ "exec": { "command": ["test", "-e", "/shared/up"] }, "periodSeconds": 1, "failureThreshold": 60 });
    let first = with(sidecar(noted("first", LOOP)), json!({ "startupProbe": probe }));
    let init = [first, noted("init", "echo init- >>/shared/order"), sidecar(noted("second", LOOP))];
    let spec = json!({ "volumes": [space.shared()], "initContainers": init, "containers": [noted("main", LOOP)] });
    space.create("gated", spec).await;
    space.until_event("gated", "Unhealthy", "Startup probe failed").await;
    space.until_file("order", "first+\n").await;
    fs::write(space.folder().join("up"), "").unwrap();
    let pod = space.until_ready("gated").await;
    space.until_file("order", "first+\ninit+\ninit-\nsecond+\nmain+\n").await;
    for name in ["first", "second"] {
        let status = container(&pod, name).unwrap();
        assert!(status.ready && status.started == Some(true) && state(status).running.is_some(), "{status:?}");
    }

    // The end, in reverse.
    space.delete("gated").await;
    space.gone("gated", 10).await;
    let order = space.shared_file("order");
    assert!(order.ends_with("main-\nsecond-\nfirst-\n"), "{order}");
}

/// N47
#[tokio::test]
async fn a_sidecar_counts_for_readiness_and_restarts_under_every_policy() {
    let space = Space::new("n47").await;
    fs::write(space.folder().join("ready"), "").unwrap();
    let mount = json!({ "volumeMounts": [{ "name": "shared", "mountPath": "/shared" }] });
    let side = with(sidecar(named_sh("side", "sleep 10000")), mount);
    let side = with(side, json!({ "readinessProbe": exists("ready") }));
    let spec = json!({
        "restartPolicy": "Never", "volumes": [space.shared()], "initContainers": [side], "containers": [sh(&idle())],
    });
    space.create("job", spec).await;
    space.until_ready("job").await;
    fs::remove_file(space.folder().join("ready")).unwrap();
    let unready = |pod: &Pod| (condition(pod, "Ready").status == "False").then(|| pod.clone());
    let pod = space.until("job", 10, "not Ready", unready).await;
    assert_eq!(condition(&pod, "Ready").message.as_deref(), Some("containers with unready status: [side]"));
    fs::write(space.folder().join("ready"), "").unwrap();
    let pod = space.until_ready("job").await;
    let main_id = main(&pod).unwrap().container_id.clone();
    signal("KILL", space.pid(&pod, "side", 0));
    let again = |pod: &Pod| (container(pod, "side")?.restart_count == 1).then(|| pod.clone());
    space.until("job", 10, "the sidecar's restart", again).await;
    let pod = space.until_ready("job").await;
    assert_eq!(main(&pod).unwrap().container_id, main_id);
    assert_eq!(phase(&pod), "Running");
}

/// N48
#[tokio::test]
async fn a_pod_has_succeeded_when_its_main_containers_have_whatever_the_sidecars_do() {
    let space = Space::new("n48").await;
    let script = looping("until [ -e /shared/go ]; do sleep 0.1; done; exit 3");
    let mount = json!({ "volumeMounts": [{ "name": "shared", "mountPath": "/shared" }] });
    let side = with(sidecar(named_sh("side", &script)), mount);
    let spec = json!({
        "restartPolicy": "OnFailure", "volumes": [space.shared()], "initContainers": [side], "containers": [sh("sleep 1")],
    });
    space.create("job", spec).await;
    let completed = |pod: &Pod| (ended(main(pod)?)?.0 == 0).then(|| pod.clone());
    let pod = space.until("job", 10, "the end of the main container", completed).await;
    assert_eq!(phase(&pod), "Running", "as long as the sidecar runs");
    fs::write(space.folder().join("go"), "").unwrap();
    let pod = space.until_phase("job", "Succeeded").await;
    assert_eq!(ended(container(&pod, "side").unwrap()).unwrap().0, 3);
    assert_eq!(ended(main(&pod).unwrap()).unwrap().0, 0);
}
