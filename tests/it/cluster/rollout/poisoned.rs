//! Objects that the API server takes and Baton cannot read, beside others that it can.
use std::time::{Duration, Instant};

use k8s_openapi::api::{coordination::v1::Lease, events::v1::Event};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::stage::{Stage, simulated};

const NEVER: &str = "9999-12-31T23:59:59Z";

/// As it is, whatever it is.
async fn send(stage: &Stage, method: &str, path: &str, body: &Value) -> Value {
    try_send(stage, method, path, body).await.unwrap()
}

async fn try_send(stage: &Stage, method: &str, path: &str, body: &Value) -> kube::Result<Value> {
    let group = if path.starts_with("leases") { "coordination.k8s.io/v1" } else { "baton.dev/v1alpha1" };
    let uri = format!("/apis/{group}/namespaces/{}/{path}", stage.namespace);
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let request = hyper::Request::builder().method(method).uri(uri).header("content-type", "application/json");
    stage.client.request(request.body(body).unwrap()).await
}

fn rollout(name: &str, filler: &Value) -> Value {
    let containers = json!([{"name": "web", "image": "example.local/sleeper:1", "command": ["sleeper"]}]);
    json!({
        "apiVersion": "baton.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": name},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}}, "spec": {"containers": containers, "x": filler}}},
    })
}

fn lease(name: &str, renewed: &str, holder: &str) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name, "labels": {"baton.dev/lease": "session"}},
        "spec": {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 15},
    })
}

/// S11: a time that cannot be held, in the managedFields of one Rollout and as the renewal of one session, and objects that
/// are too large. The others go on, in the watch as after a restart.
#[tokio::test]
async fn one_object_stops_no_other() {
    let mut stage = Stage::without_operator(simulated(), "poisoned").await;
    stage.bind = "127.0.0.1:18081".to_owned();
    stage.start_operator();
    stage.roll("1", json!({"replicas": 2})).await;
    stage.complete(30).await;

    // On an update: a create empties what is said of earlier managers.
    let mut evil = send(&stage, "POST", "rollouts", &rollout("evil", &json!(null))).await;
    evil["metadata"]["managedFields"].as_array_mut().unwrap().push(json!({
        "manager": "p", "operation": "Update", "apiVersion": "baton.dev/v1alpha1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {"f:replicas": {}}}, "time": NEVER,
    }));
    evil["spec"]["paused"] = json!(true);
    let name = "rollouts/evil";
    // The operator writes status meanwhile.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let latest = send(&stage, "GET", name, &Value::Null).await;
        evil["metadata"]["resourceVersion"] = latest["metadata"]["resourceVersion"].clone();
        evil["status"] = latest["status"].clone();
        match try_send(&stage, "PUT", name, &evil).await {
            Ok(_) => break,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
    let kept = send(&stage, "GET", name, &Value::Null).await;
    assert!(kept["metadata"]["managedFields"].to_string().contains(NEVER), "the API server keeps it: {kept}");
    send(&stage, "POST", "leases", &lease("session.evil", "9999-12-31T23:59:59.000000Z", "evil/u/1-r")).await;
    send(&stage, "POST", "leases", &lease("session.large", "2026-01-01T10:00:00.000000Z", &"x".repeat(1_000_000)))
        .await;
    let filler = json!(vec![json!({"": 0}); 150_000]);
    send(&stage, "POST", "rollouts", &rollout("large", &filler)).await;

    stage.roll("2", json!({"replicas": 2})).await;
    stage.complete(30).await;
    stage.kill_operator();
    stage.start_operator();
    stage.roll("3", json!({"replicas": 2})).await;
    let done = stage.complete(60).await;
    assert_eq!(done.status.unwrap().versions[0].version, "3");

    // What can be read with such a time is worked on; what is too large is told of.
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let events: Api<Event> = Api::namespaced(stage.client.clone(), &stage.namespace);
        let events = events.list(&ListParams::default()).await.unwrap().items;
        let unreadable = events.iter().filter(|event| event.reason.as_deref() == Some("Unreadable"));
        let mut named: Vec<String> = unreadable
            .filter_map(|event| event.regarding.as_ref())
            .filter_map(|of| Some(format!("{} {}", of.kind.as_deref()?, of.name.as_deref()?)))
            .collect();
        named.sort();
        named.dedup();
        if named == ["Lease session.large", "Rollout large"] {
            break;
        }
        assert!(Instant::now() < deadline, "Events on {named:?}\n{}", stage.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let metrics = stage.metrics();
    for kind in ["Lease", "Rollout"] {
        let line = format!("baton_undecodable_objects{{kind=\"{kind}\"}} 1");
        assert!(metrics.contains(&line), "no {line} in\n{metrics}");
    }
    // It is nothing that stays: once it can be read it is as any other.
    let leases: Api<Lease> = Api::namespaced(stage.client.clone(), &stage.namespace);
    let patch = Patch::Merge(json!({"spec": {"holderIdentity": null, "renewTime": null}}));
    leases.patch_metadata("session.large", &PatchParams::default(), &patch).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !stage.metrics().contains("baton_undecodable_objects{kind=\"Lease\"} 0") {
        assert!(Instant::now() < deadline, "it stays unreadable\n{}", stage.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
