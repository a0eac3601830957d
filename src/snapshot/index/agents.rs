//! What Rollouts and ListenerSets know of each other: what the Pods of a Rollout hold, and which of them are to leave.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kube::ResourceExt;

use super::{Index, Kind, ObjectKey, Touched};
use crate::api::ListenerSet;
use crate::snapshot::{
    AgentSeen, Agents, Pod, SessionState,
    lease::{Claim, Holder},
};

impl Index {
    /// What the agents of these Pods of a Rollout tell.
    pub(super) fn agents_of(&self, rollout: &ObjectKey, pods: &[Arc<Pod>]) -> Agents {
        let is_listed = |kind| self.sets.progress(kind, &rollout.namespace).is_some();
        if !is_listed(Kind::ListenerSet) || !is_listed(Kind::Lease) {
            return Agents::Unknown;
        }
        // What a set that goes has left is taken nowhere.
        let is_there = |(_, set): &(&ObjectKey, &ListenerSet)| set.metadata.deletion_timestamp.is_none();
        let mut sets = self.sets.of_rollout(rollout).filter(is_there).peekable();
        if sets.peek().is_none() {
            return Agents::NotAsked;
        }
        let states = pods.iter().map(|pod| (pod.name.clone(), self.session_of(rollout, pod)));
        let states: BTreeMap<String, (SessionState, Option<&Holder>)> = states.collect();
        let holders = states.values().filter_map(|(_, holder)| *holder);
        let mut agents: BTreeMap<&Holder, AgentSeen> = holders.map(|holder| (holder, AgentSeen::default())).collect();
        // By uid of the Pod: what it holds by Leases that cannot be read, and by all.
        let (mut unread, mut all): (BTreeMap<String, u32>, BTreeMap<String, u32>) = Default::default();
        for (set, object) in sets {
            let uid = object.uid().unwrap_or_default();
            let mut held: BTreeMap<&Holder, Vec<(&str, u32)>> = BTreeMap::new();
            for (listener, seen) in self.sets.leases.owned(set, &uid) {
                let Some(holder) = &seen.ownership.holder else { continue };
                *all.entry(holder.uid.clone()).or_default() += 1;
                if seen.is_unreadable {
                    *unread.entry(holder.uid.clone()).or_default() += 1;
                    continue;
                }
                held.entry(holder).or_default().push((listener, seen.ownership.epoch));
                if let Some(agent) = agents.get_mut(holder).filter(|_| seen.is_handed_over) {
                    agent.last_gained = agent.last_gained.max(seen.acquired_at);
                }
            }
            for (holder, agent) in &mut agents {
                let held = held.remove(holder).unwrap_or_default();
                let pod = ObjectKey { namespace: rollout.namespace.clone(), name: holder.pod.clone() };
                let Some((info, report)) = self.sets.leases.told(&pod, &set.name, &uid) else { continue };
                agent.draining |= info.draining;
                agent.held += held.len() as u32;
                let busy = report.map_or(0, |report| report.count).max(held.len() as u32);
                if busy > 0 {
                    agent.busy.push((set.name.clone(), busy));
                }
                let Some(report) = report else { continue };
                agent.running +=
                    report.running(&held).map_or(0, |runs| runs.into_iter().filter(|runs| *runs).count()) as u32;
                let worst =
                    report.units.iter().filter(|(_, unit)| unit.is_failing()).max_by_key(|(_, unit)| unit.failures);
                let known = agent.failing.as_ref().map_or(0, |(failures, ..)| *failures);
                if let Some((listener, unit)) = worst.filter(|(_, unit)| unit.failures > known) {
                    let why = [&unit.reason, &unit.message].map(String::as_str).join(": ");
                    agent.failing = Some((unit.failures, listener.clone(), why));
                }
            }
        }
        let seen = pods.iter().map(|pod| {
            let (session, holder) = states.get(&pod.name).copied().unwrap_or_default();
            let mut agent = holder.and_then(|holder| agents.remove(holder)).unwrap_or_default();
            // What cannot be read says nothing: what named the Pod last is still its own.
            let held = if holder.is_some() { unread.get(&pod.uid) } else { all.get(&pod.uid) };
            let counts = holder.is_some() || self.is_session_unreadable(rollout, pod);
            agent.held += held.filter(|_| counts).copied().unwrap_or(0);
            (pod.name.clone(), AgentSeen { session, ..agent })
        });
        Agents::Seen(seen.collect())
    }

    /// Where the session of this very Pod stands, and who has claimed it.
    fn session_of(&self, rollout: &ObjectKey, pod: &Pod) -> (SessionState, Option<&Holder>) {
        let key = ObjectKey { namespace: rollout.namespace.clone(), name: pod.name.clone() };
        let session = self.sets.leases.claimed(&key).filter(|session| session.pod_uid == pod.uid);
        match session.map(|session| &session.claim) {
            Some(Claim::Held(holder)) if holder.uid == pod.uid => (SessionState::Held, Some(holder)),
            Some(Claim::Fenced(_)) => (SessionState::Lost, None),
            _ => (SessionState::Unclaimed, None),
        }
    }

    fn is_session_unreadable(&self, rollout: &ObjectKey, pod: &Pod) -> bool {
        let key = ObjectKey { namespace: rollout.namespace.clone(), name: pod.name.clone() };
        self.sets.leases.claimed(&key).is_some_and(|session| session.claim == Claim::Unreadable)
    }

    /// Notes which Pods of a Rollout are to leave, as its plan says. Touches the sets that they serve when it changes.
    pub fn on_leaving(&mut self, rollout: &ObjectKey, leaving: &BTreeSet<String>) -> Touched {
        let none = BTreeSet::new();
        if self.leaving.get(rollout).unwrap_or(&none) == leaving {
            return Touched::default();
        }
        if leaving.is_empty() {
            self.leaving.remove(rollout);
        } else {
            self.leaving.insert(rollout.clone(), leaving.clone());
        }
        Touched { rollouts: BTreeSet::new(), ..self.with_their_sets([rollout.clone()].into()) }
    }
}
