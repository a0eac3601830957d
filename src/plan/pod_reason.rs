//! Why a Pod is created, deleted or changed.

/// Why a Pod is created, deleted or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PodReason {
    /// The slot has no Pod: it is new, or its Pod was lost.
    Refill,
    /// The slot is beyond replicas.
    Scale,
    /// The slot's revision changes, towards the update revision.
    Forward,
    /// The slot's revision changes, back to the stable revision.
    Back,
    /// The slot was pinned to another revision, or its pin was removed.
    Pin,
    /// spec.restartAt or spec.retryAt asked for a new Pod.
    Restart,
    /// Its set is neither in use nor to be (strategy BlueGreen).
    Superseded,
    /// The slot has a better Pod; or one that is Ready, while this one is not and another slot waits for its room.
    Surplus,
    /// The Pod has finished (Failed, Succeeded, evicted) and is cleared away.
    Finished,
    /// The Pod has failed and was kept for a look, which is over.
    Kept,
}

impl PodReason {
    /// Stable label for metrics, events and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refill => "Refill",
            Self::Scale => "Scale",
            Self::Forward => "Forward",
            Self::Back => "Back",
            Self::Pin => "Pin",
            Self::Restart => "Restart",
            Self::Superseded => "Superseded",
            Self::Surplus => "Surplus",
            Self::Finished => "Finished",
            Self::Kept => "Kept",
        }
    }
}
