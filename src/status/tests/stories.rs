//! Whole rollouts: every state on the way, every event, the history at the end.
use std::fmt::Write;

use serde_json::json;

use super::state;
use crate::{
    api::{
        RolloutStatus, Time,
        rollout::{Abort, Approve, Pin, Request},
    },
    plan::rollout::{
        fold::World,
        plan,
        tests::fixture::{Fixture, at},
    },
    status::{NoticeKind, notices, rollout::status},
};

/// Runs to rest; one line per new state and per event.
fn tell(world: &mut World) -> String {
    let mut story = String::new();
    let mut last = String::new();
    for _ in 0..10_000 {
        let planned = plan(&world.snapshot);
        let before = world.snapshot.rollout.status.clone().unwrap_or_default();
        let after = status(&world.snapshot, &planned, &[]);
        let second = world.snapshot.now.as_second() - at(0).as_second();
        for notice in notices("web", &before, &after) {
            let mark = if notice.kind == NoticeKind::Warning { "!" } else { "-" };
            let _ = writeln!(story, "{second:>4} {mark} {}: {}", notice.reason, notice.note);
        }
        let line = format!("{} [{}]", state(&after), after.display.as_ref().map_or("", |d| &d.version));
        if line != last {
            let _ = writeln!(story, "{second:>4}   {line}");
            last = line;
        }
        let quiet = world.is_quiet(&planned);
        world.apply(&planned, &planned.changes);
        world.snapshot.rollout.status = Some(after);
        if quiet {
            let Some(next) = world.next_event(planned.wake_at) else { break };
            world.advance(next);
        }
    }
    story
}

fn history(status: &RolloutStatus) -> String {
    let mut text = String::new();
    for entry in &status.history {
        let second =
            |at: &Option<Time>| at.as_ref().map_or(-1, |at| at.0.as_second() - super::stories::at(0).as_second());
        let _ = writeln!(
            text,
            "run {} {}{} to {} by {}: {} {}-{} {}",
            entry.run,
            entry.kind,
            if entry.instances.is_empty() {
                String::new()
            } else {
                format!(" of {} from {}", entry.instances, entry.from_version)
            },
            entry.version,
            entry.by.as_deref().unwrap_or("?"),
            entry.result,
            second(&entry.started_at),
            second(&entry.completed_at),
            entry.reason.as_deref().unwrap_or_default(),
        );
    }
    text
}

fn asked(id: &str, by: &str, reason: &str) -> Request {
    Request { id: Some(id.into()), by: Some(by.into()), reason: Some(reason.into()) }
}

/// C9: from creation over a good version, a broken one, an abort and a restart, status and events alone tell the story.
#[test]
fn a_life() {
    let spec = json!({"progressDeadlineSeconds": 60, "strategy": {"batches": [{"upTo": 1, "pause": {"seconds": 30}}], "maxSurge": 1, "maxUnavailable": 0}});
    let mut fixture = Fixture::new(". . . .", 'a', spec);
    fixture.snapshot.revisions.clear();
    fixture.snapshot.template_checks.clear();
    let mut world = World::new(fixture.snapshot, 5);
    let mut story = String::new();
    let mut chapter = |title: &str, world: &mut World| {
        let told = tell(world);
        let _ = writeln!(story, "== {title}\n{told}");
    };
    chapter("created", &mut world);

    world.snapshot.rollout.spec.version = Some("b".into());
    world.snapshot.rollout.spec.request = Some(asked("deploy-1", "alice", "new prices"));
    chapter("b", &mut world);

    world.snapshot.rollout.spec.version = Some("c".into());
    world.snapshot.rollout.spec.request = Some(asked("deploy-2", "bob", "newer prices"));
    let c = crate::plan::revision::hash(&crate::plan::revision::data(&world.snapshot.rollout.spec));
    world.broken = vec![format!("web-{c}")];
    chapter("c never becomes ready", &mut world);

    world.snapshot.rollout.spec.version = Some("d".into());
    world.snapshot.rollout.spec.abort = Some(Abort { run: 5 });
    world.snapshot.rollout.spec.request = Some(asked("abort-3", "carol", "wrong window"));
    chapter("d is aborted at once", &mut world);

    world.snapshot.rollout.spec.version = Some("b".into());
    world.snapshot.rollout.spec.request = Some(asked("undo-4", "carol", "as before"));
    chapter("the spec asks for b again", &mut world);

    world.snapshot.rollout.spec.restart_at = Some(Time(world.snapshot.now));
    chapter("restart", &mut world);

    let _ = writeln!(story, "== history\n{}", history(world.snapshot.rollout.status.as_ref().unwrap()));
    insta::assert_snapshot!("a_life", story);
}

