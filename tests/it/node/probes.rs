//! Rows about probes and hooks.
use std::{fs, time::Instant};

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::fixture::{
    MUCH_SOONER, Space, cluster, condition, container, exists, idle, last_state, looping, main, named_sh, sh, state,
    stopped, until, waiting, with,
};
use crate::{cluster::support::sleepers, testbed::web};

/// A container `main` that idles, with `/shared` and further fields.
fn watched(fields: Value) -> Value {
    let mounted = with(sh(&idle()), json!({ "volumeMounts": [{ "name": "shared", "mountPath": "/shared" }] }));
    with(mounted, fields)
}

/// N32
#[tokio::test]
async fn readiness_follows_its_probe() {
    let space = Space::new("n32").await;
    let probe = json!({ "readinessProbe": exists("ready") });
    space.create("flaps", json!({ "volumes": [space.shared()], "containers": [watched(probe)] })).await;
    let pod = space.until_phase("flaps", "Running").await;
    assert_eq!(condition(&pod, "Ready").reason.as_deref(), Some("ContainersNotReady"));
    assert_eq!(condition(&pod, "Ready").message.as_deref(), Some("containers with unready status: [main]"));
    let started = |pod: &k8s_openapi::api::core::v1::Pod| main(pod)?.started.filter(|started| *started);
    space.until("flaps", 5, "started", started).await;
    for round in 0..2 {
        fs::write(space.folder().join("ready"), "").unwrap();
        space.until_ready("flaps").await;
        fs::remove_file(space.folder().join("ready")).unwrap();
        let unready = space
            .until("flaps", 5, "not Ready", |pod| (condition(pod, "Ready").status == "False").then(|| pod.clone()));
        assert_eq!(main(&unready.await).unwrap().restart_count, 0, "round {round}");
    }
    space.until_event("flaps", "Unhealthy", "Readiness probe failed").await;
}

/// N33
#[tokio::test]
async fn a_readiness_gate_holds_until_its_condition_is_true() {
    let space = Space::new("n33").await;
    let gate = "example.com/in-service";
    let spec = json!({ "readinessGates": [{ "conditionType": gate }], "containers": [sh(&idle())] });
    space.create("gated", spec).await;
    let ready_is = async |status: &str, part: &str| {
        let check = |pod: &k8s_openapi::api::core::v1::Pod| {
            let ready = condition(pod, "Ready");
            let message = ready.message.unwrap_or_default();
            (ready.status == status && message.contains(part)).then(|| pod.clone())
        };
        space.until("gated", 10, part, check).await
    };
    let pod = ready_is("False", "readiness gate \"example.com/in-service\" does not exist").await;
    assert_eq!(condition(&pod, "ContainersReady").status, "True");
    assert_eq!(condition(&pod, "Ready").reason.as_deref(), Some("ReadinessGatesNotReady"));
    for (status, ready, part) in
        [("True", "True", ""), ("False", "False", "is not \"True\", but False"), ("True", "True", "")]
    {
        let conditions = json!([{ "type": gate, "status": status }]);
        space.patch_status("gated", json!({ "status": { "conditions": conditions } })).await;
        let pod = ready_is(ready, part).await;
        assert_eq!(condition(&pod, gate).status, status, "the node leaves conditions of others alone");
    }
}

/// N34
#[tokio::test]
async fn a_container_that_fails_its_liveness_probe_is_ended_with_grace_and_restarted() {
    let space = Space::new("n34").await;
    fs::write(space.folder().join("alive"), "").unwrap();
    let script = "trap 'echo term >>/shared/told; exit 0' TERM; touch /shared/alive; echo up >/shared/up; while :; do sleep 0.1; done";
    let mut fields = json!({ "livenessProbe": exists("alive"), "command": ["sh", "-c", script] });
    fields["livenessProbe"]["failureThreshold"] = json!(2);
    space.create("live", json!({ "volumes": [space.shared()], "containers": [watched(fields)] })).await;
    space.until_file("up", "up\n").await; // else the script could make the file that is taken away now
    fs::remove_file(space.folder().join("alive")).unwrap();
    let begun = Instant::now();
    let pod = space.until_restarted("live", 10, 1).await;
    assert!(begun.elapsed().as_secs_f32() > 0.9, "two failures a second apart: {:?}", begun.elapsed());
    assert_eq!(space.shared_file("told"), "term\n");
    assert_eq!(main(&pod).unwrap().restart_count, 1);
    space.until_event("live", "Unhealthy", "Liveness probe failed").await;
    space.until_event("live", "Killing", "failed liveness probe, will be restarted").await;
}

