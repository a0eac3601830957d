//! What is told of Pods and revisions that are easily mistaken for others.
use std::sync::Arc;

use serde_json::json;

use super::{condition, state, status_of};
use crate::{
    api::{ConditionStatus, ConditionType},
    plan::{
        revision,
        rollout::tests::fixture::{Fixture, at},
    },
    snapshot::{Overlap, Pod, Snapshot},
};

#[test]
fn pods_left_behind_by_a_namesake_that_cannot_be_adopted_are_shown() {
    let mut fixture = Fixture::new("a a", 'a', json!({})).settled();
    let left = |index: usize, app: &str| {
        let labels = Some(Box::new([("app".to_owned(), app.to_owned())].into()));
        Arc::new(Pod { loose_labels: labels, ..(*fixture.snapshot.pods[index]).clone() })
    };
    fixture.snapshot.orphans.pods = vec![left(0, "other"), left(1, "other")];
    let seen = status_of(&fixture.snapshot);
    assert_eq!(condition(&seen, ConditionType::Degraded), Some((ConditionStatus::True, "OrphansPresent")));
    assert_eq!(condition(&seen, ConditionType::Ready), Some((ConditionStatus::True, "Complete")));
}

#[test]
fn pods_of_something_else_that_the_selector_matches_are_named() {
    let overlaps = |fixture: &Fixture| {
        let seen = status_of(&fixture.snapshot);
        assert_eq!(condition(&seen, ConditionType::Ready), Some((ConditionStatus::True, "Complete")));
        let found = seen.conditions.into_iter().find(|known| known.type_ == ConditionType::SelectorOverlaps);
        found.map(|condition| condition.message)
    };
    let mut fixture = Fixture::new("a a", 'a', json!({})).settled();
    assert_eq!(overlaps(&fixture), None, "nothing has been asked");
    let named = vec!["api-1 (ReplicaSet api)".to_owned(), "bare".to_owned()];
    fixture.snapshot.overlap = Some(Overlap { at: at(0), generation: Some(1), count: 9, has_more: false, named });
    let told = overlaps(&fixture).expect("told");
    let start = "spec.selector also matches 9 Pods of something else: api-1 (ReplicaSet api), bare and 7 more. ";
    assert!(told.starts_with(start), "{told}");
    fixture.snapshot.rollout.status = Some(status_of(&fixture.snapshot));
    fixture.snapshot.overlap = None;
    assert_eq!(overlaps(&fixture), Some(told), "an operator that has not asked yet leaves it");
    fixture.snapshot.overlap =
        Some(Overlap { at: at(0), generation: Some(1), count: 0, has_more: false, named: vec![] });
    assert_eq!(overlaps(&fixture), None);
}

/// Revisions a (1) and b (9) are both of version 1.1: they differ in an annotation.
fn of_one_version(words: &str, opened: i32) -> Snapshot {
    let mut snapshot = Fixture::new(words, 'b', json!({"strategy": {"batchSize": 1, "maxSurge": 0}})).snapshot;
    let spec = &mut snapshot.rollout.spec;
    spec.version = Some("1.1".into());
    let data = revision::data(spec);
    for known in snapshot.revisions.iter_mut().filter(|known| known.name != "c") {
        known.data = data.clone();
        if known.name == "a" {
            known.data["template"]["metadata"]["annotations"] = json!({"note": "before"});
        }
    }
    snapshot.pods_mut().for_each(|pod| pod.version = "1.1".into());
    Fixture { snapshot }.opened(opened).settled().snapshot
}

/// Most changes keep the image's tag: what is left and what is worked towards are told apart by their numbers.
#[test]
fn two_revisions_of_one_version_are_told_apart() {
    let seen = status_of(&of_one_version("b a a", 2));
    assert_eq!(seen.display.as_ref().unwrap().version, "1.1 (#1) → 1.1 (#9)");
    assert_eq!(seen.waiting_for, "batch 2/3: web-1 (still runs 1.1 (#1))");
    let run = &seen.history[0];
    assert_eq!((run.from_version.as_str(), run.version.as_str()), ("1.1 (#1)", "1.1 (#9)"));
    assert!(seen.versions.iter().all(|range| range.version == "1.1"), "programs read versions beside revisions");
}

#[test]
fn one_revision_alone_is_called_by_its_version() {
    let mut snapshot = of_one_version("b b b", 3);
    for name in ["a", "b"] {
        let of_it = snapshot.revisions.iter_mut().find(|known| known.name == name).unwrap();
        of_it.completed_at = Some(at(if name == "a" { -500 } else { -100 }));
    }
    let settled = Fixture { snapshot }.settled().snapshot;
    let seen = status_of(&settled);
    assert_eq!(seen.display.as_ref().unwrap().version, "1.1");
    assert_eq!(state(&seen), "Current Complete: ");
}

/// A node that went silent takes its Pods out of service, with any gates.
#[test]
fn a_pod_of_a_lost_node_says_so() {
    let mut fixture = Fixture::new("a~ a", 'a', json!({})).settled();
    let word = |fixture: &Fixture| status_of(&fixture.snapshot).exceptions[0].reason.clone();
    assert_eq!(word(&fixture), "ReadinessGatesNotReady");
    fixture.snapshot.lost_nodes = ["node-1".to_owned()].into();
    assert_eq!(word(&fixture), "NodeNotReady");
}
