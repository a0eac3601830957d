//! A Pod that is given other resources, through its subresource `resize`.
use serde_json::{Value, json};

use super::{
    Servers, objects,
    side::difference,
    step::{OTHER_UID, STALE, Step, UID, VERSION},
};
use crate::fake_apiserver::kinds::PODS;

fn patch(uid: &str, version: &str, resources: &Value) -> Step {
    let container = json!({"name": "app", "image": "web:2", "resources": resources});
    let metadata = json!({"uid": uid, "resourceVersion": version, "labels": {"added": "1"}});
    Step::strategic(&PODS, "a", json!({"metadata": metadata, "spec": {"containers": [container]}}))
        .subresource("resize")
}

/// B4: cpu and memory of containers by their names, and nothing else of what is written; not where somebody was faster, not
/// what would change the Pod's class, and not on a node that tells nothing of resources.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_resized_alike() {
    let servers = Servers::start().await;
    let mut sides = servers.sides("resize").await;
    let mut pod = objects::valid(&PODS, "a", 1);
    pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "100m", "memory": "16Mi"}});
    let to = |cpu: &str| json!({"requests": {"cpu": cpu}});
    let status = |resources: Value| {
        let state = json!({"running": {"startedAt": "2026-01-01T10:00:00Z"}});
        let container = json!({
            "name": "app", "image": "web:1", "imageID": "web", "ready": true, "restartCount": 0, "state": state,
            "resources": resources,
        });
        let status = json!({"status": {"containerStatuses": [container]}});
        Step::merge(&PODS, "a", status).subresource("status")
    };
    let guaranteed = json!({
        "requests": {"cpu": "200m", "memory": "16Mi"}, "limits": {"cpu": "200m", "memory": "16Mi"},
    });
    let steps = [
        (Step::create(&PODS, pod), 201),
        (patch(UID, VERSION, &to("200m")).dry_run(), 200),
        (patch(UID, VERSION, &to("200m")), 200),
        (patch(UID, VERSION, &to("200m")), 200),
        (patch(UID, STALE, &to("300m")), 409),
        (patch(OTHER_UID, VERSION, &to("300m")), 422),
        (patch(UID, VERSION, &json!({"requests": {"memory": null}})), 422),
        (patch(UID, VERSION, &guaranteed), 422),
        (patch(UID, VERSION, &json!({"requests": {"ephemeral-storage": "1Gi"}})), 422),
        (status(json!({})), 200),
        (patch(UID, VERSION, &to("300m")), 200),
        (status(Value::Null), 200),
        (patch(UID, VERSION, &to("400m")), 422),
        (Step::strategic(&PODS, "b", json!({})).subresource("resize"), 404),
    ];
    for (step, code) in steps {
        let mut told = Vec::new();
        for side in &mut sides {
            told.push(side.take(&step).await);
        }
        assert_eq!(difference(&told[0], &told[1]), "", "{step}");
        assert_eq!(told[1].code, code, "{step}");
    }
    for side in &sides {
        let (_, pod) = side.ask(&Step::get(&PODS, "a")).await;
        let container = &pod["spec"]["containers"][0];
        let resources = json!({"requests": {"cpu": "300m", "memory": "16Mi"}});
        assert_eq!((&container["image"], &container["resources"]), (&json!("web:1"), &resources), "{}", side.name);
        assert_eq!(pod["metadata"]["labels"], json!({"contract": "yes"}), "{}", side.name);
        assert_eq!(pod["metadata"]["generation"], json!(3), "{}", side.name);
    }
}
