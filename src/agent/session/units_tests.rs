use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::{
    agent::{exec::Environment, session::hands::Done},
    plan::listener_set::session::fixture::holder,
    scripted::{Answer, client},
};

/// Runs nothing: without a renewed session nothing is started.
struct Nothing;

impl Runner for Nothing {
    fn prepare(&mut self, _: &Id, _: Environment) {}
    fn unprepare(&mut self, _: &Id) {}
    fn start(&mut self, _: &Id, _: Environment, _: Boottime) -> io::Result<()> {
        unreachable!("nothing may run")
    }
    fn stop(&mut self, _: &Id, _: Duration) {}
    fn extend(&mut self, _: Boottime) {}
    async fn next(&mut self) -> (Id, Happening) {
        std::future::pending().await
    }
}

/// Runs nothing, and keeps what it was told to stop: how long each time.
#[derive(Clone, Default)]
struct Stops(Arc<std::sync::Mutex<Vec<u64>>>);

impl Runner for Stops {
    fn prepare(&mut self, _: &Id, _: Environment) {}
    fn unprepare(&mut self, _: &Id) {}
    fn start(&mut self, _: &Id, _: Environment, _: Boottime) -> io::Result<()> {
        unreachable!("nothing may run")
    }
    fn stop(&mut self, _: &Id, grace: Duration) {
        self.0.lock().unwrap().push(grace.as_secs());
    }
    fn extend(&mut self, _: Boottime) {}
    async fn next(&mut self) -> (Id, Happening) {
        std::future::pending().await
    }
}

/// Of Pod `a`, and its clock, in seconds.
fn units() -> (Units<Nothing>, Arc<AtomicU64>) {
    units_with(Nothing, client(|_| Answer::Never))
}

fn units_with<R: Runner>(runner: R, client: kube::Client) -> (Units<R>, Arc<AtomicU64>) {
    let seconds = Arc::new(AtomicU64::new(100));
    let clock = seconds.clone();
    let boot = move || Boottime(Duration::from_secs(clock.load(Ordering::Relaxed)));
    let leases = Leases::new(client, "shop");
    let options = Options {
        ready_on_tick: false,
        drain_timeout: Duration::from_secs(25),
        revision: String::new(),
        is_orphan: || true,
    };
    let clocks = Clocks::given(boot, || Timestamp::UNIX_EPOCH);
    let (outbox, health) = (watch::Sender::default(), watch::Sender::default());
    (Units::new(holder("a", 1), options, clocks, leases, runner, outbox, health), seconds)
}

/// Ownership of a listener, which this Pod holds.
fn lease(number: u32, version: u32) -> Lease {
    let lease = json!({
        "metadata": {
            "name": format!("listener.bots.bot-{number}"), "uid": format!("uid-{number}"),
            "resourceVersion": version.to_string(), "labels": {"baton.dev/lease": "listener"},
            "ownerReferences": [{"apiVersion": "baton.dev/v1alpha1", "kind": "ListenerSet", "name": "bots", "uid": "uid-set",
                "controller": true}],
            "annotations": {"baton.dev/listener": format!("bot-{number}")},
        },
        "spec": {"holderIdentity": holder("a", 1).to_string(), "leaseTransitions": 5},
    });
    serde_json::from_value(lease).unwrap()
}

/// Listeners come and go for months.
#[tokio::test]
async fn what_has_long_been_gone_is_forgotten_and_does_not_come_back() {
    let (mut units, clock) = units();
    units.saw(Event::Applied(lease(0, 10)));
    for number in 1..=100 {
        units.saw(Event::Applied(lease(number, 10 * number)));
        units.saw(Event::Deleted(lease(number, 10 * number + 5)));
    }
    // What an answer has shown, and the watch has yet to tell of.
    units.see(&lease(200, 3_000));
    units.listeners.get_mut("uid-200").unwrap().vanish("3005");
    units.turn();
    assert_eq!(units.listeners.len(), 102, "why it has failed here is still told");
    clock.fetch_add(3_600, Ordering::Relaxed);
    units.turn();
    let left: Vec<_> = units.listeners.keys().cloned().collect();
    assert_eq!(left, ["uid-0", "uid-200"], "what is ours, and what the watch may yet show as ours");
    // L2: an answer that was long on its way.
    for late in [lease(100, 1_000), lease(50, 505)] {
        units.see(&late);
    }
    assert_eq!(units.listeners.len(), 2);
    units.saw(Event::Progressed("3005".into()));
    units.turn();
    assert_eq!(units.listeners.len(), 1);
    units.saw(Event::Applied(lease(50, 4_000)));
    assert_eq!(units.listeners.len(), 2, "it is ours again");
}

/// An answer says that it is gone, and the watch is behind: what that may still show would be believed without its tombstone.
#[tokio::test]
async fn what_an_answer_says_is_gone_is_forgotten_once_the_watch_knows_it_too() {
    let (mut units, clock) = units();
    units.see(&lease(0, 10));
    units.listeners.get_mut("uid-0").unwrap().is_gone = true; // 404
    units.saw(Event::Progressed("20".into()));
    units.turn();
    clock.fetch_add(3_600, Ordering::Relaxed);
    units.turn();
    assert_eq!(units.listeners.len(), 1);
    units.saw(Event::Listed { objects: vec![], resource_version: "30".into() });
    units.turn();
    assert!(units.listeners.is_empty());
}

