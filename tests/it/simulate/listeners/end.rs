//! What must hold of listeners at the end, when nothing goes wrong any more.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use baton::api::names;
use serde_json::Value;

use super::Listeners;
use crate::{
    fake_apiserver::{
        actor::Actor,
        kinds::{LEASES, LISTENER_SETS, PODS, ROLLOUTS},
        object::Object,
    },
    simulate::{oracles::story, scenario::ROLLOUT, users::reason},
};

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// What there is, apart from its course.
struct Present {
    sets: Vec<Arc<Object>>,
    /// Pods that can hold listeners.
    pods: BTreeSet<String>,
    /// One revision, and nothing in the way of it.
    is_complete: bool,
}

fn present(listeners: &Listeners) -> Present {
    let actor: Actor = listeners.0.server.actor("judge");
    let rollout = actor.get(&ROLLOUTS, ROLLOUT.0, ROLLOUT.1);
    let uid = rollout.as_ref().map(|rollout| rollout.uid().to_owned()).unwrap_or_default();
    let is_fit = |pod: &Arc<Object>| {
        story::owner(pod) == Some(&*uid) && story::pod(pod).is_some_and(|pod| pod.is_live() && pod.is_ready())
    };
    let pods = actor.list(&PODS, ROLLOUT.0).iter().filter(|pod| is_fit(pod)).map(|pod| pod.name().to_owned()).collect();
    let is_complete = rollout.as_ref().is_some_and(|rollout| reason(rollout, "Ready") == Some("Complete"));
    Present { sets: actor.list(&LISTENER_SETS, ROLLOUT.0), pods, is_complete }
}

/// How many listeners of a set can run in so many Pods.
fn room(set: &Object, pods: usize) -> usize {
    match set["spec"]["placement"]["maxPerPod"].as_u64().unwrap_or(0) {
        0 if pods > 0 => usize::MAX,
        most => pods * usize::try_from(most).unwrap_or(usize::MAX),
    }
}

fn started(set: &Object) -> BTreeSet<String> {
    let all = set["spec"]["listeners"].as_array().into_iter().flatten();
    all.filter(|listener| listener["state"] != "Stopped").map(|listener| text(&listener["name"]).to_owned()).collect()
}

/// Whether all sets say that they have come to rest.
pub fn is_at_rest(listeners: &Listeners) -> bool {
    let present = present(listeners);
    present.sets.iter().all(|set| {
        let mut exceptions = set["status"]["exceptions"].as_array().into_iter().flatten();
        // What a silent Pod has counts as lost by mere time, and as stopped, too.
        let is_full = started(set).len() > room(set, present.pods.len())
            && exceptions.all(|exception| exception["reason"] != "HolderSilent" && exception["state"] != "Stopping");
        // The brake ends by mere time.
        let is_braked = reason(set, "Degraded") == Some("MostNodesSilent");
        let is_done =
            matches!(reason(set, "Ready"), Some("Complete")) || (is_full && reason(set, "Ready") == Some("Unassigned"));
        set["status"]["observedGeneration"] == set["metadata"]["generation"] && is_done && !is_braked
    })
}

/// What the sets say.
pub fn tell(listeners: &Listeners) -> String {
    let present = present(listeners);
    let set = |set: &Arc<Object>| {
        let conditions = set["status"]["conditions"].as_array().into_iter().flatten();
        let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready");
        let ready = ready.map(|ready| format!("{}: {}", text(&ready["reason"]), text(&ready["message"])));
        format!("{} is {}", set.name(), ready.unwrap_or_default())
    };
    let sets: Vec<String> = present.sets.iter().map(set).collect();
    let leases = listeners.0.server.actor("judge").list(&LEASES, ROLLOUT.0);
    let leases = leases.iter().map(|lease| {
        let of_us = |name: &str| name.starts_with(names::REPORT_PREFIX) || name.starts_with(names::INBOX_PREFIX);
        let annotations = lease["metadata"]["annotations"].as_object().into_iter().flatten();
        let told: Vec<String> =
            annotations.filter(|(name, _)| of_us(name)).map(|(name, told)| format!("{name}={}", text(told))).collect();
        format!(
            "{} is {}'s, {} {}",
            lease.name(),
            text(&lease["spec"]["holderIdentity"]),
            lease["spec"]["leaseTransitions"],
            told.join(" ")
        )
    });
    let leases: Vec<String> = leases.collect();
    format!("{}; Pods {:?}; {}", sets.join("; "), present.pods, leases.join("\n"))
}

/// L5, where nothing but one change of the template has happened: a listener that was moved more than once for it.
pub fn restless(listeners: &Listeners) -> Option<String> {
    let (listener, moves) = listeners.state().ledger.restless()?;
    Some(format!("{listener} was moved {moves} times by one rollout"))
}

/// L4, L5, L8: every listener that should run does so in one place, and nothing else runs.
pub fn explain(listeners: &Listeners) -> Result<(), String> {
    let present = present(listeners);
    let mut running: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for run in listeners.state().ledger.runs() {
        running.entry(run.key.clone()).or_default().push(super::pod_of(&run.who).to_owned());
    }
    let actor = listeners.0.server.actor("judge");
    let leases = actor.list(&LEASES, ROLLOUT.0);
    let mut known = BTreeSet::new();
    for set in &present.sets {
        let wanted = started(set);
        let mut loads: BTreeMap<String, usize> = present.pods.iter().map(|pod| (pod.clone(), 0)).collect();
        let room = room(set, present.pods.len());
        let mut found = 0;
        for listener in &wanted {
            let Some(places) = running.remove(&(set.uid().to_owned(), listener.clone())) else { continue };
            let [place] = places.as_slice() else { return Err(format!("{listener} runs in {places:?}")) };
            let lease = leases.iter().find(|lease| lease.name() == names::listener_lease_name(set.name(), listener));
            let holder = lease.map_or("", |lease| text(&lease["spec"]["holderIdentity"]));
            if holder.split('/').next() != Some(place) {
                return Err(format!("{listener} runs in {place}, and is {holder:?}'s"));
            }
            let is_nowhere_else = loads.is_empty() || wanted.len() > room;
            match loads.get_mut(place) {
                Some(load) => (found, *load) = (found + 1, *load + 1),
                // It stays in a Pod that somebody has taken out of our hands.
                None if is_nowhere_else => {}
                None => return Err(format!("{listener} runs in {place}, which should have nothing")),
            }
        }
        // More than there is room for run where the bound was lowered since: what runs is not stopped for it.
        if found < wanted.len().min(room) {
            return Err(format!("{found} of {} listeners of {} run, with room for {room}", wanted.len(), set.name()));
        }
        let is_bounded = set["spec"]["placement"]["maxPerPod"].as_u64().unwrap_or(0) > 0;
        let (least, most) = (loads.values().min().copied(), loads.values().max().copied());
        if present.is_complete && !is_bounded && least.zip(most).is_some_and(|(least, most)| most > least + 1) {
            return Err(format!("{} is not balanced: {loads:?}", set.name()));
        }
        let all = set["spec"]["listeners"].as_array().into_iter().flatten();
        known.extend(all.map(|listener| names::listener_lease_name(set.name(), text(&listener["name"]))));
    }
    if let Some(((_, listener), places)) = running.iter().next() {
        return Err(format!("{listener}, which nobody asks for, runs in {places:?}"));
    }
    let stray = leases.iter().find(|lease| lease.name().starts_with("listener.") && !known.contains(lease.name()));
    stray.map_or(Ok(()), |stray| Err(format!("{} is a Lease of no listener", stray.name())))
}
