//! One child under its guard, while everyone does their work.
use std::{
    fs,
    time::{Duration, Instant},
};

use baton::agent::boottime::Boottime;
use nix::sys::signal::Signal;

use super::fixture::{AGENT, Agent, DEAF, PATIENCE, POLITE, Place, until};

#[test]
fn a_child_that_ends_when_asked_has_stopped() {
    let mut agent = Agent::start(Place::Beside);
    agent.spawn("one", POLITE);
    agent.event("one", "Line(Tick)");
    agent.stop("one", 60_000);
    agent.event("one", "Ended(Ended { cause: Stopped, exit: Some(Code(5)), proof: Guard })");
    agent.assert_nothing_is_left("one");
}

#[test]
fn a_child_that_is_deaf_is_killed_after_the_grace() {
    let mut agent = Agent::start(Place::Beside);
    agent.spawn("one", DEAF);
    agent.event("one", "Line(Tick)");
    let begin = Instant::now();
    agent.stop("one", 300);
    agent.event("one", "Ended(Ended { cause: StopTimeout, exit: Some(Signal(9)), proof: Guard })");
    assert!(begin.elapsed() >= Duration::from_millis(300));
    agent.assert_nothing_is_left("one");
}

#[test]
fn who_left_session_and_group_and_ignores_signals_is_stopped_too() {
    for place in [Place::Beside, Place::Init] {
        let mut agent = Agent::start(place);
        agent.spawn_escaping("one");
        // Guard, child, grandchild; what they sleep with besides.
        assert!(agent.living("one").len() >= 3, "{place:?}");
        agent.stop("one", 60_000);
        agent.event("one", "Ended(Ended { cause: Stopped, exit: Some(Code(5)), proof: Guard })");
        agent.assert_nothing_is_left("one");
    }
}

#[test]
fn what_a_child_leaves_behind_ends_with_it() {
    let mut agent = Agent::start(Place::Beside);
    agent.spawn("one", "(setsid sleep 600 &); exit 3");
    agent.event("one", "Ended(Ended { cause: Exited, exit: Some(Code(3)), proof: Guard })");
    agent.assert_nothing_is_left("one");
}

#[test]
fn nothing_runs_past_the_deadline_and_extending_moves_it() {
    let mut agent = Agent::start(Place::Beside);
    agent.spawn_escaping("one");
    let mut deadline = agent.extend("one", 2_000);
    for _ in 0..10 {
        deadline = agent.extend("one", 2_000);
    }
    assert!(agent.wait_until_dead("one") >= deadline);
    agent.event("one", "Ended(Ended { cause: Deadline, exit: Some(Signal(9)), proof: Guard })");
}

/// The first deadline of [`Agent::spawn`] is half a second, replaced before the guard has begun.
#[test]
fn a_deadline_that_is_extended_at_once_does_not_pass() {
    let mut agent = Agent::start(Place::Beside);
    agent.spawn("one", POLITE);
    let begin = Boottime::now();
    until("the first deadline to pass", || (Boottime::now().since(begin) > Duration::from_secs(1)).then_some(()));
    assert!(agent.living("one").contains(&agent.child("one")));
    agent.stop("one", 60_000);
    agent.event("one", "Line(Tick)");
    agent.event("one", "Ended(Ended { cause: Stopped, exit: Some(Code(5)), proof: Guard })");
}

#[test]
fn there_is_no_way_back_once_the_deadline_has_passed() {
    let mut agent = Agent::start(Place::Beside);
    agent.spawn("one", DEAF);
    agent.event("one", "Line(Tick)");
    agent.extend("one", 0);
    agent.event("one", "Ended(Ended { cause: Deadline, exit: Some(Signal(9)), proof: Guard })");
    agent.extend("one", 60_000); // too late
    agent.assert_nothing_is_left("one");
}

#[test]
fn letting_go_of_a_child_kills_it() {
    let mut agent = Agent::start(Place::Beside);
    agent.spawn_escaping("one");
    agent.let_go("one");
    agent.wait_until_dead("one");
    agent.event("one", "Ended(Ended { cause: Deadline, exit: Some(Signal(9)), proof: Guard })");
}

