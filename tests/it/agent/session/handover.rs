//! Listeners come, run, and go to others.
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use baton::{api::names, snapshot::lease::Holder};
use serde_json::json;

use super::stage::{Agent, POLITE, Stage};
use crate::{
    agent::fixture::until,
    fake_apiserver::{
        faults::{Request, Then, Verb},
        kinds::LEASES,
        refusal::Refusal,
    },
};

#[test]
fn a_session_is_claimed_and_renewed() {
    let stage = Stage::new();
    let agent = stage.agent("a", &[], POLITE);
    stage.session("a", "Fast");
    let me = stage.identity("a");
    assert_eq!((me.pod.as_str(), me.uid.as_str(), me.boot), ("a", "uid-a", 1));
    let lease = stage.lease("session.a");
    assert_eq!((&lease["spec"]["leaseTransitions"], &lease["spec"]["leaseDurationSeconds"]), (&json!(1), &json!(5)));
    assert_eq!(stage.info("a").unwrap().revision, "r1");
    let first = lease["spec"]["renewTime"].clone();
    until("a renewal", || (stage.lease("session.a")["spec"]["renewTime"] != first).then_some(()));
    drop(agent);
}

/// A2, A6, L2
#[test]
fn a_listener_starts_where_it_is_assigned_and_moves_with_what_it_resumes_from() {
    let stage = Stage::new();
    let script = r#"
        note() { echo "$1 $BATON_LISTENER $(date +%s%N) $BATON_FENCE_TOKEN $BATON_RESUME" >>"$LOG"; }
        trap 'echo "{\"resume\":{\"from\":\"$BATON_POD_NAME\"}}" >&3; note stop; exit 0' TERM
        note start
        while :; do sleep 0.02; done"#;
    let (a, b) = (stage.agent("a", &[], script), stage.agent("b", &[], script));
    stage.session("a", "Default");
    stage.session("b", "Default");
    let (ia, ib) = (stage.identity("a"), stage.identity("b"));
    stage.listener("one", Some(&ia), &json!({}));
    let start = a.note("start", 1);
    let version = stage.lease("listener.bots.one")["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    assert_eq!((start.token, start.resume.as_str()), (format!("uid-set-{version}"), ""));
    stage.wait_until_running("a", &[("one", 1)]);

    stage.inbox("b", &json!([{"listener": "one", "epoch": 1}]));
    until("b to be prepared", || stage.report("b")?.units.get("one").cloned());
    stage.inbox("a", &json!([{"listener": "one", "epoch": 1, "releaseTo": ib.to_string()}]));
    stage.wait_for_owner("one", &ib.to_string(), 2);
    let (stop, start) = (a.note("stop", 1), b.note("start", 1));
    assert!(stop.at < start.at, "never two at once");
    assert_eq!(start.resume, r#"{"from":"a"}"#);
    stage.wait_until_running("b", &[("one", 2)]);
    let report = stage.report("b").unwrap();
    assert_eq!((report.gaps.len(), report.gaps[0].epoch), (1, 2));
    println!("gap: {} ms; with processes: {} ms", report.gaps[0].millis, (start.at - stop.at) / 1_000_000);
    let lease = stage.lease("listener.bots.one");
    assert_eq!(lease["metadata"]["annotations"]["baton.dev/from"], ia.to_string());
    assert_eq!(lease["metadata"]["ownerReferences"][1]["name"], "b");
    until("a to report that it is gone", || (stage.report("a")?.count == 0).then_some(()));
}

/// What a test does to one kind of request, once.
fn once(then: Then, is_meant: impl Fn(&Request) -> bool + Send + 'static) -> impl FnMut(&Request) -> Then + Send {
    let mut then = Some(then);
    move |request| if is_meant(request) { then.take().unwrap_or(Then::Deliver) } else { Then::Deliver }
}

fn is_write_of_one(request: &Request) -> bool {
    request.verb == Verb::Patch && request.name == "listener.bots.one" && &*request.who == "baton-agent"
}

/// Agents `a` and `b`; `a` runs `one` with epoch 1.
fn two_agents(stage: &Stage) -> (Agent, Agent, Holder, Holder) {
    let (a, b) = (stage.agent("a", &[], POLITE), stage.agent("b", &[], POLITE));
    stage.session("a", "Default");
    stage.session("b", "Default");
    let (ia, ib) = (stage.identity("a"), stage.identity("b"));
    stage.listener("one", Some(&ia), &json!({}));
    stage.wait_until_running("a", &[("one", 1)]);
    a.note("start", 1);
    (a, b, ia, ib)
}

/// L2
#[test]
fn a_conflict_is_looked_at_and_never_restarts_what_was_given_up() {
    let stage = Stage::new();
    let (a, b, _, ib) = two_agents(&stage);
    stage.faults.before(once(Then::Answer(Refusal::modified(&LEASES, "listener.bots.one")), is_write_of_one));
    stage.inbox("a", &json!([{"listener": "one", "epoch": 1, "releaseTo": ib.to_string()}]));
    stage.wait_for_owner("one", &ib.to_string(), 2);
    b.note("start", 1);
    assert_eq!((a.count("start"), a.count("stop")), (1, 1));
}

/// What a look does not mend is not written again at the speed of the network.
#[test]
fn conflicts_that_do_not_end_are_paused_between() {
    let stage = Stage::new();
    let (_a, b, _, ib) = two_agents(&stage);
    let writes = Arc::new(AtomicU32::new(0));
    let counted = writes.clone();
    stage.faults.before(move |request| {
        if !is_write_of_one(request) {
            return Then::Deliver;
        }
        counted.fetch_add(1, Ordering::Relaxed);
        Then::Answer(Refusal::modified(&LEASES, "listener.bots.one"))
    });
    stage.inbox("a", &json!([{"listener": "one", "epoch": 1, "releaseTo": ib.to_string()}]));
    std::thread::sleep(Duration::from_secs(2));
    let writes = writes.load(Ordering::Relaxed);
    assert!((3..=10).contains(&writes), "{writes}");
    stage.faults.off();
    b.note("start", 1);
}

/// L2: what was written, and not answered, is not written again.
#[test]
fn a_lost_answer_is_looked_after() {
    let stage = Stage::new();
    let (a, b, _, ib) = two_agents(&stage);
    stage.faults.after(once(Then::Reset, is_write_of_one));
    stage.inbox("a", &json!([{"listener": "one", "epoch": 1, "releaseTo": ib.to_string()}]));
    stage.wait_for_owner("one", &ib.to_string(), 2);
    b.note("start", 1);
    until("a to hear of it", || (stage.report("a")?.count == 0).then_some(()));
    assert_eq!((a.count("start"), stage.owner("one")), (1, (ib.to_string(), 2)));
}

/// A write that was lost on its way arrives after all, when the listener has moved on.
#[test]
fn a_late_write_changes_nothing() {
    let stage = Stage::new();
    let (a, b, ia, ib) = two_agents(&stage);
    stage.faults.before(once(Then::Lose, is_write_of_one));
    stage.inbox("a", &json!([{"listener": "one", "epoch": 1, "releaseTo": ib.to_string()}]));
    a.note("stop", 1);
    let late = stage.lease("listener.bots.one")["metadata"]["resourceVersion"].clone();
    // It waits for the answer that does not come, looks, and writes again.
    stage.wait_for_owner("one", &ib.to_string(), 2);
    b.note("start", 1);
    assert_ne!(stage.lease("listener.bots.one")["metadata"]["resourceVersion"], late, "its precondition is gone");
    assert_eq!((a.count("start"), stage.owner("one").0 == ia.to_string()), (1, false));
}

#[test]
fn where_owner_references_are_refused_the_rest_is_written() {
    let stage = Stage::new();
    let (_a, b, _, ib) = two_agents(&stage);
    stage.faults.before(once(Then::Answer(Refusal::forbidden(&LEASES, "listener.bots.one", "no")), is_write_of_one));
    stage.inbox("a", &json!([{"listener": "one", "epoch": 1, "releaseTo": ib.to_string()}]));
    stage.wait_for_owner("one", &ib.to_string(), 2);
    b.note("start", 1);
    let owners = stage.lease("listener.bots.one")["metadata"]["ownerReferences"].clone();
    assert_eq!(owners.as_array().unwrap().len(), 1, "{owners}");
}

/// A9, L2: another configuration is a new start, in the same place, with an epoch of its own.
#[test]
fn another_configuration_restarts_in_place() {
    let stage = Stage::new();
    let (a, _b, ia, _) = two_agents(&stage);
    stage.edit("listener.bots.one", |lease| lease["metadata"]["annotations"]["baton.dev/config-hash"] = json!("c2"));
    stage.wait_for_owner("one", &ia.to_string(), 2);
    let (stop, start) = (a.note("stop", 1), a.note("start", 2));
    assert!(stop.at < start.at);
    stage.wait_until_running("a", &[("one", 2)]);
    assert_eq!(stage.report("a").unwrap().gaps, [], "no gap of a move");
}

/// A6
#[test]
fn a_listener_that_is_to_be_nobodys_is_stopped_and_given_back() {
    let stage = Stage::new();
    let (a, _b, ia, _) = two_agents(&stage);
    stage.inbox("a", &json!([{"listener": "one", "epoch": 1, "releaseTo": ""}]));
    stage.wait_for_owner("one", "", 2);
    a.note("stop", 1);
    let metadata = stage.lease("listener.bots.one")["metadata"].clone();
    assert_eq!(metadata["labels"].get("baton.dev/holder"), None);
    assert_eq!(metadata["ownerReferences"].as_array().unwrap().len(), 1);
    assert!(metadata["annotations"]["baton.dev/stopped-at"].is_string());
    // And assigned again: the letter speaks of an epoch that is over.
    stage.edit("listener.bots.one", |lease| {
        lease["spec"]["holderIdentity"] = json!(ia.to_string());
        lease["spec"]["leaseTransitions"] = json!(3);
        lease["metadata"]["labels"]["baton.dev/holder"] = json!(names::holder_label(&ia.to_string()));
    });
    a.note("start", 2);
    stage.wait_until_running("a", &[("one", 3)]);
}

#[test]
fn an_agent_is_small() {
    let stage = Stage::new();
    let (a, _b, _, _) = two_agents(&stage);
    let kilobytes = a.resident();
    println!("resident: {kilobytes} KiB");
    assert!(kilobytes < 40 << 10, "a build without optimization is larger, but not so much: {kilobytes} KiB");
}
