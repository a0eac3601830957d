//! The whole operator over an API server that has one Lease, and a Rollout where a test puts one.
use std::sync::Mutex;

use axum::{body::Body, http::Request};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::Instant};
use tower::ServiceExt;

use super::*;
use crate::{
    operator::settings::tests::settings,
    scripted::{self, Answer, Call},
};

#[derive(Default)]
struct World {
    lease: Option<Value>,
    version: u64,
    rollouts: Vec<Value>,
    leases: Vec<Value>,
    /// Writes other than those of the Lease, as `POST /path`; dry runs are none.
    writes: Vec<String>,
    lists: u64,
    /// Writes of the Lease are performed, but not answered.
    deaf: bool,
    /// The CustomResourceDefinition is not there.
    undefined: bool,
    /// HTTP status of lists of the Leases of the hand-off; 0: they are listed.
    leases_fail: u16,
    /// Watches that are held open.
    watches: Vec<mpsc::UnboundedSender<Value>>,
}

type Shared = Arc<Mutex<World>>;

impl World {
    fn answer(&mut self, call: &Call) -> Answer {
        if call.is_watch() {
            let (sender, receiver) = mpsc::unbounded_channel();
            self.watches.push(sender);
            return Answer::Watch(receiver);
        }
        let missing = Answer::failure(404, "NotFound", "not found");
        if call.method != "GET" && !call.path.contains("/leases") {
            if !call.query.contains_key("dryRun") {
                self.writes.push(call.line());
            }
            return Answer::Never;
        }
        match (call.method.as_str(), call.path.ends_with("/leases/baton-operator")) {
            ("GET", true) => self.lease.clone().map_or(missing, Answer::ok),
            ("GET", false) if self.undefined && call.path.ends_with("/rollouts") => missing,
            ("GET", false) if self.leases_fail != 0 && call.path.ends_with("/namespaces/shop/leases") => {
                Answer::failure(self.leases_fail, "Other", "no list")
            }
            ("GET", false) => {
                self.lists += 1;
                let items = match call.path.rsplit('/').next() {
                    Some("rollouts") => self.rollouts.as_slice(),
                    Some("leases") => self.leases.as_slice(),
                    _ => &[],
                };
                Answer::ok(json!({"metadata": {"resourceVersion": "1"}, "items": items}))
            }
            ("PUT", _) if self.version_of_lease() != call.body["metadata"]["resourceVersion"] => {
                Answer::failure(409, "Conflict", "modified")
            }
            _ => {
                self.version += 1;
                let mut lease = call.body.clone();
                lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
                self.lease = Some(lease.clone());
                if self.deaf { Answer::Never } else { Answer::ok(lease) }
            }
        }
    }

    fn version_of_lease(&self) -> Value {
        self.lease.as_ref().map(|lease| lease["metadata"]["resourceVersion"].clone()).unwrap_or_default()
    }

    fn holder(&self) -> Option<String> {
        Some(self.lease.as_ref()?.pointer("/spec/holderIdentity")?.as_str()?.to_owned())
    }
}

fn start(world: &Shared, metrics: &Metrics, stop: &CancellationToken) -> tokio::task::JoinHandle<Result<(), Error>> {
    let served = world.clone();
    let client = scripted::client(move |call| served.lock().unwrap().answer(&call));
    let environment = Environment {
        client: client.clone(),
        lease_client: client,
        clock: Clock::system(),
        time_since_boot: || Duration::ZERO,
        post: by_http(),
        rng: fastrand::Rng::with_seed(1),
        metrics: metrics.clone(),
    };
    let options = Options {
        scopes: vec![Some("shop".into())],
        concurrency: 4,
        watch_silence: Duration::from_mins(1),
        call_timeout: Duration::from_secs(10),
        lease: ("baton-system".into(), "baton-operator".into()),
        identity: Identity::parse("a/1/x").unwrap(),
        alone_in_pod: false,
        agent_image: None,
        bind: None,
    };
    tokio::spawn(run(environment, options, stop.clone()))
}

fn held_by_another() -> Value {
    json!({"metadata": {"name": "baton-operator", "resourceVersion": "100"}, "spec": {
        "holderIdentity": "b/2/y", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T10:00:00.000000Z",
    }})
}

