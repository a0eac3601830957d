//! Changes in place, one by one: whether, at what pace, and out of service meanwhile.
use std::collections::{BTreeMap, BTreeSet};

use super::{Alarm, after, replicas};
use crate::{
    api::{
        IntOrPercent, RolloutSpec,
        rollout::{Strategy, StrategyType, UpdateMethod},
    },
    plan::{Change, in_place::permitted},
    snapshot::{ChangeRefusal, Pod, Revision, Snapshot},
};

/// See [`is_chosen`].
const NONE_MAY_MISS: &str = "spec.strategy.maxUnavailable is 0, and no instance may be missing while its containers start anew: set it to 1 or more";

/// How the Pod of a slot comes to another revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Another Pod takes its place; why, where `spec.strategy.update` asks for another way.
    Replace(Option<String>),
    /// It stays, and is changed; whether a container is started anew by that, and whether one gets other resources.
    InPlace { restarts: bool, resizes: bool },
    /// By none that `spec.strategy.update` permits: a sentence that names the field.
    None(String),
}

/// How Pods of `from` come to `to`.
pub(super) fn way(snapshot: &Snapshot, from: &str, to: &Revision) -> Way {
    let strategy = &snapshot.rollout.spec.strategy;
    if !is_chosen(strategy) {
        let is_asked = strategy.type_ == StrategyType::Batched && strategy.update != UpdateMethod::Replace;
        return Way::Replace(is_asked.then(|| NONE_MAY_MISS.to_owned()));
    }
    if let Some(refusal) = snapshot.change_refusals.get(&to.name).filter(|refusal| refusal.retry_at > snapshot.now) {
        return refused(strategy, refusal);
    }
    let known = snapshot.revisions.iter().rev().find(|revision| revision.name == from);
    let found = known.ok_or_else(|| format!("ControllerRevision {from} is gone, what differs is not known"));
    match found.and_then(|from| permitted(strategy.update, &from.data, &to.data)) {
        Ok(difference) => Way::InPlace { restarts: difference.restarts(), resizes: difference.resizes() },
        Err(why) if strategy.update != UpdateMethod::InPlaceOnly => Way::Replace(Some(why)),
        Err(why) => Way::None(format!(
            "{why}; spec.strategy.update is InPlaceOnly: change it to InPlaceIfPossible, or that field back"
        )),
    }
}

/// How Pods come to what the API server has just refused to give them.
pub(super) fn refused(strategy: &Strategy, refusal: &ChangeRefusal) -> Way {
    let why = format!("the API server refuses the change of Pods in place: {}", refusal.message);
    if strategy.update == UpdateMethod::InPlaceOnly { Way::None(why) } else { Way::Replace(Some(why)) }
}

/// Pods are changed in place where that can be. With maxUnavailable explicitly 0 none may be without a container for a
/// moment: then another Pod takes over.
pub(super) fn is_chosen(strategy: &Strategy) -> bool {
    let none_may_miss = match &strategy.max_unavailable {
        IntOrPercent::Count(count) => *count <= 0,
        IntOrPercent::Percent(percent) => percent == "0%",
    };
    match strategy.update {
        _ if strategy.type_ != StrategyType::Batched => false,
        UpdateMethod::Replace => false,
        UpdateMethod::InPlaceIfPossible => !none_may_miss,
        UpdateMethod::InPlaceOnly | UpdateMethod::HotReload => true,
    }
}

/// Fewest instances that must stay available while one is changed in place: no surge stands in for it, so at least one may
/// be missing.
pub(super) fn available_min(spec: &RolloutSpec) -> i32 {
    let replicas = replicas(spec);
    replicas - spec.strategy.max_unavailable.rounded_down(replicas).clamp(1.min(replicas), replicas)
}

/// It has a gate, or is in nobody's service.
pub(super) fn can_leave_service(pod: &Pod) -> bool {
    pod.in_service.is_some() || !pod.is_ready()
}

/// How long after its gate was closed a Pod is left alone: the kubelet says that it is not Ready, and those who send to it
/// hear of that.
const SETTLE_SECONDS: i64 = 2;

/// Pods whose containers are to be ended in place leave service first: those that have not done so for long enough are not
/// changed now. Returns the names of all, and what is said on Pods. A Pod without gate cannot say it.
pub(super) fn leave_service(
    snapshot: &Snapshot,
    changes: &mut Vec<Change>,
    alarm: &mut Alarm,
) -> (BTreeSet<String>, Vec<Change>) {
    let (mut leaving, mut says) = (BTreeSet::new(), Vec::new());
    if !changes.iter().any(|change| matches!(change, Change::ChangeInPlace { .. })) {
        return (leaving, says);
    }
    let pods: BTreeMap<&str, &Pod> = snapshot.pods.iter().map(|pod| (pod.uid.as_str(), &**pod)).collect();
    changes.retain(|change| {
        let Change::ChangeInPlace { name, uid, resource_version, restarts: true, .. } = change else { return true };
        leaving.insert(name.clone());
        let Some(pod) = pods.get(uid.as_str()) else { return false };
        // A clock that was set back makes nobody wait.
        let since = pod.in_service_since.filter(|since| *since <= snapshot.now);
        let has_left = match pod.in_service {
            None => true,
            Some(true) => false,
            Some(false) => {
                let is_settled = since.is_none_or(|since| alarm.passed(after(since, SETTLE_SECONDS)));
                is_settled && pod.ready_since.is_none()
            }
        };
        if pod.in_service == Some(true) {
            says.push(Change::SetInService {
                name: name.clone(),
                uid: uid.clone(),
                resource_version: resource_version.clone(),
                in_service: false,
                session_ready: None,
            });
        }
        has_left
    });
    (leaving, says)
}
