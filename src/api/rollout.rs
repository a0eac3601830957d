//! `Rollout`: what a user asks for.
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::{
    keep_failed::KeepFailed,
    package::{Package, SecretRef},
    update::{HotReload, HttpPost, UpdateMethod},
};
use super::{quantity::IntOrPercent, status::RolloutStatus, template::PodTemplate};

/// Instances in numbered slots, replaced in batches.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "baton.dev",
    version = "v1alpha1",
    kind = "Rollout",
    plural = "rollouts",
    shortname = "bro",
    category = "baton",
    namespaced,
    status = "RolloutStatus",
    derive = "PartialEq",
    doc = "Instances in numbered slots, replaced in batches, each one's version tracked, one or all of them rolled back. Baton's Rollout, not the Rollout of Argo or Kruise: address it as rollouts.baton.dev.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.display.ready", description = "Instances ready / wanted"),
    printcolumn(name = "Up-to-date", type_ = "integer", json_path = ".status.updatedReplicas", description = "Instances at the revision that is worked towards"),
    printcolumn(name = "Available", type_ = "integer", json_path = ".status.availableReplicas", description = "Instances ready for minReadySeconds"),
    printcolumn(name = "Batch", type_ = "string", json_path = ".status.display.batch", description = "Batch in work / number of batches"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason", description = "Reason of the Ready condition"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.display.version", priority = 1),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.targetRevision", priority = 1),
    printcolumn(name = "Images", type_ = "string", json_path = ".status.display.images", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.waitingFor", priority = 1),
    validation = Rule::new("size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name must be a DNS label that starts with a letter, of at most 40 characters, so that the names of its Pods stay within 63")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.selector.matchLabels) && has(self.template.metadata.labels) && self.selector.matchLabels.all(k, k in self.template.metadata.labels && self.template.metadata.labels[k] == self.selector.matchLabels[k])")
        .message("spec.selector.matchLabels must be among spec.template.metadata.labels: set the same labels in both"),
    validation = Rule::new("self.progressDeadlineSeconds > self.minReadySeconds")
        .message("spec.progressDeadlineSeconds must exceed spec.minReadySeconds, no instance could become available in time: raise the first or lower the second"),
    validation = Rule::new("!has(self.pins) || size(self.pins) == 0 || self.strategy.type == 'Batched'")
        .message("spec.pins needs spec.strategy.type Batched, with any other type all instances run one version: remove the pins or set type to Batched"),
    validation = Rule::new("!has(self.strategy.hotReload) || !has(self.template.spec.hostNetwork) || !self.template.spec.hostNetwork")
        .message("spec.strategy: update HotReload tells each Pod at an address of its own, which a Pod with hostNetwork has not: remove spec.template.spec.hostNetwork, or set update to InPlaceIfPossible and remove hotReload")
)]
pub struct RolloutSpec {
    /// Number of instances, 0 to 10,000. Instance i is slot i, from 0 to replicas - 1. `kubectl scale` and
    /// HorizontalPodAutoscalers set it.
    #[serde(default = "defaults::replicas")]
    #[schemars(range(min = 0, max = 10_000))]
    pub replicas: i32,

    /// Which Pods belong to this Rollout; immutable. Must match the template's labels.
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.selector is immutable: create a new Rollout under another name instead"))]
    pub selector: Selector,

    /// Version for people, such as "1.4.2". Absent: tag or short digest of the first container's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub version: Option<String>,

    /// Files that each instance runs with, beside its images: an archive that is fetched, verified and unpacked before the
    /// containers start, or an image that the kubelet mounts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<Package>,

    /// The Pod each instance runs.
    pub template: PodTemplate,

    /// How long an instance must be ready before it counts as available.
    #[serde(default)]
    #[schemars(range(min = 0, max = 86_400))]
    pub min_ready_seconds: i32,

    /// How long the instances of a batch may take. The clock starts anew with each batch, each newly available instance and
    /// each listener that is handed over, and stands still while the rollout is held. Must exceed minReadySeconds.
    #[serde(default = "defaults::progress_deadline_seconds")]
    #[schemars(range(min = 1, max = 604_800))]
    pub progress_deadline_seconds: i32,

    /// ControllerRevisions kept besides those in use or needed for rollback.
    #[serde(default = "defaults::revision_history_limit")]
    #[schemars(range(min = 0, max = 100))]
    pub revision_history_limit: i32,

