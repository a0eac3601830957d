//! Whole rollouts, folded to their end.
use std::fmt::Write;

use serde_json::json;

use super::fixture::{Fixture, at, say};
use crate::{
    api::{Time, rollout::Abort},
    plan::{
        Change, PodAct, Question, Seen,
        rollout::{
            fold::{End, World},
            plan,
        },
    },
};

/// One line per step that does something: seconds since the start, batch, changes.
pub(super) fn tell(world: &mut World) -> (String, End) {
    let mut story = String::new();
    let end = world.run(|_, step| {
        let changes: Vec<String> = step
            .changes
            .iter()
            .filter(|change| !matches!(change, Change::Ask(Question::Template { .. })))
            .map(|change| say(&crate::plan::Plan { changes: vec![change.clone()], ..Default::default() }))
            .collect();
        if !changes.is_empty() {
            let batch = step.batch.as_ref().map_or(String::new(), |b| format!("{}/{}", b.index, b.count));
            let _ = writeln!(story, "{:>3} {batch} {}", step.at.as_second() - at(0).as_second(), changes.join("; "));
        }
    });
    (story, end)
}

pub(super) fn world(slots: &str, want: char, spec: serde_json::Value) -> World {
    World::new(Fixture::new(slots, want, spec).snapshot, 5)
}

/// Every slot runs exactly one available Pod of this revision.
pub(super) fn assert_all_at(world: &World, letter: char) {
    let spec = &world.snapshot.rollout.spec;
    let slots: Vec<(i32, &str)> = world.snapshot.pods.iter().map(|p| (p.slot, p.revision.as_str())).collect();
    let wanted: Vec<(i32, String)> = (0..spec.replicas).map(|slot| (slot, letter.to_string())).collect();
    assert_eq!(slots, wanted.iter().map(|(slot, letter)| (*slot, letter.as_str())).collect::<Vec<_>>());
    assert!(world.snapshot.pods.iter().all(|p| p.is_available(spec.min_ready_seconds, world.snapshot.now)));
}

/// B2
#[test]
fn batches_with_surge() {
    let mut world = world("a a a a", 'b', json!({"strategy": {"batchSize": 2, "maxSurge": 1, "maxUnavailable": 0}}));
    let (story, end) = tell(&mut world);
    assert_eq!(end, End::Done);
    assert_all_at(&world, 'b');
    insta::assert_snapshot!("batches_with_surge", story);
}

#[test]
fn batches_without_surge() {
    let mut world =
        world("a a a a", 'b', json!({"strategy": {"batchSize": "50%", "maxSurge": 0, "maxUnavailable": 2}}));
    let (story, end) = tell(&mut world);
    assert_eq!(end, End::Done);
    assert_all_at(&world, 'b');
    insta::assert_snapshot!("batches_without_surge", story);
}

/// B7 B10
#[test]
fn a_broken_revision_is_rolled_back_and_the_old_pods_never_left() {
    let spec = json!({"progressDeadlineSeconds": 30, "strategy": {"batchSize": 2, "maxSurge": 1, "maxUnavailable": 0}});
    let mut world = world("a a a a", 'b', spec);
    world.broken = vec!["b".into()];
    let old: Vec<String> = world.snapshot.pods.iter().map(|pod| pod.uid.clone()).collect();
    let (story, end) = tell(&mut world);
    assert_eq!(end, End::Done);
    assert_all_at(&world, 'a');
    assert_eq!(old, world.snapshot.pods.iter().map(|pod| pod.uid.clone()).collect::<Vec<_>>());
    insta::assert_snapshot!("rolled_back", story);
    let failed = world.snapshot.rollout.status.as_ref().unwrap().failed.clone().unwrap();
    assert_eq!((failed.reason.as_str(), failed.revision.as_str()), ("ProgressDeadlineExceeded", "b"));
}

#[test]
fn with_on_failure_pause_nothing_moves_until_a_person_answers() {
    let spec = json!({"progressDeadlineSeconds": 30, "strategy": {"batchSize": 2, "onFailure": "Pause"}});
    let mut world = world("a a a a", 'b', spec);
    world.broken = vec!["b".into()];
    let (_, end) = tell(&mut world);
    assert!(matches!(&end, End::Held(hold) if hold.reason == crate::plan::HoldReason::FailureThreshold), "{end:?}");
    // Retried, with the cause mended.
    world.broken.clear();
    world.snapshot.rollout.spec.retry_at = Some(Time(world.snapshot.now + jiff::SignedDuration::from_secs(1)));
    let (_, end) = tell(&mut world);
    assert_eq!(end, End::Done);
    assert_all_at(&world, 'b');
}

#[test]
fn an_abort_goes_back_and_a_retry_goes_forward_again() {
    let spec = json!({"strategy": {"batches": [{"upTo": 1, "pause": {}}]}});
    let mut world = world("a a a a", 'b', spec);
    for _ in 0..12 {
        let planned = plan(&world.snapshot);
        world.apply(&planned, &planned.changes);
        if let Some(next) = world.next_event(planned.wake_at).filter(|_| world.is_quiet(&planned)) {
            world.advance(next);
        }
    }
    let run = world.snapshot.rollout.status.as_ref().unwrap().run.unwrap();
    let mut stale = world.clone();
    stale.snapshot.rollout.spec.abort = Some(Abort { run: run + 5 });
    assert_eq!(stale.run(|_, _| ()), End::Done);
    assert_all_at(&stale, 'b');

    world.snapshot.rollout.spec.abort = Some(Abort { run });
    let (_, end) = tell(&mut world);
    assert_eq!(end, End::Done);
    assert_all_at(&world, 'a');
    assert_eq!(world.snapshot.rollout.status.as_ref().unwrap().failed.as_ref().unwrap().reason, "Aborted");

    world.snapshot.rollout.spec.retry_at = Some(Time(world.snapshot.now + jiff::SignedDuration::from_secs(1)));
    assert_eq!(world.run(|_, _| ()), End::Done);
    assert_all_at(&world, 'b');
}

