//! The end of a Pod.
use nix::sys::signal::Signal;
use serde_json::json;

use super::stage::{POLITE, Stage};
use crate::agent::fixture::until;

/// A6, A15
#[test]
fn an_agent_that_is_to_end_gives_everything_to_others_first() {
    let stage = Stage::new();
    let (mut a, b) = (stage.agent("a", &[], POLITE), stage.agent("b", &[], POLITE));
    assert_eq!((until("health", || Some(a.get("/healthz")).filter(|code| *code == 200)), a.get("/readyz")), (200, 503));
    stage.session("a", "Default");
    stage.session("b", "Default");
    let (ia, ib) = (stage.identity("a"), stage.identity("b"));
    stage.listener("one", Some(&ia), &json!({}));
    stage.wait_until_running("a", &[("one", 1)]);
    assert_eq!((a.get("/healthz"), a.get("/readyz")), (200, 200));
    a.note("start", 1);
    a.signal(Signal::SIGTERM);
    until("a to say so", || stage.info("a").filter(|info| info.draining));
    assert!(a.is_running() && a.count("stop") == 0, "it waits for a successor");
    stage.inbox("a", &json!([{"listener": "one", "epoch": 1, "releaseTo": ib.to_string()}]));
    b.note("start", 1);
    assert!(a.wait().success());
    assert_eq!(stage.owner("one"), (ib.to_string(), 2));
}

#[test]
fn without_a_successor_it_gives_back_what_it_has() {
    let stage = Stage::new();
    let mut a = stage.agent("a", &["--drain-timeout", "1"], POLITE);
    stage.session("a", "Default");
    stage.listener("one", Some(&stage.identity("a")), &json!({}));
    stage.wait_until_running("a", &[("one", 1)]);
    a.note("start", 1);
    a.signal(Signal::SIGTERM);
    stage.wait_for_owner("one", "", 2);
    assert!(a.wait().success());
    assert_eq!(a.count("stop"), 1);
}

#[test]
fn a_second_signal_does_not_wait() {
    let stage = Stage::new();
    let mut a = stage.agent("a", &["--drain-timeout", "600"], POLITE);
    stage.session("a", "Default");
    stage.listener("one", Some(&stage.identity("a")), &json!({}));
    stage.wait_until_running("a", &[("one", 1)]);
    a.note("start", 1);
    a.signal(Signal::SIGTERM);
    until("a to say so", || stage.info("a").filter(|info| info.draining));
    a.signal(Signal::SIGTERM);
    assert!(a.wait().success());
    assert_eq!(stage.owner("one"), (String::new(), 2));
}

#[test]
fn a_hook_returns_when_nothing_is_held_and_the_agent_stays() {
    let stage = Stage::new();
    let mut a = stage.agent("a", &[], POLITE);
    stage.session("a", "Default");
    stage.listener("one", Some(&stage.identity("a")), &json!({}));
    stage.wait_until_running("a", &[("one", 1)]);
    a.note("start", 1);
    let mut hook = a.drain();
    until("a to say so", || stage.info("a").filter(|info| info.draining));
    assert_eq!(hook.try_wait().unwrap(), None);
    stage.inbox("a", &json!([{"listener": "one", "epoch": 1, "releaseTo": ""}]));
    assert!(hook.wait().unwrap().success());
    assert!(a.is_running());
    a.signal(Signal::SIGTERM);
    assert!(a.wait().success());
}

#[test]
fn before_it_has_a_session_it_just_ends() {
    let stage = Stage::new();
    let mut a = stage.agent("a", &[], POLITE);
    until("health", || Some(a.get("/healthz")).filter(|code| *code == 200));
    a.signal(Signal::SIGTERM);
    assert!(a.wait().success());
}
