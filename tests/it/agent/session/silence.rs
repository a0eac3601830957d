//! Sessions that are not renewed, or not ours any more.
use std::time::Duration;

use baton::snapshot::report::UnitState;
use nix::sys::signal::Signal;
use serde_json::json;

use super::stage::{Agent, DEAF, POLITE, Stage, is_timely, until_timely, wall};
use crate::{
    agent::fixture::until,
    fake_apiserver::{
        faults::{Then, Verb},
        refusal::Refusal,
    },
};

/// A11, L1, L2: at S it has stopped; when the API server answers again it goes on, with an epoch of its own.
#[test]
fn nothing_runs_past_s_without_an_api_server_and_everything_goes_on_with_it() {
    until_timely(|| {
        let (stage, agent, me) = Stage::running("Fast", POLITE, &json!({}));
        stage.wait_until_running("a", &[("one", 1)]);
        let cut = wall();
        stage.cut();
        let stop = agent.note("stop", 1);
        // The last renewal was acknowledged up to a second before the cut.
        let window = cut + 2_000_000_000..=cut + 3_000_000_000;
        assert!(stop.at <= cut + 4_000_000_000, "{} ms: K is 4 s", (stop.at - cut) / 1_000_000);
        assert_eq!((stage.owner("one"), agent.get("/readyz"), agent.get("/healthz")), ((me.to_string(), 1), 503, 200));
        stage.faults.off();
        agent.note("start", 2);
        stage.wait_until_running("a", &[("one", 2)]);
        assert_eq!(stage.owner("one"), (me.to_string(), 2));
        is_timely(stop.at, &window)
    });
}

/// L1: who does not care is killed by K, by his guard.
#[test]
fn what_does_not_stop_is_killed_by_k() {
    let stage = Stage::new();
    let agent = stage.agent("a", &[], DEAF);
    stage.session("a", "Fast");
    stage.listener("one", Some(&stage.identity("a")), &json!({"stopTimeoutSeconds": 600}));
    agent.note("beat", 3);
    let cut = wall();
    stage.cut();
    std::thread::sleep(Duration::from_secs(5));
    let last = agent.notes().last().unwrap().at;
    assert!(last >= cut + 2_000_000_000, "{} ms", (last - cut) / 1_000_000);
    assert!(last <= cut + 4_000_000_000, "{} ms: K is 4 s", (last - cut) / 1_000_000);
}

/// Waits for the end of an agent whose listener does not care for SIGTERM. Whether the listener had no grace.
fn had_no_grace(agent: &mut Agent, since: u128) -> bool {
    assert!(!agent.wait().success());
    is_timely(agent.notes().last().unwrap().at, &(since..=since))
}

/// A2, L1: others know that it is dead, so nothing of it has any time left.
#[test]
fn a_fenced_session_kills_everything_and_the_next_boot_claims_anew() {
    until_timely(|| {
        let stage = Stage::new();
        let mut agent = stage.agent("a", &[], DEAF);
        stage.session("a", "Default");
        let me = stage.identity("a");
        stage.listener("one", Some(&me), &json!({"stopTimeoutSeconds": 600}));
        agent.note("beat", 3);
        let lost = wall();
        stage.edit("session.a", |lease| lease["spec"]["holderIdentity"] = json!(format!("fenced:{me}")));
        let had_no_grace = had_no_grace(&mut agent, lost);
        assert!(agent.log().contains("the session was lost: it is fenced:a/uid-a/1-"), "{}", agent.log());
        assert_eq!(stage.owner("one"), (me.to_string(), 1), "what it does not hold any more it does not write");
        drop(agent);
        let _again = stage.agent("a", &[], POLITE);
        until("the next boot", || (stage.identity_now("a")?.boot == 2).then_some(()));
        stage.wait_for_owner("one", &stage.identity("a").to_string(), 2);
        had_no_grace
    });
}

/// L1: the same where a later boot has claimed it, or it is deleted, even of what is stopping already.
#[test]
fn a_session_that_is_another_boots_or_deleted_leaves_no_grace() {
    let scene = |is_deleted: bool| {
        let stage = Stage::new();
        let mut agent = stage.agent("a", &[], DEAF);
        stage.session("a", "Default");
        stage.listener("one", Some(&stage.identity("a")), &json!({"stopTimeoutSeconds": 600}));
        agent.note("beat", 3);
        stage.inbox("a", &json!([{"listener": "one", "epoch": 1, "releaseTo": ""}]));
        until("it to stop", || {
            stage.report("a")?.units.get("one").filter(|unit| unit.state == UnitState::Stopping).cloned()
        });
        let lost = wall();
        if is_deleted {
            stage.delete("session.a");
        } else {
            stage.edit("session.a", |lease| {
                lease["spec"]["holderIdentity"] = json!("a/uid-a/2-x");
                lease["spec"]["leaseTransitions"] = json!(2);
            });
        }
        had_no_grace(&mut agent, lost)
    };
    for is_deleted in [true, false] {
        until_timely(|| scene(is_deleted));
    }
}

