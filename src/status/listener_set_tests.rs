use serde_json::json;

use super::*;
use crate::{
    api::Time,
    plan::listener_set::{plan, tests::world::World},
    snapshot::listener_set::SourceError,
};

/// A second passes; what is to be written, and with which notices.
fn second(world: &mut World) -> (ListenerSetStatus, Vec<Notice>) {
    world.pass();
    let snapshot = world.snapshot();
    let (planned, memory) = plan(&snapshot, &world.memory);
    let before = world.set.status.clone().unwrap_or_default();
    let after = status(&snapshot, &planned, memory.gaps_of_last_moves());
    check(&after);
    let mut known = snapshot.clone();
    known.set.status = Some(after.clone());
    assert_eq!(status(&known, &planned, memory.gaps_of_last_moves()), after, "written once");
    world.memory = memory;
    world.set.status = Some(after.clone());
    for change in &planned.changes {
        world.write(change);
    }
    let news = notices(&before, &after);
    (after, news)
}

fn seconds_of(world: &mut World, seconds: usize) -> (ListenerSetStatus, Vec<&'static str>) {
    let mut told = Vec::new();
    let mut last = ListenerSetStatus::default();
    for _ in 0..seconds {
        let (status, news) = second(world);
        told.extend(news.iter().map(|notice| notice.reason));
        last = status;
    }
    (last, told)
}

/// X11: what holds for every status.
fn check(status: &ListenerSetStatus) {
    let has = |type_, wanted| condition(status, type_).is_some_and(|condition| condition.status == wanted);
    let exclusive = [ConditionType::Ready, ConditionType::Reconciling, ConditionType::Stalled];
    assert_eq!(exclusive.into_iter().filter(|type_| has(*type_, ConditionStatus::True)).count(), 1, "{status:#?}");
    let counts = [status.running, status.stopped, status.moving, status.starting, status.unassigned, status.failed];
    assert_eq!(counts.iter().sum::<i32>(), status.listeners, "{status:#?}");
    assert!(status.exceptions.len() <= EXCEPTIONS_MAX && status.holders.len() <= HOLDERS_MAX);
    assert!(status.conditions.iter().all(|condition| !condition.reason.is_empty()));
}

fn ready(status: &ListenerSetStatus) -> (&str, &str) {
    let ready = condition(status, ConditionType::Ready).unwrap();
    (ready.reason.as_str(), ready.message.as_str())
}

/// X11
#[test]
fn a_new_set_becomes_complete() {
    let mut world = World::of(5, 2);
    let (first, _) = second(&mut world);
    assert_eq!(ready(&first).0, "Unassigned");
    assert_eq!((first.unassigned, first.exceptions.len()), (5, 5));
    let (last, told) = seconds_of(&mut world, 20);
    assert_eq!(ready(&last), ("Complete", "5 listeners on 2 Pods"));
    assert_eq!((last.running, last.holder_count, last.exceptions.len()), (5, 2, 0));
    assert_eq!(last.display.unwrap().running, "5/5");
    assert_eq!(told, ["ListenersRunning"]);
    assert_eq!(last.conditions.iter().find(|c| c.type_ == ConditionType::Balanced).unwrap().reason, "Even");
}

#[test]
fn moves_are_told_with_their_gaps() {
    let mut world = World::of(6, 2);
    seconds_of(&mut world, 20);
    let first = world.pods.keys().next().unwrap().clone();
    world.pods.get_mut(&first).unwrap().agent.as_mut().unwrap().draining = true;
    let (last, told) = seconds_of(&mut world, 20);
    assert_eq!(told.iter().filter(|reason| **reason == "ListenersMoved").count(), 1, "{told:?}");
    let moved = last.last_move.clone().unwrap();
    assert_eq!((moved.count, moved.gap_milliseconds_max), (3, 10), "all that the Pod had");
    let (later, told) = seconds_of(&mut world, 10);
    assert_eq!((later.last_move.unwrap(), told.len()), (moved, 0));
}

/// A16
#[test]
fn pods_without_an_agent_are_named() {
    let mut world = World::of(2, 2);
    world.pods.values_mut().for_each(|pod| pod.has_agent = false);
    let (last, told) = seconds_of(&mut world, 10);
    let (reason, message) = ready(&last);
    assert!(reason == "Unassigned" && message.contains("baton-agent"), "{message}");
    let degraded = condition(&last, ConditionType::Degraded).unwrap();
    assert!(
        degraded.reason == "NoAgent" && degraded.message.starts_with("web-0-1 and 1 more has no agent"),
        "{degraded:?}"
    );
    assert_eq!(told.iter().filter(|reason| **reason == "NoAgent").count(), 1, "{told:?}");
}

