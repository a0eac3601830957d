//! Looks at a Rollout over a small [`World`].
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    apply::{Calls, Fence, call::CALL_TIMEOUT},
    observe::{Observer, Trigger, watch},
    operator::{
        clock::Clock,
        dispatch::dispatch,
        metrics::Metrics,
        notify,
        queue::Queue,
        reconcile_world::{World, kind_of},
    },
    plan::{in_place::NotInPlace, rollout::tests::fixture::Fixture},
    scripted,
};

pub(super) const ROLLOUT: &str = "/apis/baton.dev/v1alpha1/namespaces/shop/rollouts/web";
const PODS: &str = "/api/v1/namespaces/shop/pods";

type Shared = Arc<Mutex<World>>;

fn web(replicas: i32) -> Value {
    let template =
        json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app", "image": "web:1"}]}});
    json!({
        "apiVersion": "baton.dev/v1alpha1", "kind": "Rollout",
        "metadata": {"name": "web", "namespace": "shop", "generation": 1},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template},
    })
}

/// An operator's shell over a world.
pub(super) struct Rig {
    pub(super) world: Shared,
    pub(super) shell: Arc<Shell>,
    pub(super) queue: Arc<Queue>,
    _tasks: JoinSet<()>,
}

impl Rig {
    async fn new(replicas: i32, now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        let world = Shared::default();
        world.lock().unwrap().put(ROLLOUT, web(replicas));
        world.lock().unwrap().untold.clear();
        let served = world.clone();
        let client = scripted::client(move |call| served.lock().unwrap().answer(&call));
        let queue = Arc::new(Queue::new(Duration::from_millis(20), 4));
        let due = queue.clone();
        let trigger: Trigger = Arc::new(move |touched| due.add(touched.rollouts));
        let mut tasks = JoinSet::new();
        let mut rng = fastrand::Rng::with_seed(1);
        let settings = watch::Settings::default();
        let observer = Observer::start(&client, &[Some("shop".into())], &settings, &mut rng, &trigger, &mut tasks);
        observer.refresh().await;
        let fence = Fence::closed();
        fence.extend(fence.now() + Duration::from_hours(24));
        let calls = Calls::new(client, fence, CALL_TIMEOUT);
        let (notifier, publisher) = notify::channel();
        tasks.spawn(publisher.run(calls.clone(), CancellationToken::new()));
        let shell = Arc::new(Shell {
            observer: Arc::new(observer),
            calls,
            clock: Clock::new(now),
            rng: rng.into(),
            metrics: Metrics::default(),
            identity: "a/1/x".into(),
            notifier,
            rollouts: Memories::default(),
            sets: Memories::default(),
        });
        Self { world, shell, queue, _tasks: tasks }
    }

    /// One that tells the time as it goes by.
    pub(super) async fn of(replicas: i32) -> Self {
        let began = Instant::now();
        let start: Timestamp = "2026-01-01T10:00:00Z".parse().unwrap();
        Self::new(replicas, move || start + jiff::SignedDuration::try_from(began.elapsed()).unwrap()).await
    }

    pub(super) async fn look(&self) -> Looked {
        reconcile(&key(), &self.shell).await
    }

