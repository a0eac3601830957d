//! API objects as they come over the wire, reduced to the fields that are read: what else an object holds is skipped.
use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::ControllerRevision,
        coordination::v1::{Lease, LeaseSpec},
        core::v1::{ContainerStatus, PodCondition, PodReadinessGate},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time},
};
use kube::core::error_boundary::InvalidObject;
use serde::{Deserialize, Deserializer};

use super::{
    guard::{Bounded, DeserializeGuard, Guarded, OBJECT_BYTES_MAX},
    kubelet, time,
};

/// A Pod as it comes over the wire, reduced to the fields that [`Pod`] is made from.
#[derive(Clone, Debug, Default, Deserialize, kube::Resource)]
#[resource(inherit = "k8s_openapi::api::core::v1::Pod")]
pub struct PodView {
    /// metadata, as far as [`Meta`] reads it.
    #[serde(deserialize_with = "Meta::read")]
    pub metadata: ObjectMeta,
    /// spec.
    #[serde(default)]
    pub spec: PodSpecView,
    /// status.
    #[serde(default)]
    pub status: PodStatusView,
    /// Why it cannot be read; None: it can. Then only its metadata is known, as far as that can be read.
    #[serde(skip)]
    pub unreadable: Option<String>,
}

/// What is read of a Pod's spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpecView {
    /// nodeName.
    pub node_name: Option<String>,
    /// hostNetwork.
    pub host_network: bool,
    /// readinessGates.
    pub readiness_gates: Vec<PodReadinessGate>,
    /// terminationGracePeriodSeconds.
    pub termination_grace_period_seconds: Option<i64>,
    /// initContainers.
    pub init_containers: Vec<InitContainerView>,
    /// containers.
    pub containers: Vec<ContainerView>,
}

/// What is read of a container's spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ContainerView {
    /// name.
    pub name: String,
    /// image.
    pub image: String,
    /// resources.
    pub resources: k8s_openapi::api::core::v1::ResourceRequirements,
}

/// What is read of an init container's spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InitContainerView {
    /// name.
    pub name: String,
    /// restartPolicy: `Always` makes it a sidecar, which runs as long as the Pod.
    pub restart_policy: Option<String>,
}

/// What is read of a Pod's status.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatusView {
    /// phase.
    pub phase: Option<String>,
    /// reason.
    pub reason: Option<String>,
    /// message.
    pub message: Option<String>,
    /// podIP.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// startTime.
    #[serde(deserialize_with = "time::time")]
    pub start_time: Option<Time>,
    /// observedGeneration.
    pub observed_generation: Option<i64>,
    /// conditions.
    #[serde(deserialize_with = "kubelet::conditions")]
    pub conditions: Vec<PodCondition>,
    /// initContainerStatuses.
    #[serde(deserialize_with = "kubelet::containers")]
    pub init_container_statuses: Vec<ContainerStatus>,
    /// containerStatuses.
    #[serde(deserialize_with = "kubelet::containers")]
    pub container_statuses: Vec<ContainerStatus>,
}

/// A Job of a hook as it comes over the wire, reduced to its conditions.
#[derive(Clone, Debug, Default, Deserialize, kube::Resource)]
#[resource(inherit = "k8s_openapi::api::batch::v1::Job")]
pub struct JobView {
    /// metadata, as far as [`Meta`] reads it.
    #[serde(deserialize_with = "Meta::read")]
    pub metadata: ObjectMeta,
    /// status.
    #[serde(default)]
    pub status: JobStatusView,
    /// Why it cannot be read; None: it can. Then only its metadata is known, as far as that can be read.
    #[serde(skip)]
    pub unreadable: Option<String>,
}

/// What is read of a Job's status.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct JobStatusView {
    /// conditions.
    pub conditions: Vec<JobConditionView>,
}

/// What is read of a Job's condition.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobConditionView {
    /// type.
    #[serde(rename = "type")]
    pub type_: String,
    /// status.
    pub status: String,
    /// reason.
    pub reason: String,
    /// lastTransitionTime.
    #[serde(deserialize_with = "time::time")]
    pub last_transition_time: Option<Time>,
}

