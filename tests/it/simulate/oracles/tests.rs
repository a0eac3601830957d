//! The oracles see what they are there for.
use baton::operator::clock::Clock;
use serde_json::{Value, json};

use super::*;
use crate::{
    fake_apiserver::{
        ApiServer, Options,
        actor::Actor,
        delete::DeleteOptions,
        kinds::{CONTROLLER_REVISIONS, Kind},
    },
    simulate::trace::Keeps,
};

/// A Rollout of three Pods that are available, one of which may be missing and one too many, and the operator that made it.
struct Stage {
    server: ApiServer,
    judge: Judge,
    trace: Trace,
    operator: Actor,
    owner: Value,
}

const WHO: &str = "a.1";

impl Stage {
    fn new() -> Self {
        let trace = Trace::new(Keeps::Lines);
        let epoch = "2026-01-01T10:00:00Z".parse().unwrap();
        let clock: Clock = Skew::NONE.clock(epoch, trace.start());
        let server = ApiServer::new(Options::new(1, clock.clone()));
        let judge = Judge::new(&trace, clock, vec![Skew::NONE], Duration::from_secs(30));
        let told = judge.clone();
        server.subscribe(move |commit| told.docket().committed(commit));
        let lease = json!({"metadata": {"name": LEASE}, "spec": {"holderIdentity": "a/uid/1"}});
        server.actor(WHO).create(&LEASES, SYSTEM, lease).unwrap();
        let rollout = json!({"metadata": {"name": "web"}, "spec": {
            "replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "strategy": {"maxUnavailable": 1, "maxSurge": 1},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app", "image": "web:1"}]}},
        }});
        let rollout = server.actor("user").create(&ROLLOUTS, "shop", rollout).unwrap();
        let owner = json!([{"apiVersion": "baton.dev/v1alpha1", "kind": "Rollout", "name": "web",
            "uid": rollout.uid(), "controller": true}]);
        let operator = server.actor(WHO);
        let mut stage = Self { server, judge, trace, operator, owner };
        let revision =
            json!({"metadata": {"name": "web-r", "ownerReferences": stage.owner}, "revision": 1, "data": {}});
        stage.operator.create(&CONTROLLER_REVISIONS, "shop", revision).unwrap();
        stage.tell(|status| status["targetRevision"] = json!("web-r"));
        (0..3).for_each(|slot| stage.make(&format!("web-{slot}"), slot, "web-r"));
        assert_eq!(stage.broken(), "");
        stage
    }

    fn send(&self, verb: Verb, kind: &'static Kind, name: &str, delete: Option<DeleteOptions>) {
        let (namespace, name) = ("shop".to_owned(), name.to_owned());
        // What an actor commits has this id.
        let request =
            Request { id: 0, who: WHO.into(), verb, kind, namespace, name, subresource: "", is_dry_run: false, delete };
        self.server.look(|store| self.judge.docket().sent(&request, store));
        self.server.look(|store| self.judge.docket().answered(&request, 200, store));
    }

    /// Status of the Rollout, by the operator.
    fn tell(&mut self, tell: impl Fn(&mut Value)) {
        self.operator.edit_status(&ROLLOUTS, "shop", "web", |rollout| tell(&mut rollout["status"])).unwrap();
    }

    /// A Pod that is ready at once.
    fn make(&mut self, name: &str, slot: i32, revision: &str) {
        self.send(Verb::Create, &PODS, name, None);
        let labels = json!({"baton.dev/instance": slot.to_string(), "baton.dev/revision": revision});
        let pod = json!({"metadata": {"name": name, "labels": labels, "ownerReferences": self.owner},
            "spec": {"nodeName": "node-0", "containers": [{"name": "app", "image": "web:1"}]}});
        self.operator.create(&PODS, "shop", pod).unwrap();
        let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T10:00:00Z"}]);
        let kubelet = self.server.actor("kubelet");
        kubelet.edit_status(&PODS, "shop", name, |pod| pod["status"]["conditions"] = ready.clone()).unwrap();
    }

    fn delete(&mut self, name: &str) {
        let options = self.send_deletion(name);
        self.operator.delete(&PODS, "shop", name, &options).unwrap();
    }

    /// It is yet to arrive.
    fn send_deletion(&self, name: &str) -> DeleteOptions {
        let pod = self.operator.get(&PODS, "shop", name).unwrap();
        let (uid, version) = (Some(pod.uid().to_owned()), Some(pod.revision().to_string()));
        let options = DeleteOptions { uid, resource_version: version, ..DeleteOptions::default() };
        self.send(Verb::Get, &ROLLOUTS, "web", None);
        self.send(Verb::Delete, &PODS, name, Some(options.clone()));
        options
    }

    /// The promise that was broken; empty: none.
    fn broken(&self) -> String {
        let (_, broken) = self.trace.take();
        broken.unwrap_or_default().split(':').next().unwrap_or_default().to_owned()
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_allowed_is_not_accused() {
    let mut stage = Stage::new();
    stage.delete("web-0");
    stage.make("web-0-1", 0, "web-r");
    stage.delete("web-1");
    assert_eq!(stage.broken(), "");
}

#[tokio::test(start_paused = true)]
async fn one_instance_too_many_is_taken_away() {
    let mut stage = Stage::new();
    stage.delete("web-0");
    stage.delete("web-1");
    assert_eq!(stage.broken(), "R1");
}

#[tokio::test(start_paused = true)]
async fn what_others_delete_meanwhile_is_no_fault_of_a_request_that_comes_late() {
    let by_another = |stage: &Stage, name: &str| {
        stage.server.actor("b.1").delete(&PODS, "shop", name, &DeleteOptions::default()).unwrap();
    };
    let stage = Stage::new();
    let late = stage.send_deletion("web-0");
    tokio::time::advance(Duration::from_secs(20)).await;
    by_another(&stage, "web-1");
    stage.operator.delete(&PODS, "shop", "web-0", &late).unwrap();
    assert_eq!(stage.broken(), "", "nobody could know");
    let stage = Stage::new();
    stage.send_deletion("web-1");
    by_another(&stage, "web-1");
    let late = stage.send_deletion("web-0");
    stage.operator.delete(&PODS, "shop", "web-0", &late).unwrap();
    assert_eq!(stage.broken(), "R1", "it was so when the request left");
    let mut stage = Stage::new();
    let late = stage.send_deletion("web-0");
    stage.delete("web-1");
    stage.operator.delete(&PODS, "shop", "web-0", &late).unwrap();
    assert_eq!(stage.broken(), "R1", "its own it must keep in mind");
}

#[tokio::test(start_paused = true)]
async fn a_view_that_is_old_excuses_what_the_world_has_done_and_nothing_else() {
    let mut stage = Stage::new();
    let kubelet = stage.server.actor("kubelet");
    kubelet.edit_status(&PODS, "shop", "web-0", |pod| pod["status"]["conditions"] = json!([])).unwrap();
    stage.delete("web-1");
    assert_eq!(stage.broken(), "", "web-0 was available a moment ago");
    let mut stage = Stage::new();
    let kubelet = stage.server.actor("kubelet");
    kubelet.edit_status(&PODS, "shop", "web-0", |pod| pod["status"]["conditions"] = json!([])).unwrap();
    tokio::time::advance(Duration::from_secs(31)).await;
    stage.delete("web-1");
    assert_eq!(stage.broken(), "R1");
}

#[tokio::test(start_paused = true)]
async fn one_pod_too_many_is_made() {
    let mut stage = Stage::new();
    stage.make("web-0-1", 0, "web-r");
    assert_eq!(stage.broken(), "");
    stage.make("web-1-1", 1, "web-r");
    assert_eq!(stage.broken(), "R2");
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_made_at_a_revision_that_nothing_assigns() {
    let mut stage = Stage::new();
    stage.make("web-0-1", 0, "web-x");
    assert_eq!(stage.broken(), "R4");
    let mut stage = Stage::new();
    let revision = json!({"metadata": {"name": "web-s", "ownerReferences": stage.owner}, "revision": 2, "data": {}});
    stage.operator.create(&CONTROLLER_REVISIONS, "shop", revision).unwrap();
    stage.make("web-0-1", 0, "web-s");
    assert_eq!(stage.broken(), "R4");
}

#[tokio::test(start_paused = true)]
async fn a_slot_gets_a_third_pod() {
    let mut stage = Stage::new();
    let user = stage.server.actor("user");
    user.edit(&ROLLOUTS, "shop", "web", |rollout| rollout["spec"]["strategy"]["maxSurge"] = json!(3)).unwrap();
    stage.make("web-0-1", 0, "web-r");
    assert_eq!(stage.broken(), "");
    stage.make("web-0-2", 0, "web-r");
    assert_eq!(stage.broken(), "R9");
}

#[tokio::test(start_paused = true)]
async fn something_is_deleted_blindly_or_is_not_ours() {
    let stage = Stage::new();
    stage.send(Verb::Delete, &PODS, "web-0", Some(DeleteOptions::default()));
    assert_eq!(stage.broken(), "R10");
    let stage = Stage::new();
    let pod = json!({"metadata": {"name": "other"}, "spec": {"containers": [{"name": "app", "image": "web:1"}]}});
    stage.server.actor("user").create(&PODS, "shop", pod).unwrap();
    stage.operator.delete(&PODS, "shop", "other", &DeleteOptions::default()).unwrap();
    assert_eq!(stage.broken(), "R10");
    let stage = Stage::new();
    stage.operator.delete(&PODS, "shop", "web-0", &DeleteOptions::default()).unwrap();
    assert_eq!(stage.broken(), "R10", "without a read of the Rollout");
}

#[tokio::test(start_paused = true)]
async fn status_tells_what_is_not_so() {
    let complete = json!([{"type": "Ready", "status": "True", "reason": "Complete", "message": "",
        "lastTransitionTime": "2026-01-01T10:00:00Z"}]);
    let mut stage = Stage::new();
    let told = complete.clone();
    stage.tell(move |status| {
        status["observedGeneration"] = json!(1);
        status["conditions"] = told.clone();
    });
    assert_eq!(stage.broken(), "");
    stage.tell(|status| status["observedGeneration"] = json!(0));
    assert_eq!(stage.broken(), "R13");
    let mut stage = Stage::new();
    stage.delete("web-0");
    tokio::time::advance(Duration::from_secs(31)).await;
    stage.tell(move |status| {
        status["observedGeneration"] = json!(1);
        status["conditions"] = complete.clone();
    });
    assert_eq!(stage.broken(), "R13");
}

/// B7
#[tokio::test(start_paused = true)]
async fn an_instance_is_blamed_for_what_it_was_never_given() {
    let failed = |slots: &str, message: &str| {
        let mut stage = Stage::new();
        let failed = json!({"revision": "web-r", "run": 1, "slots": slots, "reason": "X", "message": message});
        stage.tell(move |status| status["failed"] = failed.clone());
        stage.broken()
    };
    assert_eq!(failed("0,2", "web-2: not available within 20 s"), "");
    assert_eq!(failed("", "web-3: was not given 1.1 within 20 s: waits for web-2 (CrashLoopBackOff)"), "");
    assert_eq!(failed("0,3", "web-0: not available within 20 s"), "B7");
    assert_eq!(failed("0", "web-3: not available within 20 s"), "B7");
}

/// R13
#[tokio::test(start_paused = true)]
async fn a_version_is_stable_that_was_never_available() {
    let mut stage = Stage::new();
    stage.tell(|status| status["currentRevision"] = json!("web-r"));
    assert_eq!(stage.broken(), "");
    stage.tell(|status| status["currentRevision"] = json!("web-s"));
    assert_eq!(stage.broken(), "R13");
}

#[tokio::test(start_paused = true)]
async fn something_is_made_for_a_rollout_that_goes() {
    let mut stage = Stage::new();
    let options = DeleteOptions::default();
    stage.server.actor("user").delete(&ROLLOUTS, "shop", "web", &options).unwrap();
    tokio::time::advance(Duration::from_secs(31)).await;
    stage.make("web-0-1", 0, "web-r");
    assert_eq!(stage.broken(), "R17");
}

#[tokio::test(start_paused = true)]
async fn somebody_writes_without_the_lock() {
    let stage = Stage::new();
    let taken = |lease: &mut Value| lease["spec"]["holderIdentity"] = json!("b/uid/1");
    stage.server.actor("b.1").edit(&LEASES, SYSTEM, LEASE, taken).unwrap();
    stage.send(Verb::Create, &PODS, "web-0-1", None);
    assert_eq!(stage.broken(), "lock");
}

#[tokio::test(start_paused = true)]
async fn somebody_goes_round_and_round() {
    let stage = Stage::new();
    (0..REQUESTS_PER_MINUTE_MAX).for_each(|_| stage.send(Verb::Get, &PODS, "web-0", None));
    assert_eq!(stage.broken(), "hot loop");
}

/// R21
#[tokio::test(start_paused = true)]
async fn a_pause_is_passed_without_a_word() {
    let waiting = |batches: Value, opened: i32| {
        let mut stage = Stage::new();
        let user = stage.server.actor("user");
        user.edit(&ROLLOUTS, "shop", "web", |rollout| rollout["spec"]["strategy"]["batches"] = batches.clone())
            .unwrap();
        let revision =
            json!({"metadata": {"name": "web-s", "ownerReferences": stage.owner}, "revision": 2, "data": {}});
        stage.operator.create(&CONTROLLER_REVISIONS, "shop", revision).unwrap();
        stage.tell(|status| {
            status["run"] = json!(2);
            (status["currentRevision"], status["targetRevision"]) = (json!("web-r"), json!("web-s"));
            status["batch"] = json!({"index": 1, "count": 2, "opened": opened});
        });
        stage
    };
    let approve = |stage: &Stage, batch: i32| {
        let approve = |rollout: &mut Value| rollout["spec"]["approve"] = json!({"run": 2, "batch": batch});
        stage.server.actor("user").edit(&ROLLOUTS, "shop", "web", approve).unwrap();
    };
    let complete = |stage: &Stage| {
        let mark = |revision: &mut Value| {
            revision["metadata"]["annotations"] = json!({"baton.dev/completed-at": "2026-01-01T10:00:00Z"});
        };
        stage.operator.edit(&CONTROLLER_REVISIONS, "shop", "web-s", mark).unwrap();
    };
    let later = || tokio::time::advance(Duration::from_secs(31));
    let first = json!([{"upTo": 1, "pause": {}}]);
    let mut stage = waiting(first.clone(), 1);
    later().await;
    stage.tell(|status| status["batch"]["opened"] = json!(1));
    assert_eq!(stage.broken(), "");
    stage.tell(|status| status["batch"]["opened"] = json!(3));
    assert_eq!(stage.broken(), "R21");
    let mut stage = waiting(first, 1);
    later().await;
    approve(&stage, 1);
    stage.tell(|status| status["batch"]["opened"] = json!(3));
    complete(&stage);
    assert_eq!(stage.broken(), "");
    let last = json!([{"upTo": 1, "pause": {}}, {"upTo": "100%", "pause": {}}]);
    for (batch, broken) in [(1, "R21"), (2, ""), (-1, "")] {
        let stage = waiting(last.clone(), 3);
        later().await;
        approve(&stage, batch);
        later().await;
        complete(&stage);
        assert_eq!(stage.broken(), broken, "{batch}");
    }
}
