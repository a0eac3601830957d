//! Somebody with a token, who writes objects of several kinds.
use kube::{
    Api, Client, Config,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

use crate::cluster::support::TestCluster;

/// An account in one namespace.
#[derive(Clone)]
pub struct Account {
    pub client: Client,
    pub namespace: String,
    /// Its writes are tried, and not made.
    pub dry_run: bool,
}

impl Account {
    pub async fn of(cluster: &TestCluster, namespace: &str, token: Option<&str>) -> Self {
        let mut file = Kubeconfig::read_from(&cluster.kubeconfig).unwrap();
        if let Some(token) = token {
            file.auth_infos[0].auth_info = serde_json::from_value(json!({"token": token.trim()})).unwrap();
        }
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
        Self { client: Client::try_from(config).unwrap(), namespace: namespace.to_owned(), dry_run: false }
    }

    pub fn in_namespace(&self, namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..self.clone() }
    }

    fn api(&self, kind: &str) -> Api<DynamicObject> {
        let (group, plural) = match kind {
            "Pod" => ("", "pods"),
            "Service" => ("", "services"),
            "ControllerRevision" => ("apps", "controllerrevisions"),
            "Lease" => ("coordination.k8s.io", "leases"),
            "Job" => ("batch", "jobs"),
            "Rollout" => ("baton.dev", "rollouts"),
            "ListenerSet" => ("baton.dev", "listenersets"),
            other => panic!("{other}"),
        };
        let version = if group == "baton.dev" { "v1alpha1" } else { "v1" };
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        let resource = ApiResource {
            group: group.into(),
            version: version.into(),
            api_version,
            kind: kind.into(),
            plural: plural.into(),
        };
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    pub async fn create(&self, kind: &str, object: &Value) -> Result<Value, String> {
        let mut object = object.clone();
        if ["Rollout", "ListenerSet"].contains(&kind) {
            (object["apiVersion"], object["kind"]) = (json!("baton.dev/v1alpha1"), json!(kind));
        }
        let object = serde_json::from_value(object).unwrap();
        let made = self.api(kind).create(&PostParams { dry_run: self.dry_run, ..PostParams::default() }, &object).await;
        made.map(|object| serde_json::to_value(object).unwrap()).map_err(|error| format!("{error:?}"))
    }

    /// Merges a patch into the object or a subresource of it.
    pub async fn patch(&self, kind: &str, name: &str, subresource: &str, patch: &Value) -> Result<(), String> {
        let (api, params) = (self.api(kind), PatchParams { dry_run: self.dry_run, ..PatchParams::default() });
        let written = match subresource {
            "" => api.patch(name, &params, &Patch::Merge(patch)).await,
            // A custom resource knows no strategic merge.
            other if ["Rollout", "ListenerSet"].contains(&kind) => {
                api.patch_subresource(other, name, &params, &Patch::Merge(patch)).await
            }
            other => api.patch_subresource(other, name, &params, &Patch::Strategic(patch)).await,
        };
        written.map(drop).map_err(|error| format!("{error:?}"))
    }

    pub async fn delete(&self, kind: &str, name: &str) -> Result<(), String> {
        let params = DeleteParams { dry_run: self.dry_run, ..DeleteParams::default() }.grace_period(0);
        self.api(kind).delete(name, &params).await.map(drop).map_err(|error| format!("{error:?}"))
    }
}
