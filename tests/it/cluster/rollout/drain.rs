//! Drain before the end: Pods and EndpointSlices are watched from outside, and real applications say when they are drained.
use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::StreamExt;
use k8s_openapi::api::{core::v1::Pod, discovery::v1::EndpointSlice};
use kube::{
    Api, Resource, ResourceExt,
    api::ListParams,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{
    health::{Answers, another, cluster, gate, service, web_of},
    stage::Stage,
};
use crate::cluster::support::output_of;

/// Waits until there is one.
pub async fn until<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_mins(2); // a safety net, not a measurement
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within 2 minutes: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a watch has told of an object.
#[derive(Clone, Debug)]
pub struct State<K> {
    pub object: K,
    /// resourceVersion: etcd counts the writes of all objects in one row, so those of Pods and EndpointSlices compare.
    pub version: u64,
    pub is_gone: bool,
    /// When it was told.
    pub at: Instant,
}

/// All states of the objects of one kind, in order: a watch tells every one. It ends with the value.
pub struct States<K> {
    api: Api<K>,
    told: Arc<Mutex<Vec<State<K>>>>,
    task: JoinHandle<()>,
}

impl<K: Resource + Clone + DeserializeOwned + Debug + Send + 'static> States<K> {
    /// Returns once the present state is known.
    pub async fn watch(api: Api<K>) -> Self {
        let told = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&told);
        let (listed, mut is_listed) = tokio::sync::watch::channel(false);
        let mut events = watcher::watcher(api.clone(), watcher::Config::default()).default_backoff().boxed();
        let task = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                let (object, is_gone) = match event {
                    Ok(Event::Apply(object) | Event::InitApply(object)) => (object, false),
                    Ok(Event::Delete(object)) => (object, true),
                    Ok(Event::InitDone) => {
                        listed.send_replace(true);
                        continue;
                    }
                    // An error is the end of a connection, and the watch goes on where it was.
                    Ok(Event::Init) | Err(_) => continue,
                };
                let version = version(&object);
                shared.lock().unwrap().push(State { object, version, is_gone, at: Instant::now() });
            }
        });
        is_listed.wait_for(|is_listed| *is_listed).await.unwrap();
        Self { api, told, task }
    }

    /// All so far.
    pub fn all(&self) -> Vec<State<K>> {
        self.told.lock().unwrap().clone()
    }

    /// Those of one object.
    pub fn of(&self, uid: &str) -> Vec<State<K>> {
        let is_it = |state: &State<K>| state.object.meta().uid.as_deref() == Some(uid);
        self.all().into_iter().filter(is_it).collect()
    }

    /// Waits for the first such state of this object.
    pub async fn first(&self, uid: &str, what: &str, is: impl Fn(&State<K>) -> bool) -> State<K> {
        until(what, async || self.of(uid).into_iter().find(|state| is(state))).await
    }

    /// Returns once all that a list shows now was told.
    pub async fn catch_up(&self) {
        let listed = self.api.list(&ListParams::default()).await.unwrap().items;
        let newest = listed.iter().map(version).max().unwrap_or_default();
        let has_told = async || {
            let told = self.told.lock().unwrap().iter().map(|state| state.version).max();
            (told.unwrap_or_default() >= newest).then_some(())
        };
        until("what a list shows", has_told).await;
    }
}

impl<K> Drop for States<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn version<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_ref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

pub fn slices(stage: &Stage) -> Api<EndpointSlice> {
    Api::namespaced(stage.client.clone(), &stage.namespace)
}

/// Whether clients of a Service were sent to this Pod at this moment.
pub fn is_served(slices: &[State<EndpointSlice>], version: u64, uid: &str) -> bool {
    let mut there = BTreeMap::new();
    for state in slices.iter().filter(|state| state.version <= version) {
        there.insert(state.object.name_any(), (!state.is_gone).then_some(&state.object));
    }
    let endpoints = there.into_values().flatten().flat_map(|slice| slice.endpoints.iter().flatten());
    let mut of_pod = endpoints.filter(|endpoint| {
        let target = endpoint.target_ref.as_ref();
        target.and_then(|target| target.uid.as_deref()) == Some(uid)
    });
    of_pod.any(|endpoint| {
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        // What is absent counts as true.
        conditions.serving != Some(false) || conditions.ready != Some(false)
    })
}

/// Sends a request to a Pod itself, from inside the cluster; what it answers, and by when.
fn ask(stage: &Stage, pod: &Pod, method: &str, path: &str) -> JoinHandle<(String, Instant)> {
    let ip = pod.status.as_ref().unwrap().pod_ip.clone().unwrap();
    let head = "HTTP/1.1\\r\\nhost: web\\r\\ncontent-length: 0\\r\\nconnection: close\\r\\n\\r\\n";
    let script = format!("exec 3<>/dev/tcp/{ip}/8080 && printf '{method} {path} {head}' >&3 && cat <&3");
    let mut command = stage.cluster.enter("bash");
    command.args(["-c", &script]);
    tokio::task::spawn_blocking(move || (output_of(&mut command), Instant::now()))
}

