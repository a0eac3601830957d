//! Chosen instances on a version of their own, as a user does it with the plugin.
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use baton::api::Rollout;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{
    plugin::run as plugin,
    stage::{Stage, image, real, reason, simulated},
};

/// Versions of the live Pods, by slot.
fn versions(pods: &[Pod]) -> Vec<String> {
    let slot = |pod: &&Pod| pod.labels()["baton.dev/instance"].parse::<i32>().unwrap();
    let mut pods: Vec<&Pod> = pods.iter().collect();
    pods.sort_by_key(slot);
    pods.into_iter().map(|pod| pod.annotations()["baton.dev/version"].clone()).collect()
}

/// Waits until one live Pod an instance runs these versions.
async fn until(stage: &Stage, expected: &[&str]) {
    let deadline = Instant::now() + Duration::from_mins(2); // a safety net, not a measurement
    loop {
        let live = versions(&stage.live().await);
        if live == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{live:?}, not {expected:?}\n{}", stage.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// uid by slot.
fn uids(pods: &[Pod]) -> BTreeMap<String, String> {
    pods.iter().map(|pod| (pod.labels()["baton.dev/instance"].clone(), pod.uid().unwrap())).collect()
}

fn status_of(rollout: &Rollout) -> Value {
    serde_json::to_value(&rollout.status).unwrap()
}

/// X1 C5 C10 X10: that Pod changes and no other; who, why, from what to what stands in the object; and back again.
#[tokio::test(flavor = "multi_thread")]
async fn one_instance_of_eight_is_rolled_back() {
    let stage = Stage::new(real(), "pins-one").await;
    let spec = json!({"replicas": 8, "strategy": {"maxSurge": 2, "maxUnavailable": 0}});
    stage.roll("1", spec.clone()).await;
    stage.complete(60).await;
    stage.roll("2", spec).await;
    let before = stage.complete(60).await;
    let pods = uids(&stage.live().await);
    let (code, said, complaint) = plugin(&stage, &["undo", "web", "--instances", "3", "--reason", "orders are late"]);
    assert_eq!((code, complaint.as_str()), (Some(0), ""));
    assert!(said.starts_with("rollout.baton.dev/web pinned: instances 3 to 1;"), "{said}");
    let rollout = stage.complete(60).await;
    let live = stage.live_are(30, 8).await;
    assert_eq!(versions(&live), ["2", "2", "2", "1", "2", "2", "2", "2"]);
    let after = uids(&live);
    assert!(pods.iter().all(|(slot, uid)| (after[slot] == *uid) == (slot != "3")), "{pods:?} {after:?}");
    assert_eq!(rollout.status.as_ref().unwrap().run, before.status.unwrap().run, "no run of its own");
    let status = status_of(&rollout);
    let entry = &status["history"][0];
    let told =
        ["kind", "instances", "fromVersion", "version", "reason", "result"].map(|field| entry[field].as_str().unwrap());
    assert_eq!(told, ["InstanceRollback", "3", "2", "1", "orders are late", "Succeeded"], "{entry}");
    assert!(entry["by"].is_string(), "{entry}");
    assert_eq!(status["display"]["version"], "2; pinned 3: 1");
    let (code, told, complaint) = plugin(&stage, &["history", "rollout", "web"]);
    assert_eq!((code, complaint.as_str()), (Some(0), ""));
    let lines: Vec<String> = told.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert!(lines[2].starts_with("1 1 pinned 1 ") && lines[3].starts_with("2 2 stable 7 "), "{told}");
    let last = lines.last().unwrap();
    assert!(last.contains(" InstanceRollback 2 → 1 3 Succeeded ") && last.ends_with(" orders are late"), "{told}");
    let (_, told, _) = plugin(&stage, &["history", "web", "--revision", "2", "-o", "json"]);
    let record: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(record["instances"], "0-2,4-7", "{record}");
    let (code, _, complaint) = plugin(&stage, &["history", "web", "--revision", "7"]);
    assert_eq!((code, complaint.as_str()), (Some(1), "error: web has no revision 7; it has 2 (2), 1 (1)\n"));

    let (code, _, complaint) = plugin(&stage, &["unpin", "web", "--instances", "3"]);
    assert_eq!((code, complaint.as_str()), (Some(0), ""));
    let rollout = stage.until(60, "all at 2", |rollout| reason(rollout) == "Complete").await;
    until(&stage, &["2"; 8]).await;
    assert_eq!(status_of(&rollout)["history"][0]["kind"], "Unpin");
    let (code, _, complaint) = plugin(&stage, &["unpin", "web", "--all"]);
    assert!(code == Some(1) && complaint.contains("none of these instances is pinned"), "{complaint}");
}

/// X4 C6: with onFailure Pause a person takes back those that have failed, by that word.
#[tokio::test(flavor = "multi_thread")]
async fn three_that_have_failed_are_rolled_back() {
    let stage = Stage::new(real(), "pins-failed").await;
    // Its instances 1, 4 and 5 fail at this version.
    let fails = "#!/bin/sh\ncase $BATON_INSTANCE in 1|4|5) exit 1;; esac\ntrap 'exit 0' TERM\nsleep infinity & wait\n";
    image(stage.cluster, "sleeper", "partly", fails);
    let strategy = json!({"onFailure": "Pause", "failureThreshold": 3, "maxSurge": 6, "maxUnavailable": 0});
    // What ends at once is Ready until the kubelet has seen that.
    let spec = json!({"replicas": 6, "minReadySeconds": 2, "strategy": strategy});
    stage.roll("1", spec.clone()).await;
    stage.complete(60).await;
    stage.roll("partly", spec).await;
    stage.until(60, "FailureThreshold", |rollout| reason(rollout) == "FailureThreshold").await;
    let (code, said, complaint) = plugin(&stage, &["undo", "web", "--failed", "--to", "1"]);
    assert_eq!((code, complaint.as_str()), (Some(0), ""));
    assert!(said.contains("instances 1,4-5 to 1;"), "{said}");
    until(&stage, &["partly", "1", "partly", "partly", "1", "1"]).await;
    // Nothing is left of the failure: the others run what the spec asks for.
    stage.patch(json!({"spec": {"retryAt": jiff::Timestamp::now().to_string()}})).await;
    stage.complete(60).await;
    until(&stage, &["partly", "1", "partly", "partly", "1", "1"]).await;
}

/// X3 R5: as a normal state, and each killed Pod comes back at its own version.
#[tokio::test(flavor = "multi_thread")]
async fn three_versions_live_side_by_side() {
    let stage = Stage::new(simulated(), "pins-three").await;
    let spec = json!({"replicas": 5, "strategy": {"maxSurge": 2}});
    for version in ["1", "2", "3"] {
        stage.roll(version, spec.clone()).await;
        stage.complete(60).await;
    }
    for (version, instances) in [("1", "0"), ("2", "2-3")] {
        let (code, _, complaint) = plugin(&stage, &["undo", "web", "--to", version, "--instances", instances]);
        assert_eq!((code, complaint.as_str()), (Some(0), ""));
    }
    let expected = ["1", "3", "2", "2", "3"];
    let rollout = stage.complete(60).await;
    until(&stage, &expected).await;
    let shown: Vec<_> = rollout.status.unwrap().versions.into_iter().map(|it| (it.version, it.instances)).collect();
    let wanted =
        [("1", "0"), ("2", "2-3"), ("3", "1,4")].map(|(version, slots)| (version.to_owned(), slots.to_owned()));
    assert_eq!(shown, wanted);
    for pod in stage.live().await {
        stage.delete_pod(&pod.name_any()).await;
    }
    stage
        .until(60, "all back", |rollout| {
            reason(rollout) == "Complete" && rollout.status.as_ref().unwrap().terminating_replicas == 0
        })
        .await;
    until(&stage, &expected).await;
    // A later version passes them by.
    stage.roll("4", spec).await;
    stage.complete(60).await;
    until(&stage, &["1", "4", "2", "2", "4"]).await;
}

/// A pin that says what differs from a revision; one that means nothing is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_pin_by_what_differs_and_one_that_means_nothing() {
    let stage = Stage::new(simulated(), "pins-differs").await;
    stage.roll("1", json!({"replicas": 3, "strategy": {"maxSurge": 1}})).await;
    let revision = stage.complete(60).await.status.unwrap().current_revision.unwrap();
    let pin = json!({"instances": "1", "base": revision, "images": {"web": "example.local/sleeper:2"}, "request": {"by": "ann"}});
    stage.patch(json!({"spec": {"pins": [pin, {"instances": "7", "revision": revision}]}})).await;
    let is_there = |rollout: &Rollout| {
        let degraded = status_of(rollout)["conditions"].to_string();
        reason(rollout) == "Complete" && degraded.contains("spec.pins[1] names web-7, beyond spec.replicas")
    };
    stage.until(60, "web-1 at 2, and web-7 told of", is_there).await;
    until(&stage, &["1", "2", "1"]).await;

    stage.patch(json!({"spec": {"pins": [{"instances": "1", "revision": "web-nothing"}]}})).await;
    let is_told = |rollout: &Rollout| {
        let status = status_of(rollout);
        let sentence = "there is no ControllerRevision web-nothing";
        [&status["conditions"], &status["waitingFor"]].iter().all(|said| said.to_string().contains(sentence))
    };
    stage.until(30, "PinInvalid", is_told).await;
    assert_eq!(versions(&stage.live().await), ["1", "2", "1"], "it keeps what it runs");

    for (pin, sentence) in [
        (json!({"instances": "1"}), "exactly one of revision"),
        (json!({"instances": "1", "revision": "a", "version": "2"}), "use base instead of revision"),
        (json!({"instances": "1", "base": "a"}), "use revision instead of base"),
        (json!({"instances": "one", "revision": "a"}), "numbers and ranges, such as 3,5-7"),
    ] {
        let patch = kube::api::Patch::Merge(json!({"spec": {"pins": [pin]}}));
        let refused = stage.rollouts().patch("web", &kube::api::PatchParams::default(), &patch).await.unwrap_err();
        assert!(refused.to_string().contains(sentence), "{refused}");
    }
}

/// X4: the failed instance goes back by itself, the healthy ones stay, and it is said so.
#[tokio::test(flavor = "multi_thread")]
async fn rollback_failed_leaves_healthy_ones_at_the_new_version() {
    let stage = Stage::new(real(), "pins-rollback").await;
    image(
        stage.cluster,
        "sleeper",
        "one-fails",
        "#!/bin/sh\n[ $BATON_INSTANCE = 1 ] && exit 1\ntrap 'exit 0' TERM\nsleep infinity & wait\n",
    );
    let strategy = json!({"onFailure": "RollbackFailed", "batchSize": 3, "maxSurge": 3, "maxUnavailable": 0});
    // What ends at once is Ready until the kubelet has seen that.
    let spec = json!({"replicas": 6, "minReadySeconds": 2, "strategy": strategy});
    stage.roll("1", spec.clone()).await;
    stage.complete(60).await;
    stage.roll("one-fails", spec).await;
    let rollout = stage.until(90, "PartlyRolledBack", |rollout| reason(rollout) == "PartlyRolledBack").await;
    until(&stage, &["one-fails", "1", "one-fails", "1", "1", "1"]).await;
    let status = status_of(&rollout);
    assert_eq!(status["history"][0]["result"], "PartlyRolledBack");
    assert!(
        status["waitingFor"].as_str().unwrap().contains("instances 1 run version 1 again, the others stay"),
        "{status}"
    );
    let (code, _, complaint) = plugin(&stage, &["status", "web", "--timeout", "10s"]);
    assert!(code == Some(1) && complaint.contains("is stalled (PartlyRolledBack)"), "{complaint}");
}

/// All of it goes back by its spec, as a run like any other.
#[tokio::test(flavor = "multi_thread")]
async fn the_whole_is_undone() {
    let stage = Stage::new(simulated(), "pins-whole").await;
    let spec = json!({"replicas": 3, "strategy": {"batchSize": 1}});
    stage.roll("1", spec.clone()).await;
    stage.complete(60).await;
    let (code, _, complaint) = plugin(&stage, &["undo", "web"]);
    assert!(code == Some(1) && complaint.contains("no earlier revision has completed"), "{complaint}");
    stage.roll("2", spec).await;
    stage.complete(60).await;
    let (code, said, complaint) = plugin(&stage, &["undo", "web"]);
    assert_eq!((code, complaint.as_str()), (Some(0), ""));
    assert!(said.contains("goes back to 1"), "{said}");
    let rollout = stage.complete(60).await;
    until(&stage, &["1"; 3]).await;
    let history = &status_of(&rollout)["history"];
    assert_eq!((&history[0]["kind"], &history[0]["version"]), (&json!("Deploy"), &json!("1")), "{history}");
}
