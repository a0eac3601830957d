//! Children that connect before their turn.
use std::time::{Duration, Instant};

use baton::snapshot::report::UnitState;
use serde_json::json;

use super::stage::Stage;
use crate::agent::fixture::until;

/// Notes when it was started, with what it is told then; when its turn has come, with what it is told then; and its end.
const WARM: &str = r#"
    note() { echo "$1 $BATON_LISTENER $(date +%s%N) ${2:--} $3" >>"$LOG"; }
    trap 'echo "{\"resume\":{\"from\":\"$BATON_POD_NAME\"}}" >&3; note stop; exit 0' TERM
    note warm "$BATON_FENCE_TOKEN" "$BATON_RESUME"
    echo '{"prepared": true}' >&3
    IFS= read -r line || { note never; exit 0; }
    note start - "$line"
    while :; do sleep 0.02; done"#;

/// A2, A6: it is started when it is to come, knows nothing of its turn yet, and goes on with one line.
#[test]
fn a_warm_child_waits_for_its_turn() {
    let stage = Stage::new();
    let (a, b) = (stage.agent("a", &["--warm"], WARM), stage.agent("b", &["--warm"], WARM));
    stage.session("a", "Default");
    stage.session("b", "Default");
    let (ia, ib) = (stage.identity("a"), stage.identity("b"));
    stage.listener("one", Some(&ia), &json!({}));
    // What was not prepared is told its turn at once.
    let start = a.note("start", 1);
    let version = |lease: &serde_json::Value| lease["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let line =
        |resume: &str, version: &str| format!(r#"{{"start":{{"resume":{resume},"token":"uid-set-{version}"}}}}"#);
    assert_eq!(start.resume, line("null", &version(&stage.lease("listener.bots.one"))));
    stage.wait_until_running("a", &[("one", 1)]);

    stage.inbox("b", &json!([{"listener": "one", "epoch": 1}]));
    let warm = b.note("warm", 1);
    assert_eq!((warm.token.as_str(), warm.resume.as_str()), ("-", ""), "nobody knows them yet");
    let prepared = until("b to be prepared", || stage.report("b")?.units.get("one").cloned());
    assert_eq!(prepared.state, UnitState::Prepared);
    assert_eq!(b.count("start"), 0, "its turn has not come");
    stage.inbox("a", &json!([{"listener": "one", "epoch": 1, "releaseTo": ib.to_string()}]));
    stage.wait_for_owner("one", &ib.to_string(), 2);
    let given = version(&stage.lease("listener.bots.one"));
    let (stop, start) = (a.note("stop", 1), b.note("start", 1));
    assert!(stop.at < start.at, "never two at once");
    assert_eq!(start.resume, line(r#"{"from":"a"}"#, &given));
    stage.wait_until_running("b", &[("one", 2)]);
    assert_eq!(b.count("warm"), 1, "it is the same process");
    let report = stage.report("b").unwrap();
    println!("gap: {} ms; with processes: {} ms", report.gaps[0].millis, (start.at - stop.at) / 1_000_000);
}

#[test]
fn what_will_not_come_ends_and_may_be_prepared_again() {
    let stage = Stage::new();
    let b = stage.agent("b", &["--warm"], WARM);
    stage.session("b", "Fast");
    stage.identity("b");
    stage.listener("one", None, &json!({}));
    stage.inbox("b", &json!([{"listener": "one", "epoch": 1}]));
    until("b to be prepared", || stage.report("b")?.units.get("one").cloned());
    stage.inbox("b", &json!([]));
    until("its end", || (b.count("stop") + b.count("never") > 0).then_some(()));
    assert_eq!(b.count("start"), 0);
    until("b to say so", || stage.report("b")?.units.is_empty().then_some(()));
    stage.inbox("b", &json!([{"listener": "one", "epoch": 1}]));
    let again = until("b to be prepared again", || stage.report("b")?.units.get("one").cloned());
    assert_eq!((again.state, again.failures), (UnitState::Prepared, 0), "to be told to end is no failure");
    assert_eq!(b.count("warm"), 2);
}

/// A12: a Pod that cannot prepare it says why, and tries again later: the listener stays where it is.
#[test]
fn a_warm_child_that_ends_has_failed_to_prepare() {
    let stage = Stage::new();
    let script = r#"echo "warm $BATON_LISTENER $(date +%s%N) -" >>"$LOG"; echo '{"failed": "ConnectTimeout: no route"}' >&3; exit 3"#;
    let b = stage.agent("b", &["--warm"], script);
    stage.session("b", "Default");
    stage.identity("b");
    stage.listener("one", None, &json!({}));
    stage.inbox("b", &json!([{"listener": "one", "epoch": 1}]));
    let failed = until("b to say that it has failed", || {
        stage.report("b")?.units.get("one").filter(|unit| unit.state == UnitState::Failed).cloned()
    });
    assert_eq!((failed.reason.as_str(), failed.message.as_str(), failed.failures), ("ConnectTimeout", "no route", 1));
    let (first, second) = (b.note("warm", 1), b.note("warm", 2));
    assert!(second.at - first.at >= 240_000_000, "after a pause");
    until("b to say that it has failed again", || {
        stage.report("b")?.units.get("one").filter(|unit| unit.failures >= 2).cloned()
    });
}

/// One that never says that it is prepared holds nothing up: it is told its turn all the same.
#[test]
fn a_warm_child_that_says_nothing_goes_on() {
    let stage = Stage::new();
    let silent = WARM.replace(r#"echo '{"prepared": true}' >&3"#, "");
    let b = stage.agent("b", &["--warm"], &silent);
    stage.session("b", "Default");
    let ib = stage.identity("b");
    stage.listener("one", None, &json!({"connectTimeoutSeconds": 2}));
    stage.inbox("b", &json!([{"listener": "one", "epoch": 1}]));
    b.note("warm", 1);
    let begin = Instant::now();
    until("b to be taken for prepared", || stage.report("b")?.units.get("one").cloned());
    assert!(begin.elapsed() > Duration::from_millis(900), "not before: {:?}", begin.elapsed());
    stage.edit("listener.bots.one", |lease| give(lease, &ib.to_string()));
    b.note("start", 1);
    assert_eq!(b.count("warm"), 1);
}

/// What was prepared with other settings is not what is to run: it is started anew.
#[test]
fn a_warm_child_with_old_settings_is_replaced() {
    let stage = Stage::new();
    let b = stage.agent("b", &["--warm"], &WARM.replace("note start -", r#"note "start-$BATON_LISTENER_CONFIG" -"#));
    stage.session("b", "Default");
    let ib = stage.identity("b");
    stage.listener("one", None, &json!({"config": {"v": 1}}));
    stage.inbox("b", &json!([{"listener": "one", "epoch": 1}]));
    until("b to be prepared", || stage.report("b")?.units.get("one").cloned());
    stage.edit("listener.bots.one", |lease| {
        let settings = lease["metadata"]["annotations"]["baton.dev/config"].as_str().unwrap();
        let settings = settings.replace(r#""v":1"#, r#""v":2"#);
        lease["metadata"]["annotations"]["baton.dev/config"] = settings.into();
        lease["metadata"]["annotations"]["baton.dev/config-hash"] = "c2".into();
        give(lease, &ib.to_string());
    });
    b.note(r#"start-{"feed":"one","v":2}"#, 1);
    assert_eq!((b.count("warm"), b.count(r#"start-{"feed":"one","v":1}"#)), (2, 0));
    stage.wait_for_owner("one", &ib.to_string(), 3);
}

fn give(lease: &mut serde_json::Value, to: &str) {
    lease["metadata"]["labels"]["baton.dev/holder"] = baton::api::names::holder_label(to).into();
    lease["spec"]["holderIdentity"] = to.into();
    lease["spec"]["leaseTransitions"] = 2.into();
}
