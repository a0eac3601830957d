//! Hooks: Jobs that a Rollout runs before, between and after its batches, and when it goes back.
use std::{borrow::Cow, fmt, str::FromStr};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::template::{PodTemplate, containers_schema, strings_schema};

/// One Job of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.batches) || self.when in ['BeforeBatch', 'AfterBatch']")
        .message("spec.hooks[].batches is for when: BeforeBatch and AfterBatch; remove it"),
    validation = Rule::new("!(self.when == 'AfterRollout' && self.onFailure == 'Abort')")
        .message("spec.hooks[]: an AfterRollout hook cannot take back what is done; set onFailure to Ignore"),
    validation = Rule::new("self.timeoutSeconds * (self.retries + 1) <= 604800")
        .message("spec.hooks[]: timeoutSeconds times (retries + 1) must be at most 604800 (7 days); lower one of them")
)]
pub struct Hook {
    /// Name of the hook: a DNS label of at most 32 characters, once in the list.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("spec.hooks[].name must be a DNS label of at most 32 characters, such as migrate"))]
    pub name: String,
    /// When the hook runs. BeforeRollout: before the first Pod changes. BeforeBatch and AfterBatch: before a batch opens,
    /// and after all of its instances are available. AfterRollout: at the end of the run, before it counts as complete.
    /// OnRollback: before the first Pod goes back after a failure or an abort, if the run gave a backup id or a second
    /// hook had begun. WhileDown: with type Recreate, after the last old Pod ended and before the first new one is
    /// created. Hooks of one point run in the order of this list, one at a time.
    pub when: HookPoint,
    /// Only with BeforeBatch and AfterBatch: numbers of the batches, from 1, such as "1,3-4". If absent: every batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[1-9][0-9]{0,4}(-[1-9][0-9]{0,4})?(,[1-9][0-9]{0,4}(-[1-9][0-9]{0,4})?)*$')").message("spec.hooks[].batches must be numbers from 1 and ranges, such as 1,3-4"))]
    #[x_kube(validation = Rule::new("self.split(',').all(part, !part.contains('-') || int(part.split('-')[0]) <= int(part.split('-')[1]))").message("spec.hooks[].batches: a range begins with its lower number, such as 1-2"))]
    pub batches: Option<String>,
    /// Template of the Job's Pod. Baton adds environment variables (BATON_RUN, BATON_HOOK_KEY, BATON_BACKUP_ID and
    /// others). The first line of the termination message of a BeforeRollout hook, if it is at most 128 characters of
    /// letters, digits and ._:/@+-, is kept as the id of a backup.
    pub template: HookTemplate,
    /// Image of the first container: that of a container of spec.template, so that the hook ships with the version. If
    /// absent: the image in the hook's own template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_from: Option<ImageFrom>,
    /// How many seconds one attempt may take, 1 to 86,400. Kubernetes ends the Job after that.
    #[serde(default = "defaults::timeout_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub timeout_seconds: i32,
    /// How often the hook is tried again after a failed attempt, 0 to 10. A Pod that was lost with its node is tried
    /// again without counting, up to 3 times. Every attempt of a hook has the same BATON_HOOK_KEY.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10))]
    pub retries: i32,
    /// What happens when the last attempt has failed. Abort: the run fails with HookFailed, and
    /// spec.strategy.onFailure decides what goes back. Ignore: the run goes on.
    #[serde(default)]
    pub on_failure: HookFailure,
    /// What happens to the running hook when the run ends early, by an abort, a failure or a new spec. Wait: the hook is
    /// awaited. Stop: its Job and Pods are deleted first; for tests, never for what changes data.
    #[serde(default)]
    pub on_abort: OnAbort,
    /// Number of finished Jobs of this hook that are kept, in addition to those of the present run, 0 to 100.
    #[serde(default = "defaults::keep")]
    #[schemars(range(min = 0, max = 100))]
    pub keep: i32,
    /// A finished Job is kept for at least so many days, 0 to 3,650, even if there are more Jobs than keep says.
    #[serde(default = "defaults::keep_days")]
    #[schemars(range(min = 0, max = 3_650))]
    pub keep_days: i32,
}

/// When a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum HookPoint {
    /// Before the first Pod changes.
    BeforeRollout,
    /// Before a batch opens.
    BeforeBatch,
    /// With strategy Recreate: all old Pods have ended, no new one is made yet.
    WhileDown,
    /// After all instances of a batch are available.
    AfterBatch,
    /// At the end, before the run is complete.
    AfterRollout,
    /// Before the first Pod goes back.
    OnRollback,
}

