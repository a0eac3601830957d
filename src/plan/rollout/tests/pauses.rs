//! R21: a pause holds where it stands, and one without an end is passed by its approval alone.
use proptest::prelude::*;
use serde_json::json;

use super::{
    fixture::{Fixture, at},
    worlds::{coins, world},
};
use crate::{
    api::rollout::{Abort, Approve, Pause},
    plan::{
        Change, HoldReason, Memory, Plan, RevisionAct, RevisionMark,
        rollout::{
            fold::{End, World},
            plan,
        },
    },
    snapshot::Snapshot,
};

/// A run towards b with these batches.
fn run_of(slots: &str, batches: serde_json::Value, opened: i32) -> Fixture {
    let mut spec = json!({"strategy": {"maxSurge": 1, "maxUnavailable": 0}});
    spec["strategy"]["batches"] = batches;
    Fixture::new(slots, 'b', spec).opened(opened).settled()
}

fn approved(mut fixture: Fixture, batch: i32) -> Fixture {
    fixture.snapshot.rollout.spec.approve = Some(Approve { run: 1, batch, ..Approve::default() });
    fixture
}

const TO_COMPLETE: &str = "waiting for approval to complete the run: kubectl baton approve web, or set spec.approve to";

/// With every instance at the new version the run is not complete, and can still be given up.
#[test]
fn the_last_pause_holds_the_completion() {
    let waiting = || run_of("b", json!([{"upTo": 1, "pause": {}}]), 1);
    let held = format!("hold AwaitingApproval: batch 1/1 is done; {TO_COMPLETE} {{run: 1, batch: 1}}");
    assert_eq!(waiting().looks(), held);
    assert_eq!(approved(waiting(), 0).looks(), held, "that was another pause");
    assert_eq!(approved(waiting(), 1).looks(), "b completed");
    assert_eq!(approved(waiting(), -1).looks(), "b completed");
    let mut aborted = waiting();
    aborted.snapshot.rollout.spec.abort = Some(Abort { run: 1 });
    assert!(aborted.looks().starts_with("b failed (Aborted: run 1 was aborted)"), "{}", aborted.looks());
    let all = run_of("b b b", json!([{"upTo": 1}, {"upTo": "100%", "pause": {}}]), 3);
    assert_eq!(all.looks(), format!("hold AwaitingApproval: batch 2/2 is done; {TO_COMPLETE} {{run: 1, batch: 2}}"));
}

#[test]
fn a_pause_before_the_first_instance_holds_it() {
    let waiting = || run_of("a a", json!([{"upTo": 0, "pause": {}}, {"upTo": 1}]), 0);
    assert_eq!(
        waiting().looks(),
        "hold AwaitingApproval: no instance is changed yet; waiting for approval to begin: kubectl baton approve web, or \
         set spec.approve to {run: 1, batch: 0}"
    );
    let begun = plan(&approved(waiting(), 0).snapshot).memory.batch.unwrap();
    assert_eq!((begun.index, begun.count, begun.opened), (1, 2, 1));
    let timed = run_of("a a", json!([{"upTo": "0%", "pause": {"seconds": 60}}]), 0);
    let until = format!("hold PauseTimer: no instance is changed yet; pause until {}", at(60));
    assert_eq!(timed.looks(), until);
    let mut later = timed;
    later.snapshot.now = at(60);
    assert_eq!(plan(&later.snapshot).memory.batch.unwrap().opened, 2);
}

#[test]
fn a_timed_pause_after_the_last_batch_is_counted_from_its_end() {
    let mut waiting = run_of("b b", json!([{"upTo": 2, "pause": {"seconds": 60}}]), 2);
    assert_eq!(waiting.looks(), format!("hold PauseTimer: batch 1/1 is done; pause until {}", at(60)));
    assert_eq!(plan(&waiting.snapshot).wake_at, Some(at(60)));
    waiting.snapshot.now = at(60);
    assert_eq!(waiting.looks(), "b completed");
}

/// A run that leads to no new version needs no approval.
#[test]
fn first_creations_and_ways_back_have_no_pauses() {
    let batches = json!([{"upTo": 0, "pause": {}}, {"upTo": "100%", "pause": {}}]);
    let mut first = run_of("b b", batches.clone(), 2);
    first.snapshot.revisions.retain(|revision| revision.name == "b");
    first.snapshot.rollout.status = None;
    assert_eq!(first.settled().looks(), "b completed");
    let spec = json!({"strategy": {"batches": batches, "maxSurge": 2}});
    assert_eq!(World::new(Fixture::new("b b", 'a', spec).snapshot, 1).run(|_, _| ()), End::Done);
}

