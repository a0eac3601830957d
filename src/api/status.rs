//! `Rollout` status: what is, what is worked towards, what it waits for. It holds memory that can be lost (run, opened
//! batches, attempts); durable facts are annotations on the ControllerRevisions.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    bounds::MESSAGE_CHARS_MAX,
    condition::Condition,
    hooks::HooksStatus,
    names::ANNOTATION_WHY,
    rollout::{Request, Rollout},
    soak::SoakStatus,
};

/// Words of `exceptions[].state`. Strings in the code, an enum in the CRD: an object that a newer operator wrote is read all
/// the same, what is written is checked by the API server.
pub const INSTANCE_STATES: [&str; 6] = ["Failed", "Missing", "NotReady", "Reloading", "Starting", "Terminating"];
/// Words of `history[].kind`; see [`INSTANCE_STATES`].
pub const HISTORY_KINDS: [&str; 8] =
    ["Deploy", "Rollback", "InstanceRollback", "Unpin", "Restart", "Approve", "Pause", "Resume"];
/// Words of `history[].result`; see [`INSTANCE_STATES`].
pub const HISTORY_RESULTS: [&str; 7] =
    ["InProgress", "Succeeded", "Failed", "RolledBack", "PartlyRolledBack", "Superseded", "Aborted"];

/// State of a Rollout as last observed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutStatus {
    /// metadata.generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Number of the present run. Every change of the target revision and every retry begins a run with a higher
    /// number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub run: Option<i64>,
    /// Number of Pods that are not terminating. With strategy BlueGreen: only the Pods that clients use.
    #[schemars(range(min = 0))]
    pub replicas: i32,
    /// Number of Pods in status.replicas that are Ready.
    #[schemars(range(min = 0))]
    pub ready_replicas: i32,
    /// Number of Pods in status.replicas that have been Ready for minReadySeconds.
    #[schemars(range(min = 0))]
    pub available_replicas: i32,
    /// Number of Pods at the target revision, whether clients use them yet or not.
    #[schemars(range(min = 0))]
    pub updated_replicas: i32,
    /// Number of Pods that are terminating.
    #[schemars(range(min = 0))]
    pub terminating_replicas: i32,
    /// spec.selector as a string, for the scale subresource. With strategy BlueGreen it selects only the Pods that
    /// clients use.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8192))]
    pub selector: Option<String>,
    /// The stable revision: the newest that completed. Instances go back to it after a failure or an abort.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub current_revision: Option<String>,
    /// The revision of the present spec.template, spec.version and spec.package.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub update_revision: Option<String>,
    /// The target revision, to which Baton brings the instances: updateRevision, or currentRevision after an abort or
    /// an automatic rollback.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub target_revision: Option<String>,
    /// With strategy BlueGreen: the revision that activeService selects, or selected last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub active_revision: Option<String>,
    /// Services in whose selector Baton has set the key baton.dev/revision and not removed it yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(max = 63)), extend("x-kubernetes-list-type" = "atomic"))]
    pub services: Vec<String>,
    /// Which instances run which revision, observed from live Pods.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub versions: Vec<VersionRange>,
    /// Number of further revisions that instances run: the oldest, which status.versions has no room for.
    #[serde(skip_serializing_if = "super::quantity::is_zero")]
    #[schemars(range(min = 0))]
    pub versions_omitted: i32,
    /// The present batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchStatus>,
    /// Failed instances of the present run, or the failure that ended the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<Failed>,
    /// Instances whose Pod name has an attempt number, because an earlier name was already in use.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "atomic"))]
    pub attempts: Vec<Attempt>,
    /// Hooks of the present run (spec.hooks), and the newest that have ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<HooksStatus>,
    /// The watched time of the present run (spec.soak).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soak: Option<SoakStatus>,
    /// Instances that are not as the spec says, most important first; at most 20.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub exceptions: Vec<InstanceException>,
    /// Number of further exceptions, which the list has no room for.
    #[serde(skip_serializing_if = "super::quantity::is_zero")]
    #[schemars(range(min = 0))]
    pub exceptions_omitted: i32,
    /// What the Rollout waits for at present, in words with absolute times. When nothing is left to do: that the
    /// Rollout is paused, or that a pin has no effect; otherwise empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub waiting_for: String,
    /// Past and present runs, and actions such as restarts, approvals and pauses, newest first; at most 50.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "atomic"))]
    pub history: Vec<HistoryEntry>,
    /// Strings for the columns of `kubectl get`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display: Option<Display>,
    /// Conditions. Exactly one of Ready, Reconciling and Stalled is True.
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Instances at one revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VersionRange {
    /// Name of the ControllerRevision.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// Version of the revision, for people.
    #[schemars(length(max = 128))]
    pub version: String,
    /// Instances with a live Pod at this revision, as ranges such as "0-2,7".
    #[schemars(length(max = 8192))]
    pub instances: String,
    /// Number of further instances at this revision: the highest, which are left out because the ranges of all versions
    /// share 20,480 characters.
    #[serde(skip_serializing_if = "super::quantity::is_zero")]
    #[schemars(range(min = 0))]
    pub instances_omitted: i32,
    /// Instances with a ready Pod at this revision, as ranges.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 8192))]
    pub ready: String,
    /// Number of further ready instances, left out for the same reason as in instancesOmitted.
    #[serde(skip_serializing_if = "super::quantity::is_zero")]
    #[schemars(range(min = 0))]
    pub ready_omitted: i32,
}

