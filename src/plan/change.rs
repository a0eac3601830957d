//! The planner's words: changes, memory.
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;

pub use super::{
    hold::{Hold, HoldReason},
    pod_reason::PodReason,
};
use crate::{
    api::{
        hooks::{Backup, HooksStatus},
        soak::SoakStatus,
        status::{Attempt, BatchStatus, Failed},
    },
    plan::in_place::NotInPlace,
    snapshot::{HookJob, Pod, Purpose, Revision, Service, Switched},
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
    /// Names of Pods that are deleted, or changed, although they have not said in time that they are drained.
    pub drained_late: BTreeSet<String>,
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
    /// status.targetRevision: worked towards.
    pub effective: Option<String>,
    /// status.batch: None when no run is on.
    pub batch: Option<BatchStatus>,
    /// status.failed.
    pub failed: Option<Failed>,
    /// status.attempts, sorted by (revision, attempt).
    pub attempts: Vec<Attempt>,
    /// status.hooks.
    pub hooks: HooksStatus,
    /// status.soak.
    pub soak: Option<SoakStatus>,
    /// status.services: only here is it known which of them have to be let go one day.
    pub services: Vec<String>,
}

/// An object as it was seen. A write that names it fails if it is gone, is another of its name, or has changed since.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// metadata.name.
    pub name: String,
    /// metadata.uid.
    pub uid: String,
    /// metadata.resourceVersion.
    pub resource_version: String,
}

impl From<&Pod> for Seen {
    fn from(pod: &Pod) -> Self {
        Self { name: pod.name.clone(), uid: pod.uid.clone(), resource_version: pod.resource_version.clone() }
    }
}

impl From<&Revision> for Seen {
    fn from(revision: &Revision) -> Self {
        let Revision { name, uid, resource_version, .. } = revision;
        Self { name: name.clone(), uid: uid.clone(), resource_version: resource_version.clone() }
    }
}

impl From<&Service> for Seen {
    fn from(service: &Service) -> Self {
        let Service { name, uid, resource_version, .. } = service;
        Self { name: name.clone(), uid: uid.clone(), resource_version: resource_version.clone() }
    }
}

impl From<&HookJob> for Seen {
    fn from(job: &HookJob) -> Self {
        let HookJob { name, uid, resource_version, .. } = job;
        Self { name: name.clone(), uid: uid.clone(), resource_version: resource_version.clone() }
    }
}

/// One write, question or call.
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
    /// Write to a ControllerRevision of ours, or delete it.
    Revision {
        /// Precondition.
        seen: Seen,
        /// What is done.
        act: RevisionAct,
    },
    /// Write to a Pod of ours, or delete it.
    Pod {
        /// Precondition.
        seen: Seen,
        /// What is done.
        act: PodAct,
    },
    /// Have a Service of the strategy BlueGreen select the Pods of a revision, or let it go.
    Service {
        /// Precondition.
        seen: Seen,
        /// What it selects then.
        select: Selection,
    },
    /// Create the Job of a hook.
    CreateHook {
        /// Object name.
        name: String,
        /// Name of the hook.
        hook: String,
        /// The whole Job.
        job: Value,
    },
    /// Delete the Job of a hook, and its Pods.
    DeleteHook {
        /// Precondition.
        seen: Seen,
        /// Why.
        reason: HookEnd,
    },
    /// Ask the API server by a dry run. Nothing is written.
    Ask(Question),
    /// Ask the application of a Pod whether it is well, or drained: a call to the Pod itself.
    CallPod {
        /// Name of the Pod.
        name: String,
        /// Its uid.
        uid: String,
        /// What for.
        purpose: Purpose,
        /// Which time of the Pod the question is about: an answer about an earlier one does not count.
        of: Timestamp,
    },
    /// Tell the application of a Pod that the Pod was given other labels and annotations: a call to the Pod itself.
    TellApplication {
        /// Name of the Pod.
        name: String,
        /// Its uid.
        uid: String,
    },
}

/// Why the Job of a hook is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookEnd {
    /// It runs, and is not to: its run has ended, or it cannot start.
    Stopped,
    /// It has ended, and is beyond what is kept.
    Cleared,
}

