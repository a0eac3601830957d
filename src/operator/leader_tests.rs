use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::scripted::{self, Answer, Call};

/// One Lease with compare-and-swap, and what else the election asks for.
#[derive(Default)]
struct World {
    lease: Option<Value>,
    version: u64,
    pod: Option<Value>,
    /// The API server does not answer writes; with `true` it performs them all the same.
    deaf: Option<bool>,
    watchers: Vec<(String, mpsc::UnboundedSender<Value>)>,
    /// The API server serves no watch.
    blind: bool,
    /// How often the Lease was asked for.
    looks: u32,
    /// Happens between a write and its answer.
    meanwhile: Option<fn()>,
}

type Shared = Arc<Mutex<World>>;

impl World {
    fn put(&mut self, mut lease: Value) -> Value {
        self.version += 1;
        lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
        lease["metadata"]["name"] = json!("baton-operator");
        self.lease = Some(lease.clone());
        self.tell("leases", "MODIFIED", &lease);
        lease
    }

    fn tell(&mut self, kind: &str, what: &str, object: &Value) {
        for (_, sender) in self.watchers.iter().filter(|(of, _)| of == kind) {
            let _ = sender.send(json!({"type": what, "object": object}));
        }
    }

    fn holder(&self) -> Option<&str> {
        self.lease.as_ref()?.pointer("/spec/holderIdentity")?.as_str()
    }

    fn answer(&mut self, call: &Call) -> Answer {
        let kind = if call.path.contains("/leases") { "leases" } else { "pods" };
        if call.is_watch() {
            if self.blind {
                return Answer::failure(403, "Forbidden", "watch is not allowed");
            }
            let (sender, receiver) = mpsc::unbounded_channel();
            self.watchers.push((kind.to_owned(), sender));
            return Answer::Watch(receiver);
        }
        let missing = Answer::failure(404, "NotFound", "not found");
        match (call.method.as_str(), kind) {
            ("GET", _) if !call.path.ends_with("baton-operator") => {
                let items: Vec<_> = if kind == "pods" { &self.pod } else { &self.lease }.iter().cloned().collect();
                let list = json!({"metadata": {"resourceVersion": self.version.to_string()}, "items": items});
                Answer::ok(list)
            }
            ("GET", _) => {
                self.looks += 1;
                self.lease.clone().map_or(missing, Answer::ok)
            }
            (_, _) if self.deaf == Some(false) => Answer::Never,
            ("POST", _) if self.lease.is_some() => Answer::failure(409, "AlreadyExists", "already exists"),
            ("PUT", _) if self.lease.is_none() => missing,
            ("PUT", _) if call.body["metadata"]["resourceVersion"] != json!(self.version.to_string()) => {
                Answer::failure(409, "Conflict", "the object has been modified")
            }
            _ => {
                let written = self.put(call.body.clone());
                if let Some(happen) = self.meanwhile {
                    happen();
                }
                if self.deaf == Some(true) { Answer::Never } else { Answer::ok(written) }
            }
        }
    }
}

fn world() -> Shared {
    Shared::default()
}

/// 10:00:00 at the first call of the test, then as (virtual) time goes by.
fn clock() -> Clock {
    let start: Timestamp = "2026-01-01T10:00:00Z".parse().unwrap();
    let began = Instant::now();
    Clock::new(move || start + jiff::SignedDuration::try_from(began.elapsed()).unwrap())
}

fn election(world: &Shared, me: &str) -> (Election, Fence) {
    election_with(world, me, Fence::closed())
}

fn election_with(world: &Shared, me: &str, fence: Fence) -> (Election, Fence) {
    let served = world.clone();
    let candidate = Candidate {
        client: scripted::client(move |call| served.lock().unwrap().answer(&call)),
        namespace: "baton-system".into(),
        name: "baton-operator".into(),
        me: Identity::parse(me).unwrap(),
        alone_in_pod: true,
        clock: clock(),
        watches: WatchSettings::default(),
        rng: fastrand::Rng::with_seed(1),
    };
    (Election::new(candidate, fence.clone()), fence)
}