/// The present batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BatchStatus {
    /// Number of the batch, from 1. 0 during a pause before the first instance changes.
    #[schemars(range(min = 0))]
    pub index: i32,
    /// Number of batches of the run.
    #[schemars(range(min = 0))]
    pub count: i32,
    /// Instances 0 to opened - 1 are assigned the target revision. The number does not fall within a run, unless the
    /// Rollout is scaled down below it or all of these instances were pinned.
    #[schemars(range(min = 0))]
    pub opened: i32,
    /// Instances that were pinned when the run began, as ranges. The batches of the run count only the other instances.
    /// An instance that is unpinned during the run follows once the run has completed.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub pinned: String,
    /// Number of opened instances that are available at the target revision.
    #[schemars(range(min = 0))]
    pub updated: i32,
    /// When this batch was opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// Since when progressDeadlineSeconds count: since the batch opened, a hold ended, a done instance was lost, or a
    /// listener was handed over (written now and then only). If an instance became available or a listener was handed
    /// over later, they count from then. Absent while the batch is held, and while no instance is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_from: Option<Time>,
    /// When all instances of the batch were done. The pause after the batch counts from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
}

/// A failure of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Failed {
    /// The revision that failed.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// Number of the run that failed.
    #[schemars(range(min = 0))]
    pub run: i64,
    /// Failed instances, as ranges. Each had been given the failed revision. Empty after an abort, and if no instance
    /// could be given the revision.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 8192))]
    pub slots: String,
    /// With onFailure RollbackFailed: further instances that keep or return to the stable revision, as ranges. They had
    /// not been given the failed revision yet, or slots has no room for them.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 8192))]
    pub spared: String,
    /// Cause in one CamelCase word, such as ImagePullBackOff, CrashLoopBackOff or Aborted.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Explanation in a sentence.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// When failureThreshold was reached, or when the run was aborted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
}

/// Instances of a revision whose Pod names carry the same attempt number.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Attempt {
    /// Name of the ControllerRevision.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// Attempt number, from 1.
    #[schemars(range(min = 1))]
    pub attempt: i32,
    /// Instances with this attempt number, as ranges.
    #[schemars(length(max = 8192))]
    pub instances: String,
}

/// An instance that is not as it should be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct InstanceException {
    /// Number of the instance.
    #[schemars(range(min = 0))]
    pub instance: i32,
    /// Failed, Missing, NotReady, Reloading, Starting or Terminating.
    #[schemars(extend("enum" = INSTANCE_STATES))]
    pub state: String,
    /// Cause in one CamelCase word; Kubernetes' own word if there is one.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Explanation in a sentence.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// When this state began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// One run, restart, change of pinned instances, approval or pause in the history.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HistoryEntry {
    /// spec.request.id when the run began.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub id: Option<String>,
    /// Deploy, Rollback, InstanceRollback (spec.pins), Unpin, Restart, Approve, Pause or Resume.
    #[schemars(extend("enum" = HISTORY_KINDS))]
    pub kind: String,
    /// Number of the run.
    #[schemars(range(min = 0))]
    pub run: i64,
    /// Target revision of the run.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// Version of the revision, for people.
    #[schemars(length(max = 128))]
    pub version: String,
    /// Versions that the instances ran before, the most common first.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128))]
    pub from_version: String,
    /// Instances that the entry is about, as ranges. If absent: all instances.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub instances: String,
    /// Only for an approval: the last batch whose pause it approves. 0: the pause before the first instance changes.
    /// -1: all pauses of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1, max = 10_000))]
    pub batch: Option<i32>,
    /// Who requested it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub by: Option<String>,
    /// Reason: spec.request.reason or spec.approve.reason, or the failure that caused a rollback.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
    /// When the run or action began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When the run or action ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    /// InProgress, Succeeded, Failed, RolledBack, PartlyRolledBack, Superseded or Aborted.
    #[schemars(extend("enum" = HISTORY_RESULTS))]
    pub result: String,
}

impl HistoryEntry {
    /// It is about the same run, restart or change as this one, however far that was by then.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.kind, self.run, self.batch, &self.revision, &self.started_at)
            == (&other.kind, other.run, other.batch, &other.revision, &other.started_at)
    }
}

impl Rollout {
    /// `spec.request`, once: what bears the id of an entry of the history is about that, and who has asked since has not said.
    pub fn new_request(&self) -> Option<&Request> {
        let history = self.status.as_ref().map(|status| status.history.as_slice()).unwrap_or_default();
        let is_told = |request: &&Request| request.id.is_some() && history.iter().any(|entry| entry.id == request.id);
        self.spec.request.as_ref().filter(|request| !is_told(request))
    }
}

impl Rollout {
    /// Why it is as it is, as people tell other kinds too: the annotation of the Rollout, else of its template.
    pub fn annotated_cause(&self) -> Option<String> {
        let own = self.metadata.annotations.as_ref().and_then(|own| own.get(ANNOTATION_WHY).cloned());
        let cause = own.or_else(|| self.spec.template.annotations().remove(ANNOTATION_WHY))?;
        let cause = cause.trim();
        (!cause.is_empty()).then(|| cause.chars().take(MESSAGE_CHARS_MAX).collect())
    }
}

/// Strings for the columns of `kubectl get`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Display {
    /// Instances ready / wanted, such as "9/10".
    #[schemars(length(max = 32))]
    pub ready: String,
    /// Present batch / number of batches, such as "2/3". Empty if no run is in progress.
    #[schemars(length(max = 32))]
    pub batch: String,
    /// Version of the target revision, such as "1.4.2"; "1.4.1 → 1.4.2" while instances still run another version.
    #[schemars(length(max = 256))]
    pub version: String,
    /// Images of the target revision.
    #[schemars(length(max = 1024))]
    pub images: String,
}
