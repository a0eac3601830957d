//! `Rollout`: what a user asks for.
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::{
    blue_green::{BlueGreen, Promote},
    drain::Drain,
    health::Health,
    hooks::Hook,
    keep_failed::KeepFailed,
    package::{Package, SecretRef},
    pin::Pin,
    request::Request,
    soak::{OnBreach, Soak},
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
    doc = "Instances (Pods in numbered slots) that Baton changes to a new version in batches, and rolls back one by one or all together. This is not the Rollout of Argo or Kruise: use the name rollouts.baton.dev in kubectl commands.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.display.ready", description = "Instances ready / wanted"),
    printcolumn(name = "Up-to-date", type_ = "integer", json_path = ".status.updatedReplicas", description = "Pods at the target revision"),
    printcolumn(name = "Available", type_ = "integer", json_path = ".status.availableReplicas", description = "Instances that have been ready for minReadySeconds"),
    printcolumn(name = "Batch", type_ = "string", json_path = ".status.display.batch", description = "Present batch / number of batches"),
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
        .message("spec.progressDeadlineSeconds must exceed spec.minReadySeconds, or no instance could become available in time: raise the first or lower the second"),
    validation = Rule::new("!has(self.pins) || size(self.pins) == 0 || self.strategy.type == 'Batched'")
        .message("spec.pins needs spec.strategy.type Batched, because with any other type all instances run one version: remove the pins or set type to Batched"),
    validation = Rule::new("!has(self.strategy.hotReload) || !has(self.template.spec.hostNetwork) || !self.template.spec.hostNetwork")
        .message("spec.strategy: update HotReload sends a request to each Pod's own IP address, and a Pod with hostNetwork has none: remove spec.template.spec.hostNetwork, or set update to InPlaceIfPossible and remove hotReload"),
    validation = Rule::new("!(has(self.health) || (has(self.drain) && has(self.drain.httpPost))) || !has(self.template.spec.hostNetwork) || !self.template.spec.hostNetwork")
        .message("spec.health and spec.drain.httpPost send requests to each Pod's own IP address, and a Pod with hostNetwork has none: remove spec.template.spec.hostNetwork, or spec.health and spec.drain.httpPost"),
    validation = Rule::new("!has(self.health) || self.health.attempts * self.health.periodSeconds < self.progressDeadlineSeconds")
        .message("spec.health: attempts times periodSeconds must be less than spec.progressDeadlineSeconds, or the deadline would come before the last attempt: lower one of the first two or raise the third"),
    validation = Rule::new("!has(self.hooks) || self.hooks.all(hook, !has(hook.template.metadata) || !has(hook.template.metadata.labels) || !self.selector.matchLabels.all(k, k in hook.template.metadata.labels && hook.template.metadata.labels[k] == self.selector.matchLabels[k]))")
        .message("spec.hooks[].template.metadata.labels satisfy spec.selector.matchLabels: a Service with that selector would send clients to the hook; remove one of these labels from the hook"),
    validation = Rule::new("!has(self.hooks) || self.hooks.all(hook, !has(hook.imageFrom) || self.template.spec.containers.exists(c, c.name == hook.imageFrom.container) || (has(self.template.spec.initContainers) && self.template.spec.initContainers.exists(c, c.name == hook.imageFrom.container)))")
        .message("spec.hooks[].imageFrom.container must be the name of a container in spec.template: correct the name"),
    validation = Rule::new("!has(self.hooks) || self.strategy.type == 'Recreate' || self.hooks.all(hook, hook.when != 'WhileDown')")
        .message("spec.hooks[].when: WhileDown needs spec.strategy.type Recreate, because with any other type instances keep running; choose another point")
)]
pub struct RolloutSpec {
    /// Number of instances, 0 to 10,000. Instances are numbered from 0 to replicas - 1; each number is a slot. `kubectl
    /// scale` and HorizontalPodAutoscalers set this field.
    #[serde(default = "defaults::replicas")]
    #[schemars(range(min = 0, max = 10_000))]
    pub replicas: i32,

