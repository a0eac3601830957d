//! What a user does: create, update, scale, pause, approve, abort, restart, delete.
use serde_json::json;

use super::{
    bounds::Bounds,
    stage::{Stage, reason, run, simulated, slots},
};

/// B2: twenty instances change in four batches within the budget, and nothing is lost on the way.
#[tokio::test]
async fn an_update_goes_in_batches_within_the_budget() {
    let stage = Stage::new(simulated(), "rolls-update").await;
    let spec = json!({"replicas": 20, "strategy": {"batchSize": 5, "maxSurge": 2, "maxUnavailable": 1}});
    stage.roll("1", spec.clone()).await;
    let before = stage.complete(60).await;
    let bounds = Bounds::watch(stage.pods(), 20).await;
    stage.roll("2", spec).await;
    let after = stage.complete(90).await;
    bounds.assert(19, 22).await;
    assert_eq!(run(&after), run(&before) + 1);
    let status = after.status.unwrap();
    assert_eq!((status.updated_replicas, status.available_replicas), (20, 20));
    assert_eq!(status.versions.len(), 1);
    assert_eq!((status.versions[0].version.as_str(), status.versions[0].instances.as_str()), ("2", "0-19"));
    assert_eq!(stage.live().await.len(), 20);
    assert_eq!(bounds.worst().created.len(), 20, "one Pod an instance, none more");
}

/// C9 X10: who, when, why stand in the object, and the why also on its revisions.
#[tokio::test]
async fn the_object_tells_who_asked_and_why() {
    let stage = Stage::new(simulated(), "rolls-history").await;
    stage.roll("1", json!({"replicas": 1, "request": {"id": "deploy-1", "by": "alice", "reason": "first"}})).await;
    stage.complete(30).await;
    stage.roll("2", json!({"replicas": 1, "request": {"id": "deploy-2", "by": "bob", "reason": "prices"}})).await;
    let rollout = stage.complete(30).await;
    let history = rollout.status.unwrap().history;
    let told: Vec<_> = history
        .iter()
        .map(|entry| {
            let asked = [&entry.id, &entry.by, &entry.reason].map(|text| text.as_deref().unwrap());
            (asked, entry.version.as_str(), entry.result.as_str())
        })
        .collect();
    let expected =
        [(["deploy-2", "bob", "prices"], "2", "Succeeded"), (["deploy-1", "alice", "first"], "1", "Succeeded")];
    assert_eq!(told, expected);
    assert!(history.iter().all(|entry| entry.started_at.is_some() && entry.completed_at.is_some()));
    let path = r"jsonpath={range .items[*]}{.revision} {.metadata.annotations.baton\.dev/change-cause}{'\n'}{end}";
    let revisions = stage.cluster.kubectl(&["-n", &stage.namespace, "get", "controllerrevisions", "-o", path]);
    let mut causes: Vec<&str> = revisions.lines().collect();
    causes.sort_unstable();
    assert_eq!(causes, ["1 deploy-1 by alice: first", "2 deploy-2 by bob: prices"]);
}

/// X11: kubectl wait judges by these conditions.
#[tokio::test]
async fn kubectl_scale_and_wait_work() {
    let stage = Stage::new(simulated(), "rolls-kubectl").await;
    stage.roll("1", json!({"replicas": 2})).await;
    let in_namespace = ["-n", &stage.namespace];
    let kubectl = |args: &[&str]| stage.cluster.kubectl(&[args, &in_namespace].concat());
    kubectl(&["wait", "--for=condition=Ready", "rollout.baton.dev/web", "--timeout=30s"]);
    kubectl(&["scale", "rollout.baton.dev/web", "--replicas=5"]);
    kubectl(&["wait", "--for=condition=Ready", "rollout.baton.dev/web", "--timeout=30s"]);
    assert_eq!(slots(&stage.live().await).len(), 5);
    let table = kubectl(&["get", "rollouts.baton.dev"]);
    let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "BATCH", "STATUS", "AGE"], "{table}");
    assert_eq!(words[1][..4], ["web", "5/5", "5", "5"], "{table}");
    assert!(words[1].contains(&"Complete"), "{table}");
}

/// Nothing is begun while paused; answers name their run; a pause is passed by its approval alone.
#[tokio::test]
async fn pauses_wait_for_their_own_approval() {
    let stage = Stage::new(simulated(), "rolls-approve").await;
    let strategy = json!({"batches": [{"upTo": 1, "pause": {}}, {"upTo": "50%", "pause": {"seconds": 1}}]});
    stage.roll("1", json!({"replicas": 4, "strategy": strategy})).await;
    stage.complete(30).await;
    stage.patch(json!({"spec": {"paused": true}})).await;
    stage.roll("2", json!({"replicas": 4, "strategy": strategy})).await;
    let waiting = stage.until(30, "Paused", |rollout| reason(rollout) == "Paused").await;
    assert_eq!(waiting.status.unwrap().updated_replicas, 0);
    stage.patch(json!({"spec": {"paused": false}})).await;
    let waiting = stage.until(30, "AwaitingApproval", |rollout| reason(rollout) == "AwaitingApproval").await;
    assert_eq!(waiting.status.as_ref().unwrap().updated_replicas, 1);
    stage.patch(json!({"spec": {"approve": {"run": run(&waiting) + 7, "batch": -1}}})).await;
    let held = stage.until(30, "still waiting", |rollout| reason(rollout) == "AwaitingApproval").await;
    assert_eq!(held.status.as_ref().unwrap().updated_replicas, 1);
    stage.patch(json!({"spec": {"approve": {"run": run(&waiting), "batch": 1}}})).await;
    stage.complete(30).await;
}

