//! The planner's words: changes, memory.
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;

pub use super::hold::{Hold, HoldReason};
use crate::{
    api::status::{Attempt, BatchStatus, Failed},
    plan::in_place::NotInPlace,
    snapshot::{Pod, Revision, Switched},
};

/// What to do next for one Rollout.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// What status must remember. When it differs from what status says, it is written (PUT with resourceVersion) and
    /// `changes` is empty: what follows from it comes with the next look, once the watch has echoed the write.
    pub memory: Memory,
    /// Writes, independent of each other and idempotent; in order of importance.
    pub changes: Vec<Change>,
    /// Names of Pods that are to be deleted, or given other images, once they hold no listener any more: others take these
    /// over first. None: as noted before. What it would follow from does not stand in status yet.
    pub leaving: Option<BTreeSet<String>>,
    /// Pods that are being replaced now, where a change in place was asked for.
    pub not_in_place: Option<NotInPlace>,
    /// The first hold of the most urgent class of work that is held; what status shows.
    pub hold: Option<Hold>,
    /// The earliest time at which something changes without an event.
    pub wake_at: Option<Timestamp>,
}

/// The part of status that decisions rest on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// status.run.
    pub run: i64,
    /// status.updateRevision: of the present spec. None before it is created.
    pub update: Option<String>,
    /// status.currentRevision: newest that completed.
    pub stable: Option<String>,
    /// status.effectiveRevision: worked towards.
    pub effective: Option<String>,
    /// status.batch: None when no run is on.
    pub batch: Option<BatchStatus>,
    /// status.failed.
    pub failed: Option<Failed>,
    /// status.attempts, sorted by (revision, attempt).
    pub attempts: Vec<Attempt>,
    /// status.services: nobody else knows which of them have to be let go one day.
    pub services: Vec<String>,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Create the ControllerRevision of the present spec, or of a pin.
    CreateRevision {
        /// Object name.
        name: String,
        /// Hash, for the label.
        hash: String,
        /// `revision`; 0 of one that no spec has asked for.
        number: i64,
        /// Canonical JSON.
        data: Value,
        /// Annotation change-cause.
        change_cause: Option<String>,
    },
    /// Write to a ControllerRevision of ours (with its uid and resourceVersion).
    MarkRevision {
        /// Object name.
        name: String,
        /// Precondition.
        uid: String,
        /// Precondition.
        resource_version: String,
        /// What to write.
        mark: RevisionMark,
    },
    /// Delete a ControllerRevision beyond the history limit (uid and resourceVersion preconditions).
    DeleteRevision {
        /// Object name.
        name: String,
        /// Precondition.
        uid: String,
        /// Precondition.
        resource_version: String,
    },
    /// Become the controller of a ControllerRevision that an earlier Rollout left behind (uid and resourceVersion preconditions).
    AdoptRevision {
        /// Object name.
        name: String,
        /// Precondition.
        uid: String,
        /// Precondition.
        resource_version: String,
    },
    /// The same of a Pod.
    AdoptPod {
        /// Object name.
        name: String,
        /// Precondition.
        uid: String,
        /// Precondition.
        resource_version: String,
    },
    /// Ask the API server, by a dry-run create, whether it accepts Pods of this revision.
    CheckTemplate {
        /// Name of the ControllerRevision.
        revision: String,
    },
    /// Ask the API server, by a dry run, whether it would give a Pod of ours the resources of a revision (uid and
    /// resourceVersion preconditions).
    CheckResize {
        /// Name of the Pod.
        name: String,
        /// Precondition.
        uid: String,
        /// Precondition.
        resource_version: String,
        /// Name of the ControllerRevision.
        revision: String,
    },
    /// Create the Pod of a slot.
    CreatePod {
        /// Object name.
        name: String,
        /// Slot.
        slot: i32,
        /// Name of the ControllerRevision.
        revision: String,
        /// The latest restart or retry that was reached when this was planned: becomes
        /// [`crate::snapshot::Pod::restarted_at`].
        restarted_at: Option<Timestamp>,
        /// Why.
        reason: PodReason,
    },
    /// Delete a Pod of ours (uid and resourceVersion preconditions), with its own grace period.
    DeletePod {
        /// Object name.
        name: String,
        /// Slot.
        slot: i32,
        /// Precondition.
        uid: String,
        /// Precondition.
        resource_version: String,
        /// Why.
        reason: PodReason,
    },
    /// Take a failed Pod of ours out of its slot and every Service, and keep it for a look (uid and resourceVersion
    /// preconditions).
    KeepPod {
        /// Object name.
        name: String,
        /// Precondition.
        uid: String,
        /// Precondition.
        resource_version: String,
        /// Until when.
        until: Timestamp,
        /// status.run.
        run: i64,
    },
    /// Give a Pod of ours what another revision says: images, labels, annotations, and a note of resources (uid and
    /// resourceVersion preconditions).
    ChangeInPlace {
        /// Object name.
        name: String,
        /// Slot.
        slot: i32,
        /// Precondition.
        uid: String,
        /// Precondition.
        resource_version: String,
        /// Name of the ControllerRevision.
        revision: String,
        /// Containers are started anew by that: others take its listeners over first.
        restarts: bool,
        /// Containers get other resources: [`Change::Resize`] follows.
        resizes: bool,
        /// Why.
        reason: PodReason,
    },
    /// Give the containers of a Pod of ours the resources that it is noted to get (uid and resourceVersion preconditions).
    Resize {
        /// Object name.
        name: String,
        /// Precondition.
        uid: String,
        /// Precondition.
        resource_version: String,
        /// Name of its ControllerRevision.
        revision: String,
    },
    /// Take that note off a Pod that has them (uid and resourceVersion preconditions).
    NoteResized {
        /// Object name.
        name: String,
        /// Precondition.
        uid: String,
        /// Precondition.
        resource_version: String,
    },
    /// Have a Service of the strategy BlueGreen select the Pods of a revision, or let it go (uid and resourceVersion
    /// preconditions).
    SwitchService {
        /// Object name.
        name: String,
        /// Precondition.
        uid: String,
        /// Precondition.
        resource_version: String,
        /// Name of the ControllerRevision. None: Pods of any, as it was before Baton set a key.
        revision: Option<String>,
        /// Labels that its selector gets beside that: those of `spec.selector`, where it has none.
        labels: BTreeMap<String, String>,
        /// What it notes about the switch, if anything.
        switched: Option<Switched>,
    },
    /// Say on a Pod whether it is in service: its readiness gate.
    SetInService {
        /// Object name.
        name: String,
        /// Precondition.
        uid: String,
        /// The version that was seen: another one may say it already.
        resource_version: String,
        /// What to say.
        in_service: bool,
        /// Whether the Pod's agent holds its session; None where nobody asks for an agent.
        session_ready: Option<bool>,
    },
    /// Tell the application of a Pod that the Pod was given other labels and annotations: a call to the Pod itself.
    TellApplication {
        /// Name of the Pod.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// Write on a Pod that its application has reloaded them (uid and resourceVersion preconditions).
    NoteReloaded {
        /// Object name.
        name: String,
        /// Precondition.
        uid: String,
        /// Precondition.
        resource_version: String,
    },
    /// Say on a Pod that leaves whether it is drained.
    SetDrained {
        /// Object name.
        name: String,
        /// Precondition.
        uid: String,
        /// The version that was seen.
        resource_version: String,
        /// What it still has, as `3 of bots`; empty: nothing, it is drained.
        busy: String,
    },
}