    /// Labels of the Pods that belong to this Rollout. Must be among spec.template.metadata.labels. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.selector is immutable: create a new Rollout under another name instead"))]
    pub selector: Selector,

    /// Version that people read, such as "1.4.2". If absent: tag or short digest of the first container's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub version: Option<String>,

    /// Files that each instance gets in addition to its images. Either an archive (url), which is downloaded, verified
    /// and unpacked before the containers start, or an image (image), which the kubelet mounts. Limits of an archive:
    /// tar.gz, tar.zst or zip, 2 GiB; unpacked 8 GiB and 200,000 entries. If absent: no files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<Package>,

    /// Pod template: each instance runs one Pod of it.
    pub template: PodTemplate,

    /// How many seconds a Pod must be ready without a break before its instance counts as available.
    #[serde(default)]
    #[schemars(range(min = 0, max = 86_400))]
    pub min_ready_seconds: i32,

    /// How many seconds a batch may go on without progress. Its instances that are not available by then have failed.
    /// The time starts anew with each batch, each newly available instance and each listener that is handed over. It
    /// stands still while the rollout is held, for example by a pause. Must exceed minReadySeconds.
    #[serde(default = "defaults::progress_deadline_seconds")]
    #[schemars(range(min = 1, max = 604_800))]
    pub progress_deadline_seconds: i32,

    /// Number of old ControllerRevisions that are kept, in addition to those in use or needed for a rollback.
    #[serde(default = "defaults::revision_history_limit")]
    #[schemars(range(min = 0, max = 100))]
    pub revision_history_limit: i32,

    /// If true, Baton begins nothing new: no batch, replacement, restart, pin, or rollback by a change of the spec.
    /// Still done: the rollback after a failure or an abort, scaling, and the replacement of lost Pods.
    #[serde(default)]
    pub paused: bool,

    /// How instances change to another revision.
    #[serde(default)]
    pub strategy: Strategy,

    /// Jobs that run before, between and after the batches of a run, and before it goes back; in this order, one at a
    /// time; at most 20. They are not part of the revision: a changed hook changes no Pod. If absent: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub hooks: Vec<Hook>,

    /// Checks that each instance must pass before it goes into service. A Pod that runs already is not asked. If absent,
    /// an instance is in service once its containers are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,

    /// What comes before an instance is deleted or its containers start anew: it leaves its Services, then it is asked
    /// whether it is drained. It takes effect on Pods that are created from now on. If absent, a Pod is deleted at once
    /// and drains by its own preStop hook and SIGTERM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,

    /// The time after the last batch in which the instances are watched, before the run completes. The first rollout and
    /// the way back are not watched. If absent, a run completes once its instances are available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak: Option<Soak>,

    /// Lets a run continue past a pause. The approval counts only for the run that it names. If that run does not exist
    /// yet, the approval has no effect: the next run takes a higher number, so run numbers may have gaps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approve: Option<Approve>,

    /// Aborts a run: its instances go back to the stable revision (status.currentRevision), within maxUnavailable and
    /// maxSurge, without pauses. It counts only for the run that it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<Abort>,

    /// Tries a failed or aborted revision again, if this time is later than the failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Time>,

    /// Restarts all instances: once this time is reached, every Pod that was created before it is replaced, in batches
    /// without pauses. The revisions stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_at: Option<Time>,

    /// Instances that run another revision until their pin is removed. A pinned instance is in no batch, and no later
    /// change or rollback of the Rollout changes it. If several pins name an instance, the first one counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "atomic"))]
    pub pins: Vec<Pin>,

    /// Who requested this spec and why; recorded in status.history. If id is set, the request is used once: a later
    /// change with the same id is recorded without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
}

/// Labels that select the Pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Labels with their values. A Pod is selected if it has all of them.
    #[schemars(schema_with = "schema::match_labels")]
    pub match_labels: BTreeMap<String, String>,
}