/// What is done to a ControllerRevision.
#[derive(Clone, Debug, PartialEq)]
pub enum RevisionAct {
    /// Annotations are written.
    Mark(RevisionMark),
    /// It is beyond the history limit.
    Delete,
    /// The Rollout becomes the controller of one that an earlier Rollout left behind.
    Adopt,
}

/// What is done to a Pod.
#[derive(Clone, Debug, PartialEq)]
pub enum PodAct {
    /// The Rollout becomes the controller of one that an earlier Rollout left behind.
    Adopt,
    /// It is deleted, with its own grace period.
    Delete {
        /// Its slot.
        slot: i32,
        /// Why.
        reason: PodReason,
    },
    /// It has failed: it is taken out of its slot and every Service, and kept for a look.
    Keep {
        /// Until when.
        until: Timestamp,
        /// status.run.
        run: i64,
    },
    /// It is given what another revision says: images, labels, annotations, and a note of resources.
    ChangeInPlace {
        /// Its slot.
        slot: i32,
        /// Name of the ControllerRevision.
        revision: String,
        /// Containers are started anew by that: others take its listeners over first.
        restarts: bool,
        /// Containers get other resources: [`PodAct::Resize`] follows.
        resizes: bool,
        /// Why.
        reason: PodReason,
    },
    /// Its containers are given the resources that it is noted to get.
    Resize {
        /// Name of its ControllerRevision.
        revision: String,
    },
    /// That note is taken off: it has them.
    NoteResized,
    /// Its readiness gate says whether it is in service.
    SetInService {
        /// What to say.
        in_service: bool,
        /// Whether the Pod's agent holds its session; None if no agent is asked for.
        session_ready: Option<bool>,
    },
    /// It is written down that its application has reloaded its labels and annotations.
    NoteReloaded,
    /// A condition says whether it is drained.
    SetDrained {
        /// What it still has, as `3 of bots`; empty: nothing, it is drained.
        busy: String,
    },
}

/// What a Service selects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    /// Name of the ControllerRevision. None: Pods of any, as it was before Baton set a key.
    pub revision: Option<String>,
    /// Labels that its selector gets beside that: those of `spec.selector`, where it has none.
    pub labels: BTreeMap<String, String>,
    /// What it notes about the switch, if anything.
    pub switched: Option<Switched>,
}

/// What the API server is asked by a dry run.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// Whether it accepts Pods of this revision.
    Template {
        /// Name of the ControllerRevision.
        revision: String,
    },
    /// Whether it would give a Pod of ours the resources of a revision.
    Resize {
        /// Precondition.
        pod: Seen,
        /// Name of the ControllerRevision.
        revision: String,
    },
}

impl RevisionAct {
    fn verb(&self) -> &'static str {
        match self {
            Self::Mark(_) => "MarkRevision",
            Self::Delete => "DeleteRevision",
            Self::Adopt => "AdoptRevision",
        }
    }
}

impl PodAct {
    fn verb(&self) -> &'static str {
        match self {
            Self::Adopt => "AdoptPod",
            Self::Delete { .. } => "DeletePod",
            Self::Keep { .. } => "KeepPod",
            Self::ChangeInPlace { .. } => "ChangeInPlace",
            Self::Resize { .. } => "Resize",
            Self::NoteResized => "NoteResized",
            Self::SetInService { .. } => "SetInService",
            Self::NoteReloaded => "NoteReloaded",
            Self::SetDrained { .. } => "SetDrained",
        }
    }

    /// The Pod, or a container of it, stops serving.
    fn interrupts(&self) -> bool {
        matches!(
            self,
            Self::Delete { .. }
                | Self::Keep { .. }
                | Self::ChangeInPlace { .. }
                | Self::Resize { .. }
                | Self::SetInService { in_service: false, .. }
        )
    }
}

impl Change {
    /// Writes this mark on this ControllerRevision.
    pub(crate) fn mark(revision: &Revision, mark: RevisionMark) -> Self {
        Self::Revision { seen: revision.into(), act: RevisionAct::Mark(mark) }
    }

