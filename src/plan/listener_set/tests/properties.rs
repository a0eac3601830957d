//! L1-L11 through arbitrary faults, with any part of what is planned written, late or never.
use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::world::World;
use crate::{
    api::listener_set::ListenerState,
    plan::listener_set::{SetRecollection, change::SetChange, plan},
    snapshot::listener_set::Course,
};

/// What happens to a world, beside the passing of time. Numbers choose among what there is.
#[derive(Clone, Copy, Debug)]
enum Event {
    Nothing,
    Crash(usize),
    Delete(usize),
    ForceDelete(usize),
    CutOff(usize),
    Reconnect(usize),
    Drain(usize),
    TurnReady(usize),
    Hang(usize),
    AddPod(usize),
    Replace(usize),
    LoseAgent(usize),
    Cannot(usize, usize),
    Configure(usize, u32),
    Toggle(usize),
    Remove(usize),
    Add(usize),
    MaxPerPod(i32),
    Recover,
    ForgetAll,
    DeleteLease(usize),
}

fn event() -> impl Strategy<Value = Event> {
    use Event::{
        Add, AddPod, Cannot, Configure, Crash, CutOff, Delete, DeleteLease, Drain, ForceDelete, ForgetAll, Hang,
        LoseAgent, MaxPerPod, Nothing, Reconnect, Recover, Remove, Replace, Toggle, TurnReady,
    };
    let one = 0..8_usize;
    prop_oneof![
        6 => Just(Nothing),
        2 => one.clone().prop_map(Crash),
        2 => one.clone().prop_map(Delete),
        1 => one.clone().prop_map(ForceDelete),
        2 => one.clone().prop_map(CutOff),
        2 => one.clone().prop_map(Reconnect),
        1 => one.clone().prop_map(Drain),
        2 => one.clone().prop_map(TurnReady),
        1 => one.clone().prop_map(Hang),
        2 => one.clone().prop_map(AddPod),
        3 => one.clone().prop_map(Replace),
        1 => one.clone().prop_map(LoseAgent),
        1 => (one.clone(), one.clone()).prop_map(|(pod, listener)| Cannot(pod, listener)),
        1 => (one.clone(), any::<u32>()).prop_map(|(listener, value)| Configure(listener, value)),
        2 => one.clone().prop_map(Toggle),
        2 => one.clone().prop_map(Remove),
        2 => one.clone().prop_map(Add),
        2 => one.prop_map(DeleteLease),
        1 => (0..4).prop_map(MaxPerPod),
        1 => Just(Recover),
        1 => Just(ForgetAll),
    ]
}

/// How a controller acts after a second.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// Writes all that is planned.
    All,
    /// Writes those changes whose bit is set.
    Some(u64),
    /// Plans, and writes it later.
    Late(u64),
    Sleeps,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![5 => Just(Act::All), 2 => any::<u64>().prop_map(Act::Some), 1 => any::<u64>().prop_map(Act::Late), 1 => Just(Act::Sleeps)]
}

fn start(listeners: usize, pods: usize, changes: &Value) -> World {
    let names: Vec<Value> = (0..listeners).map(|number| json!({"name": format!("l{number}")})).collect();
    let mut spec = json!({"rolloutRef": {"name": "web"}, "listeners": names,
        "defaults": {"stopTimeoutSeconds": 5, "startTimeoutSeconds": 30, "connectTimeoutSeconds": 5}, "handoff": {"timeoutSeconds": 5}});
    for (field, value) in changes.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    World::new(&spec, pods)
}

fn happen(world: &mut World, event: Event) {
    let names: Vec<String> = world.pods.keys().cloned().collect();
    let chosen = |number: usize| names.get(number % names.len().max(1)).cloned().unwrap_or_default();
    let now = world.now;
    let listeners = world.set.spec.listeners.as_mut().unwrap();
    let count = listeners.len();
    match event {
        Event::Crash(pod) => world.crash(&chosen(pod)),
        Event::Delete(pod) => world.delete_pod(&chosen(pod)),
        Event::ForceDelete(pod) => world.force_delete_pod(&chosen(pod)),
        Event::AddPod(slot) if names.len() < 6 => drop(world.add_pod(slot as i32)),
        Event::Replace(pod) if names.len() < 6 => {
            let name = chosen(pod);
            let Some(slot) = world.pods.get(&name).and_then(|pod| pod.seen.slot) else { return };
            world.add_pod(slot);
            world.pods.get_mut(&name).unwrap().seen.course = Course::Leaves;
        }
        Event::Configure(listener, value) if count > 0 => {
            listeners[listener % count].config = json!({"value": value}).as_object().cloned();
        }
        Event::Toggle(listener) if count > 0 => {
            let state = &mut listeners[listener % count].state;
            *state = if *state == ListenerState::Started { ListenerState::Stopped } else { ListenerState::Started };
        }
        Event::Remove(listener) if count > 0 => drop(listeners.remove(listener % count)),
        // Nothing, or there is none of it.
        Event::Nothing
        | Event::AddPod(_)
        | Event::Replace(_)
        | Event::Configure(..)
        | Event::Toggle(_)
        | Event::Remove(_) => {}
        Event::Add(listener) => {
            let name = format!("l{listener}");
            if listeners.iter().all(|known| known.name != name) {
                listeners.push(serde_json::from_value(json!({"name": name})).unwrap());
            }
        }
        Event::MaxPerPod(most) => world.set.spec.placement.max_per_pod = most,
        Event::Recover => world.set.spec.recover_at = Some(crate::api::Time(super::world::time(now))),
        Event::ForgetAll => world.restart_operator(),
        Event::DeleteLease(listener) => world.delete_lease(&format!("l{listener}")),
        Event::CutOff(pod)
        | Event::Reconnect(pod)
        | Event::Drain(pod)
        | Event::TurnReady(pod)
        | Event::Hang(pod)
        | Event::LoseAgent(pod)
        | Event::Cannot(pod, _) => {
            let Some(pod) = world.pods.get_mut(&chosen(pod)).filter(|pod| !pod.is_gone) else { return };
            match event {
                Event::CutOff(_) => pod.is_cut_off = true,
                Event::Reconnect(_) => pod.is_cut_off = false,
                Event::TurnReady(_) => pod.seen.is_ready = !pod.seen.is_ready,
                Event::Hang(_) => pod.hangs = !pod.hangs,
                Event::LoseAgent(_) => pod.has_agent = !pod.has_agent,
                Event::Cannot(_, listener) => pod.cannot.extend([format!("l{listener}")]),
                _ => pod.agent.iter_mut().for_each(|agent| agent.draining = true),
            }
        }
    }
}