#[test]
fn a_restart_replaces_every_older_pod_in_batches() {
    let restart = Time(at(1));
    let spec = json!({"restartAt": restart, "strategy": {"batchSize": 2, "maxSurge": 1, "maxUnavailable": 0}});
    let mut world = world("a a a a", 'a', spec);
    let (story, end) = tell(&mut world);
    assert_eq!(end, End::Done);
    assert_all_at(&world, 'a');
    assert!(world.snapshot.pods.iter().all(|pod| pod.created >= at(1)));
    insta::assert_snapshot!("restart", story);
}

#[test]
fn a_first_creation_has_no_batches() {
    let spec = json!({"replicas": 3, "progressDeadlineSeconds": 30, "strategy": {"batchSize": 1}});
    let mut world = world("", 'b', spec);
    world.snapshot.revisions.clear();
    let (story, end) = tell(&mut world);
    assert_eq!(end, End::Done);
    assert_eq!(world.snapshot.pods.len(), 3);
    assert_eq!(story.lines().count(), 3, "revision, all Pods at once, completed:\n{story}");
}

/// B7
#[test]
fn a_first_creation_that_fails_stays_where_it_is_until_the_spec_changes() {
    let spec = json!({"replicas": 3, "progressDeadlineSeconds": 30, "strategy": {"batchSize": 1}});
    let mut world = world("", 'b', spec);
    world.snapshot.revisions.clear();
    let first = crate::plan::revision::hash(&crate::plan::revision::data(&world.snapshot.rollout.spec));
    world.broken = vec![format!("web-{first}")];
    let (story, end) = tell(&mut world);
    assert!(matches!(&end, End::Held(hold) if hold.reason == crate::plan::HoldReason::FailureThreshold), "{end:?}");
    assert!(!story.contains("; -") && !story.contains(" -web"), "nothing is taken away:\n{story}");
    assert_eq!(world.snapshot.pods.len(), 3);
    assert_eq!(world.snapshot.rollout.status.as_ref().unwrap().failed.as_ref().unwrap().slots, "0-2");

    world.snapshot.rollout.spec.version = Some("c".into());
    assert_eq!(world.run(|_, _| ()), End::Done);
    let second = crate::plan::revision::hash(&crate::plan::revision::data(&world.snapshot.rollout.spec));
    assert!(world.snapshot.pods.iter().all(|pod| pod.revision == format!("web-{second}") && pod.is_ready()));
}

#[test]
fn status_lost_in_mid_roll_goes_on_where_the_pods_are() {
    let spec = json!({"strategy": {"batchSize": 2, "maxSurge": 1, "maxUnavailable": 0}});
    let mut world = world("b b ab a a a", 'b', spec);
    world.snapshot.rollout.status = None;
    let (_, end) = tell(&mut world);
    assert_eq!(end, End::Done);
    assert_all_at(&world, 'b');
    assert!(world.snapshot.pods.iter().any(|pod| pod.uid == "uid-0-b-0"), "what was done stays");
}

/// R16
#[test]
fn scaled_down_and_up_in_mid_roll_nothing_goes_back_and_forth() {
    let spec = json!({"strategy": {"batchSize": 3, "maxSurge": 1, "maxUnavailable": 0}});
    let mut world = world("a a a a a a a a a a", 'b', spec);
    let mut arrived = std::collections::BTreeSet::new();
    for (replicas, looks) in [(10, 20), (8, 3), (10, 3), (6, 2), (12, 600)] {
        world.snapshot.rollout.spec.replicas = replicas;
        arrived.retain(|slot| *slot < replicas); // the others are taken away
        for _ in 0..looks {
            let planned = plan(&world.snapshot);
            for change in &planned.changes {
                match change {
                    Change::CreatePod { slot, revision, .. } if revision == "b" => drop(arrived.insert(*slot)),
                    Change::CreatePod { slot, name, .. } => assert!(!arrived.contains(slot), "+{name}: back"),
                    Change::Pod { seen: Seen { name, .. }, act: PodAct::Delete { slot, .. } }
                        if name.contains("-b") =>
                    {
                        assert!(*slot >= replicas, "-{name}: for nothing");
                    }
                    _ => {}
                }
            }
            let quiet = world.is_quiet(&planned);
            world.apply(&planned, &planned.changes);
            if let Some(next) = world.next_event(planned.wake_at).filter(|_| quiet) {
                world.advance(next);
            }
        }
        let batch = world.snapshot.rollout.status.as_ref().unwrap().batch.as_ref();
        assert_eq!(batch.is_some(), looks < 600, "scaled in mid-roll: {batch:?}");
    }
    assert_all_at(&world, 'b');
}

#[test]
fn a_foreign_pod_of_our_name_is_left_alone_and_stepped_around() {
    let mut world = world("a a", 'b', json!({"strategy": {"maxSurge": 1, "maxUnavailable": 0}}));
    world.snapshot.taken_names.insert("web-1-b".into());
    let (story, end) = tell(&mut world);
    assert_eq!(end, End::Done);
    assert!(story.contains("+web-1-b-1 Forward"), "{story}");
    assert_all_at(&world, 'b');
}