/// Scaled down it stays one batch with the longest of its pauses.
#[test]
fn scaling_down_takes_no_pause_away() {
    let batches = json!([{"upTo": 1, "pause": {"seconds": 5}}, {"upTo": 4, "pause": {}}]);
    let mut scaled = run_of("b a a a a a", batches, 1);
    scaled.snapshot.rollout.spec.replicas = 1;
    scaled.snapshot.pods.truncate(1);
    let scaled = scaled.settled();
    let held = format!("hold AwaitingApproval: batch 1/1 is done; {TO_COMPLETE} {{run: 1, batch: 1}}");
    assert_eq!(scaled.looks(), held);
}

fn entry() -> impl Strategy<Value = serde_json::Value> {
    let up_to =
        prop_oneof![(0..8i32).prop_map(|count| json!(count)), (0..6i32).prop_map(|n| json!(format!("{}%", n * 20)))];
    let pause = prop_oneof![2 => Just(json!(null)), 2 => Just(json!({})), 1 => Just(json!({"seconds": 7}))];
    (up_to, pause).prop_map(|(up_to, pause)| json!({"upTo": up_to, "pause": pause}))
}

/// Numbers of instances at which a person has to be asked: as the spec reads, word by word.
fn asks_at(snapshot: &Snapshot) -> Vec<i32> {
    let spec = &snapshot.rollout.spec;
    let mut most = 0;
    let mut found = Vec::new();
    for batch in spec.strategy.batches.iter().flatten() {
        most = most.max(batch.up_to.rounded_up(spec.replicas)).min(spec.replicas);
        found.extend((batch.pause == Some(Pause { seconds: None })).then_some(most));
    }
    found
}

/// Nothing that this plan does lies behind a pause that has not been passed.
fn passes_no_pause(snapshot: &Snapshot, planned: &Plan) -> Result<(), TestCaseError> {
    let (before, after) = (Memory::of(snapshot.rollout.status.as_ref()), &planned.memory);
    let is_forward = after.stable.is_some() && after.effective != after.stable;
    if !is_forward || before.run != after.run {
        return Ok(());
    }
    if let Some((before, after)) = before.batch.zip(after.batch.as_ref()) {
        let passed = asks_at(snapshot).into_iter().find(|at| before.opened <= *at && *at < after.opened);
        prop_assert_eq!(passed, None, "from {} to {}", before.opened, after.opened);
    }
    let is_end = |change: &Change| {
        matches!(change, Change::Revision { act: RevisionAct::Mark(RevisionMark::Completed { .. }), .. })
    };
    if planned.changes.iter().any(is_end) {
        prop_assert!(!asks_at(snapshot).contains(&snapshot.rollout.spec.replicas), "complete");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, max_global_rejects: 50_000, ..ProptestConfig::default() })]

    /// R21
    #[test]
    fn an_endless_pause_is_passed_only_by_an_approval(
        snapshot in world(), batches in proptest::collection::vec(entry(), 1..5), seed in any::<u64>(),
        scales in proptest::collection::vec(0..8i32, 0..3),
    ) {
        let mut world = World::new(snapshot, 3);
        let strategy = &mut world.snapshot.rollout.spec.strategy;
        strategy.batch_size = None;
        strategy.batches = Some(serde_json::from_value(json!(batches)).unwrap());
        world.snapshot.rollout.spec.approve = None;
        let mut coins = coins(seed);
        let mut scales = scales.into_iter();
        let mut looks_left = 2_000;
        loop {
            let planned = plan(&world.snapshot);
            passes_no_pause(&world.snapshot, &planned)?;
            looks_left -= 1;
            prop_assert!(looks_left > 0, "never quiet");
            if !world.is_quiet(&planned) {
                let part: Vec<Change> = planned.changes.iter().filter(|_| coins()).cloned().collect();
                world.apply(&planned, &part);
            } else if let Some(next) = world.next_event(planned.wake_at) {
                world.advance(next);
            } else if let Some(replicas) = scales.next() {
                world.snapshot.rollout.spec.replicas = replicas;
            } else {
                break;
            }
        }
        // Approved one by one it comes to its end.
        let end = world.run(|_, _| ());
        prop_assert!(!matches!(&end, End::Held(hold) if hold.reason == HoldReason::AwaitingApproval), "{end:?}");
    }
}
