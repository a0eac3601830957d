//! Rows about resources of containers that run.
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::fixture::{Space, condition, idle, main, sh, with};

/// A Pod whose CPU may change, with this policy, and with what the node is to say of more than 1 CPU.
async fn started(space: &Space, policy: &str, more: &str) -> Pod {
    let policy = json!([{"resourceName": "cpu", "restartPolicy": policy}]);
    let fields = json!({"resources": {"requests": {"cpu": "100m"}}, "resizePolicy": policy});
    let mut spec = json!({"terminationGracePeriodSeconds": 1, "containers": [with(sh(&idle()), fields)]});
    space.create("pod", spec.take()).await;
    if !more.is_empty() {
        space.patch("pod", json!({"metadata": {"annotations": {more: "1"}}})).await;
    }
    space.until_ready("pod").await
}

async fn resize(space: &Space, cpu: &str) {
    let container = json!({"name": "main", "resources": {"requests": {"cpu": cpu}}});
    let patch = Patch::Strategic(json!({"spec": {"containers": [container]}}));
    space.pods().patch_subresource("resize", "pod", &PatchParams::default(), &patch).await.unwrap();
}

/// What the container has, once the status is of this generation.
fn cpu(pod: &Pod, generation: i64) -> Option<Value> {
    let is_seen = pod.status.as_ref()?.observed_generation == Some(generation);
    Some(json!(main(pod)?.resources)["requests"]["cpu"].clone()).filter(|_| is_seen)
}

/// N80
#[tokio::test]
async fn another_amount_is_given_to_what_runs() {
    let space = Space::new("n80").await;
    let before = started(&space, "NotRequired", "").await;
    assert_eq!(cpu(&before, 1), Some(json!("100m")));
    resize(&space, "200m").await;
    let given = |pod: &Pod| (cpu(pod, 2)? == "200m").then(|| pod.clone());
    let after = space.until("pod", 10, "200m", given).await;
    let run = |pod: &Pod| main(pod).map(|main| (main.container_id.clone(), main.restart_count));
    assert_eq!(run(&after), run(&before));
    assert_eq!(json!(main(&after).unwrap().allocated_resources), json!({"cpu": "200m"}));
}

/// N81
#[tokio::test]
async fn where_its_policy_says_so_the_container_starts_anew() {
    let space = Space::new("n81").await;
    let before = started(&space, "RestartContainer", "").await;
    resize(&space, "200m").await;
    let pod = space.until_restarted("pod", 10, 1).await;
    assert_ne!(main(&pod).unwrap().container_id, main(&before).unwrap().container_id);
    let given = |pod: &Pod| (cpu(pod, 2)? == "200m").then_some(());
    space.until("pod", 10, "200m", given).await;
}

/// N82
#[tokio::test]
async fn what_the_node_has_no_room_for_is_pending() {
    for (annotation, reason) in [("infeasible", "Infeasible"), ("deferred", "Deferred")] {
        let space = Space::new(&format!("n82-{annotation}")).await;
        started(&space, "NotRequired", &format!("testbed.baton.dev/{annotation}-above-cpu")).await;
        resize(&space, "2").await;
        let pending = |pod: &Pod| {
            let conditions = pod.status.as_ref()?.conditions.clone()?;
            conditions.into_iter().find(|condition| condition.type_ == "PodResizePending")
        };
        let told = space.until("pod", 10, "PodResizePending", pending).await;
        assert_eq!((told.status.as_str(), told.reason.as_deref()), ("True", Some(reason)));
        let pod = space.pods().get("pod").await.unwrap();
        assert_eq!((cpu(&pod, 2), condition(&pod, "Ready").status.as_str()), (Some(json!("100m")), "True"));
        resize(&space, "1").await;
        let gone = |pod: &Pod| (pending(pod).is_none() && cpu(pod, 3)? == "1").then_some(());
        space.until("pod", 10, "1 CPU", gone).await;
    }
}
