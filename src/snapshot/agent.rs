//! What a ListenerSet reads of Pods: whether they may hold listeners.
use std::collections::{BTreeMap, BTreeSet};

use super::{
    Pod, PodPhase,
    ends::ends,
    listener_set::{Course, SetPod},
    views::PodView,
};
use crate::api::names;

/// A Pod outside a Rollout that has an agent.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentPod {
    /// The Pod.
    pub pod: SetPod,
    /// Its labels, for selectors.
    pub labels: BTreeMap<String, String>,
    /// ListenerSets that may give it listeners, from the annotation.
    pub accepts: BTreeSet<String>,
}

impl AgentPod {
    /// Whether it has all of these labels.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.iter().all(|(name, value)| self.labels.get(name) == Some(value))
    }
}

impl From<PodView> for AgentPod {
    fn from(view: PodView) -> Self {
        let ends = ends(&view.spec, &view.status);
        let PodView { metadata, spec, status, .. } = view;
        let labels = metadata.labels.unwrap_or_default();
        let accepts = metadata.annotations.as_ref().and_then(|notes| notes.get(names::ANNOTATION_LISTENER_SETS));
        let accepts = accepts.into_iter().flat_map(|sets| sets.split(',')).map(|set| set.trim().to_owned()).collect();
        let is_terminating = metadata.deletion_timestamp.is_some();
        let is_finished = matches!(PodPhase::read(status.phase.as_deref()), PodPhase::Failed | PodPhase::Succeeded);
        let is_ready =
            status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        let pod = SetPod {
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            resource_version: metadata.resource_version.unwrap_or_default(),
            slot: labels.get(names::LABEL_POD_INDEX).and_then(|index| index.parse().ok()),
            node: spec.node_name,
            course: Course::without_rollout(is_terminating),
            is_ready: is_ready && !is_terminating && !is_finished,
            is_terminating,
            grace_seconds: spec.termination_grace_period_seconds,
            ends,
        };
        Self { pod, labels, accepts }
    }
}

impl Course {
    /// Of a Pod that no Rollout speaks of.
    fn without_rollout(is_terminating: bool) -> Self {
        if is_terminating { Self::Leaves } else { Self::Target }
    }
}

impl From<&Pod> for SetPod {
    /// With the course of a Pod that no Rollout speaks of.
    fn from(pod: &Pod) -> Self {
        let is_terminating = pod.deletion.is_some();
        Self {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            resource_version: pod.resource_version.clone(),
            slot: Some(pod.slot),
            node: pod.node.clone(),
            course: Course::without_rollout(is_terminating),
            is_ready: pod.is_ready(),
            is_terminating,
            grace_seconds: pod.grace_seconds,
            ends: pod.ends.clone(),
        }
    }
}