/// An abort goes back; the spec keeps the version given up, and status says so; a retry tries it again.
#[tokio::test]
async fn abort_goes_back_and_retry_forward() {
    let stage = Stage::new(simulated(), "rolls-abort").await;
    let spec = json!({"replicas": 3, "strategy": {"batches": [{"upTo": 1, "pause": {}}]}});
    stage.roll("1", spec.clone()).await;
    stage.complete(30).await;
    stage.roll("2", spec).await;
    let waiting = stage.until(30, "AwaitingApproval", |rollout| reason(rollout) == "AwaitingApproval").await;
    stage.patch(json!({"spec": {"abort": {"run": run(&waiting)}}})).await;
    let aborted = stage.until(30, "Aborted", |rollout| reason(rollout) == "Aborted").await;
    let status = aborted.status.unwrap();
    assert_eq!((status.versions.len(), status.versions[0].version.as_str()), (1, "1"));
    assert_ne!(status.update_revision, status.effective_revision);
    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() + 1).unwrap();
    // An approval of the run that the retry will begin comes too early to count.
    let early = run(&stage.rollouts().get("web").await.unwrap()) + 1;
    stage.patch(json!({"spec": {"retryAt": now.to_string(), "approve": {"run": early, "batch": -1}}})).await;
    let waiting = stage.until(30, "AwaitingApproval", |rollout| reason(rollout) == "AwaitingApproval").await;
    stage.patch(json!({"spec": {"approve": {"run": run(&waiting), "batch": -1}}})).await;
    let retried = stage.complete(30).await;
    assert_eq!(retried.status.unwrap().versions[0].version, "2");
}

/// The API server encodes such characters otherwise than we do, and takes a ControllerRevision's data for changed if they are
/// not what it would have written.
#[tokio::test]
async fn a_template_may_have_any_character() {
    let stage = Stage::new(simulated(), "rolls-characters").await;
    let env = json!([{"name": "QUERY", "value": "a=1&b=<2>'\"\\ \u{2028}é"}]);
    let container = json!({"name": "web", "image": "example.local/sleeper:1", "command": ["sleeper"], "env": env});
    stage.roll("1", json!({"replicas": 1, "template": {"spec": {"containers": [container]}}})).await;
    stage.complete(30).await;
    stage.roll("2", json!({"replicas": 1})).await;
    stage.complete(30).await;
}

#[tokio::test]
async fn a_restart_replaces_every_pod_once() {
    let stage = Stage::new(simulated(), "rolls-restart").await;
    stage.roll("1", json!({"replicas": 4, "strategy": {"batchSize": 2}})).await;
    stage.complete(30).await;
    let before: Vec<_> = stage.live().await.into_iter().map(|pod| pod.metadata.uid).collect();
    let bounds = Bounds::watch(stage.pods(), 4).await;
    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() + 1).unwrap();
    stage.patch(json!({"spec": {"restartAt": now.to_string()}})).await;
    let created = || bounds.worst().created;
    stage.until(60, "every Pod replaced", |rollout| reason(rollout) == "Complete" && created().len() >= 4).await;
    let after: Vec<_> = stage.live().await.into_iter().map(|pod| pod.metadata.uid).collect();
    assert!(after.iter().all(|uid| !before.contains(uid)) && after.len() == 4);
    assert_eq!(created().len(), 4, "{:?}", created());
    bounds.assert(3, 5).await;
}

#[tokio::test]
async fn deletion_removes_the_pods_and_orphaning_leaves_them() {
    let stage = Stage::new(simulated(), "rolls-delete").await;
    stage.roll("1", json!({"replicas": 2})).await;
    stage.complete(30).await;
    stage.cluster.kubectl(&["-n", &stage.namespace, "delete", "rollout.baton.dev/web", "--cascade=orphan"]);
    stage.roll("1", json!({"replicas": 2})).await;
    stage.complete(60).await;
    let live = stage.live().await;
    assert_eq!(live.len(), 4, "nothing is adopted: two orphans and two of the new Rollout");
    let orphans = live.iter().filter(|pod| pod.metadata.owner_references.as_ref().is_none_or(Vec::is_empty)).count();
    assert_eq!(orphans, 2);
    let rollout = stage.rollouts().get("web").await.unwrap();
    let conditions = rollout.status.unwrap().conditions;
    let degraded = conditions.iter().find(|condition| condition.type_ == baton::api::ConditionType::Degraded).unwrap();
    assert_eq!(degraded.reason, "OrphansPresent", "{}", degraded.message);
    stage.cluster.kubectl(&[
        "-n",
        &stage.namespace,
        "delete",
        "rollout.baton.dev/web",
        "--cascade=foreground",
        "--timeout=60s",
    ]);
    assert_eq!(stage.live().await.len(), 2);
}