/// A Lease that another took at 09:00:00.5.
fn held_by(holder: &str) -> Value {
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {}, "spec": {
        "holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": 3,
        "acquireTime": "2026-01-01T09:00:00.500000Z", "renewTime": "2026-01-01T09:59:59.000000Z",
    }})
}

async fn seconds<T>(future: impl Future<Output = T>) -> (T, f64) {
    let began = Instant::now();
    let value = tokio::time::timeout(Duration::from_mins(2), future).await.expect("within two minutes");
    (value, began.elapsed().as_secs_f64())
}

#[tokio::test(start_paused = true)]
async fn the_first_takes_it_and_the_fence_opens() {
    let world = world();
    let (mut election, fence) = election(&world, "a/1/x");
    election.win().await;
    assert_eq!(world.lock().unwrap().holder(), Some("a/1/x"));
    assert!(fence.permits(Duration::from_secs(14)) && !fence.permits(Duration::from_secs(16)));
}

#[tokio::test(start_paused = true)]
async fn a_silent_holder_is_waited_for_as_long_as_its_lock_lives() {
    let world = world();
    world.lock().unwrap().put(held_by("b/2/y"));
    let (mut election, _) = election(&world, "a/1/x");
    let ((), waited) = seconds(election.win()).await;
    assert!((15.0..18.0).contains(&waited), "{waited}");
    let world = world.lock().unwrap();
    let spec = &world.lease.as_ref().unwrap()["spec"];
    assert_eq!(spec["leaseTransitions"], json!(4));
    assert!(spec["acquireTime"].as_str().unwrap().starts_with("2026-01-01T10:00:1"), "{spec}");
}

#[tokio::test(start_paused = true)]
async fn a_release_is_answered_at_once() {
    let world = world();
    let (mut first, fence) = election(&world, "b/2/y");
    first.win().await;
    let (mut second, _) = election(&world, "a/1/x");
    let standby = tokio::spawn(async move { second.win().await });
    let keeper = tokio::time::timeout(Duration::from_secs(31), first.keep()).await;
    assert!(keeper.is_err(), "the holder renews: {keeper:?}");
    assert!(!standby.is_finished());
    first.release().await;
    assert!(!fence.permits(Duration::ZERO));
    let (_, waited) = seconds(standby).await;
    assert!(waited < 0.1, "{waited}");
    assert_eq!(world.lock().unwrap().holder(), Some("a/1/x"));
}

/// A standby that hears the renewals has nothing to ask; one that hears none asks every two seconds.
#[tokio::test(start_paused = true)]
async fn a_standby_asks_only_when_the_watch_is_silent() {
    for (blind, looks) in [(false, 4..=6), (true, 25..=31)] {
        let world = world();
        world.lock().unwrap().blind = blind;
        let (mut first, _) = election(&world, "b/2/y");
        first.win().await;
        world.lock().unwrap().looks = 0;
        let (mut second, _) = election(&world, "a/1/x");
        let standby = tokio::spawn(async move { second.win().await });
        assert!(tokio::time::timeout(Duration::from_mins(1), first.keep()).await.is_err(), "the holder renews");
        assert!(!standby.is_finished());
        let seen = world.lock().unwrap().looks;
        assert!(looks.contains(&seen), "blind {blind}: {seen}");
        // It dies without a word: its lock lives on from the last renewal that was heard or seen.
        let (_, waited) = seconds(standby).await;
        assert!((12.5..18.5).contains(&waited), "blind {blind}: {waited}");
        assert_eq!(world.lock().unwrap().holder(), Some("a/1/x"));
    }
}

/// What a watch tells late, or again and again, is no sign of life.
#[tokio::test(start_paused = true)]
async fn old_renewals_do_not_keep_a_lock_alive() {
    let world = world();
    world.lock().unwrap().put(held_by("b/2/y"));
    let (mut election, _) = election(&world, "a/1/x");
    let lagging = world.clone();
    let repeats = tokio::spawn(async move {
        for second in 0..120 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let mut old = held_by("b/2/y");
            old["metadata"] = json!({"name": "baton-operator", "resourceVersion": "1"});
            old["spec"]["renewTime"] = json!(format!("2026-01-01T09:58:{:02}.000000Z", second % 60));
            lagging.lock().unwrap().tell("leases", "MODIFIED", &old);
        }
    });
    let ((), waited) = seconds(election.win()).await;
    assert!((15.0..18.0).contains(&waited), "{waited}");
    assert!(world.lock().unwrap().looks < 12, "nor a reason to ask");
    repeats.abort();
}