/// C5 X4 X10: instances that are pinned, that fail at what they are pinned to, that are let go, and that go back alone.
#[test]
fn a_life_with_pins() {
    let spec = json!({"progressDeadlineSeconds": 60, "strategy": {"batchSize": 2, "maxSurge": 2, "maxUnavailable": 0, "onFailure": "RollbackFailed"}});
    let mut world = World::new(Fixture::new("a a a a", 'b', spec).snapshot, 5);
    let mut story = String::new();
    let mut chapter = |title: &str, world: &mut World| {
        let told = tell(world);
        let _ = writeln!(story, "== {title}\n{told}");
    };
    let pin = |instances: &str, revision: &str, by: &str| {
        let request = Some(Request { reason: Some("orders are late".into()), ..asked("pin", by, "") });
        Pin { instances: instances.into(), revision: Some(revision.into()), request, ..Pin::default() }
    };
    chapter("b", &mut world);
    world.snapshot.rollout.spec.pins = vec![pin("1", "a", "alice")];
    chapter("web-1 is pinned to a", &mut world);
    world.broken = vec!["c".into()];
    world.snapshot.rollout.spec.pins = vec![pin("1", "a", "alice"), pin("3", "c", "bob"), pin("9", "a", "bob")];
    chapter("web-3 is pinned to c, which does not come up", &mut world);
    for pod in world.snapshot.pods_mut().filter(|pod| pod.revision == "c") {
        pod.phase = crate::snapshot::PodPhase::Failed;
    }
    world.snapshot.rollout.spec.pins.truncate(1);
    chapter("and is let go", &mut world);
    world.snapshot.rollout.spec.pins.clear();
    chapter("web-1 too", &mut world);
    world.broken.clear();
    world.snapshot.rollout.spec.version = Some("c".into());
    let planned = plan(&world.snapshot);
    assert!(!planned.changes.is_empty());
    chapter("c", &mut world);
    let _ = writeln!(story, "== history\n{}", history(world.snapshot.rollout.status.as_ref().unwrap()));
    insta::assert_snapshot!("a_life_with_pins", story);
}

/// X10: what is unpinned in mid-run is told, whether it was pinned before the run or within it.
#[test]
fn what_is_unpinned_in_mid_run_is_told() {
    let spec = json!({"strategy": {"batches": [{"upTo": 1, "pause": {}}], "maxSurge": 4}});
    let mut world = World::new(Fixture::new("a a a a", 'b', spec).snapshot, 5);
    let pin = |instances: &str, revision: &str| Pin {
        instances: instances.into(),
        revision: Some(revision.into()),
        ..Pin::default()
    };
    let unpins = |world: &World| -> Vec<_> {
        let history = &world.snapshot.rollout.status.as_ref().unwrap().history;
        let unpins = history.iter().filter(|entry| entry.kind == "Unpin");
        unpins.map(|e| format!("{}: {} → {} {}", e.instances, e.from_version, e.version, e.result)).collect()
    };
    world.snapshot.rollout.spec.pins = vec![pin("0", "c")];
    tell(&mut world);
    world.snapshot.rollout.spec.pins.push(pin("1", "a"));
    tell(&mut world);
    assert_eq!(unpins(&world), [""; 0]);
    world.snapshot.rollout.spec.pins.truncate(1);
    let story = tell(&mut world);
    assert!(
        story.contains("UnpinStarted: instances 1: a → b") && story.contains("UnpinCompleted: instances 1"),
        "{story}"
    );
    world.snapshot.rollout.spec.pins.clear();
    tell(&mut world);
    assert_eq!(unpins(&world), ["0: c → b InProgress", "1: a → b Succeeded"]);
    world.snapshot.rollout.spec.approve = Some(Approve { run: 1, batch: 1, ..Approve::default() });
    tell(&mut world);
    assert_eq!(unpins(&world), ["0: c → b Succeeded", "1: a → b Succeeded"]);
}