/// An EndpointSlice as it comes over the wire, reduced to who serves.
#[derive(Clone, Debug, Default, Deserialize, kube::Resource)]
#[resource(inherit = "k8s_openapi::api::discovery::v1::EndpointSlice")]
pub struct EndpointSliceView {
    /// metadata, as far as [`Meta`] reads it.
    #[serde(deserialize_with = "Meta::read")]
    pub metadata: ObjectMeta,
    /// endpoints.
    #[serde(default)]
    pub endpoints: Vec<EndpointView>,
    /// Why it cannot be read; None: it can. Then only its metadata is known, as far as that can be read.
    #[serde(skip)]
    pub unreadable: Option<String>,
}

/// What is read of an endpoint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointView {
    /// conditions.
    pub conditions: EndpointConditionsView,
    /// targetRef.
    pub target_ref: Option<TargetView>,
}

/// What is read of an endpoint's conditions.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct EndpointConditionsView {
    /// serving.
    pub serving: Option<bool>,
}

/// The Pod of an endpoint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TargetView {
    /// name.
    pub name: String,
    /// uid.
    pub uid: String,
}

/// A Node as it comes over the wire, reduced to its conditions.
#[derive(Clone, Debug, Default, Deserialize, kube::Resource)]
#[resource(inherit = "k8s_openapi::api::core::v1::Node")]
pub struct NodeView {
    /// metadata, as far as [`Meta`] reads it.
    #[serde(deserialize_with = "Meta::read")]
    pub metadata: ObjectMeta,
    /// status.
    #[serde(default)]
    pub status: NodeStatusView,
    /// Why it cannot be read; None: it can. Then only its metadata is known, as far as that can be read.
    #[serde(skip)]
    pub unreadable: Option<String>,
}

/// What is read of a Node's status.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeStatusView {
    /// conditions.
    pub conditions: Vec<NodeConditionView>,
}

/// What is read of a Node's condition: no time.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeConditionView {
    /// type.
    pub r#type: String,
    /// status.
    pub status: String,
}

/// A ControllerRevision as it comes over the wire.
#[derive(Clone, Debug, Default, Deserialize, kube::Resource)]
#[resource(inherit = "k8s_openapi::api::apps::v1::ControllerRevision")]
pub struct RevisionView {
    /// metadata, as far as [`Meta`] reads it.
    #[serde(deserialize_with = "Meta::read")]
    pub metadata: ObjectMeta,
    /// data.
    #[serde(default)]
    pub data: serde_json::Value,
    /// revision.
    #[serde(default)]
    pub revision: Option<i64>,
    /// Why it cannot be read; None: it can. Then only its metadata is known, as far as that can be read.
    #[serde(skip)]
    pub unreadable: Option<String>,
}

/// A Service as it comes over the wire, reduced to its selector.
#[derive(Clone, Debug, Default, Deserialize, kube::Resource)]
#[resource(inherit = "k8s_openapi::api::core::v1::Service")]
pub struct ServiceView {
    /// metadata, as far as [`Meta`] reads it.
    #[serde(deserialize_with = "Meta::read")]
    pub metadata: ObjectMeta,
    /// spec.
    #[serde(default)]
    pub spec: ServiceSpec,
    /// Why it cannot be read; None: it can. Then only its metadata is known, as far as that can be read.
    #[serde(skip)]
    pub unreadable: Option<String>,
}

/// spec of a Service.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ServiceSpec {
    /// selector.
    #[serde(default)]
    pub selector: BTreeMap<String, String>,
}

/// A Lease of the hand-off as it comes over the wire.
#[derive(Clone, Debug, Default, Deserialize, kube::Resource)]
#[resource(inherit = "k8s_openapi::api::coordination::v1::Lease")]
pub struct LeaseView {
    /// metadata, as far as [`Meta`] reads it.
    #[serde(deserialize_with = "Meta::read")]
    pub metadata: ObjectMeta,
    /// spec.
    #[serde(default, deserialize_with = "lease_spec")]
    pub spec: Option<LeaseSpec>,
    /// Why it cannot be read; None: it can. Then only its metadata is known, as far as that can be read.
    #[serde(skip)]
    pub unreadable: Option<String>,
}

