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

/// Of Pod `a`, and its clock, in seconds.
fn units() -> (Units<Nothing>, Arc<AtomicU64>) {
    let seconds = Arc::new(AtomicU64::new(100));
    let clock = seconds.clone();
    let boot = move || Boottime(Duration::from_secs(clock.load(Ordering::Relaxed)));
    let leases = Leases::new(client(|_| Answer::Never), "shop");
    let options = Options { ready_on_tick: false, drain_timeout: Duration::from_secs(25), revision: String::new() };
    let clocks = Clocks::given(boot, || Timestamp::UNIX_EPOCH);
    let (outbox, health) = (watch::Sender::default(), watch::Sender::default());
    (Units::new(holder("a", 1), options, clocks, leases, Nothing, outbox, health), seconds)
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
