//! Listeners that end by themselves, or do not begin.
use baton::snapshot::report::{UnitReport, UnitState};
use serde_json::json;

use super::stage::Stage;
use crate::agent::fixture::until;

fn unit(stage: &Stage, listener: &str) -> Option<UnitReport> {
    stage.report("a")?.units.get(listener).cloned()
}

/// A8, A11, L2: it starts again in the same place, later and later, each time with an epoch of its own.
#[test]
fn a_listener_that_crashes_is_taken_back_with_a_new_epoch() {
    let stage = Stage::new();
    let script = r#"
        echo "start $BATON_LISTENER $(date +%s%N) $BATON_FENCE_TOKEN $BATON_RESUME" >>"$LOG"
        echo '{"resume":'$(wc -l <"$LOG")'}' >&3
        echo '{"failed":"ConnectTimeout: no route"}' >&3
        exit 3"#;
    let agent = stage.agent("a", &[], script);
    stage.session("a", "Default");
    let me = stage.identity("a").to_string();
    stage.listener("one", Some(&stage.identity("a")), &json!({}));
    let (first, second) = (agent.note("start", 1), agent.note("start", 2));
    assert!(second.at - first.at >= 240_000_000, "after a pause");
    assert_ne!(first.token, second.token);
    assert_eq!((first.resume.as_str(), second.resume.as_str()), ("", "1"));
    let failed = until("two failures", || unit(&stage, "one").filter(|unit| unit.failures == 2));
    assert_eq!(failed.state, UnitState::Failed);
    assert_eq!((failed.reason.as_str(), failed.message.as_str()), ("ConnectTimeout", "no route"));
    let third = agent.note("start", 3);
    assert!(third.at - second.at >= 1_900_000_000, "then two");
    let (holder, epoch) = stage.owner("one");
    assert!(holder == me && epoch >= 3, "{epoch}");
}

/// With a start budget what has ended waits until the operator says that it may be started again.
#[test]
fn a_listener_that_crashes_asks_before_it_is_started_again() {
    let stage = Stage::new();
    let script = r#"
        echo "start $BATON_LISTENER $(date +%s%N) $BATON_FENCE_TOKEN $BATON_RESUME" >>"$LOG"
        [ "$(wc -l <"$LOG")" -gt 1 ] || exit 3
        while :; do sleep 0.02; done"#;
    let agent = stage.agent("a", &[], script);
    stage.session("a", "Default");
    let me = stage.identity("a").to_string();
    stage.listener("one", Some(&stage.identity("a")), &json!({"asksBeforeStart": true}));
    agent.note("start", 1);
    let waits = until("that it asks", || unit(&stage, "one").filter(|unit| unit.state == UnitState::Waiting));
    assert_eq!((waits.epoch, waits.failures, waits.reason.as_str()), (1, 1, "Exited"));
    std::thread::sleep(std::time::Duration::from_millis(1_500)); // it would have been started by now
    assert_eq!((agent.count("start"), stage.owner("one")), (1, (me.clone(), 1)));
    stage.inbox("a", &json!([{"listener": "one", "epoch": 1, "releaseTo": me}]));
    agent.note("start", 2);
    assert_eq!(stage.owner("one"), (me, 2));
    stage.wait_until_running("a", &[("one", 2)]);
}

/// A8
#[test]
fn a_listener_that_is_to_say_that_it_works_fails_if_it_does_not() {
    let stage = Stage::new();
    let script = r#"
        echo "start $BATON_LISTENER $(date +%s%N) $BATON_FENCE_TOKEN $BATON_RESUME" >>"$LOG"
        [ "$(wc -l <"$LOG")" -gt 1 ] && echo '{"tick":true}' >&3
        while :; do sleep 0.02; done"#;
    let agent = stage.agent("a", &["--ready-on-tick"], script);
    stage.session("a", "Default");
    stage.listener("one", Some(&stage.identity("a")), &json!({"startTimeoutSeconds": 5}));
    agent.note("start", 1);
    let starting = until("a report", || unit(&stage, "one"));
    assert_eq!(starting.state, UnitState::Starting);
    let failed = until("its failure", || unit(&stage, "one").filter(|unit| unit.state == UnitState::Failed));
    assert_eq!((failed.reason.as_str(), failed.failures), ("StartTimeout", 1));
    stage.wait_until_running("a", &[("one", 2)]);
}

#[test]
fn a_command_that_cannot_be_run_and_settings_that_cannot_be_read_are_told() {
    let stage = Stage::new();
    let agent = stage.agent("a", &[], "exit 0");
    stage.session("a", "Default");
    stage.listener("one", Some(&stage.identity("a")), &json!({"useProxy": "perhaps"}));
    let failed = until("its failure", || unit(&stage, "one").filter(|unit| unit.state == UnitState::Failed));
    assert_eq!(failed.reason, "SettingsUnreadable");
    drop(agent);
    let mistakes = [
        ("no-such-bot", "CommandNotFound", "no-such-bot: No such file or directory (os error 2)"),
        ("/etc/passwd", "CannotExecute", "/etc/passwd: Permission denied (os error 13)"),
    ];
    for (command, reason, message) in mistakes {
        for args in [&[][..], &["--warm"]] {
            let stage = Stage::new();
            let agent = stage.start("exec", "a", args, &["--", command]);
            stage.session("a", "Default");
            stage.listener("one", Some(&stage.identity("a")), &json!({}));
            let failed = until("its failure", || unit(&stage, "one").filter(|unit| unit.state == UnitState::Failed));
            assert_eq!((failed.reason.as_str(), failed.message.as_str()), (reason, message), "{args:?}");
            drop(agent);
        }
    }
}

/// What the application would resume from survives the agent.
#[test]
fn what_is_said_is_written_down_as_often_as_asked() {
    let stage = Stage::new();
    let script = r#"i=0; while :; do i=$((i+1)); echo "{\"resume\":$i}" >&3; sleep 0.02; done"#;
    let _agent = stage.agent("a", &[], script);
    stage.session("a", "Default");
    stage.listener("one", Some(&stage.identity("a")), &json!({"checkpointSeconds": 1}));
    let written = || {
        let text = stage.lease("listener.bots.one")["metadata"]["annotations"]["baton.dev/state"].clone();
        text.as_str()?.parse::<u32>().ok()
    };
    let mut last = until("a checkpoint", written);
    let begin = std::time::Instant::now();
    for _ in 0..4 {
        last = until("another", || written().filter(|number| *number > last));
    }
    assert!(begin.elapsed() >= std::time::Duration::from_millis(3_200), "{:?}", begin.elapsed());
    assert_eq!(stage.owner("one").1, 1, "no new epoch");
}