    /// While true nothing new is begun: no batch, no replacement, restart or pin, nor a way back that the spec asks for. The way
    /// back after a failure or an abort goes on, so does scaling, and lost instances are replaced.
    #[serde(default)]
    pub paused: bool,

    /// How instances are replaced.
    #[serde(default)]
    pub strategy: Strategy,

    /// Lets a run go on past a pause. Given for a run that is yet to come it passes nothing: the next run takes a number above it,
    /// so the numbers of runs may have gaps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approve: Option<Approve>,

    /// Gives a run up: back to the stable revision, within the budget, without pauses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<Abort>,

    /// Tries a failed or aborted revision again, when later than its failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Time>,

    /// When reached: every Pod created before it is replaced, in batches, at its assigned revision, without pauses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_at: Option<Time>,

    /// Instances that run another revision, each until its pin is removed. They are in no batch, and no later change or
    /// rollback of the Rollout touches them. Of several pins that name an instance the first counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub pins: Vec<Pin>,

    /// Who asked for the present spec, and why; recorded in the history. With an id it counts for one change: what comes later and
    /// still bears that id is told without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
}

/// Labels that select the Pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// All of these must be on a Pod.
    #[schemars(schema_with = "schema::match_labels")]
    pub match_labels: BTreeMap<String, String>,
}

/// How instances are replaced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.batchSize) && has(self.batches))")
        .message("spec.strategy: batchSize and batches exclude each other; remove one of them"),
    validation = Rule::new("!((self.maxUnavailable == 0 || self.maxUnavailable == '0%') && (self.maxSurge == 0 || self.maxSurge == '0%'))")
        .message("spec.strategy: maxUnavailable and maxSurge cannot both be 0, nothing could ever be replaced; set one of them to 1 or more"),
    validation = Rule::new("!(has(self.update) && self.update == 'InPlaceOnly' && (self.maxUnavailable == 0 || self.maxUnavailable == '0%'))")
        .message("spec.strategy: update InPlaceOnly needs maxUnavailable of 1 or more, an instance has no container for a moment while it is changed"),
    validation = Rule::new("self.type == 'Batched' || !has(self.update) || self.update == 'Replace'")
        .message("spec.strategy: update changes Pods one by one and is for type Batched; set update to Replace or type to Batched"),
    validation = Rule::new("self.type == 'Batched' || !(has(self.batchSize) || has(self.batches))")
        .message("spec.strategy: batchSize and batches are for type Batched; remove them or set type to Batched"),
    validation = Rule::new("(has(self.update) && self.update == 'HotReload') == has(self.hotReload)")
        .message("spec.strategy: update HotReload and hotReload, which says where applications are told, belong together; set both, or neither"),
    validation = Rule::new("(self.type == 'BlueGreen') == has(self.blueGreen)")
        .message("spec.strategy: type BlueGreen and blueGreen belong together; set both, or neither"),
    validation = Rule::new("self.type == 'Batched' || self.onFailure != 'RollbackFailed'")
        .message("spec.strategy.onFailure RollbackFailed leaves two versions side by side and is for type Batched; set onFailure to Rollback or Pause"),
    validation = Rule::new("!has(self.keepFailed) || self.type == 'BlueGreen' || (self.type == 'Batched' && self.maxSurge != 0 && self.maxSurge != '0%')")
        .message("spec.strategy.keepFailed needs room for one more Pod: set type to BlueGreen, or to Batched with maxSurge of 1 or more, or remove keepFailed")
)]
pub struct Strategy {
    /// Batched: instances change in batches, lowest slot first. Recreate: all old Pods end before the first new one is
    /// created; for what cannot run in two versions at once. BlueGreen: a whole second set of Pods, and one switch of a Service.
    /// maxUnavailable and maxSurge are looked at with Batched only.
    #[serde(rename = "type", default)]
    pub type_: StrategyType,

    /// How one instance changes. Absent: Replace.
    #[serde(default, skip_serializing_if = "UpdateMethod::is_default")]
    pub update: UpdateMethod,

    /// With update HotReload: where applications are told, and for how long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hot_reload: Option<HotReload>,

    /// Equal batches of this size: a count, or a percentage of replicas, rounded up. Absent, without batches: all in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self != 0 && self != '0%'").message("spec.strategy.batchSize must be at least 1 or 1%"))]
    pub batch_size: Option<IntOrPercent>,