fn drain(timeout_seconds: i32) -> Value {
    let post = json!({"path": "/drain", "port": 8080});
    json!({"drain": {"timeoutSeconds": timeout_seconds, "settleSeconds": 1, "httpPost": post}})
}

fn is_closed(state: &State<Pod>) -> bool {
    gate(&state.object) == Some(false)
}

fn is_deleted(state: &State<Pod>) -> bool {
    state.is_gone || state.object.metadata.deletion_timestamp.is_some()
}

const BUSY: &str = "POST /drain 202";
const DRAINED: &str = "POST /drain 200";

/// Version 1 is complete in one Pod, which is in service; its application says that it is busy.
struct Begun {
    stage: Stage,
    answers: Answers,
    old: Pod,
    uid: String,
    pods: States<Pod>,
    slices: States<EndpointSlice>,
}

impl Begun {
    async fn new(name: &str, spec: &Value) -> Self {
        let stage = Stage::new(cluster(), name).await;
        service(&stage).await;
        let answers = Answers::new(&stage);
        answers.set("/drain", 202);
        stage.roll("1", answers.spec("1", spec.clone())).await;
        stage.complete(60).await;
        let old = stage.live_are(10, 1).await.remove(0);
        let uid = old.uid().unwrap();
        let (pods, slices) = (States::watch(stage.pods()).await, States::watch(slices(&stage)).await);
        until("version 1 in the Service", async || is_served(&slices.all(), u64::MAX, &uid).then_some(())).await;
        Self { stage, answers, old, uid, pods, slices }
    }

    async fn until_closed(&self) -> State<Pod> {
        self.pods.first(&self.uid, "the old Pod's gate is closed", is_closed).await
    }

    async fn until_deleted(&self) -> State<Pod> {
        self.pods.first(&self.uid, "the old Pod is deleted", is_deleted).await
    }

    /// Waits until it has said so often that it is busy.
    async fn until_asked(&self, times: usize) {
        until("it is asked", async || (self.answers.count(&self.old, BUSY) >= times).then_some(())).await;
    }

    async fn until_told_late(&self) -> String {
        let notes = async || self.stage.notes("DrainTimedOut").await.pop();
        until("the Event DrainTimedOut", notes).await
    }
}

/// B5 B11 X7: an instance leaves its Service, is gone from all EndpointSlices, finishes what it has begun, and is deleted soon after
/// that.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_leaves_its_service_then_drains_then_goes() {
    let stage = Stage::new(cluster(), "drain-work").await;
    service(&stage).await;
    stage.roll("1", web_of("1", 1, "", drain(60))).await;
    stage.complete(60).await;
    let old = stage.live_are(10, 1).await.remove(0);
    let uid = old.uid().unwrap();
    let (pods, slices) = (States::watch(stage.pods()).await, States::watch(slices(&stage)).await);
    until("version 1 in the Service", async || is_served(&slices.all(), u64::MAX, &uid).then_some(())).await;

    stage.roll("1", web_of("2", 1, "", drain(60))).await;
    let closed = pods.first(&uid, "its gate is closed", is_closed).await;
    let begun = Instant::now();
    let work = ask(&stage, &old, "GET", "/work?milliseconds=4000");
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let (busy, _) = ask(&stage, &old, "POST", "/drain").await.unwrap();
    assert!(busy.starts_with("HTTP/1.1 202"), "{busy}");
    let (worked, worked_at) = work.await.unwrap();
    assert!(worked.starts_with("HTTP/1.1 200"), "{worked}");
    let deleted = pods.first(&uid, "it is deleted", is_deleted).await;
    assert!(deleted.at.duration_since(begun) >= Duration::from_secs(4), "deleted while a request was in work");
    let late = deleted.at.saturating_duration_since(worked_at);
    println!("deleted {} ms after its last request", late.as_millis());
    // The operator asks once a second.
    assert!(late < Duration::from_secs(3), "{late:?}");
    stage.complete(60).await;
    assert_eq!(stage.notes("DrainTimedOut").await, [""; 0]);

    slices.catch_up().await;
    let slices = slices.all();
    let is_sent_to = |version: u64| is_served(&slices, version, &uid);
    assert!(is_sent_to(closed.version), "its gate is closed first");
    let mut left = slices.iter().map(|state| state.version);
    let left = left.find(|version| *version > closed.version && !is_sent_to(*version)).expect("it never left");
    assert!(left < deleted.version, "gone from EndpointSlices at {left}, deleted at {}", deleted.version);
    assert!(!is_sent_to(deleted.version), "deleted while clients were sent to it");
    assert_ne!(gate(&deleted.object), Some(true));
}