fn web() -> Value {
    let template =
        json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app", "image": "web:1"}]}});
    json!({
        "apiVersion": "baton.dev/v1alpha1", "kind": "Rollout",
        "metadata": {"name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "1", "generation": 1},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template},
    })
}

/// The number that a metric shows.
fn shown(metrics: &Metrics, name: &str) -> f64 {
    let text = metrics.text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("{")?.rsplit(' ').next());
    value.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
}

async fn within_seconds(seconds: u64, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !holds() {
        assert!(Instant::now() < end, "not within {seconds} s");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn it_lists_anew_once_it_leads_and_gives_the_lock_back_at_the_end() {
    let (world, metrics, stop) = (Shared::default(), Metrics::default(), CancellationToken::new());
    let operator = start(&world, &metrics, &stop);
    within_seconds(1, || world.lock().unwrap().holder().as_deref() == Some("a/1/x")).await;
    let lists = world.lock().unwrap().lists;
    within_seconds(2, || world.lock().unwrap().lists >= lists + 3).await;
    assert!(metrics.text().contains(r#"leader_election_master_status{name="baton-operator"} 1"#));
    stop.cancel();
    assert!(operator.await.unwrap().is_ok());
    assert_eq!(world.lock().unwrap().holder(), None);
    assert!(world.lock().unwrap().lease.is_some());
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_an_error_when_the_lock_is_lost_and_leaves_it_to_the_other() {
    let (world, metrics, stop) = (Shared::default(), Metrics::default(), CancellationToken::new());
    let operator = start(&world, &metrics, &stop);
    within_seconds(1, || world.lock().unwrap().holder().is_some()).await;
    world.lock().unwrap().lease = Some(held_by_another());
    let ended = tokio::time::timeout(Duration::from_secs(5), operator).await.unwrap().unwrap();
    assert!(matches!(&ended, Err(Error::Lost(Lost::Taken(by))) if by == "b/2/y"), "{ended:?}");
    assert_eq!(world.lock().unwrap().holder().as_deref(), Some("b/2/y"));
}

#[tokio::test(start_paused = true)]
async fn a_standby_fills_its_caches_and_leaves_quietly() {
    let (world, metrics, stop) = (Shared::default(), Metrics::default(), CancellationToken::new());
    world.lock().unwrap().lease = Some(held_by_another());
    let operator = start(&world, &metrics, &stop);
    within_seconds(1, || world.lock().unwrap().lists >= 3).await;
    assert!(metrics.text().contains(r#"leader_election_master_status{name="baton-operator"} 0"#));
    stop.cancel();
    assert!(operator.await.unwrap().is_ok());
    assert_eq!(world.lock().unwrap().holder().as_deref(), Some("b/2/y"), "it is not ours to release");
}

#[tokio::test(start_paused = true)]
async fn what_a_standby_sees_does_not_queue_up_until_it_leads() {
    let (world, metrics, stop) = (Shared::default(), Metrics::default(), CancellationToken::new());
    world.lock().unwrap().lease = Some(held_by_another());
    world.lock().unwrap().rollouts = vec![web()];
    let operator = start(&world, &metrics, &stop);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!((shown(&metrics, "workqueue_depth"), shown(&metrics, "workqueue_adds_total")), (0.0, 0.0));
    // The other is silent: its lock expires.
    within_seconds(20, || !world.lock().unwrap().writes.is_empty()).await;
    let waited = shown(&metrics, "workqueue_queue_duration_seconds_sum");
    assert!(waited < 0.1, "{waited} s in the queue");
    stop.cancel();
    assert!(operator.await.unwrap().is_ok());
}

/// A look that hangs in a call for longer than a draining operator may write: it ends, but writes nothing more, not even
/// what became of that call; then the lock is given back.
#[tokio::test(start_paused = true)]
async fn a_look_that_outlives_the_drain_writes_nothing_more_and_the_lock_is_given_back() {
    let (world, metrics, stop) = (Shared::default(), Metrics::default(), CancellationToken::new());
    world.lock().unwrap().rollouts = vec![web()];
    let operator = start(&world, &metrics, &stop);
    within_seconds(1, || !world.lock().unwrap().writes.is_empty()).await;
    let (began, writes) = (Instant::now(), world.lock().unwrap().writes.clone());
    stop.cancel();
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(world.lock().unwrap().holder().as_deref(), Some("a/1/x"), "kept while something may still be performed");
    assert!(operator.await.unwrap().is_ok());
    assert!((8..15).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert_eq!(world.lock().unwrap().writes, writes);
    assert_eq!(world.lock().unwrap().holder(), None);
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_is_won_while_it_stops_is_given_back() {
    let (world, metrics, stop) = (Shared::default(), Metrics::default(), CancellationToken::new());
    world.lock().unwrap().deaf = true;
    let operator = start(&world, &metrics, &stop);
    within_seconds(1, || world.lock().unwrap().holder().is_some()).await;
    world.lock().unwrap().deaf = false;
    stop.cancel();
    assert!(operator.await.unwrap().is_ok());
    assert_eq!(world.lock().unwrap().holder(), None);
}

#[tokio::test]
async fn it_can_be_stopped_while_it_waits_for_an_earlier_process_of_its_pod() {
    let folder = tempfile::tempdir().unwrap();
    let earlier = PodLock::acquire(folder.path()).await.unwrap();
    let settings = settings(&["--state-dir", folder.path().to_str().unwrap()]);
    let stop = CancellationToken::new();
    let waiting = tokio::spawn(run_settings(settings, stop.clone()));
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(!waiting.is_finished());
    stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(5), waiting).await;
    assert!(ended.expect("it stops").unwrap().is_ok());
    drop(earlier);
}

async fn get(routes: &axum::Router, path: &str) -> (u16, String) {
    let answer = routes.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
    let code = answer.status().as_u16();
    let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    (code, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn it_is_ready_once_the_definition_is_there() {
    let world = Shared::default();
    world.lock().unwrap().undefined = true;
    let served = world.clone();
    let client = scripted::client(move |call| served.lock().unwrap().answer(&call));
    let trigger: crate::observe::Trigger = Arc::new(|_| {});
    let (mut rng, mut tasks) = (fastrand::Rng::with_seed(1), JoinSet::new());
    let settings = watch::Settings::default();
    let observer = Arc::new(Observer::start(&client, &[None], &settings, &mut rng, &trigger, &mut tasks));
    let routes = probes::routes(observer.clone(), Metrics::default());
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(get(&routes, "/healthz").await.0, 200);
    assert_eq!(get(&routes, "/readyz").await, (503, "not listed yet: Rollouts\n".into()));
    world.lock().unwrap().undefined = false;
    within_seconds(3, || observer.is_synced()).await;
    assert_eq!(get(&routes, "/readyz").await.0, 200);
    assert!(get(&routes, "/metrics").await.1.ends_with("# EOF\n"));
}

/// A list that fails does not mean that Pods hold nothing: only an operator without the right to look at Leases goes on without.
#[tokio::test(start_paused = true)]
async fn a_list_that_merely_fails_is_waited_for() {
    for (code, goes_on) in [(403, true), (404, true), (500, false), (429, false)] {
        let (world, metrics, stop) = (Shared::default(), Metrics::default(), CancellationToken::new());
        world.lock().unwrap().rollouts = vec![web()];
        world.lock().unwrap().leases_fail = code;
        let operator = start(&world, &metrics, &stop);
        tokio::time::sleep(Duration::from_mins(2)).await;
        assert_eq!(!world.lock().unwrap().writes.is_empty(), goes_on, "{code}");
        world.lock().unwrap().leases_fail = 0;
        within_seconds(60, || !world.lock().unwrap().writes.is_empty()).await;
        stop.cancel();
        assert!(operator.await.unwrap().is_ok());
    }
}

/// One Event on what cannot be read and no look is about, and a number.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_told_of_once() {
    let (world, metrics, stop) = (Shared::default(), Metrics::default(), CancellationToken::new());
    let labels = json!({"baton.dev/lease": "session"});
    world.lock().unwrap().leases = vec![json!({
        "metadata": {"name": "session.a", "namespace": "shop", "uid": "u", "resourceVersion": "1", "labels": labels},
        "spec": {"holderIdentity": "x".repeat(1_400_000)},
    })];
    let operator = start(&world, &metrics, &stop);
    let events = || world.lock().unwrap().writes.iter().filter(|line| line.ends_with("/events")).count();
    within_seconds(30, || events() == 1).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(events(), 1);
    let text = metrics.text();
    for line in [r#"baton_undecodable_objects{kind="Lease"} 1"#, r#"baton_undecodable_objects{kind="Pod"} 0"#] {
        assert!(text.contains(line), "no {line} in\n{text}");
    }
    stop.cancel();
    assert!(operator.await.unwrap().is_ok());
}