/// The same by the renewal alone, where no watch tells.
#[test]
fn a_session_that_is_gone_ends_the_agent_though_nothing_is_told() {
    let stage = Stage::new();
    let mut agent = stage.agent("a", &[], POLITE);
    stage.session("a", "Fast");
    stage.identity("a");
    stage.silence_watches();
    stage.edit("session.a", |lease| lease["metadata"]["labels"]["baton.dev/lease"] = json!("none"));
    assert!(!agent.wait().success());
    assert!(agent.log().contains("lost its label"), "{}", agent.log());
}

/// Neither the claim nor the look after it was answered, and the watch has nothing to tell.
#[test]
fn a_claim_that_could_not_be_looked_after_is_tried_again() {
    let stage = Stage::new();
    let _agent = stage.agent("a", &[], POLITE);
    let (mut claims, mut looks) = (0, 0);
    stage.faults.before(move |request| {
        let count = match request.verb {
            Verb::Patch if request.name == "session.a" => &mut claims,
            Verb::Get if request.name == "session.a" => &mut looks,
            _ => return Then::Deliver,
        };
        *count += 1;
        let refusal = Refusal::new(500, "InternalError", "not now");
        if *count == 1 { Then::Answer(refusal) } else { Then::Deliver }
    });
    stage.session("a", "Default");
    assert_eq!(stage.identity("a").boot, 1);
}

#[test]
fn another_profile_is_adopted() {
    let stage = Stage::new();
    let _agent = stage.agent("a", &[], POLITE);
    stage.session("a", "Default");
    stage.identity("a");
    for (profile, seconds) in [("Calm", 90), ("Fast", 5), ("Default", 15)] {
        stage.edit("session.a", |lease| lease["metadata"]["annotations"]["baton.dev/profile"] = json!(profile));
        until(profile, || (stage.lease("session.a")["spec"]["leaseDurationSeconds"] == seconds).then_some(()));
    }
}

/// A2, H12: guards that outlive their agent are waited for, and a second agent is refused.
#[test]
fn an_agent_is_alone_in_its_pod() {
    let stage = Stage::new();
    let mut agent = stage.agent("a", &[], DEAF);
    stage.session("a", "Default");
    let first = stage.identity("a");
    stage.listener("one", Some(&first), &json!({}));
    agent.note("beat", 3);
    let mut second = stage.agent("a", &[], POLITE);
    assert!(!second.wait().success());
    assert!(second.log().contains("another agent runs in this Pod"), "{}", second.log());
    drop(second);
    agent.signal(Signal::SIGKILL);
    agent.wait();
    let _third = stage.agent("a", &[], POLITE);
    until("the next boot", || (stage.identity_now("a")?.boot == 2).then_some(()));
    // Its claim was written after the last sign of life.
    let claimed = stage.lease("session.a")["spec"]["acquireTime"].as_str().unwrap().to_owned();
    let claimed: jiff::Timestamp = claimed.parse().unwrap();
    let last = agent.notes().into_iter().rfind(|note| note.what == "beat").unwrap().at;
    assert!(claimed.as_nanosecond() >= last as i128, "{claimed}");
    let me = stage.identity("a");
    assert_ne!(me, first);
    stage.wait_for_owner("one", &me.to_string(), 2);
    let start = agent.note("start", 1);
    assert!(start.at >= last, "without the controller, and never two at once");
}

/// L1: renewals go on, whatever a listener says.
#[test]
fn a_listener_that_never_stops_talking_keeps_nobody_from_being_heard() {
    let stage = Stage::new();
    let script = r#"
        echo "start $BATON_LISTENER $(date +%s%N) $BATON_FENCE_TOKEN $BATON_RESUME" >>"$LOG"
        while :; do echo '{"tick":true}' >&3; echo '{"resume":1}' >&3; done"#;
    let agent = stage.agent("a", &[], script);
    stage.session("a", "Fast");
    let me = stage.identity("a");
    stage.listener("one", Some(&me), &json!({}));
    agent.note("start", 1);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!((agent.get("/readyz"), stage.owner("one")), (200, (me.to_string(), 1)));
    stage.inbox("a", &json!([{"listener": "one", "epoch": 1, "releaseTo": ""}]));
    stage.wait_for_owner("one", "", 2);
    let lease = stage.lease("listener.bots.one");
    assert_eq!(lease["metadata"]["annotations"]["baton.dev/state"], "1");
}

/// A token that has run out is read anew, and a renewal that was refused for it is sent again.
#[test]
fn a_token_that_has_run_out_costs_one_more_try() {
    let (stage, agent, me) = Stage::running("Fast", POLITE, &json!({}));
    let mut count = 0_u32;
    stage.faults.before(move |request| {
        let is_renewal = request.verb == Verb::Patch && request.name == "session.a";
        count += u32::from(is_renewal);
        // Every other one.
        let is_refused = is_renewal && count % 2 == 1;
        if is_refused { Then::Answer(Refusal::new(401, "Unauthorized", "Unauthorized")) } else { Then::Deliver }
    });
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!((agent.get("/readyz"), stage.owner("one"), agent.count("stop")), (200, (me.to_string(), 1), 0));
}
