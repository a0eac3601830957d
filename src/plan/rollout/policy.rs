//! What `spec.strategy` asks for. The steps of the planner ask this file, not the strategy's fields.
use crate::{
    api::{
        IntOrPercent, RolloutSpec,
        keep_failed::KeepFailed,
        rollout::{BlueGreen, HotReload, Strategy, StrategyType, UpdateMethod},
    },
    snapshot::Snapshot,
};

/// Wanted instances, within the bounds even when the CRD was bypassed.
pub(crate) fn replicas(spec: &RolloutSpec) -> i32 {
    spec.replicas.clamp(0, crate::api::bounds::REPLICAS_MAX)
}

/// Most Pods at once.
pub fn total_max(spec: &RolloutSpec) -> i32 {
    let replicas = replicas(spec);
    match spec.strategy.type_ {
        StrategyType::Batched => replicas.saturating_add(spec.strategy.max_surge.rounded_up(replicas)),
        StrategyType::Recreate => replicas,
        StrategyType::BlueGreen => replicas.saturating_mul(2),
    }
}

/// Fewest instances that are to be available, and with strategy Batched stay so while Pods are replaced.
pub fn available_min(spec: &RolloutSpec) -> i32 {
    let replicas = replicas(spec);
    if spec.strategy.type_.is_at_once() {
        return replicas;
    }
    let mut unavailable = spec.strategy.max_unavailable.rounded_down(replicas);
    if unavailable == 0 && spec.strategy.max_surge.rounded_up(replicas) == 0 {
        unavailable = 1; // as a Deployment: percentages that both come to nothing must not stop the rollout
    }
    replicas - unavailable.min(replicas)
}

/// Fewest instances that must stay available while one is changed in place: no surge stands in for it, so at least one may
/// be missing.
pub(crate) fn available_min_in_place(spec: &RolloutSpec) -> i32 {
    let replicas = replicas(spec);
    replicas - spec.strategy.max_unavailable.rounded_down(replicas).clamp(1.min(replicas), replicas)
}

/// The same, also where Pods are changed in place: what people are told.
pub fn fewest_available(spec: &RolloutSpec) -> i32 {
    let of_replacements = available_min(spec);
    if is_in_place(&spec.strategy) && spec.strategy.update.restarts() {
        of_replacements.min(available_min_in_place(spec))
    } else {
        of_replacements
    }
}

/// Pods are changed in place where that can be. With maxUnavailable explicitly 0 none may be without a container for a
/// moment: then another Pod takes over.
pub(crate) fn is_in_place(strategy: &Strategy) -> bool {
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

pub(crate) fn is_recreate(snapshot: &Snapshot) -> bool {
    snapshot.rollout.spec.strategy.type_ == StrategyType::Recreate
}

/// Settings of strategy BlueGreen.
pub(crate) fn blue_green(snapshot: &Snapshot) -> Option<&BlueGreen> {
    let strategy = &snapshot.rollout.spec.strategy;
    strategy.blue_green.as_ref().filter(|_| strategy.type_ == StrategyType::BlueGreen)
}

/// How applications are told of a change, with update HotReload.
pub(crate) fn hot_reload(snapshot: &Snapshot) -> Option<&HotReload> {
    let strategy = &snapshot.rollout.spec.strategy;
    strategy.hot_reload.as_ref().filter(|_| strategy.update == UpdateMethod::HotReload)
}

/// How many there may be, and for how long; None where none are kept.
pub(crate) fn keep_failed(snapshot: &Snapshot) -> Option<KeepFailed> {
    let strategy = &snapshot.rollout.spec.strategy;
    let has_surge = match strategy.type_ {
        // At 0 replicas each percentage is 0 Pods; a Pod that is kept already stays.
        StrategyType::Batched => strategy.max_surge.rounded_up(replicas(&snapshot.rollout.spec).max(1)) > 0,
        StrategyType::Recreate => false,
        StrategyType::BlueGreen => true,
    };
    strategy.keep_failed.filter(|_| has_surge)
}
