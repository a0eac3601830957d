//! Other ways than replacing Pods one by one.
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{Api, ResourceExt, api::PostParams};
use serde_json::{Value, json};

use super::equipment::{NODES, node, stage, together, web};
use crate::cluster::{
    rollout::{
        bounds::{Bounds, revision},
        stage::Stage,
    },
    support::processes,
};

/// uid and address, by slot.
fn identities(pods: &[Pod]) -> BTreeMap<String, (String, String)> {
    let ip = |pod: &Pod| pod.status.as_ref().unwrap().pod_ip.clone().unwrap();
    pods.iter().map(|pod| (pod.labels()["baton.dev/instance"].clone(), (pod.uid().unwrap(), ip(pod)))).collect()
}

/// Image, id of the container, how often it was restarted, and with how much CPU.
fn containers(pods: &[Pod]) -> Vec<(String, String, i32, Value)> {
    let of = |pod: &Pod| {
        let status = pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0].clone();
        let cpu = json!(status.resources)["requests"]["cpu"].clone();
        (status.image, status.container_id.unwrap(), status.restart_count, cpu)
    };
    pods.iter().map(of).collect()
}

#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn in_place_pods_stay_and_run_another_image() {
    let _shared = together().await;
    let stage = stage("in-place").await;
    let spec = json!({"replicas": 3, "strategy": {"update": "InPlaceIfPossible", "maxUnavailable": 1}});
    stage.roll("1", web("1.0", spec.clone())).await;
    stage.complete(60).await;
    let before = stage.live().await;
    assert!(NODES.iter().all(|name| before.iter().any(|pod| node(pod) == *name)), "Pods are on both nodes");
    let bounds = Bounds::watch(stage.pods(), 3).await;
    stage.roll("1", web("1.1", spec)).await;
    stage.complete(120).await;
    let after = stage.live().await;
    assert_eq!(identities(&after), identities(&before));
    for ((image, id, restarts, _), (_, old, ..)) in containers(&after).into_iter().zip(containers(&before)) {
        assert!(image.ends_with(":1.1") && id != old && restarts == 1, "{image} {id} {restarts}");
    }
    bounds.assert(2, 3).await;
}

#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn a_process_runs_on_with_other_resources() {
    let _shared = together().await;
    let stage = stage("resize").await;
    let spec = |cpu: &str| {
        let spec = json!({"replicas": 2, "strategy": {"update": "InPlaceIfPossible", "maxUnavailable": 1}});
        let mut spec = web("1.0", spec);
        spec["template"]["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}});
        spec
    };
    stage.roll("1", spec("20m")).await;
    stage.complete(60).await;
    let before = stage.live().await;
    stage.roll("1", spec("40m")).await;
    stage.complete(60).await;
    let after = stage.live().await;
    assert_eq!(identities(&after), identities(&before));
    for ((_, id, restarts, cpu), (_, old, ..)) in containers(&after).into_iter().zip(containers(&before)) {
        assert_eq!((id, restarts, cpu), (old, 0, json!("40m")));
    }
}

#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn a_container_restarts_with_more_memory() {
    let _shared = together().await;
    let stage = stage("resize-memory").await;
    let spec = |memory: &str| {
        let spec = json!({"replicas": 2, "strategy": {"update": "InPlaceIfPossible", "maxUnavailable": 1}});
        let mut spec = web("1.0", spec);
        let container = &mut spec["template"]["spec"]["containers"][0];
        container["resources"] = json!({"limits": {"memory": memory}, "requests": {"memory": "20Mi"}});
        container["resizePolicy"] = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
        spec
    };
    stage.roll("1", spec("80Mi")).await;
    stage.complete(60).await;
    let before = stage.live().await;
    let bounds = Bounds::watch(stage.pods(), 2).await;
    stage.roll("1", spec("120Mi")).await;
    stage.complete(90).await;
    let after = stage.live().await;
    assert_eq!(identities(&after), identities(&before));
    for pod in &after {
        let status = pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0].clone();
        assert_eq!((status.restart_count, json!(status.resources)["limits"]["memory"].clone()), (1, json!("120Mi")));
        assert_eq!(memory_limit(pod), 120 << 20);
    }
    bounds.assert(1, 2).await;
}