    /// Lets the watches tell, and the index hear.
    pub(super) async fn tell(&self) {
        self.world.lock().unwrap().tell();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub(super) fn object(&self, path: &str) -> Value {
        self.world().objects[path].clone()
    }

    pub(super) fn pods(&self) -> Vec<String> {
        self.world().objects.keys().filter(|path| path.starts_with(PODS)).cloned().collect()
    }

    pub(super) fn status(&self) -> Value {
        self.object(ROLLOUT)["status"].clone()
    }

    pub(super) fn calls(&self) -> Vec<String> {
        self.world().calls.clone()
    }

    pub(super) fn count(&self, line: &str) -> usize {
        self.calls().iter().filter(|call| call.starts_with(line)).count()
    }

    fn refuse(&self, line: &str, code: u16, message: &str) {
        self.world().refusal = Some((line.to_owned(), code, message.to_owned()));
    }

    pub(super) fn refuse_nothing(&self) {
        self.world().refusal = None;
    }

    /// Another writer changes it.
    pub(super) fn merge(&self, path: &str, with: &Value) {
        let mut object = self.object(path);
        json_patch::merge(&mut object, with);
        self.world().put(path, object);
    }

    pub(super) fn make_ready(&self, path: &str) {
        let mut pod = self.object(path);
        let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T10:00:01Z"});
        pod["status"] = json!({"phase": "Running", "conditions": [ready]});
        self.world().put(path, pod);
    }

    /// Looks and tells until all Pods of the Rollout exist.
    async fn until_pods(&self, count: usize) {
        for _ in 0..20 {
            if self.pods().len() == count {
                return;
            }
            self.look().await;
            self.tell().await;
        }
        panic!("{} Pods after 20 looks: {:?}", self.pods().len(), self.calls());
    }

    /// Runs the operator's loop for so long.
    pub(super) async fn run(&self, time: Duration) {
        self.world().tells = true;
        let stop = CancellationToken::new();
        let loop_ = tokio::spawn(dispatch::<Rollout>(self.shell.clone(), self.queue.clone(), 4, stop.clone()));
        self.queue.add([key()]);
        tokio::time::sleep(time).await;
        stop.cancel();
        loop_.await.unwrap();
    }
}

fn key() -> ObjectKey {
    ObjectKey { namespace: "shop".into(), name: "web".into() }
}

/// R11
#[tokio::test(start_paused = true)]
async fn nothing_is_decided_before_our_own_writes_have_come_back() {
    let rig = Rig::of(3).await;
    assert_eq!(rig.look().await.result, Result::Success);
    let calls = rig.calls();
    assert!(calls.iter().any(|call| call.starts_with("POST") && call.ends_with("/controllerrevisions")), "{calls:?}");
    for _ in 0..3 {
        assert_eq!(rig.look().await.result, Result::Stale);
    }
    assert_eq!(rig.calls(), calls, "a stale look writes nothing");
    rig.tell().await;
    assert_eq!(rig.look().await.result, Result::Success);
    assert!(rig.calls().len() > calls.len());
}

#[tokio::test(start_paused = true)]
async fn a_write_that_never_comes_back_leads_to_a_list_and_then_to_work() {
    let rig = Rig::of(3).await;
    rig.look().await;
    assert_eq!(rig.look().await.again_at.map(|at| at.duration_since(Instant::now()).as_secs()), Some(30));
    let lists = rig.world().lists;
    // The watches tell nothing for as long as they live, as one behind a dead proxy.
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(rig.look().await.result, Result::Stale);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(rig.world().lists > lists);
    assert_eq!(rig.look().await.result, Result::Success);
}

#[tokio::test(start_paused = true)]
async fn pods_come_with_a_status_that_remembers_the_run() {
    let rig = Rig::of(3).await;
    rig.until_pods(3).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    rig.look().await;
    let status = rig.status();
    assert_eq!((&status["run"], &status["replicas"]), (&json!(1), &json!(3)), "{status}");
    assert!(rig.count("POST /api/v1/namespaces/shop/events") > 0);
}

#[tokio::test(start_paused = true)]
async fn the_loop_comes_to_rest() {
    let rig = Rig::of(3).await;
    rig.run(Duration::from_secs(10)).await;
    assert_eq!(rig.pods().len(), 3);
    let calls = rig.calls().len();
    rig.run(Duration::from_secs(100)).await;
    assert_eq!(rig.calls().len(), calls, "{:?}", &rig.calls()[calls..]);
}

#[tokio::test(start_paused = true)]
async fn status_is_spared_but_memory_is_not() {
    let rig = Rig::of(20).await;
    rig.until_pods(20).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    rig.look().await;
    rig.tell().await;
    let writes = rig.count("PUT");
    // Twenty Pods become ready, one every 10 ms, each with a look.
    for path in rig.pods() {
        rig.make_ready(&path);
        tokio::time::sleep(Duration::from_millis(10)).await;
        rig.tell().await;
        rig.look().await;
        rig.tell().await;
    }
    let written = rig.count("PUT") - writes;
    assert!(written <= 1, "{written} status writes in 0.3 s");
    // What was held back comes by itself.
    rig.run(Duration::from_secs(1)).await;
    assert_eq!(rig.status()["readyReplicas"], json!(20));
}

#[tokio::test(start_paused = true)]
async fn a_status_written_by_another_is_read_again_without_an_event() {
    let rig = Rig::of(3).await;
    rig.refuse("PUT", 409, "modified");
    rig.look().await;
    assert_eq!(rig.count("POST /api/v1/namespaces/shop/events"), 0);
    rig.refuse_nothing();
    rig.tell().await;
    assert_eq!(rig.look().await.result, Result::Stale, "the version that is no longer the latest is not decided upon");
    // What the other wrote comes.
    let mut changed = rig.object(ROLLOUT);
    changed["metadata"]["annotations"] = json!({"a": "b"});
    rig.world().put(ROLLOUT, changed);
    rig.tell().await;
    assert_eq!(rig.look().await.result, Result::Success);
    rig.tell().await;
    assert!(rig.count("POST /api/v1/namespaces/shop/events") > 0);
}

/// Agones#607: a create that was performed, but whose answer was lost, is neither leaked nor doubled.
#[tokio::test(start_paused = true)]
async fn a_lost_answer_to_a_create_makes_no_second_pod() {
    let rig = Rig::of(1).await;
    rig.refuse(&format!("POST {PODS}"), 0, "");
    rig.run(Duration::from_mins(1)).await;
    rig.refuse_nothing();
    rig.run(Duration::from_mins(2)).await;
    assert_eq!(rig.pods().len(), 1, "{:?}", rig.calls());
    assert_eq!(rig.status()["replicas"], json!(1));
}

/// argo-rollouts#3316: a delete that was not performed, and of which no watch ever tells, is made again. Seed 3400004713: what
/// may come late is overtaken first.
#[tokio::test(start_paused = true)]
async fn a_lost_delete_is_made_again() {
    let rig = Rig::of(2).await;
    rig.run(Duration::from_secs(10)).await;
    rig.pods().iter().for_each(|path| rig.make_ready(path));
    rig.run(Duration::from_secs(10)).await;
    let mut rollout = rig.object(ROLLOUT);
    rollout["spec"]["replicas"] = json!(1);
    rollout["metadata"]["generation"] = json!(2);
    rig.world().put(ROLLOUT, rollout);
    rig.refuse("DELETE", 500, "etcd is away");
    let path = rig.pods()[1].clone();
    let named = rig.object(&path)["metadata"]["resourceVersion"].clone();
    let mut deletes = 0;
    let recovery = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        rig.refuse_nothing();
        deletes = rig.count("DELETE");
        let pod = rig.object(&path);
        assert_ne!(pod["metadata"]["resourceVersion"], named, "the first delete can still be done");
        assert!(pod["metadata"]["annotations"]["baton.dev/overtaken"].is_string(), "{pod}");
    };
    tokio::join!(rig.run(Duration::from_mins(1)), recovery);
    assert!(deletes > 0 && rig.count("DELETE") > deletes, "{deletes} of {:?}", rig.calls());
}