/// Another candidate was faster: its Pod is the one whose death counts now.
#[tokio::test(start_paused = true)]
async fn a_change_of_hands_is_looked_at() {
    let world = world();
    world.lock().unwrap().put(held_by("b/2/y"));
    let (mut election, _) = election(&world, "a/1/x");
    let standby = tokio::spawn(async move { election.win().await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let looks = world.lock().unwrap().looks;
    world.lock().unwrap().put(held_by("c/3/z"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(world.lock().unwrap().looks, looks + 1);
    assert!(world.lock().unwrap().watchers.iter().filter(|(of, _)| of == "pods").count() >= 2);
    standby.abort();
}

#[tokio::test(start_paused = true)]
async fn a_dead_predecessor_of_the_same_pod_is_not_waited_for() {
    let world = world();
    world.lock().unwrap().put(held_by("a/1/earlier"));
    let (mut election, _) = election(&world, "a/1/x");
    let ((), waited) = seconds(election.win()).await;
    assert!(waited < 0.1, "{waited}");
}

fn holder_pod(state: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
    "metadata": {"name": "b", "namespace": "baton-system", "uid": "2", "resourceVersion": "50"},
    "status": {"containerStatuses": [
        {"name": "operator", "image": "i", "imageID": "i", "ready": false, "restartCount": 0, "state": state},
    ]}})
}

#[tokio::test(start_paused = true)]
async fn a_death_certificate_is_acted_upon_at_once() {
    let world = world();
    world.lock().unwrap().pod = Some(holder_pod(&json!({"running": {"startedAt": "2026-01-01T08:59:59Z"}})));
    world.lock().unwrap().put(held_by("b/2/y"));
    let (mut election, _) = election(&world, "a/1/x");
    let mut standby = tokio::spawn(async move { election.win().await });
    assert!(tokio::time::timeout(Duration::from_secs(5), &mut standby).await.is_err(), "it runs");
    let dead = json!({"terminated": {
        "exitCode": 137, "reason": "Error", "containerID": "containerd://1",
        "startedAt": "2026-01-01T08:59:59Z", "finishedAt": "2026-01-01T09:59:59Z",
    }});
    world.lock().unwrap().tell("pods", "MODIFIED", &holder_pod(&dead));
    let (_, waited) = seconds(standby).await;
    assert!(waited < 0.1, "{waited}");
}

/// An earlier container of this Pod ended before this one began; set back, the clock would place what is taken now before
/// that end.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_does_not_date_the_lock_before_its_process() {
    let world = world();
    let (mut election, _) = election(&world, "a/1/x");
    election.candidate.clock = Clock::new(|| "2026-01-01T09:00:00Z".parse().unwrap());
    tokio::time::sleep(Duration::from_secs(3)).await;
    election.win().await;
    let lease = world.lock().unwrap().lease.clone().unwrap();
    assert_eq!(lease["spec"]["acquireTime"], "2026-01-01T10:00:03.000000Z");
    assert_eq!(lease["spec"]["renewTime"], "2026-01-01T09:00:00.000000Z");
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_another_took_is_lost_and_the_fence_closes() {
    let world = world();
    let (mut election, fence) = election(&world, "a/1/x");
    election.win().await;
    world.lock().unwrap().put(held_by("b/2/y"));
    let (lost, waited) = seconds(election.keep()).await;
    assert_eq!(lost, Lost::Taken("b/2/y".into()));
    assert!(waited <= 2.0 && !fence.permits(Duration::ZERO), "{waited}");
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_cannot_renew_gives_up_before_others_may_take_over() {
    let world = world();
    let (mut election, fence) = election(&world, "a/1/x");
    election.win().await;
    world.lock().unwrap().deaf = Some(false);
    let keeping = tokio::spawn(async move { election.keep().await });
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(!fence.permits(Duration::from_secs(10)), "no write that may outlive the lock");
    let (lost, waited) = seconds(keeping).await;
    assert_eq!(lost.unwrap(), Lost::NotRenewed);
    assert!(6.0 + waited < 15.0, "{waited}");
}

/// A renewal that was performed, but whose answer was lost, is not the loss of the lock.
#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_not_a_lost_lock() {
    let world = world();
    let (mut election, fence) = election(&world, "a/1/x");
    election.win().await;
    world.lock().unwrap().deaf = Some(true);
    let keeping = tokio::spawn(async move { election.keep().await });
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.lock().unwrap().deaf = None;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(!keeping.is_finished());
    assert!(fence.permits(Duration::from_secs(12)));
    keeping.abort();
}

/// A machine that sleeps while a renewal is under way wakes up to an answer of the past.
#[tokio::test(start_paused = true)]
async fn a_renewal_counts_from_before_it_was_sent_also_when_the_machine_slept() {
    static SLEPT_SECONDS: AtomicU64 = AtomicU64::new(0);
    let world = world();
    let slept = || Duration::from_secs(SLEPT_SECONDS.load(Ordering::Relaxed));
    let (mut election, fence) = election_with(&world, "a/1/x", Fence::with_clock(slept));
    election.win().await;
    assert!(fence.permits(Duration::from_secs(10)));
    world.lock().unwrap().meanwhile = Some(|| SLEPT_SECONDS.store(300, Ordering::Relaxed));
    assert!(tokio::time::timeout(Duration::from_millis(2_500), election.keep()).await.is_err());
    assert!(SLEPT_SECONDS.load(Ordering::Relaxed) > 0 && !fence.permits(Duration::ZERO));
    world.lock().unwrap().meanwhile = None;
    assert!(tokio::time::timeout(Duration::from_millis(2_500), election.keep()).await.is_err());
    assert!(fence.permits(Duration::from_secs(10)), "renewed");
}

/// A renewal that is under way when the operator is told to stop.
#[tokio::test(start_paused = true)]
async fn the_lock_is_given_back_also_when_the_last_renewal_was_cut_off() {
    let world = world();
    let (mut election, fence) = election(&world, "a/1/x");
    election.win().await;
    world.lock().unwrap().deaf = Some(true);
    let version = world.lock().unwrap().version;
    assert!(tokio::time::timeout(Duration::from_millis(2_500), election.keep()).await.is_err());
    assert!(world.lock().unwrap().version > version, "it was performed");
    world.lock().unwrap().deaf = None;
    election.release().await;
    assert_eq!(world.lock().unwrap().holder(), None);
    assert!(!fence.permits(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_was_won_unnoticed_is_given_back() {
    for lease in [None, Some(held_by(""))] {
        let world = world();
        lease.map(|lease| world.lock().unwrap().put(lease));
        let (mut election, _) = election(&world, "a/1/x");
        world.lock().unwrap().deaf = Some(true);
        assert!(tokio::time::timeout(Duration::from_secs(1), election.win()).await.is_err());
        assert_eq!(world.lock().unwrap().holder(), Some("a/1/x"));
        world.lock().unwrap().deaf = None;
        election.release().await;
        assert_eq!(world.lock().unwrap().holder(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn the_lock_of_another_is_not_released() {
    let world = world();
    let (mut election, _) = election(&world, "a/1/x");
    election.win().await;
    world.lock().unwrap().put(held_by("b/2/y"));
    election.release().await;
    assert_eq!(world.lock().unwrap().holder(), Some("b/2/y"));
}

#[tokio::test(start_paused = true)]
async fn a_deleted_lease_is_a_lost_lock() {
    let world = world();
    let (mut election, _) = election(&world, "a/1/x");
    election.win().await;
    world.lock().unwrap().lease = None;
    assert_eq!(seconds(election.keep()).await.0, Lost::Deleted);
}
