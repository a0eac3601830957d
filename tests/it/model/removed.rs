//! Each rule of the protocol taken out in turn: without it the model must find what the rule is there for, and with it, in
//! the same small world and to the same depth, nothing.
use super::{
    search::{EPOCHS_GROW, ONE_OWNER, RECOVERS, STARTED_ONCE, search},
    world::{Config, Removed},
};

/// The network may do what it likes, but nothing breaks: for what takes many steps.
const NO_FAULTS: Config = Config { epochs: 3, crashes: 0, force_deletes: 0, ..Config::FAULTS };

/// `broken` has a counter-example of this property, the shortest of so many steps; `whole` has none of so many. Two Pods are
/// enough for all of them.
fn compare(broken: Config, whole: Config, property: &'static str, depth: usize) {
    let ask = |config: Config| {
        let liveness = property == RECOVERS;
        search::<2, 1>(Config { liveness, only: Some(property), ..config }, depth, usize::MAX)
    };
    let (found, control) = (ask(broken), ask(whole));
    println!("{:?}: {found}\n      with it: {control}", broken.removed);
    let (violated, path) = found.violation.expect("the model must see what the rule is for");
    assert_eq!((violated, path.len()), (property, depth), "{path:?}");
    assert!(control.violation.is_none(), "{control}");
}

fn breaks(rule: Removed, config: Config, property: &'static str, depth: usize) {
    compare(Config { removed: Some(rule), ..config }, config, property, depth);
}

/// L1
#[test]
fn without_tombstones_two_owners() {
    breaks(Removed::Tombstone, Config::FAULTS, ONE_OWNER, 4);
}

/// L1
#[test]
fn without_the_wait_for_a_missing_session_two_owners() {
    breaks(Removed::WaitForMissingSession, Config::FAULTS, ONE_OWNER, 3);
}

/// L1, L7
#[test]
fn with_a_fence_that_overwrites_renewals_two_owners() {
    breaks(Removed::FenceCas, NO_FAULTS, ONE_OWNER, 9);
}

/// L1, L7
#[test]
fn without_a_fence_two_owners() {
    breaks(Removed::Fence, NO_FAULTS, ONE_OWNER, 8);
}

/// L1
#[test]
fn with_deadlines_from_the_answer_two_owners() {
    breaks(Removed::DeadlineFromBeforeTheSend, NO_FAULTS, ONE_OWNER, 12);
}

/// L1, L7
#[test]
fn with_theft_two_owners() {
    breaks(Removed::NoSteal, Config::FAULTS, ONE_OWNER, 2);
}

/// L2
#[test]
fn without_the_boot_in_identities_an_epoch_is_started_twice() {
    breaks(Removed::BootInIdentity, Config::FAULTS, STARTED_ONCE, 4);
}

/// L1, L7
#[test]
fn with_boots_that_only_differ_two_owners() {
    breaks(Removed::OrderOfBoots, Config::FAULTS, ONE_OWNER, 7);
}

/// L1, L7
#[test]
fn with_fences_of_whole_pods_two_owners() {
    breaks(Removed::BootInFence, Config::FAULTS, ONE_OWNER, 8);
}

/// L1, L7
#[test]
fn with_the_end_of_any_process_of_the_pod_two_owners() {
    breaks(Removed::CertificateOfItsBoot, Config::FAULTS, ONE_OWNER, 7);
}

/// L2
#[test]
fn without_a_floor_an_epoch_is_started_twice() {
    breaks(Removed::EpochFloor, Config { re_creations: 1, ..NO_FAULTS }, STARTED_ONCE, 8);
}

/// L1, L2
#[test]
fn without_the_version_in_a_hand_over_two_owners() {
    breaks(Removed::VersionInTransfer, Config::FAULTS, EPOCHS_GROW, 3);
    breaks(Removed::VersionInTransfer, Config::FAULTS, ONE_OWNER, 5);
}

/// L1, L2
#[test]
fn without_the_version_in_a_reassignment_two_owners() {
    breaks(Removed::VersionInReassign, Config::FAULTS, EPOCHS_GROW, 3);
    breaks(Removed::VersionInReassign, Config::FAULTS, ONE_OWNER, 6);
}

/// L1: K = D leaves nothing for a clock that is slow.
#[test]
fn without_a_margin_a_slow_clock_makes_two_owners() {
    let slow = Config { slow_ticks: 1, ..NO_FAULTS };
    compare(Config { kill_after: 3, ..slow }, slow, ONE_OWNER, 7);
}

/// L1
#[test]
fn a_sidecars_application_that_counts_from_the_last_word_makes_two_owners() {
    let sidecar = Config { sidecar: true, kill_after: 3, wait: 4, crashes: 1, ..NO_FAULTS };
    breaks(Removed::AbsoluteDeadline, sidecar, ONE_OWNER, 9);
}

/// L1
#[test]
fn a_sidecars_end_that_counts_for_the_application_makes_two_owners() {
    breaks(Removed::CertificateOfTheApplication, Config { sidecar: true, ..Config::FAULTS }, ONE_OWNER, 3);
}

/// L4
#[test]
fn an_owner_that_cannot_take_back_is_stuck() {
    breaks(Removed::TakeBack, Config::FAULTS, RECOVERS, 2);
}

/// L4
#[test]
fn a_session_that_was_made_again_and_says_nothing_is_stuck() {
    breaks(Removed::SessionMadeAgain, Config { sessions_lost: 1, ..Config::FAULTS }, RECOVERS, 1);
}

/// D1, L1
#[test]
fn an_end_that_nobody_saw_and_that_proves_death_makes_two_owners() {
    breaks(Removed::UnseenEndProvesNothing, Config { shims: 1, ..Config::FAULTS }, ONE_OWNER, 3);
    let sidecar = Config { shims: 1, sidecar: true, ..Config::FAULTS };
    breaks(Removed::UnseenEndProvesNothing, sidecar, ONE_OWNER, 4);
}

/// F1, L1
#[test]
fn a_session_that_cannot_be_read_and_counts_as_missing_makes_two_owners() {
    breaks(Removed::UnreadableIsThere, Config { unreadable: 1, ..NO_FAULTS }, ONE_OWNER, 9);
}

/// L1: what one watch on all Leases is for.
#[test]
fn with_sessions_seen_older_than_the_ownership_two_owners() {
    breaks(Removed::ViewsOfOneMoment, Config { crashes: 1, ..NO_FAULTS }, ONE_OWNER, 11);
}