    /// Batches of chosen sizes, with pauses. A last batch with all instances is implied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(validation = Rule::new("self.filter(batch, type(batch.upTo) == int).map(batch, int(batch.upTo)).isSorted()").message("spec.strategy.batches: upTo counts the instances of all batches so far and cannot fall from one entry to the next: write the entries in rising order"))]
    pub batches: Option<Vec<Batch>>,

    /// How many instances may be unavailable at once: a count, or a percentage of replicas, rounded down.
    #[serde(default = "defaults::quarter")]
    pub max_unavailable: IntOrPercent,

    /// How many Pods may exist beyond replicas: a count, or a percentage of replicas, rounded up.
    #[serde(default = "defaults::quarter")]
    pub max_surge: IntOrPercent,

    /// With type BlueGreen: which Services are switched, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blue_green: Option<BlueGreen>,

    /// What happens when failureThreshold instances of a run have failed.
    #[serde(default)]
    pub on_failure: OnFailure,

    /// Number of failed instances of a run at which onFailure acts. It acts as well when all instances have failed.
    #[serde(default = "defaults::failure_threshold")]
    #[schemars(range(min = 1, max = 10_000))]
    pub failure_threshold: i32,

    /// Keeps failed Pods for a look when their version goes back: out of every Service, beyond the budget, and the failed version
    /// runs on in them for so long. MESSAGE names them. A Pod with an agent is never kept, nor one that is changed in place; all
    /// of them go at once where a Pod that is to come finds no quota or no node. Absent: none are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_failed: Option<KeepFailed>,
}

impl Rollout {
    /// What a person types to steer it: `kubectl baton approve web`.
    pub fn command(&self, verb: &str) -> String {
        format!("kubectl baton {verb} {}", self.metadata.name.as_deref().unwrap_or_default())
    }
}

impl Default for Strategy {
    fn default() -> Self {
        Self {
            type_: StrategyType::Batched,
            update: UpdateMethod::Replace,
            hot_reload: None,
            batch_size: None,
            batches: None,
            max_unavailable: defaults::quarter(),
            max_surge: defaults::quarter(),
            blue_green: None,
            on_failure: OnFailure::Rollback,
            failure_threshold: defaults::failure_threshold(),
            keep_failed: None,
        }
    }
}

impl Strategy {
    /// Which Services are switched, with strategy BlueGreen.
    pub fn switched(&self) -> Option<&BlueGreen> {
        self.blue_green.as_ref().filter(|_| self.type_ == StrategyType::BlueGreen)
    }
}

/// Kinds of strategies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StrategyType {
    /// In batches.
    #[default]
    Batched,
    /// All at once: no Pod is created while one of another revision is alive.
    Recreate,
    /// All at once: a second set of Pods, and one switch of a Service.
    BlueGreen,
}

impl StrategyType {
    /// Every instance changes at once: there are no batches, and no second version that stays.
    pub fn is_at_once(self) -> bool {
        self != Self::Batched
    }
}

/// Which Services are switched, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.previewService) || self.previewService != self.activeService")
        .message("spec.strategy.blueGreen.previewService must be another Service than activeService")
)]
pub struct BlueGreen {
    /// The Service that clients use, in the Rollout's namespace. It permits that by its annotation baton.dev/rollout: the name of
    /// the Rollout. Baton sets the key baton.dev/revision in its selector, and the
    /// annotations baton.dev/switched-at and -from. If its selector is empty, Baton also writes spec.selector.matchLabels into it,
    /// and these stay. No other Rollout may name it.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("spec.strategy.blueGreen.activeService must be the name of a Service, such as web"))]
    pub active_service: String,
    /// A Service that selects the new set from when it is available: to try it before clients do. It has the annotation
    /// baton.dev/rollout too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("spec.strategy.blueGreen.previewService must be the name of a Service, such as web-preview"))]
    pub preview_service: Option<String>,
    /// Auto: as soon as the new set is available. Manual: once spec.approve names the run and batch 1. A revision that has
    /// completed before needs no approval.
    #[serde(default)]
    pub promote: Promote,
    /// How long the old set stays after the switch: connections end, and the way back is one switch. A third version waits for
    /// it. With less than what kube-proxy and load balancers take to follow (a few seconds) requests may fail.
    #[serde(default = "defaults::scale_down_delay_seconds")]
    #[schemars(range(min = 0, max = 604_800))]
    pub scale_down_delay_seconds: i32,
}

impl BlueGreen {
    /// Names of the Services.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.active_service).chain(&self.preview_service)
    }
}

