//! What is compared: the same Pods under three controllers.
use std::fmt;

use anyhow::{Context, Result};
use clap::ValueEnum;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::demo::stage::OPERATOR_USER;

/// Namespace of the Pods.
pub const NAMESPACE: &str = "bench";
/// Label `app` of the Pods, and name of the workload.
pub const APP: &str = "bench";
/// Label of the Pods that tells their version.
pub const VERSION_LABEL: &str = "version";
/// The one node that they run on. Named in the template: no scheduler has a part in this.
const NODE: &str = "kwok-0";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Subject {
    /// A Rollout of Baton.
    Baton,
    /// apps/v1 Deployment, its controller's client limits off.
    Deployment,
    /// apps/v1 StatefulSet, podManagementPolicy Parallel, its controller's client limits off.
    StatefulSet,
    /// apps/v1 Deployment with the client limits that kube-controller-manager ships with.
    DeploymentShipped,
    /// apps/v1 StatefulSet, Parallel, with the client limits that kube-controller-manager ships with.
    StatefulSetShipped,
}

/// Which object it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rollout,
    Deployment,
    StatefulSet,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Baton => "Baton Rollout",
            Self::Deployment => "Deployment, limits off",
            Self::StatefulSet => "StatefulSet Parallel, limits off",
            Self::DeploymentShipped => "Deployment, as shipped",
            Self::StatefulSetShipped => "StatefulSet Parallel, as shipped",
        })
    }
}

impl Subject {
    fn kind(self) -> Kind {
        match self {
            Self::Baton => Kind::Rollout,
            Self::Deployment | Self::DeploymentShipped => Kind::Deployment,
            Self::StatefulSet | Self::StatefulSetShipped => Kind::StatefulSet,
        }
    }

    pub fn is_baton(self) -> bool {
        self == Self::Baton
    }

    /// (--kube-api-qps, --kube-api-burst) of kube-controller-manager.
    pub fn limits(self) -> (u32, u32) {
        match self {
            Self::DeploymentShipped | Self::StatefulSetShipped => (20, 30),
            Self::Baton | Self::Deployment | Self::StatefulSet => (5_000, 10_000),
        }
    }

    /// The program that does the work.
    pub fn program(self) -> &'static str {
        if self.is_baton() { "baton-operator" } else { "kube-controller-manager" }
    }

    /// As whom its writes arrive.
    pub fn users(self) -> &'static [&'static str] {
        match self.kind() {
            Kind::Rollout => &[OPERATOR_USER],
            Kind::Deployment => &[
                "system:serviceaccount:kube-system:deployment-controller",
                "system:serviceaccount:kube-system:replicaset-controller",
            ],
            Kind::StatefulSet => &["system:serviceaccount:kube-system:statefulset-controller"],
        }
    }

    /// The workload with so many Pods at version 1.
    pub fn manifest(self, pods: usize, ready_after_seconds: u32) -> Value {
        let (kind, strategy) = match self.kind() {
            Kind::Rollout => ("Rollout", json!({"strategy": {"maxUnavailable": "25%", "maxSurge": 0}})),
            Kind::Deployment => {
                let rolling = json!({"maxUnavailable": "25%", "maxSurge": 0});
                ("Deployment", json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}))
            }
            Kind::StatefulSet => {
                let update = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%"}});
                ("StatefulSet", json!({"podManagementPolicy": "Parallel", "updateStrategy": update}))
            }
        };
        let mut manifest = json!({
            "apiVersion": self.gvk().api_version(),
            "kind": kind,
            "metadata": {"name": APP, "namespace": NAMESPACE},
            "spec": {
                "replicas": pods,
                "selector": {"matchLabels": {"app": APP}},
                "template": template(1, ready_after_seconds),
            },
        });
        if let (Some(spec), Value::Object(strategy)) = (manifest["spec"].as_object_mut(), strategy) {
            spec.extend(strategy);
        }
        manifest
    }

    fn gvk(self) -> GroupVersionKind {
        match self.kind() {
            Kind::Rollout => GroupVersionKind::gvk("baton.dev", "v1alpha1", "Rollout"),
            Kind::Deployment => GroupVersionKind::gvk("apps", "v1", "Deployment"),
            Kind::StatefulSet => GroupVersionKind::gvk("apps", "v1", "StatefulSet"),
        }
    }

    /// Whether it says of itself that it is done, of the present generation.
    pub fn is_settled(self, object: &Value, pods: usize) -> bool {
        let status = &object["status"];
        let count = |field: &str| status[field].as_u64().unwrap_or_default();
        let observed = status["observedGeneration"].as_i64() >= object["metadata"]["generation"].as_i64();
        let all = |fields: &[&str]| fields.iter().all(|field| count(field) == pods as u64);
        observed
            && all(&["replicas", "updatedReplicas", "availableReplicas"])
            && match self.kind() {
                Kind::Rollout | Kind::Deployment => count("terminatingReplicas") == 0,
                Kind::StatefulSet => status["currentRevision"] == status["updateRevision"],
            }
    }
}