    /// Does this to this Pod.
    pub(crate) fn pod(pod: &Pod, act: PodAct) -> Self {
        Self::Pod { seen: pod.into(), act }
    }

    /// Deletes this Pod.
    pub(crate) fn delete(pod: &Pod, reason: PodReason) -> Self {
        Self::pod(pod, PodAct::Delete { slot: pod.slot, reason })
    }

    /// What it does, in one CamelCase word.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::CreateRevision { .. } => "CreateRevision",
            Self::CreatePod { .. } => "CreatePod",
            Self::Revision { act, .. } => act.verb(),
            Self::Pod { act, .. } => act.verb(),
            Self::Service { .. } => "SwitchService",
            Self::CreateHook { .. } => "CreateHook",
            Self::DeleteHook { reason: HookEnd::Stopped, .. } => "StopHook",
            Self::DeleteHook { reason: HookEnd::Cleared, .. } => "ClearHook",
            Self::Ask(Question::Template { .. }) => "CheckTemplate",
            Self::Ask(Question::Resize { .. }) => "CheckResize",
            Self::CallPod { .. } => "CallPod",
            Self::TellApplication { .. } => "TellApplication",
        }
    }

    /// The object that it writes to or asks about, as it was seen. None: it is yet to be created, or nothing is written to it.
    pub fn seen(&self) -> Option<&Seen> {
        match self {
            Self::Revision { seen, .. }
            | Self::Pod { seen, .. }
            | Self::Service { seen, .. }
            | Self::DeleteHook { seen, .. }
            | Self::Ask(Question::Resize { pod: seen, .. }) => Some(seen),
            Self::CreateRevision { .. }
            | Self::CreatePod { .. }
            | Self::CreateHook { .. }
            | Self::CallPod { .. }
            | Self::Ask(Question::Template { .. })
            | Self::TellApplication { .. } => None,
        }
    }

    /// Name of the object it writes or asks about, or whose application it tells; for a check of a template, of the revision.
    pub fn name(&self) -> &str {
        match self {
            Self::CreateRevision { name, .. }
            | Self::CreatePod { name, .. }
            | Self::CreateHook { name, .. }
            | Self::CallPod { name, .. }
            | Self::TellApplication { name, .. }
            | Self::Revision { seen: Seen { name, .. }, .. }
            | Self::Pod { seen: Seen { name, .. }, .. }
            | Self::Service { seen: Seen { name, .. }, .. }
            | Self::DeleteHook { seen: Seen { name, .. }, .. }
            | Self::Ask(Question::Resize { pod: Seen { name, .. }, .. } | Question::Template { revision: name }) => {
                name
            }
        }
    }

    /// It takes an instance, or a container of it, out of service, or gives clients another set: only by the latest word of
    /// the Rollout.
    pub fn interrupts(&self) -> bool {
        matches!(self, Self::Service { .. }) || matches!(self, Self::Pod { act, .. } if act.interrupts())
    }

    /// Irreversible: performed only after the Rollout was read again past the cache. A user may just have pinned an instance to
    /// that revision. What is adopted ends with the Rollout: it must not be one that is being deleted and to leave its Pods.
    pub fn is_for_good(&self) -> bool {
        let takes = matches!(
            self,
            Self::Revision { act: RevisionAct::Delete | RevisionAct::Adopt, .. }
                | Self::Pod { act: PodAct::Adopt, .. }
                // A pause, an abort or another spec of a moment ago must not meet a migration that has just begun.
                | Self::CreateHook { .. }
                | Self::DeleteHook { .. }
        );
        self.interrupts() || takes
    }

    /// Why, where there are several possible reasons; else empty.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::CreatePod { reason, .. }
            | Self::Pod { act: PodAct::Delete { reason, .. } | PodAct::ChangeInPlace { reason, .. }, .. } => {
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
    /// A hook has made a backup while this was the stable revision.
    Backup {
        /// What it is.
        backup: Backup,
        /// Number of the run.
        run: i64,
    },
    /// Its first Pod has become ready, with images that it names by tags.
    Ran {
        /// Their digests, by name of the container.
        images: BTreeMap<String, String>,
    },
}