/// N35
#[tokio::test]
async fn a_startup_probe_keeps_the_others_waiting() {
    let space = Space::new("n35").await;
    let startup = with(exists("up"), json!({ "failureThreshold": 30 }));
    let fields =
        json!({ "startupProbe": startup, "livenessProbe": exists("alive"), "readinessProbe": exists("ready") });
    fs::write(space.folder().join("ready"), "").unwrap();
    space.create("slow", json!({ "volumes": [space.shared()], "containers": [watched(fields)] })).await;
    space.until_phase("slow", "Running").await;
    // The liveness probe would have ended it by now.
    space.until_event("slow", "Unhealthy", "Startup probe failed").await;
    let pod = space.pods().get("slow").await.unwrap();
    let status = main(&pod).unwrap();
    assert_eq!((status.started, status.ready, status.restart_count), (Some(false), false, 0));
    assert!(space.events("slow", "Killing").await.is_empty());
    fs::write(space.folder().join("alive"), "").unwrap();
    fs::write(space.folder().join("up"), "").unwrap();
    let pod = space.until_ready("slow").await;
    assert_eq!((main(&pod).unwrap().started, main(&pod).unwrap().restart_count), (Some(true), 0));
}

/// N36
#[tokio::test]
async fn a_container_that_does_not_start_up_in_time_is_restarted() {
    let space = Space::new("n36").await;
    let fields = json!({ "startupProbe": with(exists("up"), json!({ "failureThreshold": 2 })) });
    space.create("never", json!({ "volumes": [space.shared()], "containers": [watched(fields)] })).await;
    space.until_restarted("never", 15, 1).await;
    space.until_event("never", "Killing", "failed startup probe, will be restarted").await;
}

/// The image of the web example.
fn web_image() -> &'static str {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let folder = cluster().dir.join("images/web/1.0");
        fs::create_dir_all(&folder).unwrap();
        fs::copy(web::program(), folder.join("web")).unwrap();
    });
    "example.local/web:1.0"
}

/// N37, N38
#[tokio::test]
async fn probes_by_http_and_tcp_ask_the_pod_address() {
    let space = Space::new("n37").await;
    let probes = [
        ("found", json!({ "httpGet": { "path": "/readyz", "port": "http" } }), true),
        ("missing", json!({ "httpGet": { "path": "/nothing", "port": 8080 } }), false),
        ("open", json!({ "tcpSocket": { "port": "http" } }), true),
        ("closed", json!({ "tcpSocket": { "port": 8081 } }), false),
    ];
    for (name, probe, _) in &probes {
        let container = json!({
            "name": "main", "image": web_image(), "command": ["web"],
            "ports": [{ "name": "http", "containerPort": 8080 }],
            "readinessProbe": with(probe.clone(), json!({ "periodSeconds": 1 })),
        });
        space.run(name, &container).await;
    }
    for (name, _, succeeds) in &probes {
        if *succeeds {
            space.until_ready(name).await;
        }
    }
    space.until_event("missing", "Unhealthy", "Readiness probe failed: HTTP status 404").await;
    space.until_event("closed", "Unhealthy", "Connection refused").await;
    for name in ["missing", "closed"] {
        assert_eq!(condition(&space.pods().get(name).await.unwrap(), "Ready").status, "False");
    }
}

/// N39
#[tokio::test]
async fn a_probe_that_takes_too_long_has_failed() {
    let space = Space::new("n39").await;
    fs::write(space.folder().join("hang"), "").unwrap();
    // No other process of the machine sleeps for so long.
    let script = "[ -e /shared/hang ] && exec sleep 86397; exit 1";
    let probe = json!({ "exec": { "command": ["sh", "-c", script] }, "periodSeconds": 1, "timeoutSeconds": 1 });
    let containers = [watched(json!({ "readinessProbe": probe }))];
    space.create("hangs", json!({ "volumes": [space.shared()], "containers": containers })).await;
    space.until_event("hangs", "Unhealthy", "timed out after 1 s").await;
    assert!(!main(&space.pods().get("hangs").await.unwrap()).unwrap().ready);
    fs::remove_file(space.folder().join("hang")).unwrap();
    until(10, "the command to be killed", async || sleepers("86397").is_empty().then_some(())).await;
    space.until_event("hangs", "Unhealthy", "Readiness probe failed").await;
    space.delete("hangs").await;
    space.gone("hangs", MUCH_SOONER).await;
}

/// N40
#[tokio::test]
async fn a_container_is_not_running_before_its_post_start_hook_has_ended() {
    let space = Space::new("n40").await;
    let wait = "until [ -e /shared/go ]; do sleep 0.1; done";
    let fields = json!({ "lifecycle": { "postStart": { "exec": { "command": ["sh", "-c", wait] } } } });
    space.create("hooked", json!({ "volumes": [space.shared()], "containers": [watched(fields)] })).await;
    space.until_event("hooked", "Started", "").await;
    let made = |pod: &Pod| main(pod).filter(|container| container.container_id.is_some()).cloned();
    let container = space.until("hooked", 5, "its container exists", made).await;
    let (reason, _) = waiting(&container).expect("it does not count as running");
    assert_eq!(reason, "ContainerCreating");
    fs::write(space.folder().join("go"), "").unwrap();
    space.until_ready("hooked").await;

    let fails = json!({ "lifecycle": { "postStart": { "exec": { "command": ["false"] } } } });
    // The hook may fail before the shell has its trap: then nothing but the end of the grace period ends it.
    let containers = [with(sh(&idle()), fails)];
    space.create("fails", json!({ "terminationGracePeriodSeconds": 1, "containers": containers })).await;
    space.until_event("fails", "FailedPostStartHook", "exited with 1").await;
    let restarts = |pod: &k8s_openapi::api::core::v1::Pod| (main(pod)?.restart_count > 0).then_some(());
    space.until("fails", 10, "a restart", restarts).await;
}

