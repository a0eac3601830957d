//! The sessions of a set's Pods: made, set to a profile, and fenced when they are over.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    alarm::Alarm,
    change::SetChange,
    death,
    memory::SetRecollection,
    session::session_times,
    session::{self, Fence},
    vanished,
    view::{Item, Owner, Seat, View},
};
use crate::{
    api::names,
    snapshot::lease::{Claim, Holder, Watched},
};

/// How long no boot is fenced for its silence alone when most nodes fall silent at once: it is more likely that we are cut
/// off, or the API server was away, than that they are all gone.
const BRAKE: Duration = Duration::from_mins(1);

/// A session for every Pod that has none, and the profile that it is to have.
pub(super) fn provide(view: &View<'_>) -> Vec<SetChange> {
    let asked = view.snapshot.set.spec.session.profile.affordable(view.snapshot.pods.len());
    let mut changes = Vec::new();
    for pod in view.snapshot.pods.iter().filter(|pod| !pod.is_terminating) {
        let known = view.snapshot.sessions.get(&pod.name);
        let Some((seen, session)) = known.and_then(|seen| Some((seen, seen.watched.session.as_ref()?))) else {
            let name = names::session_lease_name(&pod.name);
            if name.is_some_and(|name| !view.snapshot.taken_names.contains(&name)) {
                let (pod, pod_uid) = (pod.name.clone(), pod.uid.clone());
                changes.push(SetChange::CreateSession { pod, pod_uid, profile: asked });
            }
            continue;
        };
        // An earlier Pod's: the garbage collector takes it. What cannot be read is left alone.
        if session.pod_uid != pod.uid || session.claim == Claim::Unreadable {
            continue;
        }
        // All of them find the same, whichever looks.
        let others = seen.other_profiles.iter().copied();
        let profile = others.chain([asked]).min_by_key(|one| one.times().expire).unwrap_or(asked);
        if seen.profile != Some(profile) {
            changes.push(SetChange::SetProfile { lease: seen.lease.clone(), uid: seen.uid.clone(), profile });
        }
    }
    changes
}

/// Fences the sessions that are over, of boots that own something of this set or whose end is waited for. `is_braked`: not for
/// silence alone.
pub(super) fn fence(view: &View<'_>, memory: &SetRecollection, alarm: &mut Alarm, is_braked: bool) -> Vec<SetChange> {
    let awaited = vanished::awaited(view, memory);
    let owners: BTreeSet<&Holder> = view.items.iter().filter_map(Item::holder).chain(&awaited).collect();
    let mut changes = Vec::new();
    for holder in owners {
        let Some(seen) = view.snapshot.sessions.get(&holder.pod) else { continue };
        let watched = &seen.watched;
        wake_for(view, watched, alarm);
        let Some(session) = watched.session.as_ref().filter(|own| own.claim == Claim::Held(holder.clone())) else {
            continue;
        };
        let process = view.seats.iter().find(|seat| seat.uid == holder.uid).and_then(Seat::process);
        let why = session::fence(watched, process);
        if let Some(why) = why.filter(|why| *why == Fence::Dead || !is_braked) {
            changes.push(SetChange::Fence {
                lease: seen.lease.clone(),
                uid: seen.uid.clone(),
                resource_version: session.resource_version.clone(),
                holder: holder.clone(),
                why,
            });
        }
    }
    changes
}

/// No boot is fenced for its silence alone while most nodes are silent, nor before each has had its D to be heard again
/// after that: the first to come back is not the only one.
pub(super) fn is_braked(view: &View<'_>, memory: &mut SetRecollection, alarm: &mut Alarm) -> bool {
    let now = view.snapshot.uptime;
    let nodes = nodes(view);
    if most_are_silent(view, &nodes) {
        memory.heard_since = None;
        memory.braked_nodes = memory.braked_nodes.max(nodes.len());
        return alarm.is_ahead(memory.braked_since.get_or_insert(now).saturating_add(BRAKE));
    }
    if memory.braked_since.is_none() {
        return false;
    }
    let longest = view.snapshot.sessions.values().map(|seen| seen.watched.duration).max().unwrap_or_default();
    // All Pods were on one node, and nothing of it is heard yet: who is heard was not braked, and comes from elsewhere.
    let is_elsewhere = memory.braked_nodes == 1 && nodes.values().any(|node| node.is_silent);
    let waits = !is_elsewhere && alarm.is_ahead(memory.heard_since.get_or_insert(now).saturating_add(longest));
    if !waits {
        (memory.braked_since, memory.braked_nodes, memory.heard_since) = (None, 0, None);
    }
    waits
}

/// Silence is no event.
fn wake_for(view: &View<'_>, watched: &Watched, alarm: &mut Alarm) {
    let now = view.snapshot.uptime;
    let times = session_times(watched.duration);
    for threshold in [times.stop, watched.duration] {
        alarm.is_ahead(now.saturating_add(threshold).saturating_sub(watched.silent_for));
    }
    for missed_for in [watched.claimed_for, watched.of_pod_for] {
        alarm.is_ahead(now.saturating_add(watched.duration).saturating_sub(missed_for));
    }
}

/// What is heard of a node that has agents of this set.
#[derive(Clone, Copy)]
struct Node {
    /// No agent on it can still run anything.
    is_silent: bool,
    /// An agent on it has renewed its session when that was due.
    is_fresh: bool,
}

fn nodes<'a>(view: &'a View<'_>) -> BTreeMap<&'a str, Node> {
    let mut nodes: BTreeMap<&str, Node> = BTreeMap::new();
    for seat in &view.seats {
        let (Some(session), Some(pod), Some(boot)) = (seat.session, seat.pod, seat.boot) else { continue };
        // It says nothing because it has ended: a release that crashes everywhere is no silence of nodes.
        let seems_ended = || seat.is_silent && death::seems_ended(&session.watched, seat.process());
        if view.death(boot).is_some() || seems_ended() {
            continue;
        }
        let name = pod.node.as_deref().unwrap_or(seat.name);
        let renews_within = session_times(session.watched.duration).renew + Duration::from_secs(1);
        let is_fresh = session.watched.silent_for <= renews_within;
        let node = nodes.entry(name).or_insert(Node { is_silent: true, is_fresh: false });
        *node = Node { is_silent: node.is_silent && seat.is_silent, is_fresh: node.is_fresh || is_fresh };
    }
    nodes
}

/// Most nodes fell silent, without an explanation: a node's own Lease has run out, too, and the session of another node shows
/// that this operator does hear.
fn most_are_silent(view: &View<'_>, nodes: &BTreeMap<&str, Node>) -> bool {
    let anybody_is_heard = nodes.values().any(|node| node.is_fresh);
    let is_explained = |name: &str| anybody_is_heard && view.snapshot.lost_nodes.contains(name);
    let silent = nodes.iter().filter(|(name, node)| node.is_silent && !is_explained(name)).count();
    2 * silent > nodes.len()
}

/// An owner is silent so that nothing of it can run any more.
pub(super) fn is_silent(view: &View<'_>, owner: Owner<'_>) -> bool {
    matches!(owner, Owner::Alive(holder, seat) if view.seats[seat].boot != Some(holder) || view.seats[seat].is_silent)
}