impl HookPoint {
    /// As in the spec.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BeforeRollout => "BeforeRollout",
            Self::BeforeBatch => "BeforeBatch",
            Self::WhileDown => "WhileDown",
            Self::AfterBatch => "AfterBatch",
            Self::AfterRollout => "AfterRollout",
            Self::OnRollback => "OnRollback",
        }
    }
}

/// What a failed hook does to the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HookFailure {
    /// The run fails.
    #[default]
    Abort,
    /// It is noted, and the run goes on.
    Ignore,
}

/// What the early end of a run does to a running hook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnAbort {
    /// Its end is awaited.
    #[default]
    Wait,
    /// Its Job and Pods are deleted.
    Stop,
}

/// Where a hook's image comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageFrom {
    /// Name of a container (or init container) of spec.template.
    #[schemars(length(min = 1, max = 63))]
    pub container: String,
    /// New: its image in the revision of the spec that the run is about. Old: in the stable revision; on the first
    /// rollout there is none, and New counts.
    #[serde(default)]
    pub revision: ImageRevision,
}

/// Which of the two revisions of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImageRevision {
    /// Of the spec; also where the run goes back from it.
    #[default]
    New,
    /// The stable one.
    Old,
}

/// The Pod template of a hook: raw JSON as [`PodTemplate`], with metadata that may be absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HookTemplate(pub Map<String, Value>);

impl HookTemplate {
    /// The same as a template of Pods.
    pub fn as_pods(&self) -> PodTemplate {
        PodTemplate(self.0.clone())
    }
}

impl JsonSchema for HookTemplate {
    fn schema_name() -> Cow<'static, str> {
        "HookTemplate".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Template of the Job's Pod. restartPolicy is Never. Labels and annotations that begin with baton.dev/ are set by Baton.",
            "type": "object",
            "required": ["spec"],
            "properties": {
                "metadata": {
                    "description": "Labels and annotations of the Pod.",
                    "type": "object",
                    "properties": {
                        "labels": strings_schema("Labels of the Pod. They must not satisfy spec.selector.", 16, 63),
                        "annotations": strings_schema("Annotations of the Pod.", 16, 16_384)
                    },
                    "x-kubernetes-validations": [{
                        "rule": "(!has(self.labels) || self.labels.all(k, !k.startsWith('baton.dev/'))) && (!has(self.annotations) || self.annotations.all(k, !k.startsWith('baton.dev/')))",
                        "message": "spec.hooks[].template.metadata: labels and annotations that begin with baton.dev/ are set by Baton; remove them"
                    }]
                },
                "spec": {
                    "description": "PodSpec: any field that the Pod API of this cluster has.",
                    "type": "object",
                    "required": ["containers"],
                    "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {
                        "containers": containers_schema("Containers of the Pod.", 1, 8),
                        "initContainers": containers_schema("Init containers of the Pod.", 0, 8),
                        "restartPolicy": {"description": "Must be Never if it is set.", "type": "string", "maxLength": 16}
                    },
                    "x-kubernetes-validations": [{
                        "rule": "!has(self.restartPolicy) || self.restartPolicy == 'Never'",
                        "message": "spec.hooks[].template.spec.restartPolicy must be Never, because each attempt is a Job of its own: set it to Never or remove it"
                    }]
                }
            }
        })
    }
}

/// A point of a run, such as `AfterBatch/2`. In the order in which a run comes to them; OnRollback is in a run of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Point {
    /// Which kind.
    pub on: HookPoint,
    /// Number of the batch; 0 where a point is of no batch.
    pub batch: i32,
}

impl Point {
    /// Of the whole run.
    pub fn of_run(on: HookPoint) -> Self {
        Self { on, batch: 0 }
    }

    /// Of a batch.
    pub fn of_batch(on: HookPoint, batch: i32) -> Self {
        Self { on, batch }
    }

    fn place(self) -> (i32, i32) {
        match self.on {
            HookPoint::OnRollback => (-2, 0),
            HookPoint::BeforeRollout => (-1, 0),
            HookPoint::BeforeBatch => (self.batch, 0),
            HookPoint::WhileDown => (self.batch, 1),
            HookPoint::AfterBatch => (self.batch, 2),
            HookPoint::AfterRollout => (i32::MAX, 0),
        }
    }
}

impl PartialOrd for Point {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Point {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place().cmp(&other.place())
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.on {
            HookPoint::BeforeBatch | HookPoint::AfterBatch => write!(f, "{}/{}", self.on.as_str(), self.batch),
            on => f.write_str(on.as_str()),
        }
    }
}

