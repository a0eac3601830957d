//! The objects that are installed, each once. Where an installation may differ, a [`Variant`] says so: with values for
//! kustomize, with expressions for Helm.
use serde_json::{Value, json};

use super::rules;
use crate::{api::crd, operator::leader::CONTAINER};

/// Name of the Deployment, its ServiceAccount, its roles and their bindings.
pub const NAME: &str = "baton-operator";
/// The namespace of the kustomize base.
pub const NAMESPACE: &str = "baton-system";
/// Version of the program, the chart and the image.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Where the image comes from. Until images are published: the name under which the tests' node knows it.
pub const IMAGE_REPOSITORY: &str = "example.local/baton-operator";
/// The same of the agent.
pub const AGENT_IMAGE_REPOSITORY: &str = "example.local/baton-agent";
/// Two: one leads, the other takes over.
pub const REPLICAS: i32 = 2;
/// Port of `/healthz`, `/readyz` and `/metrics`.
pub const PROBE_PORT: i32 = 8080;
/// Ports on which API servers listen, behind their Service.
pub const API_SERVER_PORTS: [i32; 2] = [443, 6443];
/// The file lock that keeps it to one operator a Pod is here: it outlives a container's restart, not the Pod.
pub const STATE_FOLDER: &str = "/var/lib/baton";

/// What differs between installations.
pub struct Variant {
    /// `metadata.labels` of every object but the CRD.
    pub labels: Value,
    /// `metadata.namespace` and the ServiceAccount's namespace in bindings.
    pub namespace: Value,
    /// `spec.replicas`.
    pub replicas: Value,
    /// Of the operator.
    pub image: Value,
    /// `imagePullPolicy`.
    pub image_pull_policy: Value,
    /// Requests and limits of the operator.
    pub resources: Value,
    /// Further arguments: namespaces, the agent's image.
    pub arguments: Vec<Value>,
}

/// Labels that select the operator's Pods: never change.
pub fn selector_labels() -> Value {
    json!({"app.kubernetes.io/component": "operator", "app.kubernetes.io/name": "baton"})
}

/// Requests and limits by default. Limits memory only: a CPU limit slows a roll and protects nothing.
pub fn resources() -> Value {
    json!({"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}})
}

/// The CustomResourceDefinitions, each with the name of its file: the plural.
pub fn crds() -> serde_json::Result<Vec<(String, Value)>> {
    crd::all().iter().map(|crd| Ok((format!("{}.yaml", crd.spec.names.plural), serde_json::to_value(crd)?))).collect()
}

/// The namespace of the kustomize base; nothing beyond Pod security "restricted" starts in it.
pub fn namespace() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": NAMESPACE,
            "labels": {
                "app.kubernetes.io/name": "baton",
                "pod-security.kubernetes.io/enforce": "restricted",
                "pod-security.kubernetes.io/warn": "restricted",
            },
        },
    })
}

impl Variant {
    fn metadata(&self, name: &str) -> Value {
        json!({"name": name, "namespace": self.namespace, "labels": self.labels})
    }

    fn cluster_metadata(&self, name: &str) -> Value {
        json!({"name": name, "labels": self.labels})
    }

    pub fn service_account(&self) -> Value {
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": self.metadata(NAME)})
    }

    /// A Role in namespace `namespace`.
    pub fn role(&self, name: &str, namespace: &Value, rules: &Value) -> Value {
        let mut metadata = self.metadata(name);
        metadata["namespace"] = namespace.clone();
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": rules})
    }

    /// Gives the operator a [`Self::role`].
    pub fn role_binding(&self, name: &str, namespace: &Value) -> Value {
        let mut metadata = self.metadata(name);
        metadata["namespace"] = namespace.clone();
        self.binding("RoleBinding", &metadata, "Role", name)
    }

    /// A ClusterRole.
    pub fn cluster_role(&self, name: &str, rules: &Value) -> Value {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": self.cluster_metadata(name),
            "rules": rules,
        })
    }

    /// Gives the operator a [`Self::cluster_role`].
    pub fn cluster_role_binding(&self, name: &str) -> Value {
        self.binding("ClusterRoleBinding", &self.cluster_metadata(name), "ClusterRole", name)
    }

    fn binding(&self, kind: &str, metadata: &Value, role_kind: &str, role: &str) -> Value {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": kind,
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": self.namespace}],
        })
    }

    /// What users may be given: two roles add Rollouts to what the built-in `view`, `edit` and `admin` allow; the third is bound by
    /// its own name, where `edit` would be too much.
    pub fn user_roles(&self) -> [Value; 3] {
        let role = |name, rules: &Value, into: &[&str]| {
            let mut role = self.cluster_role(name, rules);
            for built_in in into {
                let label = format!("rbac.authorization.k8s.io/aggregate-to-{built_in}");
                role["metadata"]["labels"][label] = json!("true");
            }
            role
        };
        [
            role("baton-rollouts-edit", &rules::edit(), &["admin", "edit"]),
            role("baton-rollouts-view", &rules::view(), &["view"]),
            role("baton-rollouts-operate", &rules::operate(), &[]),
        ]
    }

    pub fn deployment(&self) -> Value {
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": self.metadata(NAME),
            "spec": {
                "replicas": self.replicas,
                "selector": {"matchLabels": selector_labels()},
                "template": {
                    "metadata": {"labels": selector_labels()},
                    "spec": self.pod_spec(),
                },
            },
        })
    }

    fn pod_spec(&self) -> Value {
        let downward = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
        let probe = |path: &str| json!({"httpGet": {"path": path, "port": "probes"}});
        // With the default of 10 s a first probe that comes too early costs an install or an upgrade 9 s.
        let readiness = json!({"httpGet": {"path": "/readyz", "port": "probes"}, "periodSeconds": 2});
        let mut arguments = vec![json!(format!("--state-dir={STATE_FOLDER}"))];
        arguments.extend(self.arguments.iter().cloned());
        json!({
            "serviceAccountName": NAME,
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            // Replicas on different nodes where there are several; a second one beside the first is better than none.
            "topologySpreadConstraints": [{
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": selector_labels()},
            }],
            "containers": [{
                "name": CONTAINER,
                "image": self.image,
                "imagePullPolicy": self.image_pull_policy,
                "command": ["baton-operator"],
                "args": arguments,
                "env": [
                    downward("POD_NAME", "metadata.name"),
                    downward("POD_NAMESPACE", "metadata.namespace"),
                    downward("POD_UID", "metadata.uid"),
                    downward("POD_IP", "status.podIP"),
                ],
                "ports": [{"name": "probes", "containerPort": PROBE_PORT}],
                "livenessProbe": probe("/healthz"),
                "readinessProbe": readiness,
                "resources": self.resources,
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]},
                    "readOnlyRootFilesystem": true,
                },
                "volumeMounts": [{"name": "state", "mountPath": STATE_FOLDER}],
            }],
            "volumes": [{"name": "state", "emptyDir": {"sizeLimit": "1Mi"}}],
        })
    }
}
