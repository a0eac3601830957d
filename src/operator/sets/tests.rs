//! Looks at a ListenerSet over a small world.
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::*;
use crate::{
    api::{Condition, ConditionStatus, ConditionType},
    apply::{Calls, Fence, call::CALL_TIMEOUT},
    observe::{Observer, Trigger, watch},
    operator::{clock::Clock, metrics::Metrics, notify, reconcile_world::World},
    scripted,
};

const SET: &str = "/apis/baton.dev/v1alpha1/namespaces/shop/listenersets/bots";
const POD: &str = "/api/v1/namespaces/shop/pods/a";
const SESSION: &str = "/apis/coordination.k8s.io/v1/namespaces/shop/leases/session.a";
const OWNERSHIP: &str = "/apis/coordination.k8s.io/v1/namespaces/shop/leases/listener.bots.l1";

struct Rig {
    world: Arc<Mutex<World>>,
    shell: Shell,
    _tasks: JoinSet<()>,
}

impl Rig {
    async fn new() -> Self {
        let world = Arc::new(Mutex::new(World::default()));
        let metadata = |name: &str| json!({"name": name, "namespace": "shop", "generation": 1, "labels": {"app": "bots"}, "annotations": {"baton.dev/listener-sets": "bots"}});
        let spec = json!({"selector": {"matchLabels": {"app": "bots"}}, "listeners": [{"name": "l1"}]});
        let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        {
            let mut world = world.lock().unwrap();
            world.put(SET, json!({"metadata": metadata("bots"), "spec": spec}));
            world.put(POD, json!({"metadata": metadata("a"), "spec": {"nodeName": "node-1"}, "status": status}));
            world.untold.clear();
            world.tells = true;
        }
        let served = world.clone();
        let client = scripted::client(move |call| served.lock().unwrap().answer(&call));
        let (mut tasks, mut rng) = (JoinSet::new(), fastrand::Rng::with_seed(1));
        let trigger: Trigger = Arc::new(|_| {});
        let settings = watch::Settings::default();
        let observer = Observer::start(&client, &[Some("shop".into())], &settings, &mut rng, &trigger, &mut tasks);
        observer.refresh_sets().await;
        let fence = Fence::closed();
        fence.extend(fence.now() + Duration::from_hours(24));
        let shell = Shell {
            observer: Arc::new(observer),
            calls: Calls::new(client, fence, CALL_TIMEOUT),
            clock: Clock::new(|| "2026-01-01T10:00:00Z".parse().unwrap()),
            rng: rng.into(),
            metrics: Metrics::default(),
            identity: "a/1/x".into(),
            notifier: notify::channel().0,
            rollouts: Memories::default(),
            sets: Memories::default(),
        };
        Self { world, shell, _tasks: tasks }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Looks until nothing more is written.
    async fn settle(&self) {
        for _ in 0..10 {
            let looked = reconcile(&ObjectKey { namespace: "shop".into(), name: "bots".into() }, &self.shell).await;
            assert_ne!(looked.result, Result::Error);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    fn posts(&self) -> Vec<String> {
        let world = self.world();
        let posts = world.calls.iter().filter_map(|call| call.strip_prefix("POST "));
        posts.filter(|path| path.contains("/leases")).map(str::to_owned).collect()
    }
}

/// An agent claims the session that the controller has made.
fn claim(rig: &Rig) {
    claim_of(rig, "a");
}

fn claim_of(rig: &Rig, pod: &str) {
    let path = SESSION.replace("session.a", &format!("session.{pod}"));
    let mut session = rig.world().objects[&path].clone();
    let found = rig.world().objects[&POD.replace("pods/a", &format!("pods/{pod}"))].clone();
    let uid = found["metadata"]["uid"].as_str().unwrap();
    session["spec"]["holderIdentity"] = json!(format!("{pod}/{uid}/1-x"));
    session["spec"]["leaseTransitions"] = json!(1);
    for field in ["acquireTime", "renewTime"] {
        session["spec"][field] = json!("2026-01-01T10:00:00.000000Z");
    }
    rig.world().put(&path, session);
}

#[tokio::test(start_paused = true)]
async fn a_session_is_made_and_a_listener_given_to_the_boot_that_claims_it() {
    let rig = Rig::new().await;
    rig.settle().await;
    let session = rig.world().objects[SESSION].clone();
    assert_eq!(session["metadata"]["ownerReferences"][0]["uid"], rig.world().objects[POD]["metadata"]["uid"]);
    assert!(!rig.world().objects.contains_key(OWNERSHIP), "the session was not claimed yet");
    assert_eq!(rig.world().objects[SET]["status"]["unassigned"], 1);
    claim(&rig);
    rig.settle().await;
    let ownership = rig.world().objects[OWNERSHIP].clone();
    let claimed = rig.world().objects[SESSION]["spec"]["holderIdentity"].clone();
    assert_eq!((&ownership["spec"]["holderIdentity"], &ownership["spec"]["leaseTransitions"]), (&claimed, &json!(1)));
    assert_eq!(rig.posts().len(), 2, "each once: {:?}", rig.posts());
    assert_eq!(rig.world().objects[SET]["status"]["starting"], 1);
}

/// What the API server does not answer is asked about before anything else is done.
#[tokio::test(start_paused = true)]
async fn a_create_without_an_answer_is_not_repeated() {
    let rig = Rig::new().await;
    rig.world().refusal = Some(("POST /apis/coordination".into(), 0, String::new()));
    let key = ObjectKey { namespace: "shop".into(), name: "bots".into() };
    assert_eq!(reconcile(&key, &rig.shell).await.result, Result::Error);
    rig.world().refusal = None;
    tokio::time::sleep(Duration::from_secs(5)).await;
    rig.settle().await;
    assert_eq!(rig.posts().len(), 1, "{:?}", rig.posts());
}

#[tokio::test(start_paused = true)]
async fn a_set_that_is_gone_is_forgotten() {
    let rig = Rig::new().await;
    rig.settle().await;
    assert_eq!(rig.shell.sets.count(), 1);
    {
        let mut world = rig.world();
        let set = world.objects.remove(SET).unwrap();
        world.untold.push_back(("listenersets".into(), json!({"type": "DELETED", "object": set})));
        world.tell();
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    let key = ObjectKey { namespace: "shop".into(), name: "bots".into() };
    assert_eq!(reconcile(&key, &rig.shell).await.result, Result::Gone);
    assert_eq!(rig.shell.sets.count(), 0);
}

/// H11: an inbox that the API server does not answer about delays no take-over.
#[tokio::test(start_paused = true)]
async fn a_hung_letter_delays_no_take_over() {
    let rig = Rig::new().await;
    for name in ["b", "c"] {
        let mut pod = rig.world().objects[POD].clone();
        pod["metadata"]["name"] = json!(name);
        let path = POD.replace("pods/a", &format!("pods/{name}"));
        for field in ["uid", "resourceVersion"] {
            pod["metadata"].as_object_mut().unwrap().remove(field);
        }
        rig.world().put(&path, pod);
    }
    let mut set = rig.world().objects[SET].clone();
    set["spec"]["listeners"] = json!([{"name": "l1"}, {"name": "l2"}]);
    rig.world().put(SET, set.clone());
    rig.settle().await;
    for name in ["a", "b", "c"] {
        claim_of(&rig, name);
    }
    rig.settle().await;
    let holder = |listener: &str| {
        let path = OWNERSHIP.replace("l1", listener);
        rig.world().objects[&path]["spec"]["holderIdentity"].as_str().unwrap().to_owned()
    };
    // The holder of l2 is declared dead; l1 is asked for, which takes letters, and those hang.
    let dead = holder("l2");
    rig.world().refusal =
        Some(("PATCH /apis/coordination.k8s.io/v1/namespaces/shop/leases/session.".into(), 0, String::new()));
    for name in ["a", "b", "c"] {
        let path = SESSION.replace("session.a", &format!("session.{name}"));
        let mut session = rig.world().objects[&path].clone();
        session["spec"]["renewTime"] = json!("2026-01-01T10:00:10.000000Z");
        if dead.starts_with(name) {
            session["spec"]["holderIdentity"] = json!(format!("fenced:{dead}"));
        }
        rig.world().put(&path, session);
    }
    let mut owned = rig.world().objects[OWNERSHIP].clone();
    owned["spec"]["acquireTime"] = json!("2026-01-01T09:00:00.000000Z");
    rig.world().put(OWNERSHIP, owned);
    set["spec"]["release"] = json!([{"listener": "l1", "at": "2026-01-01T09:59:00Z"}]);
    set["metadata"]["generation"] = json!(2);
    rig.world().put(SET, set);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let began = Instant::now();
    let key = ObjectKey { namespace: "shop".into(), name: "bots".into() };
    for _ in 0..3 {
        reconcile(&key, &rig.shell).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let letters =
        rig.world().calls.iter().filter(|call| call.starts_with("PATCH") && call.contains("/session.")).count();
    assert!(letters > 0, "letters are hung: {:?}", rig.world().calls);
    assert_ne!(holder("l2"), dead);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

fn set_of(listeners: usize) -> ListenerSet {
    let names: Vec<Value> = (0..listeners).map(|number| json!({"name": format!("l{number}")})).collect();
    let spec = json!({"rolloutRef": {"name": "web"}, "listeners": names});
    serde_json::from_value(json!({"metadata": {"name": "bots"}, "spec": spec})).unwrap()
}

#[test]
fn a_large_spec_makes_status_rare_but_for_what_people_wait_for() {
    assert!(spacing(&set_of(1_000)) >= Duration::from_secs(10));
    assert!(spacing(&set_of(12)) < Duration::from_secs(1));
    let condition = |reason: &str| {
        Condition {
        type_: ConditionType::Ready,
        status: ConditionStatus::False,
        reason: reason.into(),
        ..serde_json::from_value(json!({
            "type": "Ready", "status": "False", "reason": "x", "message": "", "lastTransitionTime": "2026-01-01T10:00:00Z",
        }))
        .unwrap()
    }
    };
    let status = |reason: &str, running| ListenerSetStatus {
        running,
        conditions: vec![condition(reason)],
        ..ListenerSetStatus::default()
    };
    assert!(!is_awaited(&status("Moving", 1), &status("Moving", 2)));
    assert!(is_awaited(&status("Moving", 1), &status("Complete", 1)));
}