impl FromStr for Point {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (on, batch) = text.split_once('/').unwrap_or((text, "0"));
        let on = match on {
            "BeforeRollout" => HookPoint::BeforeRollout,
            "BeforeBatch" => HookPoint::BeforeBatch,
            "WhileDown" => HookPoint::WhileDown,
            "AfterBatch" => HookPoint::AfterBatch,
            "AfterRollout" => HookPoint::AfterRollout,
            "OnRollback" => HookPoint::OnRollback,
            _ => return Err(()),
        };
        // There is one batch in which all is down.
        let batch = if on == HookPoint::WhileDown { 1 } else { batch.parse().map_err(|_| ())? };
        Ok(Self { on, batch })
    }
}

/// What the hooks of a run have come to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HooksStatus {
    /// Number of the run that passed, done, begun and backup are about.
    #[schemars(range(min = 0))]
    pub run: i64,
    /// The last point of this run of which every hook has ended, such as AfterBatch/2.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32))]
    pub passed: String,
    /// The point in work.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32))]
    pub point: String,
    /// Hooks of the point in work that have ended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(max = 32)), extend("x-kubernetes-list-type" = "atomic"))]
    pub done: Vec<String>,
    /// The hook that runs, or is to run next. It may be of an earlier run, whose hook is awaited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<CurrentHook>,
    /// A second hook of this run has begun, so that data may have changed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub begun: bool,
    /// The backup that a hook of this run made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<Backup>,
    /// In a run that goes back: what OnRollback hooks take back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore: Option<Restore>,
    /// Hooks that have ended, newest first; at most 12.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 12), extend("x-kubernetes-list-type" = "atomic"))]
    pub log: Vec<HookRecord>,
}

/// A backup that a hook made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Backup {
    /// What the hook calls it: the first line of its termination message.
    #[schemars(length(max = 128))]
    pub id: String,
    /// Name of the hook.
    #[schemars(length(max = 32))]
    pub hook: String,
}

impl Backup {
    /// As it is noted on a ControllerRevision: `id hook run`.
    pub fn note(&self, run: i64) -> String {
        format!("{} {} {run}", self.id, self.hook)
    }

    /// The id in such a note.
    pub fn id_of(note: &str) -> Option<&str> {
        note.split(' ').next()
    }

    /// Number of the run in such a note; None if it cannot be read.
    pub fn run_of(note: &str) -> Option<i64> {
        note.rsplit(' ').next()?.parse().ok()
    }
}

/// The hook that runs, or is to run next.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CurrentHook {
    /// Name of the hook.
    #[schemars(length(max = 32))]
    pub name: String,
    /// Its point, such as BeforeRollout or AfterBatch/2.
    #[schemars(length(max = 32))]
    pub point: String,
    /// Number of the run that it is of.
    #[schemars(range(min = 0))]
    pub run: i64,
    /// Number of the attempt, from 1, with those that were lost with a node.
    #[schemars(range(min = 0))]
    pub attempt: i32,
    /// Attempts that were lost with a node or to an eviction.
    #[serde(skip_serializing_if = "super::quantity::is_zero")]
    #[schemars(range(min = 0))]
    pub disruptions: i32,
    /// Name of its Job.
    #[schemars(length(max = 63))]
    pub job: String,
    /// Since when it is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// A further attempt begins no sooner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// Why its Job is being ended, if it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub stopping: String,
}

/// What OnRollback hooks take back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Restore {
    /// Number of the run that failed or was aborted.
    #[schemars(range(min = 0))]
    pub run: i64,
    /// Id of the backup that this run made; empty: it made none.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128))]
    pub backup: String,
    /// Why an OnRollback hook failed; empty: none has.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub failure: String,
}

/// A hook that has ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HookRecord {
    /// Name of the hook.
    #[schemars(length(max = 32))]
    pub name: String,
    /// Its point, such as BeforeRollout or AfterBatch/2.
    #[schemars(length(max = 32))]
    pub point: String,
    /// Number of the run.
    #[schemars(range(min = 0))]
    pub run: i64,
    /// Number of the attempt.
    #[schemars(range(min = 0))]
    pub attempt: i32,
    /// Succeeded, Failed, Disrupted (tried again, not counted) or Stopped.
    #[schemars(extend("enum" = HOOK_RESULTS))]
    pub result: String,
    /// Why it failed; of one that made a backup, its id.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub message: String,
    /// Name of its Job.
    #[schemars(length(max = 63))]
    pub job: String,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it was seen to have ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
}

/// Words of `hooks.log[].result`. Strings in the code, an enum in the CRD.
pub const HOOK_RESULTS: [&str; 4] = ["Disrupted", "Failed", "Stopped", "Succeeded"];

mod defaults {
    pub(super) fn timeout_seconds() -> i32 {
        600
    }
    pub(super) fn keep() -> i32 {
        10
    }
    pub(super) fn keep_days() -> i32 {
        30
    }
}