impl Change {
    /// Writes this mark on this ControllerRevision.
    pub(crate) fn mark(revision: &Revision, mark: RevisionMark) -> Self {
        Self::MarkRevision {
            name: revision.name.clone(),
            uid: revision.uid.clone(),
            resource_version: revision.resource_version.clone(),
            mark,
        }
    }

    /// Deletes this Pod.
    pub(crate) fn delete(pod: &Pod, reason: PodReason) -> Self {
        Self::DeletePod {
            name: pod.name.clone(),
            slot: pod.slot,
            uid: pod.uid.clone(),
            resource_version: pod.resource_version.clone(),
            reason,
        }
    }

    /// What it does, in one CamelCase word.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::CreateRevision { .. } => "CreateRevision",
            Self::MarkRevision { .. } => "MarkRevision",
            Self::DeleteRevision { .. } => "DeleteRevision",
            Self::AdoptRevision { .. } => "AdoptRevision",
            Self::AdoptPod { .. } => "AdoptPod",
            Self::CheckTemplate { .. } => "CheckTemplate",
            Self::CheckResize { .. } => "CheckResize",
            Self::CreatePod { .. } => "CreatePod",
            Self::DeletePod { .. } => "DeletePod",
            Self::KeepPod { .. } => "KeepPod",
            Self::ChangeInPlace { .. } => "ChangeInPlace",
            Self::Resize { .. } => "Resize",
            Self::NoteResized { .. } => "NoteResized",
            Self::SwitchService { .. } => "SwitchService",
            Self::SetInService { .. } => "SetInService",
            Self::TellApplication { .. } => "TellApplication",
            Self::NoteReloaded { .. } => "NoteReloaded",
            Self::SetDrained { .. } => "SetDrained",
        }
    }

    /// Name of the object it writes or asks about, or whose application it tells; for a check of a template, of the revision.
    pub fn name(&self) -> &str {
        match self {
            Self::CreateRevision { name, .. }
            | Self::MarkRevision { name, .. }
            | Self::DeleteRevision { name, .. }
            | Self::AdoptRevision { name, .. }
            | Self::AdoptPod { name, .. }
            | Self::CheckResize { name, .. }
            | Self::CreatePod { name, .. }
            | Self::DeletePod { name, .. }
            | Self::KeepPod { name, .. }
            | Self::ChangeInPlace { name, .. }
            | Self::Resize { name, .. }
            | Self::NoteResized { name, .. }
            | Self::SwitchService { name, .. }
            | Self::SetInService { name, .. }
            | Self::TellApplication { name, .. }
            | Self::NoteReloaded { name, .. }
            | Self::SetDrained { name, .. } => name,
            Self::CheckTemplate { revision } => revision,
        }
    }

    /// It takes an instance, or a container of it, out of service, or gives clients another set: only by the latest word of
    /// the Rollout.
    pub fn interrupts(&self) -> bool {
        matches!(
            self,
            Self::DeletePod { .. }
                | Self::KeepPod { .. }
                | Self::ChangeInPlace { .. }
                | Self::Resize { .. }
                | Self::SwitchService { .. }
                | Self::SetInService { in_service: false, .. }
        )
    }

    /// What it does is done for good: only by the latest word of the Rollout. A user may just have pinned an instance to that
    /// revision. What is adopted ends with the Rollout: it must not be one that is being deleted and to leave its Pods.
    pub fn is_for_good(&self) -> bool {
        let takes = matches!(self, Self::DeleteRevision { .. } | Self::AdoptRevision { .. } | Self::AdoptPod { .. });
        self.interrupts() || takes
    }

    /// Why, where there are several possible reasons; else empty.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::CreatePod { reason, .. } | Self::DeletePod { reason, .. } | Self::ChangeInPlace { reason, .. } => {
                reason.as_str()
            }
            _ => "",
        }
    }
}

/// What is written on a ControllerRevision.
#[derive(Clone, Debug, PartialEq)]
pub enum RevisionMark {
    /// It is the wanted one again: `revision` := number, failure annotations removed, change-cause := this.
    Wanted {
        /// New number, above all others.
        number: i64,
        /// Annotation change-cause.
        change_cause: Option<String>,
    },
    /// All instances were seen at it and available.
    Completed {
        /// When.
        at: Timestamp,
    },
    /// The failure threshold was reached, or the run was aborted.
    Failed {
        /// When.
        at: Timestamp,
        /// `Reason: message`.
        reason: String,
    },
    /// Its package names no checksum: what the first instance has fetched binds all others.
    Fetched {
        /// SHA-256 of that.
        sha256: String,
    },
    /// Its first Pod has become ready, with images that it names by tags.
    Ran {
        /// Their digests, by name of the container.
        images: BTreeMap<String, String>,
    },
}

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
