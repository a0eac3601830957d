//! The looks of ListenerSets, as plain text.
use serde_json::json;

use super::draw::{self, Options};
use crate::{
    api::{ListenerSetStatus, Time},
    plan::listener_set::{
        plan,
        tests::world::{World, time},
    },
    snapshot::listener_set::{SetSnapshot, SourceError},
    status::listener_set::status,
    view::listener_set::{LISTENERS_LISTED_MAX, view},
};

/// Seconds pass, with a controller that writes status; what the plugin would see then.
fn after(world: &mut World, seconds: u64) -> SetSnapshot {
    world.set.metadata.creation_timestamp = Some(Time(time(0)));
    for _ in 0..seconds {
        world.pass();
        let snapshot = world.snapshot();
        let (planned, memory) = plan(&snapshot, &world.memory);
        let written: ListenerSetStatus = status(&snapshot, &planned, memory.gaps_of_last_moves());
        world.memory = memory;
        world.set.status = Some(written);
        for change in &planned.changes {
            world.write(change);
        }
    }
    SetSnapshot { pods: Vec::new(), ..world.snapshot() }
}

fn look_at(snapshot: &SetSnapshot, wide: bool) -> String {
    let options = Options { wide, width: None, now: snapshot.now };
    let listed_max = if wide { usize::MAX } else { LISTENERS_LISTED_MAX };
    let lines = draw::listener_set(&view(snapshot, listed_max), options).join("\n");
    anstream::adapter::strip_str(&lines).to_string()
}

fn first_pod(world: &World) -> String {
    world.pods.keys().next().unwrap().clone()
}

#[test]
fn what_nobody_holds_yet_is_listed_below_the_pods() {
    let listeners = json!([{"name": "orders"}, {"name": "trades"}, {"name": "audit", "state": "Stopped"}]);
    let mut world = World::new(&json!({"rolloutRef": {"name": "web"}, "listeners": listeners}), 1);
    let pod = first_pod(&world);
    world.pods.get_mut(&pod).unwrap().has_agent = false;
    insta::assert_snapshot!("set_unassigned", look_at(&after(&mut world, 3), false));
}

#[test]
fn a_set_that_is_complete_says_who_holds_what() {
    let mut world = World::of(5, 2);
    insta::assert_snapshot!("set_complete", look_at(&after(&mut world, 20), false));
}

#[test]
fn moves_are_shown_with_where_from_and_the_gap() {
    let mut world = World::of(6, 3);
    after(&mut world, 20);
    let pod = first_pod(&world);
    world.pods.get_mut(&pod).unwrap().agent.as_mut().unwrap().draining = true;
    let on_the_way = look_at(&after(&mut world, 1), false);
    let arrived = look_at(&after(&mut world, 19), false);
    insta::assert_snapshot!("set_moves", format!("{on_the_way}\n\n{arrived}"));
}

#[test]
fn what_fails_or_fell_silent_is_seen_at_once() {
    let mut world = World::of(4, 2);
    for pod in world.pods.values_mut() {
        pod.cannot.insert("listener-1".into());
    }
    after(&mut world, 20);
    let pod = first_pod(&world);
    world.pods.get_mut(&pod).unwrap().is_cut_off = true;
    insta::assert_snapshot!("set_trouble", look_at(&after(&mut world, 16), false));
}

/// A12: while no operator runs, it is not noted that a holder is gone; its session has run out all the same.
#[test]
fn what_a_silent_pod_holds_is_not_said_to_run() {
    let mut world = World::of(5, 2);
    let mut snapshot = after(&mut world, 20);
    let pod = snapshot.sessions.keys().next().unwrap().clone();
    let session = snapshot.sessions.get_mut(&pod).unwrap();
    session.watched.session.as_mut().unwrap().renewed_at = Some(time(0));
    insta::assert_snapshot!("set_silent", look_at(&snapshot, false));
}

/// Who may not read the ConfigMap that names the listeners cannot know which of them no Pod holds: status has the numbers.
#[test]
fn without_the_list_of_listeners_the_numbers_are_the_operators() {
    let mut world = World::of(5, 2);
    let mut snapshot = after(&mut world, 20);
    let mut nobodys = snapshot.ownerships["listener-1"].clone();
    nobodys.ownership.holder = None;
    snapshot.ownerships.insert("listener-9".into(), nobodys);
    let message = "spec.configMap: User \"ann\" cannot get it".to_owned();
    snapshot.listeners = Err(SourceError { reason: "ConfigMapUnread", message });
    insta::assert_snapshot!("set_unread", look_at(&snapshot, false));
    // It was not counted yet.
    snapshot.set.status = None;
    assert!(look_at(&snapshot, false).contains("] 5/6\n"), "{}", look_at(&snapshot, false));
}

#[test]
fn many_listeners_are_counted_unless_all_are_asked_for() {
    let mut world = World::of(300, 4);
    for pod in world.pods.values_mut() {
        pod.cannot.insert("listener-17".into());
    }
    let snapshot = after(&mut world, 60);
    let text = look_at(&snapshot, false);
    assert!(text.lines().count() < 20, "{text}");
    insta::assert_snapshot!("set_many", text);
    let all = look_at(&snapshot, true);
    assert_eq!(all.lines().filter(|line| line.contains("Listener  ")).count(), 300, "{all}");
}

#[test]
fn a_line_of_a_set_for_logs() {
    let mut world = World::of(5, 2);
    let line = draw::set_line(&view(&after(&mut world, 20), 0).header);
    assert_eq!(anstream::adapter::strip_str(&line).to_string(), "✔ Complete  5/5  5 listeners on 2 Pods");
}
