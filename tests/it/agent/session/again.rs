//! Leases that are made again, or are no listener's any more.
use serde_json::{Value, json};

use super::stage::{POLITE, Stage};
use crate::agent::fixture::until;

/// Does not care for SIGTERM, and says with each beat which start it is of.
const DEAF: &str = r#"
    trap '' TERM
    say() { echo "$1 $BATON_LISTENER $(date +%s%N) $BATON_FENCE_TOKEN -" >>"$LOG"; }
    say start
    while :; do say beat; sleep 0.05; done"#;

/// L1: neither is it started while what the Lease before has begun still runs, nor does the report speak of it.
#[test]
fn a_listener_that_is_made_again_waits_for_the_end_of_the_one_before() {
    let stage = Stage::new();
    let agent = stage.agent("a", &[], DEAF);
    stage.session("a", "Default");
    let me = stage.identity("a");
    stage.listener("one", Some(&me), &json!({"stopTimeoutSeconds": 3}));
    let first = agent.note("start", 1);
    stage.wait_until_running("a", &[("one", 1)]);
    stage.delete("listener.bots.one");
    stage.listener_again("uid-again", 2, "one", Some(&me), &json!({}));
    stage.listener_again("uid-again", 1, "two", Some(&me), &json!({}));
    // Another listener has nothing to wait for, but it is not told of yet.
    let two = agent.note("start", 2);
    // It names us no more, and is counted.
    let report = until("its report", || stage.report("a").filter(|report| report.running(&[]).is_some()));
    assert_eq!((report.set.as_str(), report.count), ("uid-set", 1));
    let second = agent.note("start", 3);
    assert!(first.token.starts_with("uid-set-") && second.token.starts_with("uid-again-"), "{}", second.token);
    let notes = agent.notes();
    let last = notes.iter().rfind(|note| note.token == first.token).unwrap();
    assert!(last.at < second.at, "never two at once");
    assert!(second.at - two.at >= 2_000_000_000, "the one before had its grace");
    stage.wait_until_running("a", &[("one", 2), ("two", 1)]);
    let report = stage.report("a").unwrap();
    assert_eq!((report.set.as_str(), report.count), ("uid-again", 2));
}

/// L1: what nobody can read as a listener's is nobody's, so it does not run on for ever; and it can be mended.
#[test]
fn a_lease_that_is_no_listeners_any_more_counts_as_gone() {
    let changes: [(&str, Value); 2] = [
        ("/metadata/labels/baton.dev~1lease", json!("none")),
        ("/metadata/ownerReferences/0/controller", json!(false)),
    ];
    for (path, value) in changes {
        let (stage, agent, me) = Stage::running("Default", POLITE, &json!({}));
        stage.wait_until_running("a", &[("one", 1)]);
        let mut before = Value::Null;
        stage.edit("listener.bots.one", |lease| {
            before = std::mem::replace(lease.pointer_mut(path).unwrap(), value.clone());
        });
        agent.note("stop", 1);
        until("its report", || (stage.report("a")?.count == 0).then_some(()));
        assert_eq!((stage.owner("one"), agent.count("start")), ((me.to_string(), 1), 1), "{path}");
        stage.edit("listener.bots.one", |lease| *lease.pointer_mut(path).unwrap() = before.clone());
        agent.note("start", 2);
        stage.wait_until_running("a", &[("one", 2)]);
    }
}

/// A renewal that is long on its way brings an old report back. The next one mends that: else nobody would hear of a start.
#[test]
fn a_report_that_an_old_renewal_has_overwritten_is_said_again() {
    let (stage, _agent, _) = Stage::running("Fast", POLITE, &json!({}));
    stage.wait_until_running("a", &[("one", 1)]);
    let told = stage.report("a").unwrap();
    for old in [Some(r#"{"set":"uid-set","count":1}"#), None] {
        stage.edit("session.a", |lease| {
            let annotations = lease["metadata"]["annotations"].as_object_mut().unwrap();
            annotations.remove("report.baton.dev/bots");
            annotations.extend(old.map(|old| ("report.baton.dev/bots".to_owned(), json!(old))));
        });
        until("its report", || (stage.report("a")? == told).then_some(()));
    }
}
