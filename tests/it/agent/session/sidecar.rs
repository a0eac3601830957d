//! The agent beside an application on the SDK, as processes.
use std::{os::unix::process::ExitStatusExt, time::Duration};

use baton::snapshot::report::{UnitReport, UnitState};
use nix::sys::signal::Signal;
use serde_json::json;

use super::stage::{Agent, Stage, is_timely, until_timely, wall};
use crate::agent::fixture::until;

fn unit(stage: &Stage) -> Option<UnitReport> {
    stage.report("a")?.units.get("one").cloned()
}

/// Each start after the end of the one before, and no two with one token.
fn assert_one_at_a_time(agents: &[&Agent]) {
    let mut notes: Vec<_> = agents.iter().flat_map(|agent| agent.notes()).collect();
    notes.sort_by_key(|note| note.at);
    let mut runs: Option<String> = None;
    for note in notes {
        match note.what.as_str() {
            "start" => {
                assert!(runs.is_none(), "two at once: {runs:?} and {note:?}");
                runs = Some(note.token);
            }
            "stop" | "drop" => assert_eq!(runs.take(), Some(note.token)),
            "beat" => assert_eq!(runs.as_ref(), Some(&note.token)),
            _ => {}
        }
    }
}

/// A2, A6, L1, L2: prepared, stopped, started elsewhere from where it had stopped.
#[test]
fn a_listener_moves_from_application_to_application_with_what_it_resumes_from() {
    let (stage, a, _application, _) = Stage::beside("Default", "polite", &json!({}));
    let b = stage.sidecar("b", &[]);
    assert_eq!(until("health", || Some(b.get("/healthz")).filter(|code| *code == 200)), 200);
    let _other = stage.application("b");
    stage.session("b", "Default");
    let ib = stage.identity("b");
    until("both to be ready", || (a.get("/readyz") == 200 && b.get("/readyz") == 200).then_some(()));
    stage.inbox("b", &json!([{"listener": "one", "epoch": 1}]));
    let prepared = until("b to be prepared", || stage.report("b")?.units.get("one").cloned());
    assert_eq!(prepared.state, UnitState::Prepared);
    assert_eq!((b.count("prepare"), b.count("start")), (1, 0));
    stage.inbox("a", &json!([{"listener": "one", "epoch": 1, "releaseTo": ib.to_string()}]));
    stage.wait_for_owner("one", &ib.to_string(), 2);
    let start = b.note("start", 1);
    let version = stage.lease("listener.bots.one")["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    assert_eq!((start.resume.as_str(), start.token), (r#"{"from":"a"}"#, format!("uid-set-{version}")));
    stage.wait_until_running("b", &[("one", 2)]);
    assert_one_at_a_time(&[&a, &b]);
    println!("gap: {} ms", stage.report("b").unwrap().gaps[0].millis);
}

/// A6: asked to end, the application goes on until others have taken everything.
#[test]
fn an_application_that_is_to_end_gives_everything_to_others_first() {
    let (stage, a, mut application, _) = Stage::beside("Default", "polite", &json!({}));
    application.signal(Signal::SIGTERM);
    until("the agent to say so", || stage.info("a").filter(|info| info.draining));
    assert_eq!(a.count("stop"), 0, "it waits for a successor");
    stage.inbox("a", &json!([{"listener": "one", "epoch": 1, "releaseTo": ""}]));
    stage.wait_for_owner("one", "", 2);
    assert!(application.wait().success());
    assert_eq!(stage.lease("listener.bots.one")["metadata"]["annotations"]["baton.dev/state"], r#"{"from":"a"}"#);
}

/// A6: a container that is restarted alone gets listeners again: only the process before was to end.
#[test]
fn an_application_that_is_started_again_takes_back_that_it_was_to_end() {
    let (stage, agent, mut application, _) = Stage::beside("Default", "polite", &json!({}));
    application.signal(Signal::SIGTERM);
    until("the agent to say so", || stage.info("a").filter(|info| info.draining));
    application.signal(Signal::SIGKILL);
    application.wait();
    let _next = stage.application("a");
    until("it to stay", || stage.info("a").filter(|info| !info.draining));
    agent.note("start", 2);
    stage.wait_until_running("a", &[("one", 2)]);
}

/// A8, L2: the process that comes next says that it runs nothing, and starts it again with an epoch of its own.
#[test]
fn an_application_that_was_killed_is_replaced_by_the_next() {
    let (stage, agent, mut application, me) = Stage::beside("Default", "polite", &json!({}));
    application.signal(Signal::SIGKILL);
    application.wait();
    until("it not to be ready", || (agent.get("/readyz") == 503).then_some(()));
    assert_eq!(stage.owner("one"), (me.to_string(), 1), "nobody has said that it has ended");
    let _next = stage.application("a");
    let (first, second) = (agent.note("start", 1), agent.note("start", 2));
    assert_ne!(first.token, second.token);
    stage.wait_until_running("a", &[("one", 2)]);
    assert_eq!((stage.owner("one"), agent.get("/readyz")), ((me.to_string(), 2), 200));
}

/// L1, L2: the next agent claims only once what the last one had begun was stopped.
#[test]
fn an_agent_that_was_killed_is_outlived_and_its_listener_is_stopped_before_the_next_claims() {
    let (stage, mut agent, _application, _) = Stage::beside("Calm", "polite", &json!({}));
    agent.signal(Signal::SIGKILL);
    agent.wait();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(agent.count("stop"), 0, "it runs on until its deadline, a minute from now");
    let again = stage.sidecar("a", &[]);
    let me = until("the next boot", || stage.identity_now("a").filter(|me| me.boot == 2));
    let stop = again.note("stop", 1);
    let claimed = stage.lease("session.a")["spec"]["acquireTime"].as_str().unwrap().to_owned();
    let claimed: jiff::Timestamp = claimed.parse().unwrap();
    assert!(claimed.as_nanosecond() >= stop.at as i128, "{claimed}");
    // H12: without the controller.
    stage.wait_for_owner("one", &me.to_string(), 2);
    again.note("start", 2);
    stage.wait_until_running("a", &[("one", 2)]);
    assert_one_at_a_time(&[&again]);
}

/// L1: without an application that says anything, its deadline is waited for.
#[test]
fn an_agent_that_was_killed_with_nobody_to_ask_waits_for_the_deadline() {
    until_timely(|| {
        let (stage, mut agent, application, _) = Stage::beside("Default", "deaf", &json!({}));
        // Cut off: it lives, and neither hears nor says anything.
        agent.signal(Signal::SIGKILL);
        agent.wait();
        application.signal(Signal::SIGSTOP);
        let killed = wall();
        let _again = stage.sidecar("a", &[]);
        until("the next boot", || stage.identity_now("a").filter(|me| me.boot == 2));
        // Up to 3 s after a renewal, the deadline was at least 8.5 s away; half a second later is K.
        let claimed = wall();
        assert!(claimed >= killed + 8_500_000_000, "{} ms", (claimed - killed) / 1_000_000);
        is_timely(claimed, &(killed + 8_500_000_000..=killed + 12_500_000_000))
    });
}

/// A7, L1: who does not stop is dropped at the end of its stop time-out.
#[test]
fn what_does_not_stop_is_dropped() {
    until_timely(|| {
        let (stage, agent, _application, _) = Stage::beside("Default", "deaf", &json!({"stopTimeoutSeconds": 1}));
        let asked = wall();
        stage.inbox("a", &json!([{"listener": "one", "epoch": 1, "releaseTo": ""}]));
        stage.wait_for_owner("one", "", 2);
        let dropped = agent.note("drop", 1).at;
        assert!(dropped >= asked + 700_000_000, "{} ms", (dropped - asked) / 1_000_000);
        assert_one_at_a_time(&[&agent]);
        is_timely(dropped, &(asked..=asked + 1_000_000_000))
    });
}

/// A7, L1: who cannot even be dropped takes the process along, and only then is it given away.
#[test]
fn what_blocks_its_thread_ends_its_process() {
    let (stage, agent, mut application, _) = Stage::beside("Default", "blocking", &json!({"stopTimeoutSeconds": 1}));
    agent.note("beat", 3);
    stage.inbox("a", &json!([{"listener": "one", "epoch": 1, "releaseTo": ""}]));
    assert_eq!(application.wait().signal(), Some(Signal::SIGABRT as i32));
    assert!(
        application.log().contains("bots/one has neither ended nor let itself be dropped"),
        "{}",
        application.log()
    );
    let last = agent.notes().last().unwrap().at;
    stage.wait_for_owner("one", "", 2);
    assert!(wall() > last);
}

/// A11, L1: an API server that is away stops it in time, and it goes on when that is back.
#[test]
fn nothing_runs_past_the_deadline_without_an_api_server() {
    until_timely(|| {
        let (stage, agent, _application, me) = Stage::beside("Fast", "polite", &json!({}));
        let cut = wall();
        stage.cut();
        let stop = agent.note("stop", 1);
        // S, counted from the last renewal.
        let window = cut + 2_000_000_000..=cut + 3_000_000_000;
        assert!(stop.at <= cut + 4_000_000_000, "{} ms: K is 4 s", (stop.at - cut) / 1_000_000);
        assert_eq!((stage.owner("one"), agent.get("/readyz")), ((me.to_string(), 1), 503));
        stage.faults.off();
        stage.wait_until_running("a", &[("one", 2)]);
        assert_one_at_a_time(&[&agent]);
        is_timely(stop.at, &window)
    });
}

/// L1: the SDK needs nobody to keep a deadline: neither the API server, nor the agent, nor the listener itself.
#[test]
fn without_an_agent_that_says_anything_what_does_not_stop_is_dropped_or_aborted_by_k() {
    let scene = |manner: &str, is_aborted: bool| {
        let (_stage, agent, mut application, _) = Stage::beside("Fast", manner, &json!({"stopTimeoutSeconds": 600}));
        agent.note("beat", 3);
        let stopped = wall();
        agent.signal(Signal::SIGSTOP); // the connection stays open
        std::thread::sleep(Duration::from_millis(4_500));
        let last = agent.notes().last().unwrap().at;
        assert!(last <= stopped + 4_000_000_000, "{} ms: K is 4 s", (last - stopped) / 1_000_000);
        if is_aborted {
            assert_eq!(application.wait().signal(), Some(Signal::SIGABRT as i32));
        } else {
            assert_eq!(agent.count("drop"), 1);
        }
        is_timely(last, &(stopped + 2_000_000_000..=stopped + 4_000_000_000))
    };
    for (manner, is_aborted) in [("deaf", false), ("blocking", true)] {
        until_timely(|| scene(manner, is_aborted));
    }
}

/// A16
#[test]
fn without_an_application_nothing_starts_and_it_is_said_why() {
    let stage = Stage::new();
    let agent = stage.sidecar("a", &[]);
    stage.session("a", "Default");
    let me = stage.identity("a");
    assert_eq!((agent.get("/healthz"), agent.get("/readyz")), (200, 503));
    stage.listener("one", Some(&me), &json!({"startTimeoutSeconds": 1}));
    let failed = until("its failure", || unit(&stage).filter(|unit| unit.failures == 2));
    assert_eq!((failed.state, failed.reason.as_str()), (UnitState::Failed, "NoApplication"));
    let _late = stage.application("a");
    until("it to run", || (agent.count("start") == 1).then_some(()));
}

/// A8
#[test]
fn a_listener_that_fails_or_never_says_that_it_works_is_told_of() {
    for (manner, reason) in [("failing", "ConnectTimeout"), ("silent", "StartTimeout")] {
        let stage = Stage::new();
        let _agent = stage.sidecar("a", &[]);
        stage.session("a", "Default");
        let me = stage.identity("a");
        let _application = stage.application("a");
        stage.listener("one", Some(&me), &json!({"startTimeoutSeconds": 2, "config": {"manner": manner}}));
        let failed = until("its failure", || unit(&stage).filter(|unit| unit.state == UnitState::Failed));
        assert_eq!(failed.reason, reason);
    }
}

/// L1: what one process says is taken for what the container does, so there is one.
#[test]
fn a_second_process_is_refused() {
    let (stage, agent, _application, _) = Stage::beside("Default", "polite", &json!({}));
    let mut second = stage.application("a");
    assert!(!second.wait().success());
    assert!(second.log().contains("another process of this Pod runs its listeners"), "{}", second.log());
    assert_eq!((agent.count("start"), agent.count("stop")), (1, 0));
}
