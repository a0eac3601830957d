//! A Pod, reduced to what decisions need.
mod in_place;
mod resize;

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Exit, InPlace, Resize, package::Fetched, specimen::Specimen};

/// One Pod of ours.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Pod {
    /// Object name; says nothing but itself.
    pub name: String,
    /// Object uid.
    pub uid: String,
    /// Object resourceVersion.
    pub resource_version: String,
    /// Slot, from the label.
    pub slot: i32,
    /// Name of the ControllerRevision, from the label.
    pub revision: String,
    /// Version for people, from the annotation.
    pub version: String,
    /// creationTimestamp.
    pub created: Timestamp,
    /// The latest restart or retry that it was made after, from the annotation.
    pub restarted_at: Option<Timestamp>,
    /// It has failed and is kept for a look; None: it is in its slot.
    pub specimen: Option<Specimen>,
    /// What it remembers of its last change in place; None: it is as it was made.
    pub in_place: Option<InPlace>,
    /// How far it is with the resources that this says; None: none are due.
    pub resize: Option<Resize>,
    /// Its status is one of its present spec, as far as the kubelet says of which one it is.
    pub is_observed: bool,
    /// It cannot be read: it is there, and says nothing. It is left alone.
    pub is_unreadable: bool,
    /// deletionTimestamp: the time at which the grace period ends.
    pub deletion: Option<Timestamp>,
    /// status.phase.
    pub phase: PodPhase,
    /// status.reason, such as Evicted.
    pub reason: Option<String>,
    /// status.message.
    pub message: Option<String>,
    /// Its template asks for an agent.
    pub has_agent: bool,
    /// Whether it is in service, as its readiness gate says; None: it has no such gate.
    pub in_service: Option<bool>,
    /// Since when the gate says so, by an operator's clock.
    pub in_service_since: Option<Timestamp>,
    /// Since when the ContainersReady condition is True: with a closed gate the Ready condition is not.
    pub containers_ready_since: Option<Timestamp>,
    /// Whether it is drained, as its condition says; None: that has not been said.
    pub drained: Option<bool>,
    /// terminationGracePeriodSeconds.
    pub grace_seconds: Option<i64>,
    /// Since when the Ready condition is True.
    pub ready_since: Option<Timestamp>,
    /// Since when it is False.
    pub unready_since: Option<Timestamp>,
    /// When the Initialized condition became True.
    pub initialized_at: Option<Timestamp>,
    /// status.startTime: when a node accepted it.
    pub started_at: Option<Timestamp>,
    /// PodScheduled=False: the scheduler's sentence.
    pub unschedulable: Option<String>,
    /// Reason of a true DisruptionTarget condition: another component ends this Pod.
    pub disruption: Option<String>,
    /// spec.nodeName.
    pub node: Option<String>,
    /// status.podIP.
    pub ip: Option<String>,
    /// Its address is its node's.
    pub on_host_network: bool,
    /// When one of its containers last started or ended.
    pub containers_changed_at: Option<Timestamp>,
    /// Init containers first, then containers, in the status' order.
    pub containers: Vec<Container>,
    /// What became of its package, as far as the init container has said; None: it has none, or is at it.
    pub package: Option<Fetched>,
    /// Ends of containers that say that an agent is dead: empty for a Pod in which none has ended.
    pub ends: PodEnds,
    /// Its labels, where no object controls it: whether a Rollout adopts it rests on them.
    pub loose_labels: Option<Box<BTreeMap<String, String>>>,
}

/// status.phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodPhase {
    /// Accepted, not running yet.
    #[default]
    Pending,
    /// At least one container runs or is being restarted.
    Running,
    /// All containers ended well.
    Succeeded,
    /// A container ended badly and is not restarted, or the node ended the Pod.
    Failed,
    /// The node is silent.
    Unknown,
}

impl PodPhase {
    pub(super) fn read(phase: Option<&str>) -> Self {
        match phase {
            Some("Running") => Self::Running,
            Some("Succeeded") => Self::Succeeded,
            Some("Failed") => Self::Failed,
            Some("Unknown") => Self::Unknown,
            _ => Self::Pending,
        }
    }
}

