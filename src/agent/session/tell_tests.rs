use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::{
    agent::{
        boottime::Boottime,
        session::{leases::ListenerLease, renewal::Told},
    },
    plan::listener_set::{session::fixture::holder, unit::Runs},
};

/// Of Pod `a`, or unowned, with epoch 5.
fn listener(set_uid: &str, name: &str, number: u64, is_mine: bool) -> Listener {
    let lease = json!({
        "metadata": {
            "name": format!("listener.bots.{name}"), "uid": format!("{set_uid}-{name}"), "resourceVersion": "9",
            "labels": {"baton.dev/lease": "listener"},
            "ownerReferences": [{"apiVersion": "baton.dev/v1alpha1", "kind": "ListenerSet", "name": "bots", "uid": set_uid,
                "controller": true}],
            "annotations": {"baton.dev/listener": name},
        },
        "spec": {"holderIdentity": holder(if is_mine { "a" } else { "b" }, 1).to_string(), "leaseTransitions": 5},
    });
    Listener::new(ListenerLease::read(&serde_json::from_value(lease).unwrap()).unwrap(), number)
}

fn running(mut listener: Listener) -> Listener {
    listener.started(Boottime::default(), true);
    listener
}

/// Its Lease is gone, and it is told to stop.
fn stopping(listener: Listener) -> Listener {
    let mut listener = running(listener);
    listener.vanish("10");
    listener.unit.runs = Runs::Stops { epoch: 5 };
    listener
}

fn tell(listeners: &[Listener]) -> Report {
    let (told, invitations, blocked) = (Told::default(), BTreeMap::new(), BTreeSet::new());
    let moment =
        Moment { told: &told, invitations: &invitations, blocked: &blocked, leaves: false, now: Boottime::default() };
    let reports = reports(listeners.iter(), &BTreeMap::new(), &holder("a", 1), &moment);
    serde_json::from_str(&reports["bots"]).unwrap()
}

/// L1: who makes a set again sees that something of the one before still runs.
#[test]
fn what_has_not_ended_is_counted_though_it_is_not_held() {
    let mut begun = listener("s1", "four", 4, true);
    begun.started(Boottime::default(), false);
    begun.vanish("10");
    let report = tell(&[
        running(listener("s1", "one", 1, true)),
        stopping(listener("s1", "two", 2, true)),
        listener("s1", "three", 3, false),
        begun,
    ]);
    assert_eq!(report.count, 3);
    assert_eq!(report.running(&[("one", 5)]), Some(vec![true]), "held is what names us, as before");
}

/// L1: with any uids, in any order.
#[test]
fn a_set_that_was_made_again_waits_for_the_end_of_the_one_before() {
    for (old, new) in [("s1", "s2"), ("s2", "s1")] {
        let mut before = stopping(listener(old, "one", 1, true));
        let after = || running(listener(new, "two", 2, true));
        let report = tell(&[before, after()]);
        assert_eq!((report.set.as_str(), report.count), (old, 1));
        before = listener(old, "one", 1, true);
        before.vanish("10");
        let report = tell(&[before, after()]);
        assert_eq!((report.set.as_str(), report.count), (new, 1));
    }
}

#[test]
fn where_there_is_nothing_of_any_set_the_latest_is_told_of() {
    for (old, new) in [("s1", "s2"), ("s2", "s1")] {
        let report = tell(&[listener(old, "one", 1, false), listener(new, "one", 2, false)]);
        assert_eq!((report.set.as_str(), report.count), (new, 0));
    }
}
