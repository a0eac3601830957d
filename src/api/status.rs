//! `Rollout` status: what is, what is worked towards, what it waits for. It holds memory that can be lost (run, opened
//! batches, attempts); durable facts are annotations on the ControllerRevisions.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    bounds::MESSAGE_CHARS_MAX,
    condition::Condition,
    names::ANNOTATION_WHY,
    rollout::{Request, Rollout},
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
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Counts every change of the revision that is worked towards, and every retry.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub run: Option<i64>,
    /// Pods that are not terminating; with strategy BlueGreen those that clients use.
    #[schemars(range(min = 0))]
    pub replicas: i32,
    /// Of these, Ready.
    #[schemars(range(min = 0))]
    pub ready_replicas: i32,
    /// Of these, Ready for minReadySeconds.
    #[schemars(range(min = 0))]
    pub available_replicas: i32,
    /// Pods at the revision that is worked towards, whether clients use them yet or not.
    #[schemars(range(min = 0))]
    pub updated_replicas: i32,
    /// Pods that are terminating.
    #[schemars(range(min = 0))]
    pub terminating_replicas: i32,
    /// spec.selector as a string, for the scale subresource; with strategy BlueGreen it selects the Pods that clients use.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8192))]
    pub selector: Option<String>,
    /// The stable revision: the newest that completed; where instances go back to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub current_revision: Option<String>,
    /// The revision of the present spec.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub update_revision: Option<String>,
    /// The revision that is worked towards: updateRevision, or currentRevision after an abort or automatic rollback.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub target_revision: Option<String>,
    /// With strategy BlueGreen: the revision that activeService selects, or did last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub active_revision: Option<String>,
    /// Services in whose selectors Baton sets a key, or has yet to take it off again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(max = 63)), extend("x-kubernetes-list-type" = "atomic"))]
    pub services: Vec<String>,
    /// Which instances run which revision, observed from live Pods.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub versions: Vec<VersionRange>,
    /// Number of further revisions that instances run, the oldest ones.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub versions_omitted: i32,
    /// The batch in work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchStatus>,
    /// Failed instances of the present run, or the failure that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<Failed>,
    /// Instances whose Pod name carries an attempt number, because an earlier name was taken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "atomic"))]
    pub attempts: Vec<Attempt>,
    /// Instances that are not as they should be, most important first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub exceptions: Vec<InstanceException>,
    /// Number of further exceptions.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub exceptions_omitted: i32,
    /// The one thing it waits for, in words and absolute times; when done, that it is paused or a pin that means nothing, else
    /// empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub waiting_for: String,
    /// Past and present runs, and what people did to them, newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "atomic"))]
    pub history: Vec<HistoryEntry>,
    /// Strings for the columns of `kubectl get`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display: Option<Display>,
    /// Conditions; exactly one of Ready=True, Reconciling=True, Stalled=True.
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the signature serde asks for
pub(super) fn is_zero(value: &i32) -> bool {
    *value == 0
}

/// Instances at one revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VersionRange {
    /// Name of the ControllerRevision.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// Its version for people.
    #[schemars(length(max = 128))]
    pub version: String,
    /// Instances with a live Pod at it, as ranges such as "0-2,7".
    #[schemars(length(max = 8192))]
    pub instances: String,
    /// Number of further instances, the highest ones: the ranges of all versions share 20,480 characters.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub instances_omitted: i32,
    /// Of the instances, the ready ones.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 8192))]
    pub ready: String,
    /// Number of further ready ones.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub ready_omitted: i32,
}

/// The batch in work.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BatchStatus {
    /// Its number, from 1; 0 while a pause before the first instance holds.
    #[schemars(range(min = 0))]
    pub index: i32,
    /// Number of batches.
    #[schemars(range(min = 0))]
    pub count: i32,
    /// Instances 0 to opened - 1 are assigned the revision that is worked towards. Never shrinks within a run, except by
    /// scaling down below it, and where all of them were pinned away.
    #[schemars(range(min = 0))]
    pub opened: i32,
    /// Instances that were pinned when the run began, as ranges: its batches count the others. What is unpinned meanwhile follows
    /// once the run has completed.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub pinned: String,
    /// Of the opened instances, those at that revision and available.
    #[schemars(range(min = 0))]
    pub updated: i32,
    /// When this batch was opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// From here, or from the newest available instance or handed over listener, progressDeadlineSeconds count: the opening of
    /// the batch, the end of what held it, the loss of an instance after it was done, or a hand-over since, written now and
    /// then. Absent while it is held, and while no instance is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_from: Option<Time>,
    /// When all its instances were seen done; the pause after it counts from here.
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
    /// In this run.
    #[schemars(range(min = 0))]
    pub run: i64,
    /// The failed instances, as ranges: each was given the revision. Empty for an abort, and where none could be given it.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 8192))]
    pub slots: String,
    /// With onFailure RollbackFailed: further instances that keep, or go to, the stable revision, as ranges. They had yet to be
    /// given the failed one, or have no room in slots.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 8192))]
    pub spared: String,
    /// One CamelCase word: ImagePullBackOff, CrashLoopBackOff, Aborted, …
    #[schemars(length(max = 64))]
    pub reason: String,
    /// A sentence.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// When the threshold was reached, or the run aborted.
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
    /// The number, from 1.
    #[schemars(range(min = 1))]
    pub attempt: i32,
    /// The instances, as ranges.
    #[schemars(length(max = 8192))]
    pub instances: String,
}

/// An instance that is not as it should be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct InstanceException {
    /// Its number.
    #[schemars(range(min = 0))]
    pub instance: i32,
    /// Failed, Missing, NotReady, Reloading, Starting or Terminating.
    #[schemars(extend("enum" = INSTANCE_STATES))]
    pub state: String,
    /// One CamelCase word, Kubernetes' own where there is one.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub reason: String,
    /// A sentence.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// One run, restart, change of pinned instances, approval or pause in the history.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HistoryEntry {
    /// spec.request.id at its start.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub id: Option<String>,
    /// Deploy, Rollback, InstanceRollback (spec.pins), Unpin, Restart, Approve, Pause or Resume.
    #[schemars(extend("enum" = HISTORY_KINDS))]
    pub kind: String,
    /// Number of the run.
    #[schemars(range(min = 0))]
    pub run: i64,
    /// The revision worked towards.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// Its version for people.
    #[schemars(length(max = 128))]
    pub version: String,
    /// What the instances ran before: versions, the most common first.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128))]
    pub from_version: String,
    /// Which instances, as ranges; absent: all.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub instances: String,
    /// Of an approval: the batch whose pause it passes, and those before; 0 the pause before the first instance, -1 all of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1, max = 10_000))]
    pub batch: Option<i32>,
    /// Who asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub by: Option<String>,
    /// Why: spec.request.reason or spec.approve.reason, or the failure that caused a rollback.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it ended.
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
    /// "9/10".
    #[schemars(length(max = 32))]
    pub ready: String,
    /// "2/3"; empty when no run is on.
    #[schemars(length(max = 32))]
    pub batch: String,
    /// "1.4.1 → 1.4.2", or the one version.
    #[schemars(length(max = 256))]
    pub version: String,
    /// Images of the wanted revision.
    #[schemars(length(max = 1024))]
    pub images: String,
}
