//! What Rollouts and ListenerSets know of each other: what the Pods of a Rollout hold, and which of them are to leave.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kube::ResourceExt;

use super::{Index, ObjectKey, Touched};
use crate::snapshot::{
    AgentSeen, Pod,
    lease::{Claim, Holder},
    report::UnitState,
};

impl Index {
    /// What the agents of these Pods of a Rollout tell. None: no ListenerSet gives them work.
    pub(super) fn agents_of(&self, rollout: &ObjectKey, pods: &[Arc<Pod>]) -> Option<BTreeMap<String, AgentSeen>> {
        let mut sets = self.sets.of_rollout(rollout).peekable();
        sets.peek()?;
        let claims = pods.iter().filter_map(|pod| Some((self.holder_of(rollout, pod)?, AgentSeen::default())));
        let mut agents: BTreeMap<&Holder, AgentSeen> = claims.collect();
        for (set, object) in sets {
            let uid = object.uid().unwrap_or_default();
            let mut held: BTreeMap<&Holder, Vec<(&str, u32)>> = BTreeMap::new();
            for (listener, ownership) in self.sets.leases.owned(set, &uid) {
                if let Some(holder) = &ownership.holder {
                    held.entry(holder).or_default().push((listener, ownership.epoch));
                }
            }
            for (holder, agent) in &mut agents {
                let held = held.remove(holder).unwrap_or_default();
                let pod = ObjectKey { namespace: rollout.namespace.clone(), name: holder.pod.clone() };
                let Some((info, report)) = self.sets.leases.told(&pod, &set.name, &uid) else { continue };
                agent.draining |= info.draining;
                agent.held += held.len() as u32;
                let Some(report) = report else { continue };
                agent.running +=
                    report.running(&held).map_or(0, |runs| runs.into_iter().filter(|runs| *runs).count()) as u32;
                let failed = report.units.iter().filter(|(_, unit)| unit.state == UnitState::Failed);
                let worst = failed.max_by_key(|(_, unit)| unit.failures).filter(|(_, unit)| unit.failures > 0);
                let known = agent.failing.as_ref().map_or(0, |(failures, ..)| *failures);
                if let Some((listener, unit)) = worst.filter(|(_, unit)| unit.failures > known) {
                    let why = [&unit.reason, &unit.message].map(String::as_str).join(": ");
                    agent.failing = Some((unit.failures, listener.clone(), why));
                }
            }
        }
        Some(agents.into_iter().map(|(holder, agent)| (holder.pod.clone(), agent)).collect())
    }

    /// Who has claimed the session of this very Pod.
    fn holder_of(&self, rollout: &ObjectKey, pod: &Pod) -> Option<&Holder> {
        let key = ObjectKey { namespace: rollout.namespace.clone(), name: pod.name.clone() };
        let session = self.sets.leases.claimed(&key)?;
        let Claim::Held(holder) = &session.claim else { return None };
        Some(holder).filter(|holder| holder.uid == pod.uid && session.pod_uid == pod.uid)
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
