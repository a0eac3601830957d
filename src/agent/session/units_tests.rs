use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::{
    agent::exec::Environment,
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
    units_with(Nothing)
}

fn units_with<R: Runner>(runner: R) -> (Units<R>, Arc<AtomicU64>) {
    let seconds = Arc::new(AtomicU64::new(100));
    let clock = seconds.clone();
    let boot = move || Boottime(Duration::from_secs(clock.load(Ordering::Relaxed)));
    let leases = Leases::new(client(|_| Answer::Never), "shop");
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

/// L1: `spec.release` with `force`, or an edited Lease, gives a listener to another Pod while it runs here. It has a second to
/// stop then, instead of the half minute that it has elsewhere.
#[tokio::test]
async fn what_another_owns_already_is_stopped_within_a_second() {
    let anothers = |version: u32, epoch: u32| {
        let mut lease = lease(0, version);
        let spec = lease.spec.as_mut().unwrap();
        (spec.holder_identity, spec.lease_transitions) = (Some(holder("b", 1).to_string()), Some(epoch.cast_signed()));
        lease
    };
    let running = || {
        let stops = Stops::default();
        let (mut units, _) = units_with(stops.clone());
        let far = Boottime(Duration::from_hours(1));
        units.told.deadlines = Deadlines { stop: far, kill: far };
        units.see(&lease(0, 10));
        units.listeners.get_mut("uid-0").unwrap().unit.runs = Runs::Epoch { epoch: 5, config_hash: String::new() };
        (units, move || std::mem::take(&mut *stops.0.lock().unwrap()))
    };
    // The Lease has left the watch on what is ours, and a read shows to whom.
    let (mut units, stopped) = running();
    units.saw(Event::Deleted(anothers(20, 6)));
    units.turn();
    assert_eq!(stopped(), [30], "it may be released by its owner, or deleted");
    units.see(&anothers(20, 6));
    units.turn();
    units.turn();
    assert_eq!(stopped(), [1], "once");
    // Seen at once; also where a Lease was edited and its epoch stayed.
    for epoch in [5, 6] {
        let (mut units, stopped) = running();
        units.see(&anothers(20, epoch));
        units.turn();
        assert_eq!(stopped(), [30, 1], "epoch {epoch}");
    }
    // What is not given to anybody has its time.
    let (mut units, stopped) = running();
    let mut free = lease(0, 20);
    free.spec.as_mut().unwrap().holder_identity = None;
    units.see(&free);
    units.turn();
    assert_eq!(stopped(), [30]);
}

/// Its shim was killed: it reaches no API server, its listeners have stopped, and it stands in the way of its Pod's next agent.
#[tokio::test]
async fn an_orphan_without_a_session_ends() {
    let (mut units, clock) = units();
    let at = |seconds| Boottime(Duration::from_secs(seconds));
    units.told.deadlines = Deadlines { stop: at(108), kill: at(110) };
    units.told.period = Duration::from_secs(3);
    units.see(&lease(0, 10));
    units.listeners.get_mut("uid-0").unwrap().unit.runs = Runs::Stops { epoch: 5 };
    clock.store(1_000, Ordering::Relaxed);
    assert!(units.is_over().is_ok(), "something runs");
    units.listeners.get_mut("uid-0").unwrap().unit.runs = Runs::Nothing;
    clock.store(124, Ordering::Relaxed);
    assert!(units.is_over().is_ok(), "others may not have taken over yet");
    clock.store(125, Ordering::Relaxed);
    assert!(units.is_over().unwrap_err().to_string().contains("lost this container"));
    units.hands.options.is_orphan = || false;
    assert!(units.is_over().is_ok(), "the API server is away");
}
