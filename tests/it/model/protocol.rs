//! The protocol as it is. Within bounds that a unit test has time for; `make model` goes deeper.
use super::{search::search, world::Config};

/// Looks for violations to this depth, or to what `DEPTH` and `STATES` say.
fn holds<const I: usize, const L: usize>(name: &str, config: Config, depth: usize) {
    let asked = |name| std::env::var(name).ok().map(|number| number.parse::<usize>().expect("a number"));
    let found = search::<I, L>(config, asked("DEPTH").unwrap_or(depth), asked("STATES").unwrap_or(usize::MAX));
    println!("{name}, {L} on {I}: {found}");
    assert!(found.violation.is_none(), "{found}");
    assert!(found.depth > 0 && found.states > 1, "{found}");
}

/// L1, L2
#[test]
fn with_a_crash_and_a_forced_deletion() {
    holds::<3, 1>("a crash and a forced deletion", Config::FAULTS, 6);
}

/// L4
#[test]
fn an_owner_can_always_be_reached() {
    let config = Config { liveness: true, ..Config::FAULTS };
    holds::<3, 1>("an owner can be reached", config, 5);
    holds::<2, 1>("an owner can be reached", config, 7);
}

/// L1, L2
#[test]
fn with_the_network_alone() {
    let config = Config { epochs: 3, processes: 1, crashes: 0, force_deletes: 0, ..Config::FAULTS };
    holds::<3, 1>("no faults but the network's", config, 7);
}

/// L1, L2
#[test]
fn with_two_crashes_and_two_forced_deletions() {
    let config = Config { crashes: 2, force_deletes: 2, processes: 3, ..Config::FAULTS };
    holds::<3, 1>("two crashes, two forced deletions", config, 5);
}

/// L1, L2: as slow as the margin between K and D allows.
#[test]
fn with_a_slow_clock() {
    holds::<3, 1>("a slow clock", Config { slow_ticks: 1, ..Config::FAULTS }, 5);
}

/// L2
#[test]
fn with_leases_that_are_made_again() {
    let config = Config { re_creations: 1, force_deletes: 0, ..Config::FAULTS };
    holds::<3, 1>("the ownership is made again", config, 6);
    holds::<2, 1>("the ownership is made again", config, 8);
}

/// L1, L4
#[test]
fn with_sessions_that_are_deleted() {
    let config = Config { sessions_lost: 1, force_deletes: 0, processes: 3, ..Config::FAULTS };
    holds::<3, 1>("the session is made again", config, 5);
    holds::<2, 1>("the session is made again, an owner can be reached", Config { liveness: true, ..config }, 6);
}

/// L1, L2
#[test]
fn with_an_application_beside_its_agent() {
    holds::<3, 1>("sidecar", Config { sidecar: true, ..Config::FAULTS }, 5);
    holds::<2, 1>("sidecar, an owner can be reached", Config { sidecar: true, liveness: true, ..Config::FAULTS }, 6);
}

/// D1, L1, L4
#[test]
fn with_a_shim_that_dies_while_the_processes_live() {
    let shims = Config { shims: 1, force_deletes: 0, ..Config::FAULTS };
    holds::<3, 1>("a shim", shims, 5);
    holds::<2, 1>("a shim, an owner can be reached", Config { liveness: true, ..shims }, 6);
    holds::<2, 1>("a shim of an application beside its agent", Config { sidecar: true, ..shims }, 6);
}

/// F1, L1, L4
#[test]
fn with_sessions_that_cannot_be_read() {
    let config = Config { unreadable: 1, force_deletes: 0, ..Config::FAULTS };
    holds::<3, 1>("a session cannot be read", config, 5);
    holds::<2, 1>("a session cannot be read, an owner can be reached", Config { liveness: true, ..config }, 6);
}

/// L1, L2
#[test]
fn with_two_listeners() {
    holds::<2, 2>("a crash and a forced deletion", Config::FAULTS, 6);
}