/// B5 X7: one that never says that it is drained goes when its time is over, and that is told.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_never_drained_goes_at_the_deadline() {
    let begun = Begun::new("drain-deadline", &drain(5)).await;
    begun.stage.roll("1", begun.answers.spec("2", drain(5))).await;
    let closed = begun.until_closed().await;
    let deleted = begun.until_deleted().await;
    let took = deleted.at.duration_since(closed.at);
    println!("deleted {} ms after its gate was closed", took.as_millis());
    // Times in Kubernetes are whole seconds.
    assert!(took > Duration::from_millis(3_500) && took < Duration::from_secs(8), "{took:?}");
    assert!(begun.answers.count(&begun.old, BUSY) > 0, "{:?}", begun.answers.asked(&begun.old));
    let told = begun.until_told_late().await;
    let expected =
        format!("{} has not said within 5 s (spec.drain.timeoutSeconds) that it is drained", begun.old.name_any());
    assert!(told.contains(&expected), "{told}");
    begun.stage.complete(60).await;
    begun.slices.catch_up().await;
    assert!(!is_served(&begun.slices.all(), deleted.version, &begun.uid), "deleted while clients were sent to it");
}

/// B5 X7: whoever takes the new version back while an instance is drained has that very instance in service again.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_is_cancelled_costs_no_pod() {
    let begun = Begun::new("drain-cancelled", &drain(300)).await;
    begun.stage.roll("1", begun.answers.spec("2", drain(300))).await;
    let closed = begun.until_closed().await;
    begun.until_asked(1).await;
    assert!(!is_served(&begun.slices.all(), u64::MAX, &begun.uid), "asked while clients were sent to it");
    begun.stage.roll("1", begun.answers.spec("1", drain(300))).await;
    let is_back = |state: &State<Pod>| state.version > closed.version && gate(&state.object) == Some(true);
    begun.pods.first(&begun.uid, "it is in service again", is_back).await;
    let served = async || is_served(&begun.slices.all(), u64::MAX, &begun.uid).then_some(());
    until("clients are sent to it again", served).await;
    begun.answers.set("/drain", 200); // so that the new one may go
    begun.stage.complete(60).await;
    let left = begun.stage.live_are(30, 1).await.remove(0);
    assert_eq!(left.uid().as_ref(), Some(&begun.uid));
    begun.pods.catch_up().await;
    let deleted = begun.pods.of(&begun.uid).into_iter().find(is_deleted);
    assert!(deleted.is_none(), "{deleted:?}");
    assert_eq!(begun.answers.count(&begun.old, DRAINED), 0, "it is not asked any more");
}

/// X13: a Pod that somebody deletes is asked, too, as long as it lives and has not said that it is drained.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_deleted_by_hand_is_asked() {
    let mut spec = drain(60);
    spec["template"] = json!({"spec": {"terminationGracePeriodSeconds": 12}});
    let begun = Begun::new("drain-by-hand", &spec).await;
    assert!(begun.answers.asked(&begun.old).is_empty(), "{:?}", begun.answers.asked(&begun.old));
    let name = begun.old.name_any();
    let deleted_at = Instant::now();
    begun.stage.cluster.kubectl(&["-n", &begun.stage.namespace, "delete", "pod", &name, "--wait=false"]);
    begun.until_asked(1).await;
    println!("asked within {} ms", deleted_at.elapsed().as_millis());
    begun.until_asked(2).await;
    begun.answers.set("/drain", 200);
    let drained = async || (begun.answers.count(&begun.old, DRAINED) > 0).then_some(());
    until("it says that it is drained", drained).await;
    let there = begun.stage.pods().get(&name).await.unwrap();
    assert!(there.uid().as_ref() == Some(&begun.uid) && there.metadata.deletion_timestamp.is_some(), "{there:?}");
    let new = another(&begun.stage, std::slice::from_ref(&begun.old)).await;
    begun.pods.first(&begun.uid, "it is gone", |state| state.is_gone).await;
    assert_eq!(begun.answers.count(&begun.old, DRAINED), 1, "{:?}", begun.answers.asked(&begun.old));
    begun.stage.complete(60).await;
    assert!(begun.answers.asked(&new).is_empty(), "the new one stays, and is not asked");
}

/// B5 X7: the Pod tells since when it is drained: an operator that is killed in the middle gives it no more time.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_operator_keeps_the_deadline() {
    let mut begun = Begun::new("drain-crash", &drain(12)).await;
    begun.stage.roll("1", begun.answers.spec("2", drain(12))).await;
    let closed = begun.until_closed().await;
    begun.until_asked(2).await;
    begun.stage.kill_operator();
    let asked = begun.answers.count(&begun.old, BUSY);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(begun.pods.of(&begun.uid).iter().all(|state| !is_deleted(state)), "deleted before the next operator");
    begun.stage.start_operator();
    let deleted = begun.until_deleted().await;
    let took = deleted.at.duration_since(closed.at);
    println!("deleted {} ms after its gate was closed", took.as_millis());
    assert!(took > Duration::from_millis(10_500) && took < Duration::from_secs(15), "{took:?}");
    assert!(begun.answers.count(&begun.old, BUSY) > asked, "the next operator asks, too");
    let mut later = begun.pods.of(&begun.uid).into_iter().filter(|state| state.version > closed.version);
    assert!(later.all(|state| gate(&state.object) != Some(true)), "it was put back in service");
    begun.until_told_late().await;
    begun.stage.complete(60).await;
}