#[test]
fn one_that_makes_processes_without_end_is_stopped() {
    for place in [Place::Beside, Place::Init] {
        let mut agent = Agent::start(place);
        agent.spawn("one", r#"trap '' TERM; echo '{"tick":true}' >&3; while :; do (setsid sleep 60 &); done"#);
        agent.event("one", "Line(Tick)");
        agent.stop("one", 50);
        // Whichever of the two has had to do it: that may take longer than a guard is given.
        agent.events_to_the_end("one");
        agent.assert_nothing_is_left("one");
    }
}

#[test]
fn a_command_that_cannot_be_run_is_an_end_like_others() {
    let mut agent = Agent::start(Place::Beside);
    agent.run("one", &["./no-such-program"]);
    agent.event("one", "Ended(Ended { cause: Exited, exit: Some(Code(127)), proof: Guard })");
    agent.run("two", &["/"]);
    agent.event("two", "Ended(Ended { cause: Exited, exit: Some(Code(126)), proof: Guard })");
}

#[test]
fn an_end_by_any_signal_is_told() {
    let mut agent = Agent::start(Place::Beside);
    for (name, signal) in [("term", 15), ("real-time", 40)] {
        agent.spawn(name, &format!("kill -{signal} $$"));
        let end = format!("Ended(Ended {{ cause: Exited, exit: Some(Signal({signal})), proof: Guard }})");
        agent.event(name, &end);
    }
}

#[test]
fn a_child_has_what_it_needs_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let mut agent = Agent::start_with_a_leak(Place::Beside);
    let script = format!(
        "env >{}; grep Sig /proc/self/status >{}; cat; echo told as it is; exec ls -l /proc/self/fd >{}",
        path("environment"),
        path("signals"),
        path("open"),
    );
    agent.spawn("one", &script);
    agent.output("told as it is");
    agent.event("one", "Ended(Ended { cause: Exited, exit: Some(Code(0)), proof: Guard })");
    let listed = fs::read_to_string(path("open")).unwrap();
    let open: Vec<u32> = listed.lines().filter_map(|line| line.split(' ').rev().nth(2)?.parse().ok()).collect();
    assert_eq!(open, [0, 1, 2, 3, 4], "{listed}");
    for place in ["0 -> /dev/null", "3 -> pipe:[", "4 -> /proc/"] {
        assert!(listed.contains(place), "{place} in {listed}"); // the last is the folder it reads
    }
    let environment = fs::read_to_string(path("environment")).unwrap();
    for entry in ["BATON_RESUME=", "BATON_FENCE_TOKEN=1", "BATON_CONNECT_TIMEOUT_SECONDS=30", "USE_PROXY=false"] {
        assert!(environment.lines().any(|line| line == entry), "{entry} in {environment}");
    }
    let signals = fs::read_to_string(path("signals")).unwrap();
    let bits = |set| {
        let line = signals.lines().find_map(|line| line.strip_prefix(set)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    assert_eq!(bits("SigBlk:"), 0, "{signals}");
    // Others may be ignored by whoever runs the tests, and that is inherited.
    for signal in [Signal::SIGPIPE, Signal::SIGTERM, Signal::SIGCHLD] {
        assert_eq!(bits("SigIgn:") & 1 << (signal as u64 - 1), 0, "{signal} in {signals}");
    }
}

#[test]
fn a_guard_is_small() {
    let mut agent = Agent::start(Place::Beside);
    agent.spawn("one", POLITE);
    agent.event("one", "Line(Tick)");
    let memory = fs::read_to_string(format!("/proc/{}/smaps_rollup", agent.guard("one"))).unwrap();
    let kilobytes = |field: &str| -> u64 {
        let line = memory.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
    };
    println!("{memory}");
    assert!(kilobytes("Private_Dirty:") < 2 << 10, "{memory}");
}

#[test]
fn an_agent_is_needed() {
    // Standard input is no socket to one.
    let output = std::process::Command::new(AGENT).args(["guard", "--agent", "1", "--", "true"]).output().unwrap();
    assert!(!output.status.success());
    let begin = Instant::now();
    let shim = std::process::Command::new(AGENT).args(["guard-child", "--guard", "1", "--", "true"]).output().unwrap();
    assert!(!shim.status.success() && begin.elapsed() < PATIENCE);
}
