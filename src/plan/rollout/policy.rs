//! What `spec.strategy` asks for, resolved once into values. The steps of the planner ask these, not the strategy's fields, so
//! that a new strategy is a new combination here.
use crate::api::{
    IntOrPercent, RolloutSpec,
    bounds::REPLICAS_MAX,
    keep_failed::KeepFailed,
    rollout::{BlueGreen, HotReload, OnFailure, Strategy, StrategyType, UpdateMethod},
};

/// What a Rollout's strategy comes to with its present number of replicas.
#[derive(Clone, Copy, Debug)]
pub struct Policy<'a> {
    /// Wanted instances, within the bounds even when the CRD was bypassed.
    pub replicas: i32,
    /// Whether Pods of two revisions may run at the same time.
    pub coexistence: Coexistence,
    /// How many Pods there may be, and how many instances may be missing.
    pub room: Room,
    /// How a Pod comes to another revision.
    pub update: Update<'a>,
    /// What goes back when the revision has failed.
    pub goes_back: GoesBack,
    /// How clients come to the Pods.
    pub traffic: Traffic<'a>,
    /// How many failed Pods are kept for a look, and for how long.
    pub keeps_failed: Option<KeepFailed>,
}

/// Whether Pods of two revisions may run at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coexistence {
    /// They may.
    SideBySide,
    /// No Pod is created while one of another revision is alive.
    OneAtATime,
}

/// How many Pods there may be, and how many instances may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Most Pods at once.
    pub total_max: i32,
    /// Fewest instances that are to be available, and unless all change at once stay so while Pods are replaced.
    pub available_min: i32,
    /// Fewest instances that must stay available while one is changed in place: no surge stands in for it, so at least one may
    /// be missing.
    pub available_min_in_place: i32,
}

/// How a Pod comes to another revision.
#[derive(Clone, Copy, Debug)]
pub enum Update<'a> {
    /// Another Pod takes its place. `not_in_place`: why, if `spec.strategy.update` asks for another way.
    Replace {
        /// A sentence that names the field and the remedy.
        not_in_place: Option<&'static str>,
    },
    /// It stays, where what differs can be given to it.
    InPlace {
        /// It is never replaced for that.
        only: bool,
        /// Its application is to reload what it was given: only labels and annotations may differ.
        reloads: bool,
        /// How the application is asked to.
        hot_reload: Option<&'a HotReload>,
    },
}

/// What goes back to the stable revision when the new one has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoesBack {
    /// All instances.
    All,
    /// Those that have failed.
    FailedOnly,
    /// None: a person decides.
    Nothing,
}

/// How clients come to the Pods.
#[derive(Clone, Copy, Debug)]
pub enum Traffic<'a> {
    /// By Services that Baton does not touch.
    Unmanaged,
    /// By Services that Baton switches from one set of Pods to the other.
    Switched(&'a BlueGreen),
}

/// Why no Pod is changed in place although that is asked for.
const NONE_MAY_MISS: &str = "spec.strategy.maxUnavailable is 0, and no instance may be missing while its containers start anew: set it to 1 or more";

impl<'a> Policy<'a> {
    /// Of this spec.
    pub fn of(spec: &'a RolloutSpec) -> Self {
        let strategy = &spec.strategy;
        let replicas = spec.replicas.clamp(0, REPLICAS_MAX);
        let (coexistence, traffic) = match (strategy.type_, &strategy.blue_green) {
            (StrategyType::Batched, _) | (StrategyType::BlueGreen, None) => {
                (Coexistence::SideBySide, Traffic::Unmanaged)
            }
            (StrategyType::Recreate, _) => (Coexistence::OneAtATime, Traffic::Unmanaged),
            (StrategyType::BlueGreen, Some(settings)) => (Coexistence::SideBySide, Traffic::Switched(settings)),
        };
        Self {
            replicas,
            coexistence,
            room: Room::of(strategy, replicas),
            update: Update::of(strategy),
            goes_back: match strategy.on_failure {
                OnFailure::Rollback => GoesBack::All,
                OnFailure::RollbackFailed => GoesBack::FailedOnly,
                OnFailure::Pause => GoesBack::Nothing,
            },
            traffic,
            keeps_failed: keeps_failed(strategy, replicas),
        }
    }

