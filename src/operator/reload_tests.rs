//! HotReload over a small world: the application is told until it answers 200, and by the next operator once more.
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use super::{
    tests::{ROLLOUT, Rig},
    *,
};

type Told = Arc<Mutex<Vec<(SocketAddr, String, Value)>>>;

impl Rig {
    /// Another operator, and applications that answer so; what they are told.
    fn answering(&mut self, answer: impl Fn(usize) -> std::result::Result<(), String> + Send + Sync + 'static) -> Told {
        let told = Told::default();
        let hears = told.clone();
        let post: apply::applications::Post = Arc::new(move |to, path, body| {
            let mut calls = hears.lock().unwrap();
            calls.push((to, path, serde_json::from_str(&body).unwrap()));
            Box::pin(std::future::ready(answer(calls.len())))
        });
        let due = self.queue.clone();
        let before = self.shell.clone();
        let calls = before.calls.clone().with_applications(post, Arc::new(move |key| due.add([key])));
        self.shell = Arc::new(Shell {
            observer: before.observer.clone(),
            calls,
            clock: before.clock.clone(),
            rng: fastrand::Rng::with_seed(2).into(),
            metrics: before.metrics.clone(),
            identity: before.identity.clone(),
            notifier: before.notifier.clone(),
            rollouts: Memories::default(),
            sets: Memories::default(),
        });
        told
    }

    /// One instance at version 1, complete.
    async fn at_version_1() -> Self {
        let rig = Self::of(1).await;
        let mut rollout = rig.object(ROLLOUT);
        rollout["spec"]["strategy"] =
            json!({"update": "HotReload", "hotReload": {"httpPost": {"path": "/reload", "port": 8080}}});
        rig.world().put(ROLLOUT, rollout);
        rig.give("1").await;
        let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T10:00:01Z"});
        let mut pod = rig.pod();
        pod["status"] = json!({"phase": "Running", "podIP": "10.0.0.7", "conditions": [ready]});
        let path = rig.pods()[0].clone();
        rig.world().put(&path, pod);
        rig.run(Duration::from_secs(5)).await;
        assert_eq!(rig.reason(), "Complete");
        rig
    }

    /// The spec asks for this version, which differs by an annotation.
    async fn give(&self, version: &str) {
        let mut rollout = self.object(ROLLOUT);
        rollout["spec"]["version"] = json!(version);
        rollout["spec"]["template"]["metadata"]["annotations"] = json!({"config": version});
        rollout["metadata"]["generation"] = json!(rollout["metadata"]["generation"].as_i64().unwrap() + 1);
        self.world().put(ROLLOUT, rollout);
        self.tell().await;
        self.run(Duration::from_secs(8)).await;
    }

    fn pod(&self) -> Value {
        self.object(&self.pods()[0])
    }

    fn reason(&self) -> String {
        let status = self.status();
        let ready = status["conditions"].as_array().unwrap().iter().find(|it| it["type"] == "Ready");
        ready.unwrap()["reason"].as_str().unwrap().to_owned()
    }

    /// What the Pod says of the last change.
    fn noted(&self) -> Value {
        let note = self.pod()["metadata"]["annotations"]["baton.dev/in-place"].clone();
        serde_json::from_str(note.as_str().unwrap()).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn the_application_is_told_until_it_has_reloaded() {
    let mut rig = Rig::at_version_1().await;
    let uid = rig.pod()["metadata"]["uid"].clone();
    let told = rig.answering(|number| if number < 3 { Err("answered 503: not yet".into()) } else { Ok(()) });
    rig.give("2").await;
    assert_eq!((rig.reason().as_str(), rig.pods().len()), ("Complete", 1));
    assert_eq!((&rig.pod()["metadata"]["uid"], &rig.pod()["metadata"]["annotations"]["config"]), (&uid, &json!("2")));
    let told = told.lock().unwrap().clone();
    let revision = rig.pod()["metadata"]["labels"]["baton.dev/revision"].clone();
    let expected = ("10.0.0.7:8080".parse().unwrap(), "/reload".into(), json!({"version": "2", "revision": revision}));
    assert_eq!(told, vec![expected; 3]);
    assert!(rig.noted()["reload"]["told_at"].is_string(), "{}", rig.noted());
}

/// An operator that dies between the answer and its note leaves it to the next one, which asks once more.
#[tokio::test(start_paused = true)]
async fn what_nobody_has_noted_is_told_again() {
    let mut rig = Rig::at_version_1().await;
    let world = rig.world.clone();
    let told = rig.answering(move |_| {
        world.lock().unwrap().refusal = Some(("PATCH".into(), 500, "etcd is away".into()));
        Ok(())
    });
    rig.give("2").await;
    assert_eq!((told.lock().unwrap().len(), &rig.noted()["reload"]), (1, &json!({})), "told, and not noted");
    rig.refuse_nothing();
    let told = rig.answering(|_| Ok(()));
    rig.run(Duration::from_secs(5)).await;
    assert_eq!((told.lock().unwrap().len(), rig.reason().as_str()), (1, "Complete"));
    assert!(rig.noted()["reload"]["told_at"].is_string(), "{}", rig.noted());
    rig.run(Duration::from_mins(10)).await;
    assert_eq!(told.lock().unwrap().len(), 1, "and then no more");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_reload_is_taken_back_and_told_so() {
    let mut rig = Rig::at_version_1().await;
    let uid = rig.pod()["metadata"]["uid"].clone();
    let told = rig.answering(|_| Err("answered 500: bad config".into()));
    rig.give("2").await;
    rig.run(Duration::from_secs(100)).await;
    assert_eq!(rig.reason(), "RollingOut");
    let exception = rig.status()["exceptions"][0].clone();
    assert_eq!(exception["state"], "Reloading", "{exception}");
    let message = "its application has yet to answer POST :8080/reload with 200: answered 500: bad config";
    assert_eq!(exception["message"], message);
    rig.run(Duration::from_secs(100)).await;
    assert_eq!(rig.pod()["metadata"]["annotations"]["config"], "1", "given back");
    let last = told.lock().unwrap().last().unwrap().clone();
    assert_eq!(last.2["version"], "1", "and told so");
    let told = rig.answering(|_| Ok(()));
    rig.run(Duration::from_mins(1)).await;
    assert_eq!((rig.reason().as_str(), told.lock().unwrap().len()), ("RolledBack", 1));
    assert_eq!(rig.pod()["metadata"]["uid"], uid);
    let failed = rig.status()["failed"].clone();
    assert_eq!(
        (&failed["reason"], &failed["message"]),
        (&json!("ReloadFailed"), &json!(format!("web-0: {message}, for 180 s")))
    );
}