fn template(version: u32, ready_after_seconds: u32) -> Value {
    let ready_after = (ready_after_seconds > 0)
        .then(|| json!({"testbed.baton.dev/ready-after": format!("{ready_after_seconds}s")}))
        .unwrap_or(json!({}));
    json!({
        "metadata": {"labels": {"app": APP, VERSION_LABEL: version.to_string()}, "annotations": ready_after},
        "spec": {
            "nodeName": NODE,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "containers": [{"name": "main", "image": format!("example.local/bench:{version}")}],
        },
    })
}

/// The object of a run.
pub struct Workload {
    api: Api<DynamicObject>,
    subject: Subject,
    pods: usize,
}

impl Workload {
    /// Creates it.
    pub async fn create(client: &Client, subject: Subject, pods: usize, ready_after_seconds: u32) -> Result<Self> {
        Self::create_as(client, subject, pods, subject.manifest(pods, ready_after_seconds)).await
    }

    /// Creates it with a manifest of its own.
    pub async fn create_as(client: &Client, subject: Subject, pods: usize, manifest: Value) -> Result<Self> {
        let resource = ApiResource::from_gvk(&subject.gvk());
        let api = Api::namespaced_with(client.clone(), NAMESPACE, &resource);
        let object = serde_json::from_value(manifest)?;
        api.create(&PostParams::default(), &object).await.context("cannot create the workload")?;
        Ok(Self { api, subject, pods })
    }

    /// Asks for another version.
    pub async fn change(&self, version: u32, ready_after_seconds: u32) -> Result<()> {
        self.patch(json!({"spec": {"template": template(version, ready_after_seconds)}})).await
    }

    /// A merge patch.
    pub async fn patch(&self, patch: Value) -> Result<()> {
        let changed = self.api.patch(APP, &PatchParams::default(), &Patch::Merge(patch)).await;
        changed.context("cannot change the workload")?;
        Ok(())
    }

    pub async fn is_settled(&self) -> Result<bool> {
        let object = serde_json::to_value(self.api.get(APP).await?)?;
        Ok(self.subject.is_settled(&object, self.pods))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn done_is_said_of_the_present_generation_only() {
        let object = |generation: i64, updated: u64| {
            json!({"metadata": {"generation": generation}, "status": {
                "observedGeneration": 2, "replicas": 4, "updatedReplicas": updated, "availableReplicas": 4,
                "currentRevision": "a", "updateRevision": "b",
            }})
        };
        assert!(Subject::Deployment.is_settled(&object(2, 4), 4));
        assert!(!Subject::Deployment.is_settled(&object(3, 4), 4));
        assert!(!Subject::Deployment.is_settled(&object(2, 3), 4));
        assert!(!Subject::StatefulSet.is_settled(&object(2, 4), 4), "its revision is not the current one yet");
    }
}
