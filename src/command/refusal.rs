//! Why a change is not made.

/// Why a change is not made: a sentence that says what to do instead. `rollout` is the Rollout's name in each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// An answer to the status would be one to something else.
    #[error(
        "{rollout}: no operator has seen the present spec; `kubectl get deployments -A -l app.kubernetes.io/name=baton` tells whether one runs"
    )]
    Unseen {
        /// Name.
        rollout: String,
    },
    /// No run is on.
    #[error("{rollout}: no run is on ({reason}), there is nothing to approve")]
    NothingToApprove {
        /// Name.
        rollout: String,
        /// STATUS.
        reason: String,
    },
    /// The run waits for something else.
    #[error("{rollout} does not wait for approval ({reason}: {message}); --to-end approves what is to come")]
    NotWaiting {
        /// Name.
        rollout: String,
        /// STATUS.
        reason: String,
        /// MESSAGE.
        message: String,
    },
    /// No run towards a new version is on.
    #[error("{rollout}: no run is on that could be given up ({reason}); `kubectl baton undo {rollout}` goes back")]
    NothingToAbort {
        /// Name.
        rollout: String,
        /// STATUS.
        reason: String,
    },
    /// Nothing has completed before.
    #[error("{rollout}: no version has completed yet, there is none to go back to: change the spec")]
    NoEarlierVersion {
        /// Name.
        rollout: String,
    },
    /// Nothing has failed.
    #[error(
        "{rollout}: nothing has failed that could be tried again; `kubectl baton restart {rollout}` makes new Pods"
    )]
    NothingFailed {
        /// Name.
        rollout: String,
    },
    /// It is paused.
    #[error("{rollout} is paused already")]
    PausedAlready {
        /// Name.
        rollout: String,
    },
    /// It is not paused.
    #[error("{rollout} is not paused")]
    NotPaused {
        /// Name.
        rollout: String,
    },
    /// There is no such revision, or which one is meant is not known.
    #[error("{rollout}: {why}")]
    NoRevision {
        /// Name.
        rollout: String,
        /// A sentence with those there are.
        why: String,
    },
    /// No revision has this number.
    #[error("{rollout} has no revision {number}{others}")]
    NoRevisionOfNumber {
        /// Name.
        rollout: String,
        /// The number.
        number: i64,
        /// Which there are: follows the number.
        others: String,
    },
    /// The spec asks for that.
    #[error("{rollout}: the spec asks for {version} ({revision}) already")]
    AskedAlready {
        /// Name.
        rollout: String,
        /// Version for people.
        version: String,
        /// Name of the ControllerRevision.
        revision: String,
    },
    /// No instance has failed, and failed ones were meant.
    #[error("{rollout}: no instance has failed; --instances chooses others")]
    NoInstanceFailed {
        /// Name.
        rollout: String,
    },
    /// The Rollout has fewer instances.
    #[error("there is no {instance}: {rollout} has {replicas} instances, from 0")]
    NoInstance {
        /// Name.
        rollout: String,
        /// Name of the instance.
        instance: String,
        /// spec.replicas.
        replicas: i32,
    },
    /// The instances are pinned so.
    #[error("{rollout}: instances {instances} are pinned to {version} already; --to chooses another version")]
    PinnedAlready {
        /// Name.
        rollout: String,
        /// Such as `3,5-7`.
        instances: String,
        /// Version for people.
        version: String,
    },
    /// None of the instances is pinned.
    #[error("{rollout}: none of these instances is pinned; `kubectl baton get {rollout}` shows which are")]
    NotPinned {
        /// Name.
        rollout: String,
    },
    /// An image without a container's name, where there are several.
    #[error("{rollout} has several containers: write CONTAINER=IMAGE; it has {known}")]
    WhichContainer {
        /// Name.
        rollout: String,
        /// Names of the containers.
        known: String,
    },
    /// There is no such container.
    #[error("{rollout} has no container \"{container}\"; it has {known}")]
    NoContainer {
        /// Name.
        rollout: String,
        /// The name that was asked for.
        container: String,
        /// Names of the containers.
        known: String,
    },
    /// One container is given two images.
    #[error("{container} is given two images: {one} and {other}")]
    TwoImages {
        /// Name of the container.
        container: String,
        /// An image.
        one: String,
        /// Another.
        other: String,
    },
    /// There is no package yet.
    #[error("{rollout} has no spec.package: apply one first, which says its mountPath")]
    NoPackage {
        /// Name.
        rollout: String,
    },
}

impl Refusal {
    /// The request contradicts itself: no state of the Rollout could make it right.
    pub fn is_misuse(&self) -> bool {
        matches!(self, Self::TwoImages { .. })
    }
}
