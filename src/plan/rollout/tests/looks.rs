//! One look at one world: what is done next.
use serde_json::json;

use super::fixture::Fixture;
use crate::plan::rollout::plan;

fn check(look: impl AsRef<str>, expected: &str) {
    assert_eq!(look.as_ref(), expected);
}

fn strategy(batch: i32, surge: i32, unavailable: i32) -> serde_json::Value {
    json!({"strategy": {"batchSize": batch, "maxSurge": surge, "maxUnavailable": unavailable}})
}

/// B2
#[test]
fn surge_creates_the_partner_first() {
    let look = Fixture::new("a a a a", 'b', strategy(2, 1, 0)).opened(2).looks();
    check(look, "+web-0-b Forward; hold PreviousBatchNotHealthy: batch 1/2: web-0 (still at a) and 1 more");
}

#[test]
fn the_old_pod_leaves_when_its_partner_is_available() {
    check(
        Fixture::new("ab a a a", 'b', strategy(2, 1, 0)).opened(2).looks(),
        "-web-0-a Forward; hold PreviousBatchNotHealthy: batch 1/2: web-0 (old Pod leaves) and 1 more",
    );
    check(
        Fixture::new("ab~ a a a", 'b', strategy(2, 1, 0)).opened(2).looks(),
        "hold PreviousBatchNotHealthy: batch 1/2: web-0 (not ready) and 1 more",
    );
}

#[test]
fn without_surge_it_retires_then_creates() {
    check(
        Fixture::new("a a a a", 'b', strategy(2, 0, 1)).opened(2).looks(),
        "-web-0-a Forward; hold PreviousBatchNotHealthy: batch 1/2: web-0 (still at a) and 1 more",
    );
    check(
        Fixture::new("a- a a a", 'b', strategy(2, 0, 1)).opened(2).looks(),
        "hold PreviousBatchNotHealthy: batch 1/2: web-0 (waits for web-0-a to end) and 1 more",
    );
    check(
        Fixture::new(". a a a", 'b', strategy(2, 0, 1)).opened(2).looks(),
        "+web-0-b Forward; hold PreviousBatchNotHealthy: batch 1/2: web-0 (not created yet) and 1 more",
    );
}

#[test]
fn surge_and_unavailable_are_both_used() {
    check(
        Fixture::new("a a a a", 'b', strategy(4, 1, 1)).opened(4).looks(),
        "+web-0-b Forward; -web-1-a Forward; hold PreviousBatchNotHealthy: batch 1/1: web-0 (still at a) and 3 more",
    );
}

#[test]
fn the_next_batch_waits_for_the_one_before() {
    check(
        Fixture::new("b b~ a a", 'b', strategy(2, 1, 1)).opened(2).looks(),
        "hold PreviousBatchNotHealthy: batch 1/2: web-1 (not ready)",
    );
}

/// B7
#[test]
fn a_failed_instance_fails_the_revision() {
    check(
        Fixture::new("ab! a a a", 'b', strategy(2, 1, 1)).opened(2).settled().looks(),
        "b failed (CrashLoopBackOff: web-0: container web: Error, exit code 1); hold FailureThreshold: CrashLoopBackOff: web-0: container web: Error, exit code 1; going back",
    );
}

#[test]
fn a_first_revision_that_leaves_a_tolerated_failure_behind_says_so() {
    let mut fixture = Fixture::new("b! b", 'b', json!({"strategy": {"failureThreshold": 2}}));
    fixture.snapshot.revisions.retain(|revision| revision.name == "b");
    check(fixture.settled().looks(), "hold ProgressDeadline: batch 1/1: web-0 (CrashLoopBackOff)");
}

#[test]
fn a_lost_pod_is_refilled_at_its_slots_revision() {
    check(
        Fixture::new("b . a .", 'b', strategy(2, 1, 1)).opened(2).looks(),
        "+web-1-b Forward; +web-3-a Refill; hold PreviousBatchNotHealthy: batch 1/2: web-1 (not created yet)",
    );
    let paused = json!({"paused": true, "strategy": {"batchSize": 2}});
    check(
        Fixture::new("b . a .", 'b', paused).opened(2).looks(),
        "+web-1-b Forward; +web-3-a Refill; hold Paused: spec.paused is true: kubectl baton resume web",
    );
}

#[test]
fn paused_begins_nothing_and_finishes_what_was_begun() {
    let paused = json!({"paused": true, "strategy": {"maxSurge": 2, "maxUnavailable": 0}});
    check(
        Fixture::new("ab a a a", 'b', paused).opened(4).looks(),
        "-web-0-a Forward; hold Paused: spec.paused is true: kubectl baton resume web",
    );
}

/// The Pod beyond replicas is the only available one, and stays; with it the total is reached.
#[test]
fn what_keeps_the_budget_used_up_is_named() {
    let spec = json!({"replicas": 2, "paused": true, "strategy": {"maxSurge": 0, "maxUnavailable": 1}});
    check(
        Fixture::new(". b! a", 'a', spec).settled().looks(),
        "hold Paused: spec.paused is true: kubectl baton resume web",
    );
}

#[test]
fn an_evicted_pod_is_cleared_away_and_is_no_failure() {
    check(
        Fixture::new("b bx a a", 'b', strategy(2, 1, 1)).opened(2).looks(),
        "-web-1-b Finished; hold PreviousBatchNotHealthy: batch 1/2: web-1 (waits for web-1-b to end)",
    );
}

#[test]
fn a_revert_goes_straight_back() {
    check(
        Fixture::new("c c! a a", 'a', strategy(1, 0, 1)).settled().looks(),
        "-web-1-c Back; hold PreviousBatchNotHealthy: batch 1/1: web-0 (still at c) and 1 more",
    );
}

#[test]
fn a_new_spec_takes_slots_from_whatever_they_run() {
    check(
        Fixture::new("c c! a a", 'b', strategy(1, 1, 0)).opened(1).looks(),
        "+web-0-b Forward; -web-1-c Back; hold PreviousBatchNotHealthy: batch 1/4: web-0 (still at c)",
    );
}

/// Of a lost status: only what works is a revision to go back to.
#[test]
fn what_most_instances_run_is_stable_only_if_it_works() {
    for (slots, expected) in [("b b b", Some("b")), ("b b~ b~", Some("b")), ("b~ b~ b~", None), ("a~ a~ b", Some("b"))]
    {
        let mut fixture = Fixture::new(slots, 'c', json!({}));
        fixture.snapshot.revisions.iter_mut().for_each(|revision| revision.completed_at = None);
        assert_eq!(plan(&fixture.snapshot).memory.stable.as_deref(), expected, "{slots}");
    }
}

#[test]
fn a_complete_world_is_left_alone() {
    let fixture = Fixture::new("a a a a", 'a', json!({})).settled();
    check(fixture.looks(), "");
}

#[test]
fn scale_down_removes_the_highest_slots() {
    check(Fixture::new("a a a a", 'a', json!({"replicas": 2})).settled().looks(), "-web-3-a Scale; -web-2-a Scale");
}