/// X10: a request with an id is about the change that it came with: what comes without one has no author.
#[test]
fn a_request_counts_once() {
    let mut world = World::new(Fixture::new("a", 'a', json!({})).snapshot, 1);
    tell(&mut world);
    let mut entry = |version: &str, request: Option<Request>| {
        world.snapshot.rollout.spec.version = Some(version.into());
        world.snapshot.rollout.spec.request = request.or(world.snapshot.rollout.spec.request.take());
        tell(&mut world);
        let newest = world.snapshot.rollout.status.as_ref().unwrap().history[0].clone();
        let wanted = world.snapshot.revisions.iter().max_by_key(|revision| revision.number).unwrap();
        (newest.version, newest.by, wanted.change_cause.clone())
    };
    let undo = asked("undo-1", "carol", "as before");
    let (version, by, cause) = entry("b", Some(undo));
    assert_eq!((&*version, by.as_deref()), ("b", Some("carol")));
    assert!(cause.is_some_and(|cause| cause.contains("as before")));
    assert_eq!(entry("c", None), ("c".into(), None, None), "who asked for c has not said");
    let without_id = Request { id: None, ..asked("", "dave", "prices") };
    assert_eq!(entry("d", Some(without_id)).1.as_deref(), Some("dave"));
    assert_eq!(entry("e", None).1.as_deref(), Some("dave"), "without an id it stands for each change");
}

/// R7: what is stored of a time are its whole seconds.
#[test]
fn a_restart_at_a_fraction_of_a_second_is_told_once() {
    let mut snapshot = Fixture::new("a a", 'a', json!({})).snapshot;
    snapshot.rollout.spec.restart_at = Some(Time(snapshot.now - jiff::SignedDuration::from_millis(1_365)));
    for _ in 0..4 {
        let told = serde_json::to_value(super::status_of(&snapshot)).unwrap();
        snapshot.rollout.status = Some(serde_json::from_value(told).unwrap());
    }
    let history = snapshot.rollout.status.unwrap().history;
    assert_eq!(history.iter().filter(|entry| entry.kind == "Restart").count(), 1, "{history:?}");
}

#[test]
fn a_run_is_told_once_however_often_it_is_restarted() {
    let mut world = World::new(Fixture::new("a", 'a', json!({})).snapshot, 1);
    let mut story = String::new();
    for _ in 0..60 {
        world.snapshot.rollout.spec.restart_at = Some(Time(world.snapshot.now));
        story += &tell(&mut world);
    }
    assert_eq!(story.matches("RolloutStarted").count(), 1);
    assert_eq!(story.matches("RestartCompleted").count(), 60);
    let status = world.snapshot.rollout.status.unwrap();
    assert_eq!((status.history.len(), status.run), (crate::api::bounds::HISTORY_MAX, Some(1)));
}

/// The whole object as it is written, once.
#[test]
fn the_status_in_full() {
    let spec = json!({"strategy": {"batchSize": 2, "maxSurge": 1, "maxUnavailable": 1}});
    let fixture = Fixture::new("b ab! a a", 'b', spec).opened(2);
    insta::assert_yaml_snapshot!("in_full", super::status_of(&fixture.snapshot));
}