/// A15
#[test]
fn a_grace_period_that_is_too_short_is_said_with_the_right_one() {
    let mut world = World::of(2, 2);
    let (fine, _) = seconds_of(&mut world, 10);
    assert_eq!(condition(&fine, ConditionType::Degraded), None);
    world.pods.values_mut().for_each(|pod| pod.seen.grace_seconds = Some(64));
    let (short, told) = seconds_of(&mut world, 5);
    let degraded = condition(&short, ConditionType::Degraded).unwrap();
    let message = "web-0-1 and 1 more: terminationGracePeriodSeconds is 64, and 65 are needed (stopTimeoutSeconds 30 + \
                   handoff.timeoutSeconds 30 + 5): raise it in the template of Rollout web, or lower these";
    assert_eq!((degraded.reason.as_str(), degraded.message.as_str()), ("GraceTooShort", message));
    assert_eq!((ready(&short).0, told), ("Complete", vec!["GraceTooShort"]), "a warning, no more");
    world.pods.values_mut().for_each(|pod| pod.seen.course = crate::snapshot::listener_set::Course::Leaves);
    let (leaving, _) = second(&mut world);
    assert_eq!(condition(&leaving, ConditionType::Degraded), None, "it cannot be changed for them any more");
}

/// A13
#[test]
fn a_release_of_what_is_no_listener_is_named() {
    let mut world = World::of(2, 2);
    let (fine, _) = seconds_of(&mut world, 20);
    assert_eq!(condition(&fine, ConditionType::Degraded), None);
    let at = Time(crate::plan::listener_set::tests::world::time(0));
    let release =
        |name: &str| crate::api::listener_set::Release { listener: name.into(), at: at.clone(), force: false };
    world.set.spec.release = ["listener-0", "listener-7", "bot"].map(release).into();
    let (last, told) = seconds_of(&mut world, 5);
    let degraded = condition(&last, ConditionType::Degraded).unwrap();
    let message = "spec.release names listener-7 (and 1 more), which is no listener of this set: ignored";
    assert_eq!((degraded.reason.as_str(), degraded.message.as_str()), ("UnknownListener", message));
    assert_eq!((ready(&last).0, told), ("Complete", vec!["UnknownListener"]));
}

/// A12: a listener that fails is named, with since when.
#[test]
fn what_fails_comes_first() {
    let mut world = World::of(3, 1);
    world.pods.values_mut().for_each(|pod| pod.cannot = ["listener-2".to_owned()].into());
    let (early, _) = seconds_of(&mut world, 15);
    let (last, _) = seconds_of(&mut world, 15);
    assert_eq!((ready(&last).0, last.failed, last.running), ("ListenerFailed", 1, 2));
    let (exception, before) = (&last.exceptions[0], &early.exceptions[0]);
    assert_eq!((exception.listener.as_str(), exception.state.as_str()), ("listener-2", "Failed"));
    assert_eq!(exception.since, before.since);
    assert_eq!(condition(&last, ConditionType::Degraded).unwrap().reason, "ListenerFailed");
}

#[test]
fn what_cannot_be_read_stalls() {
    let mut world = World::of(3, 1);
    seconds_of(&mut world, 15);
    let snapshot = world.snapshot();
    let error = SourceError { reason: "InvalidConfigMap", message: "ConfigMap tokens: …".into() };
    let broken = SetSnapshot { listeners: Err(error), ..snapshot };
    let (planned, _) = plan(&broken, &world.memory);
    let after = status(&broken, &planned, &[]);
    check(&after);
    assert!(is_true(&after, ConditionType::Stalled) && after.running == 3);
    assert_eq!(ready(&after), ("InvalidConfigMap", "ConfigMap tokens: …"));
    let told = notices(world.set.status.as_ref().unwrap(), &after);
    assert_eq!((told[0].kind, told[0].reason), (crate::status::NoticeKind::Warning, "InvalidConfigMap"));
}

fn is_true(status: &ListenerSetStatus, type_: ConditionType) -> bool {
    condition(status, type_).is_some_and(|condition| condition.status == ConditionStatus::True)
}

#[test]
fn a_set_that_ends_or_asks_for_nothing() {
    let spec = json!({"rolloutRef": {"name": "web"}, "listeners": [{"name": "a", "state": "Stopped"}]});
    let mut world = World::new(&spec, 1);
    let (last, _) = seconds_of(&mut world, 5);
    assert_eq!(ready(&last), ("Complete", "no listener is to run, 1 stopped as the spec says"));
    world.set.metadata.deletion_timestamp = Some(Time(crate::plan::listener_set::tests::world::time(0)));
    let snapshot = world.snapshot();
    let (planned, _) = plan(&snapshot, &world.memory);
    let after = status(&snapshot, &planned, &[]);
    assert!(ready(&after).0 == "Deleting" && is_true(&after, ConditionType::Reconciling));
}

#[test]
fn a_minute_without_fences_is_said() {
    let mut world = World::of(4, 2);
    seconds_of(&mut world, 15);
    world.pods.values_mut().for_each(|pod| pod.is_cut_off = true);
    let (last, told) = seconds_of(&mut world, 25);
    assert_eq!(condition(&last, ConditionType::Degraded).unwrap().reason, "MostNodesSilent");
    assert!(told.contains(&"MostNodesSilent") && told.contains(&"ListenersUnassigned"), "{told:?}");
    assert_eq!(last.exceptions[0].state, "Orphaned");
}
