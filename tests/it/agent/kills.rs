//! Who stops a listener when someone who should is killed or stopped: the table in `baton::agent::exec`, line by line.
use std::time::Duration;

use baton::agent::{boottime::Boottime, exec::GUARD_MARGIN};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::fixture::{Agent, Place, until, wait_until_stopped};

const PLACES: [Place; 2] = [Place::Beside, Place::Init];
/// How long after it should begin everything is dead.
const AT_ONCE: Duration = Duration::from_millis(300);
/// How often a machine that is busy with other tests may spoil a measurement. That everything dies in the end is no matter of
/// tries: each time must do it.
const TRIES: usize = 5;

/// Plays a scene in each of these places until it takes less than `longest`.
fn promptly(places: &[Place], longest: Duration, scene: impl Fn(Place) -> Duration) {
    for place in places {
        let mut took = Vec::new();
        while took.last().is_none_or(|took| *took >= longest) {
            assert!(took.len() < TRIES, "{place:?}: {took:?}");
            took.push(scene(*place));
        }
        println!("{place:?}: {took:?}");
    }
}

fn stop_process(pid: Pid) {
    kill(pid, Signal::SIGSTOP).unwrap();
    wait_until_stopped(pid);
}

#[test]
fn a_stopped_agent_is_not_needed_at_the_deadline() {
    promptly(&PLACES, AT_ONCE, |place| {
        let mut agent = Agent::start(place);
        agent.spawn_escaping("one");
        let deadline = agent.extend("one", 500);
        agent.signal(Signal::SIGSTOP);
        let dead = agent.wait_until_dead("one");
        assert!(dead >= deadline, "{place:?}");
        agent.signal(Signal::SIGCONT);
        agent.event("one", "Ended(Ended { cause: Deadline, exit: Some(Signal(9)), proof: Guard })");
        dead.since(deadline)
    });
}

#[test]
fn a_killed_agent_leaves_nothing() {
    promptly(&PLACES, AT_ONCE, |place| {
        let mut agent = Agent::start(place);
        agent.spawn_escaping("one");
        let begin = Boottime::now();
        agent.signal(Signal::SIGKILL);
        agent.wait_until_dead("one").since(begin)
    });
}

#[test]
fn a_killed_guard_leaves_nothing_and_others_alone() {
    promptly(&PLACES, AT_ONCE, |place| {
        let mut agent = Agent::start(place);
        agent.spawn_escaping("one");
        agent.spawn_escaping("two");
        let two = agent.living("two").len();
        let begin = Boottime::now();
        kill(agent.guard("one"), Signal::SIGKILL).unwrap();
        let dead = agent.wait_until_dead("one");
        agent.event("one", "GuardLost");
        agent.event("one", "Ended(Ended { cause: GuardLost, exit: None, proof: Agent })");
        assert!(agent.living("two").len() >= two.min(3), "{place:?}");
        agent.stop("two", 60_000);
        agent.event("two", "Ended(Ended { cause: Stopped, exit: Some(Code(5)), proof: Guard })");
        dead.since(begin)
    });
}

#[test]
fn all_guards_killed_at_once_leave_nothing() {
    for place in PLACES {
        let mut agent = Agent::start(place);
        let names = ["one", "two", "three", "four"];
        for name in names {
            agent.spawn_escaping(name);
        }
        let guards = names.map(|name| agent.guard(name));
        agent.signal(Signal::SIGSTOP); // so that it sees them dead all at the same time
        for guard in guards {
            kill(guard, Signal::SIGKILL).unwrap();
        }
        agent.signal(Signal::SIGCONT);
        for name in names {
            agent.event(name, "Ended(Ended { cause: GuardLost, exit: None, proof: Agent })");
            agent.assert_nothing_is_left(name);
        }
    }
}

/// Agent and guard killed while neither can do anything.
fn kill_both(agent: &Agent) -> Boottime {
    let guard = agent.guard("one");
    agent.signal(Signal::SIGSTOP);
    stop_process(guard);
    let begin = Boottime::now();
    kill(guard, Signal::SIGKILL).unwrap();
    agent.signal(Signal::SIGKILL);
    begin
}

#[test]
fn agent_and_guard_killed_leave_nothing_in_a_container() {
    promptly(&[Place::Init], AT_ONCE, |place| {
        let mut agent = Agent::start(place);
        agent.spawn_escaping("one");
        let begin = kill_both(&agent);
        agent.wait_until_dead("one").since(begin)
    });
}