/// How instances change to another revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.batchSize) && has(self.batches))")
        .message("spec.strategy: batchSize and batches exclude each other; remove one of them"),
    validation = Rule::new("!((self.maxUnavailable == 0 || self.maxUnavailable == '0%') && (self.maxSurge == 0 || self.maxSurge == '0%'))")
        .message("spec.strategy: maxUnavailable and maxSurge cannot both be 0, because no Pod could ever be replaced; set one of them to 1 or more"),
    validation = Rule::new("!(has(self.update) && self.update == 'InPlaceOnly' && (self.maxUnavailable == 0 || self.maxUnavailable == '0%'))")
        .message("spec.strategy: update InPlaceOnly needs maxUnavailable of 1 or more, because an instance is unavailable while its containers restart; raise maxUnavailable"),
    validation = Rule::new("self.type == 'Batched' || !has(self.update) || self.update == 'Replace'")
        .message("spec.strategy: update changes Pods one by one and is for type Batched; set update to Replace, or type to Batched"),
    validation = Rule::new("self.type == 'Batched' || !(has(self.batchSize) || has(self.batches))")
        .message("spec.strategy: batchSize and batches are for type Batched; remove them or set type to Batched"),
    validation = Rule::new("(has(self.update) && self.update == 'HotReload') == has(self.hotReload)")
        .message("spec.strategy: update HotReload and the field hotReload (the request that applications get) belong together; set both or neither"),
    validation = Rule::new("(self.type == 'BlueGreen') == has(self.blueGreen)")
        .message("spec.strategy: type BlueGreen and blueGreen belong together; set both, or neither"),
    validation = Rule::new("self.type == 'Batched' || self.onFailure != 'RollbackFailed'")
        .message("spec.strategy.onFailure RollbackFailed leaves two versions side by side and is for type Batched; set onFailure to Rollback or Pause"),
    validation = Rule::new("!has(self.keepFailed) || self.type == 'BlueGreen' || (self.type == 'Batched' && self.maxSurge != 0 && self.maxSurge != '0%')")
        .message("spec.strategy.keepFailed needs room for one more Pod: set type to BlueGreen, or to Batched with maxSurge of 1 or more, or remove keepFailed")
)]
pub struct Strategy {
    /// Batched: instances change in batches, lowest slot first. Recreate: all old Pods end before the first new Pod is
    /// created, for applications that cannot run in two versions at once. BlueGreen: Baton creates a second, complete
    /// set of Pods and then switches a Service to it. maxUnavailable and maxSurge apply to Batched only.
    #[serde(rename = "type", default)]
    pub type_: StrategyType,

    /// How one instance changes; other values than Replace need type Batched. Replace: a new Pod takes the old Pod's
    /// place. InPlaceIfPossible: the Pod stays if only images, CPU and memory, labels or annotations differ, its node
    /// has room and maxUnavailable is not 0; otherwise it is replaced. At most maxUnavailable Pods (at least one)
    /// restart containers at once. InPlaceOnly: the same, but the rollout stops if anything else differs. HotReload: if
    /// only labels and annotations differ, the Pod stays in service and its application is asked to reload them, as
    /// hotReload says; otherwise the Pod is replaced. If absent: Replace.
    #[serde(default, skip_serializing_if = "UpdateMethod::is_default")]
    pub update: UpdateMethod,

    /// Only with update HotReload, and required there: the HTTP request that asks each application to reload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hot_reload: Option<HotReload>,

    /// Size of each batch, if all are equal: a count, or a percentage of replicas, rounded up. Excludes batches. If
    /// both are absent, all instances are one batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self != 0 && self != '0%'").message("spec.strategy.batchSize must be at least 1 or 1%"))]
    pub batch_size: Option<IntOrPercent>,

    /// Batches of chosen sizes, with pauses between them. Baton adds a last batch with all instances. Excludes
    /// batchSize.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(validation = Rule::new("self.filter(batch, type(batch.upTo) == int).map(batch, int(batch.upTo)).isSorted()").message("spec.strategy.batches: upTo includes the instances of earlier batches and cannot fall from one entry to the next: write the entries in rising order"))]
    pub batches: Option<Vec<Batch>>,