/// One container's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// True for an init container, native sidecars included.
    pub init: bool,
    /// ready.
    pub ready: bool,
    /// restartCount.
    pub restarts: i32,
    /// What it does now.
    pub state: ContainerState,
    /// How it ended last, if it did.
    pub last_exit: Option<Exit>,
    /// containerID of what runs, or has run last; empty where nothing has.
    pub id: String,
    /// The image that the Pod's spec gives it.
    pub given: String,
    /// The image of what runs, as the runtime calls it.
    pub image: String,
    /// Its imageID.
    pub image_id: String,
    /// Since when it runs.
    pub started_at: Option<Timestamp>,
}

impl Container {
    /// Digest of its image, such as `sha256:0f…`, where its node tells one that a registry knows.
    pub fn digest(&self) -> Option<&str> {
        let (_, digest) = self.image_id.rsplit_once('@')?;
        let digits = digest.strip_prefix("sha256:")?;
        (digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())).then_some(digest)
    }
}

/// What a container does now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Not running yet.
    Waiting {
        /// Such as ContainerCreating or ImagePullBackOff.
        reason: String,
        /// The kubelet's sentence.
        message: String,
    },
    /// Running.
    Running,
    /// Ended.
    Terminated(Exit),
}

/// A `terminated` state of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerEnd {
    /// containerID; without one the kubelet reports what it does not know.
    pub container_id: Option<String>,
    /// startedAt, in whole seconds.
    pub started_at: Option<Timestamp>,
    /// finishedAt, in whole seconds.
    pub finished_at: Option<Timestamp>,
}

/// Ends of the containers whose end says that a boot is dead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodEnds {
    /// Of the container that the agent runs in.
    pub agent: Vec<ContainerEnd>,
    /// Of every other container that may run what the agent gave it: the applications beside a sidecar.
    pub applications: Vec<Vec<ContainerEnd>>,
}

/// A container without a state waits: that is what the API means by absence.
impl Default for ContainerState {
    fn default() -> Self {
        Self::Waiting { reason: String::new(), message: String::new() }
    }
}

impl Pod {
    /// Neither terminating nor finished.
    pub fn is_live(&self) -> bool {
        self.deletion.is_none() && !self.is_finished()
    }

    /// Failed or Succeeded: it will never run again.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, PodPhase::Failed | PodPhase::Succeeded)
    }

    /// Made before `at`, a restart or retry that was asked for: by the API server's clock, and not after having seen it.
    pub fn precedes(&self, at: Timestamp) -> bool {
        self.created < at && self.restarted_at.is_none_or(|restarted_at| restarted_at < at)
    }

    /// The same, and given no other image since, nor anything to reload: what it runs is of before.
    pub fn runs_since_before(&self, at: Timestamp) -> bool {
        self.precedes(at) && self.changed_at().is_none_or(|changed_at| changed_at < at)
    }

    /// Live and Ready, and not about to leave service: the kubelet follows the gate a moment later.
    pub fn is_ready(&self) -> bool {
        self.is_live() && self.ready_since.is_some() && self.in_service != Some(false)
    }

    /// When it becomes, or became, available: Ready for `min_ready_seconds`. None while not ready.
    pub fn available_at(&self, min_ready_seconds: i32) -> Option<Timestamp> {
        let since = self.ready_since.filter(|_| self.is_ready())?;
        // A container may be exchanged more quickly than the kubelet says that it was gone.
        let since = self.swapped_at().map_or(since, |at| at.max(since));
        Some(
            since.saturating_add(jiff::SignedDuration::from_secs(i64::from(min_ready_seconds.max(0)))).unwrap_or(since),
        )
    }

    /// Ready for `min_ready_seconds` at `now`, with the images that it was given. Where these are 0 no clock is asked: the
    /// node's may be ahead of ours, and Ready is a fact.
    pub fn is_available(&self, min_ready_seconds: i32, now: Timestamp) -> bool {
        self.is_ready() && self.in_transit(now).is_none() && self.ripe_later(min_ready_seconds, now).is_none()
    }

    /// When a Pod that is Ready, or out of service until it is believed to run what it was given, gets further by itself, where
    /// that is later than `now`.
    pub fn available_later(&self, min_ready_seconds: i32, now: Timestamp) -> Option<Timestamp> {
        match self.in_transit(now) {
            Some(transit) => transit.until,
            None => self.ripe_later(min_ready_seconds, now),
        }
    }

    fn ripe_later(&self, min_ready_seconds: i32, now: Timestamp) -> Option<Timestamp> {
        if min_ready_seconds <= 0 {
            return None;
        }
        self.available_at(min_ready_seconds).filter(|at| *at > now)
    }
}