/// With hundreds of Rollouts and a server in trouble, a list a failure is what brings it down.
#[tokio::test(start_paused = true)]
async fn a_write_without_an_answer_costs_one_read_and_no_list() {
    let rig = Rig::of(1).await;
    let lists = rig.world().lists;
    rig.refuse(&format!("POST {PODS}"), 500, "failed calling webhook");
    rig.run(Duration::from_mins(2)).await;
    let (creates, reads) = (rig.count(&format!("POST {PODS}")), rig.count(&format!("GET {PODS}/")));
    assert!((5..=10).contains(&creates) && (reads..=reads + 1).contains(&creates), "{creates} creates, {reads} reads");
    assert_eq!(rig.world().lists, lists);
}

/// What a person does may be the remedy, and an abort must not wait for a pause.
#[tokio::test(start_paused = true)]
async fn a_new_spec_ends_the_pause_after_a_failure() {
    let rig = Rig::of(1).await;
    rig.refuse("POST /apis/apps/v1/namespaces/shop/controllerrevisions", 403, "forbidden");
    rig.run(Duration::from_mins(5)).await;
    rig.refuse_nothing();
    let calls = rig.calls().len();
    assert_eq!(rig.look().await.result, Result::Error, "a pause of about a minute");
    let mut rollout = rig.object(ROLLOUT);
    rollout["metadata"]["generation"] = json!(2);
    rig.world().put(ROLLOUT, rollout);
    rig.tell().await;
    rig.look().await;
    assert!(rig.calls().len() > calls);
}