    /// No Pod is created while one of another revision is alive.
    pub fn is_one_at_a_time(&self) -> bool {
        self.coexistence == Coexistence::OneAtATime
    }

    /// Settings of the Services that are switched.
    pub fn switched(&self) -> Option<&'a BlueGreen> {
        match self.traffic {
            Traffic::Switched(settings) => Some(settings),
            Traffic::Unmanaged => None,
        }
    }

    /// Fewest instances that are available at any time, in whichever way Pods change: what people read.
    pub fn fewest_available(&self) -> i32 {
        match self.update {
            Update::InPlace { reloads: false, .. } => self.room.available_min.min(self.room.available_min_in_place),
            Update::InPlace { reloads: true, .. } | Update::Replace { .. } => self.room.available_min,
        }
    }
}

impl Room {
    fn of(strategy: &Strategy, replicas: i32) -> Self {
        let surge = strategy.max_surge.rounded_up(replicas);
        let unavailable = strategy.max_unavailable.rounded_down(replicas);
        let (total_max, may_miss) = match strategy.type_ {
            // As a Deployment: percentages that both come to nothing must not stop the rollout.
            StrategyType::Batched if unavailable == 0 && surge == 0 => (replicas, 1),
            StrategyType::Batched => (replicas.saturating_add(surge), unavailable),
            StrategyType::Recreate => (replicas, 0),
            StrategyType::BlueGreen => (replicas.saturating_mul(2), 0),
        };
        Self {
            total_max,
            available_min: replicas - may_miss.min(replicas),
            available_min_in_place: replicas - unavailable.clamp(1.min(replicas), replicas),
        }
    }
}

impl<'a> Update<'a> {
    /// With maxUnavailable explicitly 0 no Pod may be without a container for a moment: then another Pod takes over.
    fn of(strategy: &'a Strategy) -> Self {
        let none_may_miss = match &strategy.max_unavailable {
            IntOrPercent::Count(count) => *count <= 0,
            IntOrPercent::Percent(percent) => percent == "0%",
        };
        match (strategy.type_, strategy.update) {
            (StrategyType::Recreate | StrategyType::BlueGreen, _) | (_, UpdateMethod::Replace) => {
                Self::Replace { not_in_place: None }
            }
            (_, UpdateMethod::InPlaceIfPossible) if none_may_miss => {
                Self::Replace { not_in_place: Some(NONE_MAY_MISS) }
            }
            (_, UpdateMethod::InPlaceIfPossible) => Self::InPlace { only: false, reloads: false, hot_reload: None },
            (_, UpdateMethod::InPlaceOnly) => Self::InPlace { only: true, reloads: false, hot_reload: None },
            (_, UpdateMethod::HotReload) => {
                Self::InPlace { only: false, reloads: true, hot_reload: strategy.hot_reload.as_ref() }
            }
        }
    }

    /// A Pod is never replaced where it can be changed, nor where it cannot.
    pub fn is_in_place_only(&self) -> bool {
        matches!(self, Self::InPlace { only: true, .. })
    }

    /// Applications are to reload what their Pods are given.
    pub fn reloads(&self) -> bool {
        matches!(self, Self::InPlace { reloads: true, .. })
    }

    /// How applications are asked to reload what their Pods were given.
    pub fn hot_reload(&self) -> Option<&'a HotReload> {
        match self {
            Self::InPlace { hot_reload, .. } => *hot_reload,
            Self::Replace { .. } => None,
        }
    }
}

/// None where none are kept.
fn keeps_failed(strategy: &Strategy, replicas: i32) -> Option<KeepFailed> {
    let has_surge = match strategy.type_ {
        // At 0 replicas each percentage is 0 Pods; a Pod that is kept already stays.
        StrategyType::Batched => strategy.max_surge.rounded_up(replicas.max(1)) > 0,
        StrategyType::Recreate => false,
        StrategyType::BlueGreen => true,
    };
    strategy.keep_failed.filter(|_| has_surge)
}
