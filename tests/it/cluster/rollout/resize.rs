//! Pods that are given other resources and stay the Pods that they are.
use std::collections::BTreeMap;

use k8s_openapi::api::{core::v1::Pod, events::v1::Event};
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::{Value, json};

use super::stage::{Stage, real, reason, simulated};

/// What decides about a Pod's resources.
#[derive(Clone, Copy)]
struct Spec {
    cpu: &'static str,
    /// Whether its container starts anew for that.
    policy: &'static str,
    update: &'static str,
    /// The testbed's word for a node that gives no more than 500m.
    most: &'static str,
}

const SPEC: Spec = Spec { cpu: "100m", policy: "NotRequired", update: "InPlaceIfPossible", most: "none" };

async fn roll(stage: &Stage, spec: Spec) {
    let container = json!({
        "name": "web", "image": "example.local/sleeper:1", "command": ["sleeper"],
        "resources": {"requests": {"cpu": spec.cpu}},
        "resizePolicy": [{"resourceName": "cpu", "restartPolicy": spec.policy}],
    });
    let annotations = json!({format!("testbed.baton.dev/{}-above-cpu", spec.most): "500m"});
    let spec = json!({
        "replicas": 3, "progressDeadlineSeconds": if spec.update == "InPlaceOnly" { 10 } else { 120 },
        "strategy": {"update": spec.update, "maxUnavailable": 1, "batchSize": 2},
        "template": {"metadata": {"annotations": annotations}, "spec": {"containers": [container]}},
    });
    stage.roll("1", spec).await;
}

fn uids(pods: &[Pod]) -> BTreeMap<String, String> {
    pods.iter().map(|pod| (pod.labels()["baton.dev/instance"].clone(), pod.uid().unwrap())).collect()
}

/// What runs, how often it was restarted, and with how much CPU.
fn containers(pods: &[Pod]) -> Vec<(String, i32, Value)> {
    let of = |pod: &Pod| {
        let status = pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0].clone();
        let cpu = json!(status.resources)["requests"]["cpu"].clone();
        (status.container_id.unwrap(), status.restart_count, cpu)
    };
    pods.iter().map(of).collect()
}

/// What Events of this reason say.
async fn notes(stage: &Stage, namespace: &str, reason: &str) -> Vec<String> {
    let events = Api::<Event>::namespaced(stage.client.clone(), namespace);
    let events = events.list(&ListParams::default()).await.unwrap().items;
    let of_reason = events.into_iter().filter(|event| event.reason.as_deref() == Some(reason));
    of_reason.filter_map(|event| event.note).collect()
}

/// B4: the process runs on; back, too; and then whatever somebody else does about its resources is left alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_runs_on_with_other_resources() {
    let stage = Stage::new(real(), "resize").await;
    roll(&stage, SPEC).await;
    stage.complete(60).await;
    let before = stage.live().await;
    let runs = containers(&before);
    for cpu in ["200m", "100m"] {
        roll(&stage, Spec { cpu, ..SPEC }).await;
        stage.complete(60).await;
        let after = stage.live().await;
        assert_eq!(uids(&after), uids(&before));
        let expected: Vec<_> = runs.iter().map(|(id, restarts, _)| (id.clone(), *restarts, json!(cpu))).collect();
        assert_eq!(containers(&after), expected);
        let note = &after[0].annotations()["baton.dev/in-place"];
        assert!(!note.contains("resources"), "{note}");
    }
    let other = json!({"spec": {"containers": [{"name": "web", "resources": {"requests": {"cpu": "150m"}}}]}});
    let patch = other.to_string();
    let name = before[0].name_any();
    let resize = ["-n", "resize", "patch", "pod", &name, "--subresource", "resize", "-p", &patch];
    stage.cluster.kubectl(&resize);
    stage.patch(json!({"spec": {"template": {"metadata": {"labels": {"tier": "gold"}}}}})).await;
    stage.complete(60).await;
    let after = stage.live().await;
    assert_eq!((uids(&after), &containers(&after)[0].2), (uids(&before), &json!("150m")));
}

