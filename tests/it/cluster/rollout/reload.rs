//! HotReload with real Pods: the application is told at the Pod's own address, and the Pod stays.
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, api::LogParams};
use serde_json::{Value, json};

use super::{
    plugin,
    stage::{Stage, program, real, reason},
};
use crate::{cluster::support::TestCluster, testbed::web};

/// `examples/web`, with a greeting in an annotation.
fn spec(greeting: &str) -> Value {
    let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    let file = |name: &str, key: &str| json!({"path": name, "fieldRef": {"fieldPath": format!("metadata.annotations['{key}']")}});
    let items = [file("greeting", "greeting"), file("revision", "baton.dev/revision")];
    let version = if greeting.is_empty() { "silence" } else { greeting };
    json!({
        "replicas": 3,
        "version": version,
        "strategy": {
            "update": "HotReload",
            "hotReload": {"httpPost": {"path": "/reload", "port": 8080}, "timeoutSeconds": 10},
            "batchSize": 1,
            "maxUnavailable": 0,
            "maxSurge": 1,
        },
        "template": {
            "metadata": {"annotations": {"greeting": greeting}},
            "spec": {
                "volumes": [{"name": "config", "downwardAPI": {"items": items}}],
                "containers": [{
                    "name": "web",
                    "image": "example.local/web-reload:1",
                    "command": ["web-reload"],
                    "env": [{"name": "POD_IP", "valueFrom": field("status.podIP")},
                        {"name": "WEB_CONFIG_DIR", "value": "/etc/web"}],
                    "volumeMounts": [{"name": "config", "mountPath": "/etc/web"}],
                    "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8080}, "periodSeconds": 1},
                }],
            },
        },
    })
}

fn cluster() -> &'static TestCluster {
    static PROGRAM: std::sync::Once = std::sync::Once::new();
    let cluster = real();
    PROGRAM.call_once(|| program(cluster, "web-reload", "1", &std::fs::read(web::program()).unwrap()));
    cluster
}

/// uid, and how often its container was started again, by Pod.
fn processes(pods: &[Pod]) -> Vec<(String, i32)> {
    let of = |pod: &Pod| {
        let containers = pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap();
        (pod.uid().unwrap(), containers[0].restart_count)
    };
    pods.iter().map(of).collect()
}

/// What each Pod was told, in order.
async fn told(stage: &Stage) -> Vec<Vec<String>> {
    let mut told = Vec::new();
    for pod in stage.live().await {
        let log = stage.pods().logs(&pod.name_any(), &LogParams::default()).await.unwrap();
        let lines = log.lines().filter_map(|line| line.split_once("told to reload ")).map(|(_, line)| line.to_owned());
        told.push(lines.collect());
    }
    told
}

fn revision(pod: &Pod) -> String {
    pod.labels()["baton.dev/revision"].clone()
}

/// B4 B7: other annotations are told, batch by batch, and the Pods stay; a configuration that no application takes goes back, and
/// is told so; another image makes other Pods.
#[tokio::test(flavor = "multi_thread")]
async fn applications_are_told_and_pods_stay() {
    let stage = Stage::new(cluster(), "reload").await;
    stage.roll("1", spec("hello")).await;
    stage.complete(60).await;
    let before = stage.live_are(10, 3).await;
    let hello = revision(&before[0]);
    assert!(told(&stage).await.concat().is_empty(), "what is new need not be told");

    let mut object = serde_json::to_value(stage.rollouts().get("web").await.unwrap()).unwrap();
    object["metadata"] = json!({"name": "web", "namespace": stage.namespace});
    object.as_object_mut().unwrap().remove("status");
    object["spec"]["version"] = json!("good day");
    object["spec"]["template"]["metadata"]["annotations"]["greeting"] = json!("good day");
    let file = stage.cluster.dir.join("reload.json");
    std::fs::write(&file, object.to_string()).unwrap();
    let (code, foretold, complaint) = plugin::run(&stage, &["plan", "-f", file.to_str().unwrap()]);
    assert_eq!((code, complaint.as_str()), (Some(0), ""));
    let line =
        "3/3    reload  2          good day  in place: the Pod stays and runs on, its application is told to reload";
    assert!(foretold.contains(line), "{foretold}");
    stage.roll("1", spec("good day")).await;
    stage.complete(60).await;
    let after = stage.live().await;
    assert_eq!(processes(&after), processes(&before));
    let good_day = revision(&after[0]);
    assert_ne!(good_day, hello);
    for told in told(&stage).await {
        assert_eq!(told.last().map(String::as_str), Some(&*format!("{good_day}: 200 reloaded")), "{told:?}");
    }

    stage.roll("1", spec("")).await;
    let rollout = stage.until(120, "rolled back", |rollout| reason(rollout) == "RolledBack").await;
    let failed = rollout.status.unwrap().failed.unwrap();
    assert_eq!((failed.reason.as_str(), failed.slots.as_str()), ("ReloadFailed", "0"));
    let expected = "web-0: its application has yet to answer POST :8080/reload with 200: answered 500: the greeting is empty, for 10 s";
    assert_eq!(failed.message, expected);
    let back = stage.live().await;
    assert_eq!(processes(&back), processes(&before));
    let all_told = told(&stage).await;
    assert_eq!(all_told[0].last().map(String::as_str), Some(&*format!("{good_day}: 200 reloaded")), "{all_told:?}");
    assert_eq!(all_told[1].last().map(String::as_str), Some(&*format!("{good_day}: 200 reloaded")), "{all_told:?}");

    let mut other = spec("good day");
    other["template"]["spec"]["hostname"] = json!("other");
    stage.roll("1", other).await;
    stage.complete(60).await;
    let replaced = processes(&stage.live_are(30, 3).await);
    assert!(replaced.iter().all(|new| !processes(&before).contains(new)), "{replaced:?}");
}

/// An operator that dies in the middle leaves it on the Pods what is due.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_operator_goes_on() {
    let mut stage = Stage::new(cluster(), "reload-crash").await;
    stage.roll("1", spec("hello")).await;
    stage.complete(60).await;
    let before = processes(&stage.live_are(10, 3).await);
    // Its application says no until it is mended.
    stage
        .roll("1", {
            let mut spec = spec("");
            spec["strategy"]["hotReload"]["timeoutSeconds"] = json!(600);
            spec
        })
        .await;
    let is_reloading = |rollout: &baton::api::Rollout| {
        let exceptions = rollout.status.as_ref().map(|status| status.exceptions.clone()).unwrap_or_default();
        exceptions.first().is_some_and(|it| it.state == "Reloading" && it.message.contains("the greeting is empty"))
    };
    stage.until(60, "told, and not reloaded", is_reloading).await;
    let (_, shown, _) = plugin::run(&stage, &["get", "rollout", "web"]);
    assert!(shown.contains("Reloading"), "{shown}");
    stage.kill_operator();
    let asked = told(&stage).await[0].len();
    stage.start_operator();
    let deadline = std::time::Instant::now() + std::time::Duration::from_mins(1);
    while told(&stage).await[0].len() == asked {
        assert!(std::time::Instant::now() < deadline, "nobody tells it any more\n{}", stage.log());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    stage.roll("1", spec("hi")).await;
    stage.complete(60).await;
    assert_eq!(processes(&stage.live().await), before);
    assert!(told(&stage).await.iter().all(|told| told.last().is_some_and(|last| last.ends_with("200 reloaded"))));
}