/// What is read of a Lease's spec.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LeaseSpecView {
    #[serde(deserialize_with = "time::micro_time")]
    acquire_time: Option<MicroTime>,
    holder_identity: Option<String>,
    lease_duration_seconds: Option<i32>,
    lease_transitions: Option<i32>,
    #[serde(deserialize_with = "time::micro_time")]
    renew_time: Option<MicroTime>,
}

fn lease_spec<'de, D: Deserializer<'de>>(from: D) -> Result<Option<LeaseSpec>, D::Error> {
    let told = Option::<LeaseSpecView>::deserialize(from)?;
    Ok(told.map(|told| LeaseSpec {
        acquire_time: told.acquire_time,
        holder_identity: told.holder_identity,
        lease_duration_seconds: told.lease_duration_seconds,
        lease_transitions: told.lease_transitions,
        renew_time: told.renew_time,
        ..LeaseSpec::default()
    }))
}

impl From<LeaseView> for Lease {
    fn from(LeaseView { metadata, spec, .. }: LeaseView) -> Self {
        Self { metadata, spec }
    }
}

impl From<ControllerRevision> for RevisionView {
    fn from(ControllerRevision { metadata, data, revision }: ControllerRevision) -> Self {
        Self { metadata, data: data.0, revision, unreadable: None }
    }
}

/// What is read of metadata. A good part of a Pod's JSON is managedFields, a tree of many small maps: skipped, not decoded.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    generation: Option<i64>,
    resource_version: Option<String>,
    #[serde(default, deserialize_with = "time::time")]
    creation_timestamp: Option<Time>,
    #[serde(default, deserialize_with = "time::time")]
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

impl Meta {
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<ObjectMeta, D::Error> {
        Self::deserialize(from).map(|meta| ObjectMeta {
            name: meta.name,
            namespace: meta.namespace,
            uid: meta.uid,
            generation: meta.generation,
            resource_version: meta.resource_version,
            creation_timestamp: meta.creation_timestamp,
            deletion_timestamp: meta.deletion_timestamp,
            labels: meta.labels,
            annotations: meta.annotations,
            owner_references: meta.owner_references,
            ..ObjectMeta::default()
        })
    }
}

/// A view of an object that cannot be read has its metadata, and says why.
macro_rules! guarded {
    ($($view:ty),*) => {$(
        impl Guarded for $view {
            fn unreadable(&self) -> Option<&str> {
                self.unreadable.as_deref()
            }
        }

        impl From<DeserializeGuard<$view>> for $view {
            fn from(guard: DeserializeGuard<$view>) -> Self {
                guard.0.unwrap_or_else(|InvalidObject { error, metadata }| Self {
                    metadata,
                    unreadable: Some(error),
                    ..Self::default()
                })
            }
        }
    )*};
}

guarded!(EndpointSliceView, JobView, PodView, NodeView, RevisionView, ServiceView, LeaseView);

impl Bounded for EndpointSliceView {}
impl Bounded for JobView {}
impl Bounded for PodView {}
impl Bounded for NodeView {}
impl Bounded for ServiceView {}
impl Bounded for LeaseView {}

/// The template of a Rollout that is just small enough, and what Baton notes beside it.
impl Bounded for RevisionView {
    const BYTES_MAX: usize = OBJECT_BYTES_MAX + 64 * 1_024;
}

impl NodeView {
    /// True while its Ready condition is True.
    pub fn is_ready(&self) -> bool {
        self.status.conditions.iter().any(|condition| condition.r#type == "Ready" && condition.status == "True")
    }
}

/// When a condition became what it is.
pub(super) fn since(condition: &PodCondition) -> Option<Timestamp> {
    condition.last_transition_time.as_ref().map(|time| time.0)
}