/// Who decides that clients get the new set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Promote {
    /// As soon as it is available.
    #[default]
    Auto,
    /// A person, by spec.approve.
    Manual,
}

/// What happens when a run fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFailure {
    /// All instances go back to the stable revision.
    #[default]
    Rollback,
    /// The failed instances go back to the stable revision, the others stay, and nothing moves forward until a person answers.
    RollbackFailed,
    /// Nothing moves forward until a person answers.
    Pause,
}

/// One batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Batch {
    /// Instances at the new revision when this batch is done, the earlier batches included: a count, or a percentage
    /// of replicas, rounded up. 0 is a pause before the first instance changes. An entry that adds no instance to the one
    /// before adds its pause to that one: of the two the longer holds, and one that waits for approval is the longest. After the
    /// last instance a pause holds the completion of the run: until then the revision before stays the stable one.
    pub up_to: IntOrPercent,
    /// Pause after this batch. `{}` waits for approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
}

/// A pause after a batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    /// How long. Absent: until spec.approve names this run and this batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_592_000))]
    pub seconds: Option<i32>,
}

/// Lets a run go on past a pause. Names the run it answers (status.run); for any other run it is ignored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Approve {
    /// The run, as in status.run.
    #[schemars(range(min = 1))]
    pub run: i64,
    /// Pauses after batches up to this number (counted from 1) are passed; 0 passes only the pause before the first instance
    /// changes; -1 passes all of the run.
    #[schemars(range(min = -1, max = 10_000))]
    pub batch: i32,
    /// Who approves; recorded in the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub by: Option<String>,
    /// Why; recorded in the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub reason: Option<String>,
}

/// Gives a run up. Names the run (status.run); for any other run it is ignored and shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Abort {
    /// The run, as in status.run.
    #[schemars(range(min = 1))]
    pub run: i64,
}

/// Chosen instances on a revision of their own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.revision) != has(self.base)")
        .message("spec.pins[] must have exactly one of revision (what the instances run) and base (what they run with another version, package or images)"),
    validation = Rule::new("!has(self.revision) || !(has(self.version) || has(self.package) || has(self.images))")
        .message("spec.pins[].revision runs as it is: use base instead of revision to change its version, package or images"),
    validation = Rule::new("!has(self.base) || has(self.version) || has(self.package) || has(self.images)")
        .message("spec.pins[].base needs version, package or images, which differ from it: use revision instead of base to run it as it is")
)]
pub struct Pin {
    /// The instances: numbers and ranges, such as "3,5-7".
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*$')").message("spec.pins[].instances must be numbers and ranges, such as 3,5-7"))]
    pub instances: String,
    /// Name of the ControllerRevision that they run, as in status.versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub revision: Option<String>,
    /// Name of the ControllerRevision that they run, but for what follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub base: Option<String>,
    /// Version for people, instead of that of base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub version: Option<String>,
    /// Package, instead of that of base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<Package>,
    /// Images by name of the container (init containers too), instead of those of base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::images")]
    pub images: Option<BTreeMap<String, String>>,
    /// Who asked for this pin, and why; recorded in the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
}

/// Who asked for the present spec, and why. With an id it counts for the first change that bears it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// The asking system's own id, such as deploy-12345.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub id: Option<String>,
    /// Who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub by: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub reason: Option<String>,
}

mod defaults {
    use super::IntOrPercent;

    pub(super) fn replicas() -> i32 {
        1
    }
    pub(super) fn progress_deadline_seconds() -> i32 {
        600
    }
    pub(super) fn revision_history_limit() -> i32 {
        10
    }
    pub(super) fn scale_down_delay_seconds() -> i32 {
        30
    }
    pub(super) fn failure_threshold() -> i32 {
        1
    }
    pub(super) fn quarter() -> IntOrPercent {
        IntOrPercent::Percent("25%".into())
    }
}

mod schema {
    use schemars::{Schema, SchemaGenerator, json_schema};

    pub(super) fn match_labels(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "All of these must be on a Pod.",
            "type": "object",
            "minProperties": 1,
            "maxProperties": 16,
            "additionalProperties": {"type": "string", "maxLength": 63}
        })
    }

    pub(super) fn images(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Images by name of the container (init containers too), instead of those of base.",
            "type": "object",
            "minProperties": 1,
            "maxProperties": 32,
            "additionalProperties": {"type": "string", "minLength": 1, "maxLength": 1024}
        })
    }
}