    /// How many instances may be unavailable at once during a rollout: a count, or a percentage of replicas, rounded
    /// down.
    #[serde(default = "defaults::quarter")]
    pub max_unavailable: IntOrPercent,

    /// How many Pods may exist in addition to replicas during a rollout: a count, or a percentage of replicas, rounded
    /// up.
    #[serde(default = "defaults::quarter")]
    pub max_surge: IntOrPercent,

    /// Only with type BlueGreen, and required there: the Services that Baton switches, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blue_green: Option<BlueGreen>,

    /// What Baton does once failureThreshold instances of a run have failed. Rollback: all instances go back to the
    /// stable revision (status.currentRevision). RollbackFailed: only the failed instances go back, the others stay,
    /// and the rollout waits for a person. Pause: every instance stays, and the rollout waits for a person. To go on,
    /// change the spec or set retryAt or abort.
    #[serde(default)]
    pub on_failure: OnFailure,

    /// Number of failed instances in a run at which onFailure acts. It also acts if all instances have failed.
    #[serde(default = "defaults::failure_threshold")]
    #[schemars(range(min = 1, max = 10_000))]
    pub failure_threshold: i32,

    /// Keeps some failed Pods for inspection after a rollback. The failed version runs on in them. Baton removes their
    /// labels, so that no Service and no NetworkPolicy selects them by these. They exist in addition to replicas and
    /// maxSurge. The MESSAGE column names them. Never kept: a Pod with an agent, and a Pod that is changed in place.
    /// All kept Pods are deleted at once if a new Pod finds no quota or no node. If absent, no Pod is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_failed: Option<KeepFailed>,
}

impl Rollout {
    /// What a person types to steer it: `kubectl baton approve web`.
    pub fn command(&self, verb: &str) -> String {
        format!("kubectl baton {verb} {}", self.metadata.name.as_deref().unwrap_or_default())
    }
}

impl RolloutSpec {
    /// Pods get the readiness gate: Baton says when they are in service.
    pub fn is_gated(&self) -> bool {
        self.strategy.update.restarts() || self.health.is_some() || self.drain.is_some()
    }

    /// The hook of this name.
    pub fn hook(&self, name: &str) -> Option<&Hook> {
        self.hooks.iter().find(|hook| hook.name == name)
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
    /// Number of instances at the new revision after this batch, including earlier batches: a count, or a percentage of
    /// replicas, rounded up. 0 makes a pause before the first instance changes. If an entry adds no instance to the
    /// entry before, only the longer of the two pauses applies; a pause for approval is the longest. A pause after the
    /// last instance delays the completion of the run: until then the previous revision stays the stable revision.
    pub up_to: IntOrPercent,
    /// Pause after this batch. `{}` waits for approval. If absent, there is no pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
}

/// A pause after a batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    /// Length of the pause in seconds. If absent, the pause lasts until spec.approve names this run and this batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_592_000))]
    pub seconds: Option<i32>,
}

/// Lets a run go on past a pause. Names the run it answers (status.run); for any other run it is ignored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Approve {
    /// Number of the run, as in status.run. Baton ignores this entry in any other run.
    #[schemars(range(min = 1))]
    pub run: i64,
    /// Approves the pauses up to the one after this batch, counted from 1. 0 approves only the pause before the first
    /// instance changes. -1 approves all pauses of the run.
    #[schemars(range(min = -1, max = 10_000))]
    pub batch: i32,
    /// Who approves; recorded in status.history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub by: Option<String>,
    /// Reason; recorded in status.history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub reason: Option<String>,
}

/// Gives a run up. Names the run (status.run); for any other run it is ignored and shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Abort {
    /// Number of the run, as in status.run. Baton ignores this entry in any other run.
    #[schemars(range(min = 1))]
    pub run: i64,
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
}