/// N41
#[tokio::test]
async fn an_http_pre_stop_hook_is_answered_before_the_end() {
    let space = Space::new("n41").await;
    let container = json!({
        "name": "main", "image": web_image(), "command": ["web"],
        "env": [{ "name": "WEB_DRAIN_SECONDS", "value": "0" }],
        "readinessProbe": { "tcpSocket": { "port": 8080 }, "periodSeconds": 1 },
        "lifecycle": { "preStop": { "httpGet": { "path": "/work?milliseconds=1500", "port": 8080 } } },
    });
    space.run("web", &container).await;
    space.until_ready("web").await;
    space.delete("web").await;
    let took = space.gone("web", MUCH_SOONER).await.as_secs_f32();
    assert!(took > 1.4, "{took}");
    assert!(space.events("web", "FailedPreStopHook").await.is_empty());
}

/// N42
#[tokio::test]
async fn a_stopped_pod_is_found_out_by_its_probes() {
    let space = Space::new("n42").await;
    let container = json!({
        "name": "main", "image": web_image(), "command": ["web"],
        "readinessProbe": { "httpGet": { "path": "/readyz", "port": 8080 }, "periodSeconds": 1, "failureThreshold": 1 },
    });
    let pod = space.create("web", json!({ "containers": [container, named_sh("side", &idle())] })).await;
    space.until_ready("web").await;
    space.control(&["pause", &space.namespace, "web"]);
    let stopped = |name: &str| stopped(space.pid(&pod, name, 0));
    until(5, "both to stop", async || (stopped("main") && stopped("side")).then_some(())).await;
    space.until("web", 10, "not Ready", |pod| (condition(pod, "Ready").status == "False").then_some(())).await;
    space.control(&["resume", &space.namespace, "web"]);
    let pod = space.until_ready("web").await;
    assert!(container_restarts(&pod).iter().all(|restarts| *restarts == 0));
    until(5, "both to go on", async || (!stopped("main") && !stopped("side")).then_some(())).await;
}

fn container_restarts(pod: &k8s_openapi::api::core::v1::Pod) -> Vec<i32> {
    ["main", "side"].map(|name| container(pod, name).unwrap().restart_count).into()
}

/// N77
#[tokio::test]
async fn probes_wait_for_their_initial_delay() {
    const DELAY: i64 = 6;
    let space = Space::new("n77").await;
    let probe = |command: &str| {
        json!({
            "exec": { "command": [command] }, "initialDelaySeconds": DELAY, "periodSeconds": 1, "failureThreshold": 1,
        })
    };
    space.run("readiness", &with(sh(&idle()), json!({ "readinessProbe": probe("true") }))).await;
    space.run("liveness", &with(sh(&idle()), json!({ "livenessProbe": probe("false") }))).await;
    let pod = space.until_ready("readiness").await;
    let started = state(main(&pod).unwrap()).running.unwrap().started_at.unwrap();
    let ready = condition(&pod, "Ready").last_transition_time.unwrap();
    let waited = ready.0.duration_since(started.0).as_secs();
    assert!(waited >= DELAY - 1, "{waited} s: the API has whole seconds only");
    let pod = space.until_restarted("liveness", 30, 1).await;
    let last = last_state(main(&pod).unwrap()).terminated.unwrap();
    let lived = last.finished_at.unwrap().0.duration_since(last.started_at.unwrap().0).as_secs();
    assert!(lived >= DELAY - 1, "{lived} s");
}

/// N78
#[tokio::test]
async fn a_liveness_probe_may_have_a_grace_period_of_its_own() {
    let space = Space::new("n78").await;
    let probe = json!({
        "exec": { "command": ["false"] }, "periodSeconds": 1, "failureThreshold": 1, "terminationGracePeriodSeconds": 1,
    });
    // It ignores SIGTERM, and the Pod's own grace period is much longer.
    space.run("stubborn", &with(sh(&looping("")), json!({ "livenessProbe": probe }))).await;
    let pod = space.until_restarted("stubborn", MUCH_SOONER, 1).await;
    assert_eq!(last_state(main(&pod).unwrap()).terminated.unwrap().exit_code, 137);
}