/// B4: where its policy wants that, the container starts anew, out of service, and its restart is no failure.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_starts_anew_with_other_resources() {
    let stage = Stage::new(real(), "resize-anew").await;
    let spec = Spec { policy: "RestartContainer", ..SPEC };
    roll(&stage, spec).await;
    stage.complete(60).await;
    let before = stage.live().await;
    roll(&stage, Spec { cpu: "200m", ..spec }).await;
    stage.complete(90).await;
    let after = stage.live().await;
    assert_eq!(uids(&after), uids(&before));
    for ((id, restarts, cpu), (old, ..)) in containers(&after).into_iter().zip(containers(&before)) {
        assert!(id != old && restarts == 1 && cpu == "200m", "{id} {restarts} {cpu}");
    }
}

/// B4: a node without room for it: another Pod takes the place, and it is said why.
#[tokio::test(flavor = "multi_thread")]
async fn where_the_node_has_no_room_the_pod_is_replaced() {
    let stage = Stage::new(real(), "resize-room").await;
    let spec = Spec { most: "infeasible", ..SPEC };
    roll(&stage, spec).await;
    stage.complete(60).await;
    let before = uids(&stage.live().await);
    roll(&stage, Spec { cpu: "1", ..spec }).await;
    stage.complete(90).await;
    let after = stage.live_are(30, 3).await;
    assert!(uids(&after).iter().all(|(slot, uid)| before[slot] != *uid), "{before:?}");
    assert!(containers(&after).iter().all(|(_, restarts, cpu)| *restarts == 0 && cpu == "1"), "{after:?}");
    let notes = notes(&stage, "resize-room", "ResourcesHeld").await;
    assert!(notes[0].contains("ResizeInfeasible: Node didn't have enough capacity"), "{notes:?}");
}

/// B4 B7: where only changes in place are permitted it waits, fails by its deadline, and goes back as it came.
#[tokio::test(flavor = "multi_thread")]
async fn in_place_only_goes_back_as_it_came() {
    let stage = Stage::new(real(), "resize-only").await;
    let spec = Spec { most: "deferred", update: "InPlaceOnly", ..SPEC };
    roll(&stage, spec).await;
    stage.complete(60).await;
    let before = stage.live().await;
    roll(&stage, Spec { cpu: "1", ..spec }).await;
    let rollout = stage.until(60, "rolled back", |rollout| reason(rollout) == "RolledBack").await;
    let failed = rollout.status.unwrap().failed.unwrap();
    assert!(failed.reason == "ProgressDeadlineExceeded" && failed.message.contains("ResizeDeferred"), "{failed:?}");
    let after = stage.live().await;
    assert_eq!((uids(&after), containers(&after)), (uids(&before), containers(&before)));
    let asked = |pod: &Pod| json!(pod.spec.as_ref().unwrap().containers[0].resources)["requests"]["cpu"].clone();
    assert!(after.iter().all(|pod| asked(pod) == "100m"));
}

/// B4: kubelets that tell nothing of resources cannot be asked; it is said why, once.
#[tokio::test(flavor = "multi_thread")]
async fn where_a_node_knows_no_resize_the_pod_is_replaced() {
    let stage = Stage::new(simulated(), "resize-unknown").await;
    roll(&stage, SPEC).await;
    stage.complete(60).await;
    let before = uids(&stage.live().await);
    roll(&stage, Spec { cpu: "200m", ..SPEC }).await;
    stage.complete(90).await;
    let after = uids(&stage.live_are(30, 3).await);
    assert!(after.iter().all(|(slot, uid)| before[slot] != *uid), "{before:?} {after:?}");
    let notes = notes(&stage, "resize-unknown", "NotInPlace").await;
    let refused = |note: &String| note.contains(": the API server refuses the change of Pods in place: ");
    assert!(notes.len() == 1 && notes.iter().all(refused), "{notes:?}");
}