/// Events may have a store of their own, and that may be down.
#[tokio::test(start_paused = true)]
async fn events_that_cannot_be_published_hold_nothing_up() {
    let rig = Rig::of(3).await;
    rig.refuse("POST /api/v1/namespaces/shop/events", 0, "");
    let began = Instant::now();
    rig.until_pods(3).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(rig.count("POST /api/v1/namespaces/shop/events"), 1, "the first one still waits for its answer");
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_quota_is_asked_ever_more_rarely_and_shown() {
    let rig = Rig::of(100).await;
    rig.refuse(&format!("POST {PODS}"), 403, "pods is forbidden: exceeded quota: small");
    rig.run(Duration::from_mins(10)).await;
    let asked = rig.count(&format!("POST {PODS}"));
    assert!((10..=30).contains(&asked), "asked {asked} times in ten minutes for 100 Pods");
    let status = rig.status().to_string();
    assert!(status.contains("QuotaExceeded") && status.contains("exceeded quota: small"), "{status}");
    rig.refuse_nothing();
    rig.run(Duration::from_secs(75)).await;
    assert_eq!(rig.pods().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_server_is_given_the_time_it_asks_for() {
    let rig = Rig::of(1).await;
    rig.refuse(&format!("POST {PODS}"), 429, "too many requests");
    rig.run(Duration::from_secs(30)).await;
    let asked = rig.count(&format!("POST {PODS}"));
    assert!((10..=35).contains(&asked), "asked {asked} times in 30 s, one second apart");
}

/// messaging-topology-operator#88, controller-runtime#797: one object's panic must not stop the others, nor the operator.
#[tokio::test(start_paused = true)]
async fn a_panic_is_told_on_its_object_and_the_others_go_on() {
    let looks = std::sync::atomic::AtomicUsize::new(0);
    let rig = Rig::new(2, move || {
        let look = looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        assert!(look != 0, "a bug in the planner");
        "2026-01-01T10:00:00Z".parse().unwrap()
    })
    .await;
    rig.run(Duration::from_millis(500)).await;
    assert_eq!((rig.pods().len(), rig.count("POST /api/v1/namespaces/shop/events")), (0, 1), "{:?}", rig.calls());
    assert!(rig.shell.metrics.text().contains(r#"controller_runtime_reconcile_panics_total{controller="rollout"} 1"#));
    rig.run(Duration::from_secs(5)).await;
    assert_eq!(rig.pods().len(), 2, "tried again after a pause");
}

/// The CRD is newer than the operator, say.
#[tokio::test(start_paused = true)]
async fn a_rollout_that_cannot_be_read_is_told_so_once() {
    let rig = Rig::of(1).await;
    let mut broken = rig.object(ROLLOUT);
    broken["spec"]["replicas"] = json!("many");
    rig.world().put(ROLLOUT, broken);
    rig.tell().await;
    for _ in 0..3 {
        assert_eq!(rig.look().await.result, Result::Gone);
        rig.tell().await;
    }
    assert_eq!(rig.calls(), ["POST /api/v1/namespaces/shop/events"]);
}

#[tokio::test(start_paused = true)]
async fn memory_goes_with_its_object() {
    let rig = Rig::of(1).await;
    rig.look().await;
    rig.tell().await;
    assert_eq!(rig.shell.rollouts.count(), 1);
    let object = rig.world().objects.remove(ROLLOUT).unwrap();
    let gone = (kind_of(ROLLOUT), json!({"type": "DELETED", "object": object}));
    rig.world().untold.push_back(gone);
    rig.tell().await;
    assert_eq!(rig.look().await, Looked::early(Result::Gone, None));
    assert_eq!(rig.shell.rollouts.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_without_the_lock() {
    let rig = Rig::of(3).await;
    rig.shell.calls.fence().close();
    rig.run(Duration::from_secs(20)).await;
    assert_eq!(rig.calls(), [] as [String; 0]);
}

#[test]
fn what_computes_for_long_is_looked_at_less_often() {
    let table = [(1, 0, 0), (1, 1, 19), (10, 10, 190), (300, 10, 0), (150, 10, 50), (1_000, 1_000, 500)];
    for (elapsed, computed, expected) in table {
        let rest = rest(Duration::from_millis(elapsed), Duration::from_millis(computed));
        assert_eq!(rest, Duration::from_millis(expected), "{computed} of {elapsed} ms");
    }
}

#[test]
fn status_of_many_instances_is_written_less_often() {
    for (replicas, millis) in [(-1, 500), (0, 500), (10, 505), (1_000, 1_000), (5_000, 2_000), (i32::MAX, 2_000)] {
        assert_eq!(status_spacing(replicas), Duration::from_millis(millis), "{replicas}");
    }
}

/// B4: why Pods are replaced where a change in place was asked for is said once in a run.
#[tokio::test(start_paused = true)]
async fn why_pods_are_not_changed_in_place_is_told_once_in_a_run() {
    let rig = Rig::of(1).await;
    let mut snapshot = Fixture::new("a", 'a', json!({})).snapshot;
    snapshot.rollout.metadata.namespace = Some("shop".into());
    let found = Some(NotInPlace { slot: 0, why: "spec.template.spec.volumes differs".into(), more: 0 });
    let mut plan = Plan { not_in_place: found, ..Plan::default() };
    let mut memory = ObjectMemory::default();
    for (run, told) in [(1, 1), (1, 1), (2, 2)] {
        plan.memory.run = run;
        tell_not_in_place(&rig.shell, &mut memory, &snapshot, &plan);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(rig.count("POST /api/v1/namespaces/shop/events"), told);
    }
}
