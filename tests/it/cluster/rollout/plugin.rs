//! What the plugin says of Rollouts that are worked on.
use baton::api::Rollout;
use serde_json::json;

use super::stage::{Stage, real, reason, simulated};
use crate::cluster::plugin::baton;

/// `(exit code, standard output, standard error)` of `kubectl baton ARGS -n NAMESPACE`.
pub fn run(stage: &Stage, args: &[&str]) -> (Option<i32>, String, String) {
    let args = [args, &["-n", &stage.namespace]].concat();
    let output = tokio::task::block_in_place(|| baton(stage.cluster, &args, ""));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// B7 C9: kubectl's words on the way, exit code 0 at the end; 1 with the reason when it was rolled back.
#[tokio::test(flavor = "multi_thread")]
async fn status_waits_and_judges() {
    let stage = Stage::new(real(), "plugin-status").await;
    let spec = json!({"replicas": 3, "strategy": {"batchSize": 1, "maxSurge": 1, "maxUnavailable": 0}});
    stage.roll("1", spec.clone()).await;
    let (code, said, complaint) = run(&stage, &["status", "web", "--timeout", "60s"]);
    assert_eq!((code, complaint.as_str()), (Some(0), ""));
    assert!(said.ends_with("rollout \"web\" successfully rolled out\n"), "{said}");

    stage.roll("broken", spec).await;
    let (code, said, complaint) = run(&stage, &["status", "rollout/web", "--timeout", "90s"]);
    assert_eq!(code, Some(1), "{said}{complaint}");
    assert!(said.starts_with("Waiting for rollout ") && !said.contains("back at broken"), "{said}");
    assert!(complaint.starts_with("error: rollout \"web\" is stalled (RolledBack): broken failed ("), "{complaint}");

    let (_, shown, _) = run(&stage, &["get", "rollout", "web"]);
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].ends_with("Status:  ✖ RolledBack"), "{shown}");
    assert!(lines[1].ends_with("[████████████] 3/3"), "{shown}");
    assert!(shown.contains("├─# revision 2 (broken)") && shown.contains("└─# revision 1 (1)"), "{shown}");
}

/// X12: what is foretold is what happens: batches, verbs and bounds.
#[tokio::test(flavor = "multi_thread")]
async fn plan_foretells_what_then_happens() {
    let stage = Stage::new(simulated(), "plugin-foretells").await;
    let batches = json!([{"upTo": 1, "pause": {}}, {"upTo": 3}]);
    let spec = json!({"replicas": 4, "strategy": {"batches": batches, "maxSurge": 1, "maxUnavailable": 0}});
    stage.roll("1", spec).await;
    stage.complete(30).await;
    let mut object = serde_json::to_value(stage.rollouts().get("web").await.unwrap()).unwrap();
    object["metadata"] = json!({"name": "web", "namespace": stage.namespace});
    object.as_object_mut().unwrap().remove("status");
    object["spec"]["template"]["spec"]["containers"][0]["image"] = json!("example.local/sleeper:2");
    let file = stage.cluster.dir.join("plugin-foretells.json");
    std::fs::write(&file, object.to_string()).unwrap();
    let (code, told, complaint) = run(&stage, &["plan", "-f", file.to_str().unwrap()]);
    assert_eq!((code, complaint.as_str()), (Some(0), ""));
    let how = "the old Pod leaves when the new one is available";
    for line in [
        "Rollout web: 1 → 2, 4 instances".to_owned(),
        format!("1/3    replace               0          2        {how}"),
        "       pause until approved".to_owned(),
        format!("2/3    replace               1-2        2        {how}"),
        format!("3/3    replace               3          2        {how}"),
        "On the way at least 4 instances are available (4 must be) and at most 5 Pods exist (5 may),".to_owned(),
        "✔ Then every instance runs 2.".to_owned(),
    ] {
        assert!(told.lines().any(|said| said == line), "should say: {line}\n{told}");
    }
    assert_eq!(stage.live().await.len(), 4, "nothing was done");

    stage.patch(json!({"spec": {"template": object["spec"]["template"]}})).await;
    stage.until(30, "asks for approval", |rollout| reason(rollout) == "AwaitingApproval").await;
    let (code, said, complaint) = run(&stage, &["status", "web"]);
    assert_eq!(code, Some(3), "a pipeline is not kept waiting: {complaint}");
    assert!(said.contains("rollout \"web\" waits: batch 1/3 is done; waiting for approval"), "{said}");
    assert!(complaint.contains("`kubectl baton status web --wait-for-approval -n "), "{complaint}");
    let (code, said, complaint) = run(&stage, &["status", "web", "--wait-for-approval", "--timeout", "1s"]);
    assert_eq!(code, Some(4));
    assert!(said.contains("rollout \"web\" waits: batch 1/3 is done; waiting for approval"), "{said}");
    assert!(complaint.contains("kubectl baton approve web, or set spec.approve to {run: 2, batch: 1}"), "{complaint}");
    stage.patch(json!({"spec": {"approve": {"run": 2, "batch": 1}}})).await;
    stage.complete(30).await;
}

