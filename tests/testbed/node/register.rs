//! The node as the API server knows it: the Node object, its Ready condition, and the Lease that says
//! it is alive.
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use jiff::Timestamp;
use k8s_openapi::api::{
    coordination::v1::{Lease, LeaseSpec},
    core::v1::{DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus, NodeSystemInfo},
};
use k8s_openapi::apimachinery::pkg::{
    api::resource::Quantity,
    apis::meta::v1::{MicroTime, OwnerReference, Time},
};
use kube::{
    Api,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use tokio::time::{sleep, timeout};

use super::{
    downward::ALLOCATABLE,
    host::{CALL_TIMEOUT, Host, MANAGER, brief},
};

/// Labels that find process nodes.
const NODE_LABEL: (&str, &str) = ("baton.dev/node", "process");
/// The cluster's controller manager gives a node 8 s.
const LEASE_PERIOD: Duration = Duration::from_secs(2);
const LEASE_SECONDS: i32 = 8;
const STATUS_PERIOD: Duration = Duration::from_mins(1);
const LOOK_PERIOD: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(500);

/// Creates the Node or brings it up to date; tries until the API server takes it. Returns its uid.
pub async fn register(host: &Host, pods: u32) -> String {
    loop {
        match timeout(CALL_TIMEOUT, try_register(host, pods)).await {
            Ok(Ok(uid)) => return uid,
            Ok(Err(error)) => tracing::warn!("cannot register the node yet: {}", brief(&error)),
            Err(_) => tracing::warn!("cannot register the node yet: no answer"),
        }
        sleep(RETRY).await;
    }
}

async fn try_register(host: &Host, pods: u32) -> Result<String> {
    let api = Api::<Node>::all(host.client.clone());
    let node = node(host, pods);
    match api.create(&PostParams::default(), &node).await {
        Ok(node) => return node.metadata.uid.context("a node without uid"),
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        Err(error) => return Err(error.into()),
    }
    let patch = Patch::Strategic(serde_json::json!({ "metadata": { "labels": node.metadata.labels } }));
    api.patch(&host.name, &PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() }, &patch)
        .await?;
    let patch = Patch::Strategic(serde_json::json!({ "status": node.status }));
    let node = api.patch_status(&host.name, &PatchParams::default(), &patch).await?;
    node.metadata.uid.context("a node without uid")
}

fn node(host: &Host, pods: u32) -> Node {
    let labels = [
        ("kubernetes.io/hostname", host.name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture()),
        NODE_LABEL,
    ];
    let capacity = ALLOCATABLE.map(|(name, value)| (name, value.to_owned())).into_iter();
    let capacity = capacity.chain([("pods", pods.to_string())]);
    let capacity: BTreeMap<_, _> = capacity.map(|(name, value)| (name.to_owned(), Quantity(value))).collect();
    let address = |type_: &str, address: String| NodeAddress { type_: type_.into(), address };
    let version = format!("v{}-process", env!("CARGO_PKG_VERSION"));
    Node {
        metadata: ObjectMeta {
            name: Some(host.name.clone()),
            labels: Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()),
            ..ObjectMeta::default()
        },
        status: Some(NodeStatus {
            addresses: Some(vec![
                address("InternalIP", host.address().to_string()),
                address("Hostname", host.name.clone()),
            ]),
            allocatable: Some(capacity.clone()),
            capacity: Some(capacity),
            conditions: Some(conditions(Timestamp::now())),
            daemon_endpoints: Some(NodeDaemonEndpoints {
                kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(host.listen.port()) }),
            }),
            node_info: Some(NodeSystemInfo {
                architecture: architecture().into(),
                container_runtime_version: format!("process://{}", env!("CARGO_PKG_VERSION")),
                kubelet_version: version,
                operating_system: "linux".into(),
                os_image: "processes of the machine".into(),
                ..NodeSystemInfo::default()
            }),
            ..NodeStatus::default()
        }),
        ..Node::default()
    }
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Pressure conditions are told as a kubelet tells them, but never measured.
fn conditions(now: Timestamp) -> Vec<NodeCondition> {
    let condition = |type_: &str, status: &str, reason: &str, message: &str| NodeCondition {
        type_: type_.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    vec![
        condition("MemoryPressure", "False", "NotMeasured", "this node does not measure memory"),
        condition("DiskPressure", "False", "NotMeasured", "this node does not measure disks"),
        condition("PIDPressure", "False", "NotMeasured", "this node does not count processes"),
        condition("Ready", "True", "KubeletReady", "the process node is posting ready status"),
    ]
}

/// Tells the Ready condition from time to time, and at once when somebody else has declared the node dead.
pub async fn keep_ready(host: Arc<Host>) {
    let api = Api::<Node>::all(host.client.clone());
    loop {
        let pass = host.gate.pass().await;
        match timeout(CALL_TIMEOUT, tell_ready(&api, &host.name)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("cannot tell the node's status: {}", brief(&error)),
            Err(_) => tracing::warn!("cannot tell the node's status: no answer"),
        }
        drop(pass);
        sleep(LOOK_PERIOD).await;
    }
}

async fn tell_ready(api: &Api<Node>, name: &str) -> Result<()> {
    let told = api.get(name).await?.status.unwrap_or_default().conditions.unwrap_or_default();
    let now = Timestamp::now();
    let fresh = |condition: &NodeCondition| {
        let told_at = condition.last_heartbeat_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        now.duration_since(told_at).unsigned_abs() < STATUS_PERIOD
    };
    if told.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True" && fresh(condition)) {
        return Ok(());
    }
    let mut conditions = conditions(now);
    for condition in &mut conditions {
        let same = |told: &&NodeCondition| told.type_ == condition.type_ && told.status == condition.status;
        if let Some(told) = told.iter().find(same) {
            condition.last_transition_time.clone_from(&told.last_transition_time);
        }
    }
    let patch = Patch::Strategic(serde_json::json!({ "status": { "conditions": conditions } }));
    api.patch_status(name, &PatchParams::default(), &patch).await?;
    Ok(())
}

/// Renews the node's Lease for ever.
pub async fn keep_lease(host: Arc<Host>, node_uid: String) {
    let api = Api::<Lease>::namespaced(host.client.clone(), "kube-node-lease");
    loop {
        let pass = host.gate.pass().await;
        let outcome = timeout(CALL_TIMEOUT, renew(&api, &host.name, &node_uid)).await;
        drop(pass);
        match outcome {
            Ok(Ok(())) => sleep(LEASE_PERIOD).await,
            Ok(Err(error)) => {
                tracing::warn!("cannot renew the node's lease: {}", brief(&error));
                sleep(RETRY).await;
            }
            Err(_) => tracing::warn!("cannot renew the node's lease: no answer"),
        }
    }
}

async fn renew(api: &Api<Lease>, name: &str, node_uid: &str) -> Result<()> {
    let spec = LeaseSpec {
        holder_identity: Some(name.to_owned()),
        lease_duration_seconds: Some(LEASE_SECONDS),
        renew_time: Some(MicroTime(Timestamp::now())),
        ..LeaseSpec::default()
    };
    let patch = Patch::Merge(serde_json::json!({ "spec": spec }));
    match api.patch(name, &PatchParams::default(), &patch).await {
        Ok(_) => return Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    let owner = OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: name.to_owned(),
        uid: node_uid.to_owned(),
        ..OwnerReference::default()
    };
    let metadata =
        ObjectMeta { name: Some(name.to_owned()), owner_references: Some(vec![owner]), ..ObjectMeta::default() };
    api.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await?;
    Ok(())
}
