//! Agents that are not heard, and agents that do not hear.
use super::{cases::seconds_until, world::World};
use crate::plan::listener_set::{change::SetChange, session::Fence};

fn fences(changes: &[SetChange]) -> Vec<Fence> {
    changes
        .iter()
        .filter_map(|change| if let SetChange::Fence { why, .. } = change { Some(*why) } else { None })
        .collect()
}

/// H5: an agent that does not hear what it owns is reminded, and goes on.
#[test]
fn an_agent_whose_watch_is_stuck_is_reminded() {
    let mut world = World::of(1, 1);
    world.pods.values_mut().for_each(|pod| pod.is_deaf = true);
    world.run(9);
    assert_eq!(world.running().len(), 0, "it may yet hear of it");
    world.run(20);
    assert_eq!(world.running().len(), 1);
    assert!(world.snapshot().sessions.values().all(|session| session.inbox.is_empty()), "it has heard of it");
}

/// H6: the API server was away, or we were: no session is fenced for that.
#[test]
fn when_most_nodes_fall_silent_nobody_is_fenced_for_a_minute() {
    let cut_off = |world: &mut World, pods: usize| {
        world.pods.values_mut().take(pods).for_each(|pod| pod.is_cut_off = true);
        (0..120).find(|_| !fences(&world.tick().changes).is_empty())
    };
    let settled = || {
        let mut world = World::of(8, 4);
        world.settle();
        world
    };
    assert!(cut_off(&mut settled(), 2).is_some_and(|second| second <= 16));
    assert!(cut_off(&mut settled(), 3).is_some_and(|second| (60..80).contains(&second)));
    assert!(cut_off(&mut settled(), 4).is_some_and(|second| (60..80).contains(&second)));
    // Their nodes are gone, too, and we hear from another.
    let mut lost = settled();
    lost.lost_nodes = lost.pods.values().take(3).filter_map(|pod| pod.seen.node.clone()).collect();
    assert!(cut_off(&mut lost, 3).is_some_and(|second| second <= 16));
    let mut all_lost = settled();
    all_lost.lost_nodes = all_lost.pods.values().filter_map(|pod| pod.seen.node.clone()).collect();
    assert!(cut_off(&mut all_lost, 4).is_some_and(|second| (60..80).contains(&second)));
    // H6: all Pods were on one node. A Pod on another one takes over at once when it is there.
    let mut one_node = settled();
    one_node.pods.values_mut().for_each(|pod| pod.seen.node = Some("node-0".to_owned()));
    one_node.pods.values_mut().for_each(|pod| pod.is_cut_off = true);
    assert!((0..30).all(|_| fences(&one_node.tick().changes).is_empty()), "there is no heir");
    one_node.add_pod(4);
    assert!((0..5).any(|_| !fences(&one_node.tick().changes).is_empty()));
    let mut one_returns = settled();
    one_returns.pods.values_mut().for_each(|pod| pod.seen.node = Some("node-0".to_owned()));
    one_returns.pods.values_mut().for_each(|pod| pod.is_cut_off = true);
    one_returns.run(20);
    one_returns.pods.values_mut().next().unwrap().is_cut_off = false;
    assert!((0..10).all(|_| fences(&one_returns.tick().changes).is_empty()), "the others come back, too");
    // It is said for as long as it is so, however long they are silent.
    let mut silent = settled();
    silent.pods.values_mut().for_each(|pod| pod.is_cut_off = true);
    let said: Vec<bool> = (0..120).map(|_| silent.tick().is_braked).collect();
    assert!(said[20..60].iter().all(|is_said| *is_said) && !said.iter().rev().take(30).any(|is_said| *is_said));
    // Three crash and do not come back, then one that lives falls silent: that is one of two.
    let mut crashing = World::of(8, 5);
    crashing.settle();
    let names: Vec<String> = crashing.pods.keys().take(3).cloned().collect();
    for name in &names {
        crashing.pods.get_mut(name).unwrap().has_agent = false;
        crashing.crash(name);
    }
    crashing.run(30);
    crashing.pods.values_mut().nth(3).unwrap().is_cut_off = true;
    assert!((0..120).find(|_| !fences(&crashing.tick().changes).is_empty()).is_some_and(|second| second <= 16));
    // All crash again and again. What owned nothing was not fenced, and no end is known any more that proves its death.
    let mut looping = World::of(1, 3);
    looping.settle();
    let names: Vec<String> = looping.pods.keys().cloned().collect();
    for name in &names {
        looping.pods.get_mut(name).unwrap().has_agent = false;
        looping.crash(name);
    }
    looping.run(5);
    for name in &names {
        looping.crash_again(name);
    }
    assert!((0..60).all(|_| !looping.tick().is_braked));
    // An end before the claim says nothing of the silence since.
    let mut survivors = settled();
    let names: Vec<String> = survivors.pods.keys().cloned().collect();
    for name in &names {
        survivors.crash(name);
    }
    survivors.settle();
    assert!(cut_off(&mut survivors, 4).is_some_and(|second| (60..80).contains(&second)));
    // Death that is proven needs no silence.
    let mut dead = settled();
    dead.pods.values_mut().for_each(|pod| pod.has_agent = false);
    let names: Vec<String> = dead.pods.keys().take(3).cloned().collect();
    for name in &names {
        dead.crash(name);
    }
    assert!(seconds_until(&mut dead, 8) < 10);
}