/// X12: what a policy of the namespace will refuse is told before, not foretold as a success.
#[tokio::test(flavor = "multi_thread")]
async fn plan_refuses_what_the_operator_is_refused() {
    let stage = Stage::new(simulated(), "plugin-policy").await;
    let enforce = "pod-security.kubernetes.io/enforce=baseline";
    stage.cluster.kubectl(&["label", "namespace", &stage.namespace, enforce]);
    stage.roll("1", json!({"replicas": 2})).await;
    stage.complete(30).await;
    let mut object = serde_json::to_value(stage.rollouts().get("web").await.unwrap()).unwrap();
    object["metadata"] = json!({"name": "web", "namespace": stage.namespace});
    object.as_object_mut().unwrap().remove("status");
    object["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
    let file = stage.cluster.dir.join("plugin-policy.json");
    std::fs::write(&file, object.to_string()).unwrap();
    let (code, told, complaint) = run(&stage, &["plan", "-f", file.to_str().unwrap()]);
    assert_eq!((code, told.as_str()), (Some(1), ""), "{complaint}");
    assert!(complaint.contains("spec.template: the API server refuses its Pods: "), "{complaint}");
    assert!(complaint.contains("violates PodSecurity \"baseline:latest\": host namespaces"), "{complaint}");

    stage.patch(json!({"spec": {"template": object["spec"]["template"]}})).await;
    let is_refused = |rollout: &Rollout| rollout.status.as_ref().unwrap().waiting_for.contains("violates PodSecurity");
    stage.until(30, "the same refusal", is_refused).await;
}

/// C9 C11: each verb is one write that the operator acts on; a second word for the same pause passes no other.
#[tokio::test(flavor = "multi_thread")]
async fn verbs_steer_a_run() {
    let stage = Stage::new(simulated(), "plugin-verbs").await;
    let said = |args: &[&str]| {
        let (code, said, complaint) = run(&stage, args);
        assert_eq!((code, complaint.as_str()), (Some(0), ""), "{args:?}");
        said
    };
    let batches = json!([{"upTo": 1, "pause": {}}, {"upTo": 2, "pause": {}}]);
    let spec = json!({"replicas": 3, "strategy": {"batches": batches, "maxSurge": 1, "maxUnavailable": 0}});
    stage.roll("1", spec.clone()).await;
    stage.complete(30).await;
    let (code, _, complaint) = run(&stage, &["approve", "web"]);
    assert!(code == Some(1) && complaint.contains("no run is on (Complete)"), "{complaint}");
    stage.roll("2", spec).await;
    let waits = |rollout: &Rollout| {
        let batch = rollout.status.as_ref().and_then(|status| status.batch.as_ref()).map(|batch| batch.index);
        (reason(rollout) == "AwaitingApproval").then_some(batch).flatten()
    };
    stage.until(30, "the first pause", |rollout| waits(rollout) == Some(1)).await;
    assert!(said(&["promote", "web"]).contains("passes batch 1"));
    stage.until(30, "the second pause", |rollout| waits(rollout) == Some(2)).await;
    assert!(said(&["abort", "web", "--reason", "orders are late"]).contains("is given up"));
    let aborted = stage.until(30, "Aborted", |rollout| reason(rollout) == "Aborted").await;
    assert_eq!(aborted.spec.request.unwrap().reason.as_deref(), Some("orders are late"));
    said(&["retry", "web"]);
    stage.until(30, "a pause again", |rollout| waits(rollout) == Some(1)).await;
    said(&["approve", "web", "--to-end", "--reason", "looks good"]);
    let done = stage.complete(30).await;
    let noted = |rollout: &Rollout, kind: &str| {
        let entry = rollout.status.as_ref().unwrap().history.iter().find(|entry| entry.kind == kind).cloned().unwrap();
        (entry.by.unwrap_or_default(), entry.reason.unwrap_or_default())
    };
    let (by, reason_given) = noted(&done, "Approve");
    assert!(!by.is_empty() && reason_given == "looks good", "{by}: {reason_given}");
    let uids = async || stage.live().await.into_iter().map(|pod| pod.metadata.uid).collect::<Vec<_>>();
    let before = uids().await;
    said(&["pause", "web", "--reason", "lunch"]);
    let idle = stage.until(30, "Paused", |rollout| reason(rollout) == "Paused").await;
    assert_eq!(noted(&idle, "Pause"), (by, "lunch".to_owned()));
    assert!(said(&["status", "web"]).contains("is paused, with nothing under way"));
    said(&["restart", "web"]);
    let is_held = |rollout: &Rollout| {
        let restarts = rollout.status.as_ref().map(|status| status.history.iter().any(|entry| entry.kind == "Restart"));
        reason(rollout) == "Paused" && restarts == Some(true)
    };
    stage.until(30, "a restart that waits", is_held).await;
    said(&["resume", "web"]);
    stage.until(30, "Complete", |rollout| reason(rollout) == "Complete" && !rollout.spec.paused).await;
    assert!(uids().await.iter().all(|uid| !before.contains(uid)), "every Pod is another one");
}

/// What Kubernetes would not know of a Pod is named beforehand: the Rollout keeps it as it is.
#[tokio::test(flavor = "multi_thread")]
async fn plan_names_what_is_misspelt() {
    let stage = Stage::new(simulated(), "plugin-misspelt").await;
    let container = json!({"name": "web", "image": "example.local/sleeper:1", "imagePolicy": "Always"});
    let template =
        json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container], "nodeSelektor": {}}});
    let object = json!({
        "apiVersion": "baton.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "web", "namespace": stage.namespace},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template},
    });
    let file = stage.cluster.dir.join("plugin-misspelt.json");
    std::fs::write(&file, object.to_string()).unwrap();
    let (code, told, complaint) = run(&stage, &["plan", "-f", file.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{told}{complaint}");
    for field in ["spec.containers[0].imagePolicy", "spec.nodeSelektor"] {
        let warning = format!("warning: spec.template: unknown field \"{field}\"");
        assert!(complaint.lines().any(|line| line == warning), "{complaint}");
    }
}