/// Bytes that the kernel lets a Pod's processes have.
fn memory_limit(pod: &Pod) -> u64 {
    let uid = pod.uid().unwrap();
    let cgroups = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let is_of_pod = |pid: &u32| cgroups(*pid).contains(&uid);
    let web = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "web");
    let pid = processes().into_iter().map(|(pid, _)| pid).find(|pid| is_of_pod(pid) && web(pid)).expect("a process");
    // Version 1 has a hierarchy for memory; version 2 has one for all.
    let line = |key: &str| cgroups(pid).lines().find_map(|line| Some(line.split_once(key)?.1.to_owned()));
    let file = match line(":memory:") {
        Some(path) => format!("/sys/fs/cgroup/memory{path}/memory.limit_in_bytes"),
        None => format!("/sys/fs/cgroup{}/memory.max", line("0::").expect("a control group")),
    };
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}")).trim().parse().unwrap()
}

#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn applications_are_told_and_pods_stay() {
    let _shared = together().await;
    let stage = stage("reload").await;
    let spec = |greeting: &str| {
        let file = |name: &str, key: &str| json!({"path": name, "fieldRef": {"fieldPath": format!("metadata.annotations['{key}']")}});
        let hot = json!({"httpPost": {"path": "/reload", "port": 8080}, "timeoutSeconds": 120});
        let strategy = json!({"update": "HotReload", "hotReload": hot, "batchSize": 2, "maxSurge": 1});
        let mut spec = web("1.0", json!({"replicas": 2, "version": greeting, "strategy": strategy}));
        spec["template"]["metadata"] = json!({"annotations": {"greeting": greeting}});
        let items = [file("greeting", "greeting"), file("revision", "baton.dev/revision")];
        spec["template"]["spec"]["volumes"] = json!([{"name": "config", "downwardAPI": {"items": items}}]);
        let container = &mut spec["template"]["spec"]["containers"][0];
        container["volumeMounts"] = json!([{"name": "config", "mountPath": "/etc/web"}]);
        container["env"] = json!([{"name": "WEB_CONFIG_DIR", "value": "/etc/web"}]);
        spec
    };
    stage.roll("1", spec("hello")).await;
    stage.complete(60).await;
    let before = stage.live().await;
    stage.roll("1", spec("goodbye")).await;
    stage.complete(180).await; // the kubelet takes its time to write annotations into a volume
    let after = stage.live().await;
    assert_eq!(identities(&after), identities(&before));
    assert!(containers(&after).iter().all(|(_, _, restarts, _)| *restarts == 0));
    assert_ne!(revision(&after[0]), revision(&before[0]));
}

#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn recreated_versions_never_run_at_once() {
    let _shared = together().await;
    let stage = stage("recreate").await;
    let spec = json!({"replicas": 3, "strategy": {"type": "Recreate"}});
    stage.roll("1", web("1.0", spec.clone())).await;
    stage.complete(60).await;
    let bounds = Bounds::watch(stage.pods(), 3).await;
    stage.roll("1", web("1.1", spec)).await;
    stage.complete(60).await;
    bounds.assert(0, 3).await;
    assert_eq!(bounds.worst().revisions_max, 1, "{:?}", bounds.worst());
}

/// The revision that a Service selects.
async fn selected(stage: &Stage) -> Option<String> {
    let services: Api<Service> = Api::namespaced(stage.client.clone(), &stage.namespace);
    services.get("web").await.unwrap().spec?.selector?.remove("baton.dev/revision")
}

#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_switched_forth_and_back() {
    let _shared = together().await;
    let stage = stage("blue-green").await;
    let services: Api<Service> = Api::namespaced(stage.client.clone(), &stage.namespace);
    let ports = json!([{"port": 80, "targetPort": 8080}]);
    let metadata = json!({"name": "web", "annotations": {"baton.dev/rollout": "web"}});
    let service = json!({"metadata": metadata, "spec": {"selector": {"app": "web"}, "ports": ports}});
    services.create(&PostParams::default(), &serde_json::from_value(service).unwrap()).await.unwrap();
    let settings = json!({"activeService": "web", "scaleDownDelaySeconds": 20});
    let spec = json!({"replicas": 2, "strategy": {"type": "BlueGreen", "blueGreen": settings}});
    stage.roll("1", web("1.0", spec.clone())).await;
    let first = stage.complete(60).await.status.unwrap().update_revision;
    let bounds = Bounds::watch(stage.pods(), 2).await;
    stage.roll("1", web("1.1", spec.clone())).await;
    let second = stage.complete(60).await.status.unwrap().update_revision;
    assert_eq!(selected(&stage).await, second);
    stage.roll("1", web("1.0", spec)).await;
    stage.complete(60).await;
    assert_eq!(selected(&stage).await, first);
    stage.live_are(60, 2).await;
    bounds.assert(2, 4).await;
    assert_eq!(bounds.worst().created.len(), 2, "the way back makes no Pod");
}
