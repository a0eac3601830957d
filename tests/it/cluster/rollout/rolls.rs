//! What a user does: create, update, scale, pause, approve, abort, restart, delete.
use baton::api::{Condition, ConditionType, Rollout};
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
use kube::{
    Api, ResourceExt,
    api::{ListParams, PostParams},
};
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

/// R21: however few instances there are, a pause holds: before the first, and before the run is complete, when it can be given up.
#[tokio::test]
async fn a_single_instance_keeps_its_gates() {
    let stage = Stage::new(simulated(), "rolls-gates").await;
    let of = |batches: serde_json::Value| json!({"replicas": 1, "strategy": {"batches": batches, "maxSurge": 1}});
    let status = |rollout: &baton::api::Rollout| rollout.status.clone().unwrap_or_default();
    let at = |version: &str| {
        let version = version.to_owned();
        move |rollout: &baton::api::Rollout| {
            let status = rollout.status.clone().unwrap_or_default();
            let runs = status.versions.iter().map(|it| it.version.as_str()).collect::<Vec<_>>() == [version.as_str()];
            reason(rollout) == "AwaitingApproval" && runs
        }
    };
    let approve = async |waiting: &baton::api::Rollout, batch: i32| {
        let approve = json!({"run": run(waiting), "batch": batch, "by": "ann", "reason": "looks good"});
        stage.patch(json!({"spec": {"approve": approve}})).await;
    };
    let canary = json!([{"upTo": 1, "pause": {}}]);
    stage.roll("1", of(canary.clone())).await;
    let first = stage.complete(30).await; // the first creation has no pauses
    stage.roll("2", of(canary.clone())).await;
    let waiting = stage.until(30, "2 runs and waits", at("2")).await;
    assert_eq!(status(&waiting).current_revision, status(&first).current_revision, "1 is stable until then");
    stage.patch(json!({"spec": {"abort": {"run": run(&waiting)}}})).await;
    let aborted = stage.until(30, "Aborted", |rollout| reason(rollout) == "Aborted").await;
    assert_eq!(status(&aborted).versions[0].version, "1");
    stage.roll("3", of(json!([{"upTo": "100%", "pause": {}}]))).await;
    let waiting = stage.until(30, "3 runs and waits", at("3")).await;
    approve(&waiting, 1).await;
    let done = stage.complete(30).await;
    let noted = status(&done).history.into_iter().find(|entry| entry.kind == "Approve").unwrap();
    assert_eq!((noted.batch, noted.by.as_deref()), (Some(1), Some("ann")));
    stage.roll("4", of(json!([{"upTo": 0, "pause": {}}]))).await;
    let waiting = stage.until(30, "4 waits to begin", at("3")).await;
    assert_eq!(status(&waiting).batch.map(|batch| (batch.index, batch.opened)), Some((0, 0)));
    approve(&waiting, 0).await;
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
    assert_ne!(status.update_revision, status.target_revision);
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
async fn deletion_removes_the_pods() {
    let stage = Stage::new(simulated(), "rolls-delete").await;
    stage.roll("1", json!({"replicas": 2})).await;
    stage.complete(30).await;
    let delete = ["delete", "rollout.baton.dev/web", "--cascade=foreground", "--timeout=60s"];
    stage.cluster.kubectl(&[&["-n", &stage.namespace][..], &delete].concat());
    assert_eq!(stage.live().await.len(), 0);
}

/// A Rollout that is made again takes back what the one before has left, as it is; what else its selector matches is named.
#[tokio::test]
async fn what_an_orphaned_rollout_left_is_adopted_as_it_is() {
    let stage = Stage::new(simulated(), "rolls-orphan").await;
    stage.roll("1", json!({"replicas": 2})).await;
    stage.complete(30).await;
    let revisions = Api::<ControllerRevision>::namespaced(stage.client.clone(), &stage.namespace);
    let seen = async || {
        let pods = stage.live().await.into_iter().map(|pod| pod.metadata);
        let revisions = revisions.list(&ListParams::default()).await.unwrap().items.into_iter().map(|it| it.metadata);
        let mut seen: Vec<_> = pods.chain(revisions).map(|it| (it.uid.unwrap(), it.owner_references)).collect();
        seen.sort_by(|a, b| a.0.cmp(&b.0));
        seen
    };
    let uids = |seen: &[(String, Option<Vec<_>>)]| seen.iter().map(|(uid, _)| uid.clone()).collect::<Vec<_>>();
    let before = seen().await;
    assert_eq!(before.len(), 3, "two Pods and a revision");
    let in_namespace = |args: &[&str]| stage.cluster.kubectl(&[&["-n", &stage.namespace], args].concat());
    in_namespace(&["delete", "rollout.baton.dev/web", "--cascade=orphan"]);
    let left = seen().await;
    assert_eq!(uids(&left), uids(&before));
    assert!(left.iter().all(|(_, owners)| owners.as_ref().is_none_or(Vec::is_empty)), "{left:?}");
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [
        {"name": "other", "image": "example.local/other:1"},
    ]}});
    let deployment: Deployment = serde_json::from_value(json!({"metadata": {"name": "other"}, "spec": {
        "selector": {"matchLabels": {"app": "web"}}, "template": template,
    }}))
    .unwrap();
    let deployments = Api::<Deployment>::namespaced(stage.client.clone(), &stage.namespace);
    deployments.create(&PostParams::default(), &deployment).await.unwrap();
    in_namespace(&["wait", "--for=condition=Available", "deployment/other", "--timeout=60s"]);
    stage.roll("1", json!({"replicas": 2})).await;
    stage.complete(60).await;
    let rollout = stage.rollouts().get("web").await.unwrap();
    let owner = rollout.metadata.uid.clone();
    let pods = stage.live().await;
    let ours: Vec<_> = pods.iter().filter(|pod| pod.labels().contains_key("baton.dev/rollout")).collect();
    assert_eq!((ours.len(), pods.len()), (2, 3), "no second set beside it, and the Deployment's Pod");
    let adopted = seen().await;
    for (uid, _) in &before {
        let owners =
            adopted.iter().find(|(of, _)| of == uid).and_then(|(_, owners)| owners.clone()).unwrap_or_default();
        assert_eq!(owners.iter().map(|it| Some(&it.uid)).collect::<Vec<_>>(), [owner.as_ref()], "{uid}");
    }
    let told = |rollout: &Rollout| {
        let conditions = rollout.status.iter().flat_map(|status| &status.conditions);
        let overlaps = |condition: &&Condition| condition.type_ == ConditionType::SelectorOverlaps;
        conditions.into_iter().find(overlaps).map(|condition| condition.message.clone())
    };
    let told_of = |rollout: &Rollout| told(rollout).is_some_and(|it| it.contains("1 Pod of something else: other-"));
    stage.until(30, "the Deployment's Pod is named", told_of).await;
    in_namespace(&["delete", "deployment", "other", "--cascade=foreground", "--timeout=60s"]);
    stage.patch(json!({"spec": {"minReadySeconds": 1}})).await;
    stage.until(30, "nothing else has these labels", |rollout| told(rollout).is_none()).await;
    assert_eq!(uids(&seen().await), uids(&before));
}
