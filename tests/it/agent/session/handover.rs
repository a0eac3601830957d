//! Listeners come, run, and go to others.
use serde_json::json;

use super::stage::{POLITE, Stage};
use crate::agent::fixture::until;

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
        trap 'echo "{\"resume\":{\"from\":\"$POD_NAME\"}}" >&3; note stop; exit 0' TERM
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
    assert_eq!(stage.report("a").unwrap().count, 0);
}
