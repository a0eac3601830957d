//! Why a version failed is told after its Pods are gone.
use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use baton::api::Rollout;
use k8s_openapi::api::{
    apps::v1::ControllerRevision,
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
    events::v1::Event,
};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{
    bounds::Bounds,
    stage::{Stage, image, real, reason},
};

const WHY: &str = "container web: Error, exit code 3: starting | FATAL cannot read /etc/shop.conf";

/// A stage with a version `fatal` that says why it cannot start.
async fn stage(name: &str) -> Stage {
    // Once: a program that runs cannot be written.
    static PROGRAM: OnceLock<()> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        image(
            real(),
            "sleeper",
            "fatal",
            "#!/bin/sh\necho starting\necho 'FATAL cannot read /etc/shop.conf' >&2\nexit 3\n",
        );
    });
    Stage::new(real(), name).await
}

/// B7 C9: in MESSAGE, in history, on the revision and in an Event; the template says nothing of termination messages.
#[tokio::test]
async fn what_a_failed_version_said_last_survives_the_way_back() {
    let stage = stage("why-survives").await;
    let spec =
        json!({"replicas": 2, "minReadySeconds": 2, "strategy": {"batchSize": 1, "maxSurge": 1, "maxUnavailable": 0}});
    stage.roll("1", spec.clone()).await;
    stage.complete(60).await;
    stage.roll("fatal", spec).await;
    let rollout = stage.until(120, "RolledBack", |rollout| reason(rollout) == "RolledBack").await;
    let live = stage.live().await;
    assert!(live.iter().all(|pod| !pod.metadata.annotations.as_ref().unwrap()["baton.dev/version"].contains("fatal")));

    let status = rollout.status.unwrap();
    let failed = status.failed.unwrap();
    assert_eq!((failed.reason.as_str(), failed.message.as_str()), ("CrashLoopBackOff", &*format!("web-0: {WHY}")));
    let why = format!("fatal failed (CrashLoopBackOff: web-0: {WHY})");
    assert!(status.waiting_for.starts_with(&why), "{}", status.waiting_for);
    assert_eq!(
        (status.history[0].kind.as_str(), status.history[0].reason.as_deref()),
        ("Rollback", Some(why.as_str()))
    );

    let revisions = Api::<ControllerRevision>::namespaced(stage.client.clone(), &stage.namespace);
    let revisions = revisions.list(&ListParams::default()).await.unwrap().items;
    let noted = revisions.iter().filter_map(|it| it.metadata.annotations.as_ref()?.get("baton.dev/failed-reason"));
    assert_eq!(noted.collect::<Vec<_>>(), [&format!("CrashLoopBackOff: web-0: {WHY}")]);

    let events = Api::<Event>::namespaced(stage.client.clone(), &stage.namespace);
    let deadline = Instant::now() + Duration::from_mins(1); // they are sent behind the status
    loop {
        let events = events.list(&ListParams::default()).await.unwrap().items;
        let mut of_rollout = events.iter().filter(|event| event.reason.as_deref() == Some("RolledBack"));
        match of_rollout.next() {
            Some(event) => break assert!(event.note.as_deref().is_some_and(|note| note.contains(&why)), "{event:?}"),
            None => assert!(Instant::now() < deadline, "no such Event: {events:#?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whether an EndpointSlice of this Service names the Pod, and how many Pods they name.
async fn endpoints(stage: &Stage, service: &str, pod: &str) -> (bool, usize) {
    let slices = Api::<EndpointSlice>::namespaced(stage.client.clone(), &stage.namespace);
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    let slices = slices.list(&of_service).await.unwrap().items;
    let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    let names: Vec<_> = endpoints.filter_map(|endpoint| endpoint.target_ref.as_ref()?.name.as_deref()).collect();
    (names.contains(&pod), names.len())
}

/// The one Pod that is kept for a look.
async fn kept(stage: &Stage) -> Option<Pod> {
    let pods = stage.pods().list(&ListParams::default().labels("baton.dev/kept=web")).await.unwrap().items;
    assert!(pods.len() <= 1, "{pods:?}");
    pods.into_iter().next()
}

async fn until_none_is_kept(stage: &Stage) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while kept(stage).await.is_some() {
        assert!(Instant::now() < deadline, "it is still there\n{}", stage.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// B7 R2: a failed Pod stays for a look, out of every Service, until its time is over or its Rollout is deleted.
#[tokio::test]
async fn a_failed_pod_is_kept_for_a_look() {
    let mut stage = stage("why-kept").await;
    let services = Api::<Service>::namespaced(stage.client.clone(), &stage.namespace);
    for (name, selector) in [("web", json!({"app": "web"})), ("all", json!({"baton.dev/rollout": "web"}))] {
        let spec = json!({"selector": selector, "ports": [{"port": 80}], "clusterIP": "None"});
        let service = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap();
        services.create(&PostParams::default(), &service).await.unwrap();
    }
    let spec = json!({"replicas": 2, "minReadySeconds": 2, "strategy": {
        "batchSize": 1, "maxSurge": 1, "maxUnavailable": 0, "keepFailed": {"pods": 1, "seconds": 3600}}});
    stage.roll("1", spec.clone()).await;
    stage.complete(60).await;
    let bounds = Bounds::watch(stage.pods(), 2).await;
    stage.roll("fatal", spec).await;
    let rollout = stage.until(120, "RolledBack", |rollout| reason(rollout) == "RolledBack").await;

    let pod = kept(&stage).await.expect("one is kept");
    let (name, metadata) = (pod.metadata.name.clone().unwrap(), &pod.metadata);
    let labels: Vec<_> = metadata.labels.iter().flatten().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(labels, [("baton.dev/kept", "web"), ("baton.dev/rollout", "")]);
    assert_eq!(metadata.owner_references.as_ref().unwrap()[0].controller, Some(true));
    let noted: Value = serde_json::from_str(&metadata.annotations.as_ref().unwrap()["baton.dev/kept"]).unwrap();
    assert_eq!((&noted["slot"], &noted["labels"]), (&json!(0), &json!({"app": "web"})));
    let told = rollout.status.unwrap().waiting_for;
    let until = noted["until"].as_str().unwrap();
    assert!(told.contains(&format!("; {name} is kept until {until} (kubectl logs {name}): ")), "{told}");
    assert!(told.contains(WHY), "{told}");
    let log = stage.cluster.kubectl(&["-n", &stage.namespace, "logs", &name]);
    assert!(log.contains("FATAL cannot read /etc/shop.conf"), "{log}");
    let deadline = Instant::now() + Duration::from_mins(1); // the controller of EndpointSlices follows
    for service in ["web", "all"] {
        while endpoints(&stage, service, &name).await != (false, 2) {
            assert!(Instant::now() < deadline, "Service {service} has {name}, or not the others");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    // All that is known of it stands on it: another operator ends it when its time is over, and not before.
    stage.kill_operator();
    stage.start_operator();
    stage.patch(json!({"spec": {"replicas": 3}})).await;
    let is_larger = |rollout: &Rollout| rollout.status.as_ref().is_some_and(|status| status.available_replicas == 3);
    stage.until(60, "another instance", is_larger).await;
    assert!(kept(&stage).await.is_some());
    let over = Value::String({
        let mut over = noted.clone();
        over["until"] = json!("2026-01-01T00:00:00Z");
        over.to_string()
    });
    let patch = Patch::Merge(json!({"metadata": {"annotations": {"baton.dev/kept": over}}}));
    stage.pods().patch(&name, &PatchParams::default(), &patch).await.unwrap();
    until_none_is_kept(&stage).await;
    stage.until(30, "no word of it", |rollout| !rollout.status.as_ref().unwrap().waiting_for.contains(&name)).await;
    bounds.assert(2, 5).await; // three instances, one more by maxSurge, and the one that is kept

    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() + 1).unwrap();
    stage.patch(json!({"spec": {"retryAt": now.to_string()}})).await;
    let is_kept = |rollout: &Rollout| rollout.status.as_ref().unwrap().waiting_for.contains(" is kept until ");
    stage.until(120, "another is kept", |rollout| reason(rollout) == "RolledBack" && is_kept(rollout)).await;
    assert!(kept(&stage).await.is_some());
    stage.cluster.kubectl(&["-n", &stage.namespace, "delete", "rollout.baton.dev/web", "--timeout=60s"]);
    until_none_is_kept(&stage).await;
}