/// What does not hold outside of one: only the child is dead.
#[test]
fn agent_and_guard_killed_leave_no_child_elsewhere_but_who_escaped() {
    let mut agent = Agent::start(Place::Beside);
    agent.spawn_escaping("one");
    let child = agent.child("one");
    assert!(agent.living("one").contains(&child));
    kill_both(&agent);
    until("the child to die", || (!agent.living("one").contains(&child)).then_some(()));
    assert!(!agent.living("one").is_empty(), "now it holds: tell it in the module's documentation");
}

#[test]
fn a_stopped_guard_is_killed_for_missing_the_deadline() {
    promptly(&PLACES, GUARD_MARGIN + AT_ONCE, |place| {
        let mut agent = Agent::start(place);
        agent.spawn_escaping("one");
        stop_process(agent.guard("one"));
        let deadline = agent.extend("one", 300);
        let dead = agent.wait_until_dead("one");
        assert!(dead >= deadline, "{place:?}");
        agent.event("one", "GuardLost");
        agent.event("one", "Ended(Ended { cause: Deadline, exit: None, proof: Agent })");
        dead.since(deadline)
    });
}

#[test]
fn a_stopped_guard_is_killed_for_not_stopping_its_child() {
    let longest = Duration::from_millis(200) + GUARD_MARGIN + AT_ONCE;
    promptly(&PLACES, longest, |place| {
        let mut agent = Agent::start(place);
        agent.spawn_escaping("one");
        stop_process(agent.guard("one"));
        let begin = Boottime::now();
        agent.stop("one", 200);
        let dead = agent.wait_until_dead("one");
        agent.event("one", "GuardLost");
        agent.event("one", "Ended(Ended { cause: StopTimeout, exit: None, proof: Agent })");
        dead.since(begin)
    });
}

#[test]
fn an_agent_killed_while_its_guard_is_stopped_leaves_nothing_in_a_container() {
    promptly(&[Place::Init], AT_ONCE, |place| {
        let mut agent = Agent::start(place);
        agent.spawn_escaping("one");
        stop_process(agent.guard("one"));
        let begin = Boottime::now();
        agent.signal(Signal::SIGKILL);
        agent.wait_until_dead("one").since(begin)
    });
}

/// Elsewhere the guard does it as soon as it goes on.
#[test]
fn a_guard_that_goes_on_after_its_agent_has_died_kills() {
    promptly(&[Place::Beside], AT_ONCE, |place| {
        let mut agent = Agent::start(place);
        agent.spawn_escaping("one");
        let guard = agent.guard("one");
        stop_process(guard);
        agent.signal(Signal::SIGKILL);
        let begin = Boottime::now();
        kill(guard, Signal::SIGCONT).unwrap();
        agent.wait_until_dead("one").since(begin)
    });
}

/// What keeps the child from writing then is the fencing token; afterwards the guard sees at once that it is late.
#[test]
fn both_stopped_and_going_on_past_the_deadline_kill_at_once() {
    promptly(&PLACES, AT_ONCE, |place| {
        let mut agent = Agent::start(place);
        agent.spawn_escaping("one");
        let guard = agent.guard("one");
        stop_process(guard);
        let deadline = agent.extend("one", 500);
        agent.signal(Signal::SIGSTOP);
        until("the deadline to pass", || (Boottime::now() > deadline).then_some(()));
        assert!(!agent.living("one").is_empty(), "{place:?}");
        let begin = Boottime::now();
        kill(guard, Signal::SIGCONT).unwrap();
        let dead = agent.wait_until_dead("one");
        agent.signal(Signal::SIGCONT);
        agent.event("one", "Ended(Ended { cause: Deadline, exit: Some(Signal(9)), proof: Guard })");
        dead.since(begin)
    });
}

/// A container runtime that ends all processes of a container asks them all.
#[test]
fn a_guard_leaves_it_to_the_agent_what_sigterm_means() {
    let mut agent = Agent::start(Place::Beside);
    agent.spawn_escaping("one");
    let guard = agent.guard("one");
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGUSR1] {
        kill(guard, signal).unwrap();
    }
    // It has read the signals when it has read what came after them.
    agent.stop("one", 60_000);
    agent.event("one", "Ended(Ended { cause: Stopped, exit: Some(Code(5)), proof: Guard })");
}
