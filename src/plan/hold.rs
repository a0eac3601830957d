//! Why something is not done now.
use jiff::Timestamp;

use crate::api::hooks::Point;

/// Why something is not done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Stable word.
    pub reason: HoldReason,
    /// A sentence with absolute times; becomes status.waitingFor.
    pub message: String,
    /// When it may end by itself.
    pub until: Option<Timestamp>,
}

/// Names of the gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HoldReason {
    /// The object is being deleted: only teardown.
    Deleting,
    /// The spec contradicts itself in a way the CRD did not catch.
    SpecInvalid,
    /// The API server refuses Pods of the revision.
    TemplateRefused,
    /// The API server has not said yet whether it accepts Pods of the revision, or gives one the resources of it.
    TemplateUnchecked,
    /// Failed instances reached the threshold and onFailure is Pause.
    FailureThreshold,
    /// An instance was not available in time and nothing further happens by itself.
    ProgressDeadline,
    /// spec.paused.
    Paused,
    /// The opened batches are not done.
    PreviousBatchNotHealthy,
    /// A pause with seconds after the batch.
    PauseTimer,
    /// A pause without seconds after the batch.
    AwaitingApproval,
    /// A hook runs, or is to begin: at this point, which is due; or, without one, of an earlier run.
    RunningHook(Option<Point>),
    /// The instances are watched before the run completes.
    Soaking,
    /// A create was refused and waits for its next try.
    CreateRefused,
    /// Something keeps pinned instances from running what they are pinned to, or all are pinned.
    Pinned,
    /// `spec.strategy.update` is InPlaceOnly, and what differs cannot be given to a Pod in place.
    NotInPlace,
    /// Pods that are to leave hand their listeners over first.
    HandingOver,
    /// Pods that are to leave are drained first.
    Draining,
    /// No instance answers its health checks at all, nor does one of the stable version.
    CheckUnreachable,
    /// The budget of unavailable and surplus Pods is used up.
    Budget,
    /// Pods of another revision have yet to end (strategies Recreate and BlueGreen).
    OldPods,
    /// A Service of the strategy BlueGreen has not been read yet.
    ServiceUnread,
    /// There is no such Service.
    ServiceMissing,
    /// It does not select the Rollout's Pods, or another Rollout names it.
    ServiceInvalid,
}

impl HoldReason {
    /// The point at which hooks are due, and hold all else.
    pub fn due_point(self) -> Option<Point> {
        if let Self::RunningHook(point) = self { point } else { None }
    }

    /// Stable label for conditions, metrics and the plugin.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deleting => "Deleting",
            Self::SpecInvalid => "SpecInvalid",
            Self::TemplateRefused => "TemplateRefused",
            Self::TemplateUnchecked => "TemplateUnchecked",
            Self::FailureThreshold => "FailureThreshold",
            Self::ProgressDeadline => "ProgressDeadline",
            Self::Paused => "Paused",
            Self::PreviousBatchNotHealthy => "PreviousBatchNotHealthy",
            Self::PauseTimer => "PauseTimer",
            Self::AwaitingApproval => "AwaitingApproval",
            Self::RunningHook(_) => "RunningHook",
            Self::Soaking => "Soaking",
            Self::CreateRefused => "CreateRefused",
            Self::Pinned => "Pinned",
            Self::NotInPlace => "NotInPlace",
            Self::HandingOver => "HandingOver",
            Self::Draining => "Draining",
            Self::CheckUnreachable => "CheckUnreachable",
            Self::Budget => "Budget",
            Self::OldPods => "OldPods",
            Self::ServiceUnread => "ServiceUnread",
            Self::ServiceMissing => "ServiceMissing",
            Self::ServiceInvalid => "ServiceInvalid",
        }
    }
}
