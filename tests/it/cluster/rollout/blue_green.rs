//! Strategy BlueGreen, with real processes, Services and requests.
use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Service;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{
    bounds::{Bounds, revision},
    plugin,
    requests::Load,
    stage::{Stage, program, real, reason, run, simulated},
};
use crate::testbed::web;

const KEY: &str = "baton.dev/revision";

fn spec(settings: &Value) -> Value {
    let env = json!([{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]);
    let container = |version: &str| {
        json!([{
            "name": "web", "image": format!("example.local/blue-green:{version}"), "command": ["blue-green"], "env": env,
            "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8080}, "periodSeconds": 1},
            "lifecycle": {"preStop": {"sleep": {"seconds": 2}}},
        }])
    };
    json!({
        "replicas": 3,
        "progressDeadlineSeconds": 30,
        "strategy": {"type": "BlueGreen", "blueGreen": settings},
        "template": {"spec": {"terminationGracePeriodSeconds": 10, "containers": container("1.0")}},
    })
}

fn at(mut spec: Value, version: &str) -> Value {
    spec["template"]["spec"]["containers"][0]["image"] = json!(format!("example.local/blue-green:{version}"));
    spec
}

/// A namespace with an operator, and the Services `web` and `web-preview`.
async fn stage(name: &str) -> Stage {
    static PROGRAMS: OnceLock<()> = OnceLock::new();
    let cluster = real();
    // Once: a program that runs cannot be written.
    PROGRAMS.get_or_init(|| {
        for version in ["1.0", "1.1"] {
            program(cluster, "blue-green", version, &std::fs::read(web::program()).unwrap());
        }
        program(cluster, "blue-green", "broken", b"#!/bin/sh\nexit 1\n");
    });
    let stage = Stage::new(cluster, name).await;
    for service in ["web", "web-preview"] {
        service_of(&stage, service).await;
    }
    stage
}

fn services(stage: &Stage) -> Api<Service> {
    Api::namespaced(stage.client.clone(), &stage.namespace)
}

async fn service_of(stage: &Stage, name: &str) {
    let ports = json!([{"port": 80, "targetPort": 8080}]);
    let metadata = json!({"name": name, "annotations": {"baton.dev/rollout": "web"}});
    let object = json!({"metadata": metadata, "spec": {"selector": {"app": "web"}, "ports": ports}});
    services(stage).create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
}

/// The revision that a Service selects.
async fn selected(stage: &Stage, service: &str) -> Option<String> {
    services(stage).get(service).await.unwrap().spec?.selector?.remove(KEY)
}

/// Waits until the Service selects this revision.
async fn switched(stage: &Stage, service: &str, to: &str) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while selected(stage, service).await.as_deref() != Some(to) {
        assert!(Instant::now() < deadline, "{service} is not switched to {to}\n{}", stage.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn update_revision(rollout: &baton::api::Rollout) -> String {
    rollout.status.clone().unwrap().update_revision.unwrap()
}

/// B3 D12: under load: the new set beside the old one, one switch, and back by one within a second; no request fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_switch_forth_and_back_loses_no_request() {
    let stage = stage("blue-green-load").await;
    let spec = spec(&json!({"activeService": "web", "previewService": "web-preview", "scaleDownDelaySeconds": 30}));
    stage.roll("1.0", at(spec.clone(), "1.0")).await;
    let first = update_revision(&stage.complete(60).await);
    let load = tokio::task::block_in_place(|| Load::start(&stage));
    let bounds = Bounds::watch(stage.pods(), 3).await;
    stage.roll("1.1", at(spec.clone(), "1.1")).await;
    let forward = stage.complete(60).await;
    let second = update_revision(&forward);
    assert_eq!(selected(&stage, "web").await, Some(second.clone()));
    assert_eq!(selected(&stage, "web-preview").await, Some(second.clone()));
    let status = forward.status.unwrap();
    assert_eq!((status.replicas, status.ready_replicas), (3, 3), "of the set that clients use");
    assert_eq!(status.selector.as_deref(), Some(format!("app=web,{KEY}={second}").as_str()));
    assert_eq!(stage.live().await.len(), 6, "the old set stays for a while");
    let decided = Instant::now();
    stage.roll("1.0", at(spec, "1.0")).await;
    switched(&stage, "web", &first).await;
    let back = decided.elapsed();
    println!("back {} ms after the decision", back.as_millis());
    assert!(back < Duration::from_secs(1), "{back:?}");
    stage.complete(60).await;
    stage.live_are(60, 3).await;
    assert!(stage.live().await.iter().all(|pod| revision(pod) == Some(&first)));
    bounds.assert(3, 6).await;
    assert_eq!(bounds.worst().created.len(), 3, "the way back makes no Pod");
    let report = tokio::task::block_in_place(|| load.finish());
    assert_eq!((&report["failed"], &report["retried"]), (&json!(0), &json!(0)), "{report:#}");
    for version in ["1.0", "1.1"] {
        assert!(report["versions"][version].as_u64() > Some(0), "{version} never answered: {report:#}");
    }
}

/// B3: a person tries the new set by its own Service, and decides; an operator that is killed meanwhile changes nothing. The
/// plugin says what will be done, and what clients use.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_decides_when_clients_get_it() {
    let mut stage = stage("blue-green-manual").await;
    let spec = spec(
        &json!({"activeService": "web", "previewService": "web-preview", "promote": "Manual", "scaleDownDelaySeconds": 1}),
    );
    stage.roll("1.0", at(spec.clone(), "1.0")).await;
    let first = update_revision(&stage.complete(60).await);
    let mut object = serde_json::to_value(stage.rollouts().get("web").await.unwrap()).unwrap();
    object["metadata"] = json!({"name": "web", "namespace": stage.namespace});
    object["spec"] = at(object["spec"].take(), "1.1");
    let file = stage.cluster.dir.join("blue-green-manual.json");
    std::fs::write(&file, object.to_string()).unwrap();
    let (_, told, complaint) = plugin::run(&stage, &["plan", "-f", file.to_str().unwrap()]);
    println!("{told}{complaint}");
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = told.lines().map(words).collect();
    for line in ["1/1 create 0-2 1.1", "switch Service web 1.1 when approved", "delete 0-2"] {
        assert!(lines.iter().any(|told| told == line), "{line}\n{told}");
    }
    stage.roll("1.1", at(spec, "1.1")).await;
    let waiting = stage.until(60, "AwaitingApproval", |rollout| reason(rollout) == "AwaitingApproval").await;
    let second = update_revision(&waiting);
    switched(&stage, "web-preview", &second).await;
    assert_eq!(selected(&stage, "web").await, Some(first));
    let (_, shown, _) = plugin::run(&stage, &["get", "rollout", "web"]);
    println!("{shown}");
    let is_active = |line: &&str| line.contains("revision 1 (1.0)") && line.contains("stable, active");
    assert!(shown.lines().any(|line| is_active(&line)), "{shown}");
    stage.kill_operator();
    stage.start_operator();
    stage.patch(json!({"spec": {"approve": {"run": run(&waiting), "batch": 1}}})).await;
    stage.complete(60).await;
    assert_eq!(selected(&stage, "web").await, Some(second.clone()));
    let left = stage.live_are(60, 3).await;
    assert!(left.iter().all(|pod| revision(pod) == Some(&second)));
}

/// B3 B7: clients never get a version that does not come up, and it leaves nothing behind.
#[tokio::test]
async fn a_broken_version_is_never_switched_to() {
    let stage = stage("blue-green-broken").await;
    let spec = spec(&json!({"activeService": "web"}));
    stage.roll("1.0", at(spec.clone(), "1.0")).await;
    let first = update_revision(&stage.complete(60).await);
    let before: Vec<_> = stage.live().await.into_iter().map(|pod| pod.metadata.uid).collect();
    stage.roll("broken", at(spec, "broken")).await;
    stage.until(120, "RolledBack", |rollout| reason(rollout) == "RolledBack").await;
    assert_eq!(selected(&stage, "web").await, Some(first));
    let after: Vec<_> = stage.live_are(60, 3).await.into_iter().map(|pod| pod.metadata.uid).collect();
    assert_eq!(after, before);
}

/// A Service that is not there, or not for it, is said; once it fits, the rollout goes on by itself.
#[tokio::test]
async fn what_is_wrong_with_a_service_is_said() {
    let stage = stage("blue-green-services").await;
    let spec = spec(&json!({"activeService": "shop"}));
    stage.roll("1.0", at(spec, "1.0")).await;
    let missing = stage.until(60, "ServiceMissing", |rollout| reason(rollout) == "ServiceMissing").await;
    let message = missing.status.unwrap().waiting_for;
    assert!(message.contains("there is no Service shop: create it"), "{message}");
    service_of(&stage, "shop").await;
    stage.complete(60).await;
    let other = json!({"spec": {"selector": {"app": "other"}}});
    services(&stage).patch("shop", &PatchParams::default(), &Patch::Merge(other)).await.unwrap();
    stage.until(60, "ServiceInvalid", |rollout| reason(rollout) == "ServiceInvalid").await;
    let own = json!({"spec": {"selector": {"app": "web", KEY: null}}});
    services(&stage).patch("shop", &PatchParams::default(), &Patch::Merge(own)).await.unwrap();
    stage.complete(60).await;
    let again = update_revision(&stage.rollouts().get("web").await.unwrap());
    switched(&stage, "shop", &again).await;
}

/// B3 D12: whoever takes another strategy, with another version in the same go, has the Service select both before an old Pod leaves.
#[tokio::test(flavor = "multi_thread")]
async fn another_strategy_loses_no_request() {
    let stage = stage("blue-green-left").await;
    let settings = json!({"activeService": "web", "previewService": "web-preview", "scaleDownDelaySeconds": 1});
    stage.roll("1.0", at(spec(&settings), "1.0")).await;
    let status = stage.complete(60).await.status.unwrap();
    assert_eq!(status.services, ["web", "web-preview"]);
    let load = tokio::task::block_in_place(|| Load::start(&stage));
    let mut batched = at(spec(&settings), "1.1");
    batched["strategy"] = json!({"type": "Batched", "batchSize": 1, "maxSurge": 1, "maxUnavailable": 0});
    stage.roll("1.1", batched).await;
    stage.complete(60).await;
    stage.live_are(60, 3).await;
    for service in ["web", "web-preview"] {
        assert_eq!(selected(&stage, service).await, None, "{service}");
    }
    let report = tokio::task::block_in_place(|| load.finish());
    assert_eq!((&report["failed"], &report["retried"]), (&json!(0), &json!(0)), "{report:#}");
    assert!(report["versions"]["1.1"].as_u64() > Some(0), "{report:#}");
    let status = stage.rollouts().get("web").await.unwrap().status.unwrap();
    assert!(status.services.is_empty(), "{:?}", status.services);
}

/// GitOps: a Service whose manifest has no selector gets the Rollout's, and loses nothing when it is applied again by force.
#[tokio::test]
async fn a_service_that_is_applied_without_a_selector_keeps_its_key() {
    let stage = Stage::new(simulated(), "blue-green-gitops").await;
    let apply = async |sync: i32, selector: Option<Value>| {
        let mut object = json!({"apiVersion": "v1", "kind": "Service", 
            "metadata": {"name": "web", "labels": {"sync": sync.to_string()}, "annotations": {"baton.dev/rollout": "web"}},
            "spec": {"ports": [{"port": 80, "targetPort": 8080}]}});
        if let Some(selector) = selector {
            object["spec"]["selector"] = selector;
        }
        let params = PatchParams::apply("gitops").force();
        let applied = services(&stage).patch("web", &params, &Patch::Apply(&object)).await.unwrap();
        applied.spec.unwrap().selector.unwrap_or_default()
    };
    assert_eq!(apply(1, None).await, [].into());
    stage
        .roll("1", json!({"replicas": 2, "strategy": {"type": "BlueGreen", "blueGreen": {"activeService": "web"}}}))
        .await;
    let revision = update_revision(&stage.complete(60).await);
    let expected = [("app".to_owned(), "web".to_owned()), (KEY.to_owned(), revision.clone())].into();
    assert_eq!(apply(2, None).await, expected, "it does not own the field");
    let taken = apply(3, Some(json!({"app": "web"}))).await;
    assert_eq!(taken.get(KEY), None, "one that has the field takes the key away");
    switched(&stage, "web", &revision).await;
}

/// F8: who may write a Rollout does not take over a Service by it; the message has the command by which its owner gives it.
#[tokio::test]
async fn a_service_without_the_annotation_stays_as_it_is() {
    let stage = Stage::new(simulated(), "blue-green-permission").await;
    let object =
        json!({"metadata": {"name": "payments"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    let object: Service = serde_json::from_value(object).unwrap();
    let made = services(&stage).create(&PostParams::default(), &object).await.unwrap();
    let strategy = json!({"type": "BlueGreen", "blueGreen": {"activeService": "payments"}});
    stage.roll("1", json!({"replicas": 2, "strategy": strategy})).await;
    let held = stage.until(60, "ServiceInvalid", |rollout| reason(rollout) == "ServiceInvalid").await;
    stage.patch(json!({"spec": {"strategy": {"type": "Batched", "blueGreen": null}}})).await;
    stage.complete(60).await;
    stage.patch(json!({"spec": {"strategy": strategy}})).await;
    stage.until(60, "ServiceInvalid", |rollout| reason(rollout) == "ServiceInvalid").await;
    let after = services(&stage).get("payments").await.unwrap();
    assert_eq!(after.metadata.resource_version, made.metadata.resource_version);
    let message = held.status.unwrap().waiting_for;
    let (_, command) = message.split_once("to permit that: kubectl ").unwrap_or_else(|| panic!("{message}"));
    let words: Vec<&str> = command.split(" (").next().unwrap().split_whitespace().collect();
    stage.cluster.kubectl(&words);
    switched(&stage, "payments", &update_revision(&stage.complete(60).await)).await;
}