/// A store that was restored counts from an earlier number.
#[tokio::test]
async fn what_is_ours_after_a_restore_is_no_view_of_before() {
    let (mut units, clock) = units();
    units.saw(Event::Applied(lease(0, 1_000)));
    units.saw(Event::Deleted(lease(0, 1_005)));
    units.turn();
    clock.fetch_add(3_600, Ordering::Relaxed);
    units.turn();
    units.see(&lease(1, 900));
    assert!(units.listeners.is_empty(), "an answer that was long on its way");
    units.saw(Event::Listed { objects: vec![lease(1, 900)], resource_version: "910".into() });
    assert_eq!(units.listeners.len(), 1);
}

/// A listener that runs here under epoch 5, while the API server shows `Lease`s in turn; the last one again and again.
struct Loser {
    units: Units<Stops>,
    clock: Arc<AtomicU64>,
    stops: Stops,
}

impl Loser {
    fn new(shown: Vec<Lease>) -> Self {
        let shown = std::sync::Mutex::new(shown);
        let leases = client(move |_| {
            let mut shown = shown.lock().unwrap();
            let next = if shown.len() > 1 { shown.remove(0) } else { shown[0].clone() };
            Answer::ok(json!(next))
        });
        let stops = Stops::default();
        let (mut units, clock) = units_with(stops.clone(), leases);
        let far = Boottime(Duration::from_hours(1));
        units.told.deadlines = Deadlines { stop: far, kill: far };
        units.see(&lease(0, 10));
        units.listeners.get_mut("uid-0").unwrap().unit.runs = Runs::Epoch { epoch: 5, config_hash: String::new() };
        Self { units, clock, stops }
    }

    /// Turns, and takes the answers in, for so many seconds; the times that it was given to stop.
    async fn stops(&mut self, seconds: u64) -> Vec<u64> {
        for _ in 0..=seconds {
            self.units.turn();
            while let Some(done) = self.units.hands.calls.join_next().await {
                self.units.answered(done.unwrap());
            }
            self.units.turn();
            self.clock.fetch_add(1, Ordering::Relaxed);
        }
        std::mem::take(&mut *self.stops.0.lock().unwrap())
    }
}

/// The Lease of [`lease`] in other hands.
fn held_by(holder: Option<Holder>, version: u32, epoch: i32) -> Lease {
    let mut lease = lease(0, version);
    let spec = lease.spec.as_mut().unwrap();
    (spec.holder_identity, spec.lease_transitions) = (holder.map(|holder| holder.to_string()), Some(epoch));
    lease
}

/// L1: `spec.release` with `force`, or an edited Lease, gives a listener to another Pod while it runs here. It has a second to
/// stop then, instead of the half minute that it has elsewhere.
#[tokio::test]
async fn what_another_owns_already_is_stopped_within_a_second() {
    let anothers = |version: u32, epoch: i32| held_by(Some(holder("b", 1)), version, epoch);
    let nobodys = |version: u32| held_by(None, version, 6);
    // The watch shows that it is ours no more, and a read whose it is; also where the epoch of an edited Lease stayed.
    for epoch in [5, 6] {
        let mut loser = Loser::new(vec![anothers(20, epoch)]);
        loser.units.saw(Event::Deleted(lease(0, 20)));
        assert_eq!(loser.stops(2).await, [30, 1], "epoch {epoch}, once");
    }
    // It is given to another only later.
    let mut loser = Loser::new(vec![nobodys(20), nobodys(20), anothers(30, 7)]);
    loser.units.saw(Event::Deleted(lease(0, 20)));
    assert_eq!(loser.stops(4).await, [30, 1]);
    // It hangs while it stops, so it is forced away.
    let mut loser = Loser::new(vec![anothers(20, 6)]);
    loser.units.listeners.get_mut("uid-0").unwrap().unit.runs = Runs::Stops { epoch: 5 };
    assert_eq!(loser.stops(1).await, Vec::<u64>::new(), "it is ours");
    loser.units.saw(Event::Deleted(lease(0, 20)));
    assert_eq!(loser.stops(1).await, [1]);
    // What is not given to another has its time.
    let mut loser = Loser::new(vec![nobodys(20)]);
    loser.units.saw(Event::Deleted(lease(0, 20)));
    assert_eq!(loser.stops(4).await, [30]);
}

/// Its shim was killed: it reaches no API server, its listeners have stopped, and it stands in the way of its Pod's next agent.
#[tokio::test]
async fn an_orphan_without_a_session_ends() {
    let (mut units, clock) = units();
    units.told.silent_from = Boottime(Duration::from_secs(125));
    units.see(&lease(0, 10));
    units.listeners.get_mut("uid-0").unwrap().unit.runs = Runs::Stops { epoch: 5 };
    clock.store(1_000, Ordering::Relaxed);
    assert!(units.is_over().is_ok(), "something runs");
    units.listeners.get_mut("uid-0").unwrap().unit.runs = Runs::Nothing;
    clock.store(124, Ordering::Relaxed);
    assert!(units.is_over().is_ok(), "others may not have taken over yet");
    clock.store(125, Ordering::Relaxed);
    assert!(units.is_over().unwrap_err().to_string().contains("no longer watches this container"));
    units.hands.options.is_orphan = || false;
    assert!(units.is_over().is_ok(), "the API server is away");
}

/// H5: the watch has not told of a listener that names this boot, and the operator's letter has it read.
#[tokio::test]
async fn what_an_invitation_shows_as_ours_is_missed_by_the_watch() {
    let (mut units, _clock) = units();
    let invitation = || Call::Invitation("bots".to_owned(), "bot-0".to_owned());
    units.answered(Done { kind: invitation(), result: Ok(Some(lease(0, 10))) });
    assert!(std::mem::take(&mut units.is_deaf));
    assert!(units.listeners.contains_key("uid-0"), "it is not waited for");
    units.answered(Done { kind: invitation(), result: Ok(Some(lease(0, 10))) });
    assert!(units.is_deaf, "it is known, so another one was missed");
}