/// Faults end: what is to leave leaves, the rest works.
fn heal(world: &mut World) {
    let gone = |pod: &super::world::Pod| pod.is_gone || pod.agent.as_ref().is_some_and(|agent| agent.draining);
    let gone: Vec<String> = world.pods.iter().filter(|(_, pod)| gone(pod)).map(|(name, _)| name.clone()).collect();
    for name in &gone {
        world.delete_pod(name);
    }
    for pod in world.pods.values_mut() {
        (pod.is_cut_off, pod.hangs, pod.has_agent, pod.seen.is_ready) = (false, false, true, true);
        pod.cannot.clear();
    }
    if !world.pods.values().any(|pod| pod.seen.course == Course::Target) {
        world.add_pod(0);
    }
    world.set.spec.placement.max_per_pod = 0;
    world.pods_in_the_end = world.pods.values().filter(|pod| pod.seen.course == Course::Target).count();
}

/// One second; what is planned is written in part, or kept for later.
fn pass(world: &mut World, act: Act, late: &mut Vec<(i32, Vec<SetChange>)>) {
    world.pass();
    let (is_late, mask) = match act {
        Act::All => return drop(world.look()),
        Act::Sleeps => return,
        Act::Some(mask) => (false, mask),
        Act::Late(mask) => (true, mask),
    };
    let snapshot = world.snapshot();
    let (planned, memory) = plan(&snapshot, &world.memory);
    super::world::check(&snapshot, &planned);
    let chosen = planned.changes.iter().enumerate().filter(|(index, _)| mask >> (index % 64) & 1 == 1);
    let chosen: Vec<SetChange> = chosen.map(|(_, change)| change.clone()).collect();
    if is_late {
        late.push((snapshot.set.status.as_ref().map_or(0, |status| status.epoch_floor), chosen));
        return;
    }
    world.memory = memory;
    world.store_floor(&planned);
    for change in &chosen {
        world.write(change);
    }
    // An earlier plan, whenever it comes through. Creates rest on the floor that they have seen.
    if let Some((floor, changes)) = late.pop() {
        let same_floor = world.set.status.as_ref().is_none_or(|status| status.epoch_floor == floor);
        let rests = |change: &&SetChange| same_floor || !matches!(change, SetChange::CreateOwnership { .. });
        for change in changes.iter().filter(rests) {
            world.write(change);
        }
    }
}

fn wanted(world: &World) -> BTreeMap<String, ListenerState> {
    world.set.spec.listeners.iter().flatten().map(|listener| (listener.name.clone(), listener.state)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 400, ..ProptestConfig::default() })]

    /// L1 L2 L4 L5 L6 L8 L11
    #[test]
    fn whatever_happens_one_runs_each(
        listeners in 0..8_usize, pods in 1..4_usize, prepare in any::<bool>(), budget in any::<bool>(),
        story in prop::collection::vec((event(), act(), 1..9_u64), 1..50),
    ) {
        let budget = if budget { json!({"permits": 2, "periodSeconds": 3}) } else { Value::Null };
        let changes = json!({"handoff": {"prepare": prepare, "timeoutSeconds": 5}, "startBudget": budget});
        let mut world = start(listeners, pods, &changes);
        let mut late = Vec::new();
        for (event, act, seconds) in story {
            happen(&mut world, event);
            (0..seconds).for_each(|_| pass(&mut world, act, &mut late));
        }
        heal(&mut world);
        let before = world.writes;
        world.settle();
        // What has been tried in vain is tried again after minutes.
        let (running, wanted) = (world.running(), wanted(&world));
        let should_run = wanted.iter().filter(|(_, state)| **state == ListenerState::Started).map(|(name, _)| name);
        prop_assert_eq!(running.keys().collect::<Vec<_>>(), should_run.collect::<Vec<_>>(), "L4");
        prop_assert!(world.leases.keys().all(|name| wanted.contains_key(name)), "L8");
        let objects = wanted.len() + world.pods.len() + world.leases.len() + 8;
        prop_assert!(world.writes - before <= 12 * objects, "{} writes", world.writes - before);
        for (name, pod) in &world.pods {
            let held = running.values().filter(|at| *at == name).count();
            prop_assert!(pod.seen.course == Course::Target || held == 0, "{} leaves", name);
        }
        if world.memory.tried.is_empty() {
            let loads = world.pods.iter().filter(|(_, pod)| pod.seen.course == Course::Target);
            let loads: Vec<usize> = loads.map(|(name, _)| running.values().filter(|at| *at == name).count()).collect();
            prop_assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1, "L5: {:?}", loads);
        }
        // L11: and again nothing, with any memory.
        world.memory = SetRecollection::default();
        let planned = world.dry_look();
        prop_assert!(planned.changes.is_empty(), "{:?}", planned.changes);
    }
}
