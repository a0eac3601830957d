//! `config/`: a kustomize base. `kubectl apply -k config/default` installs all of it.
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    HEADER, network,
    objects::{self, NAME, NAMESPACE, VERSION, Variant},
    policies, rules, text,
};

fn variant() -> Variant {
    let mut labels = objects::selector_labels();
    labels["app.kubernetes.io/version"] = json!(VERSION);
    Variant {
        labels,
        namespace: json!(NAMESPACE),
        replicas: json!(objects::REPLICAS),
        image: json!(format!("{}:{VERSION}", objects::IMAGE_REPOSITORY)),
        image_pull_policy: json!("IfNotPresent"),
        resources: objects::resources(),
        arguments: vec![json!(format!("--agent-image={}:{VERSION}", objects::AGENT_IMAGE_REPOSITORY))],
    }
}

/// Anybody may ask for metrics, the API server is anywhere, and Pods of all namespaces may be told to reload.
fn peers() -> network::Peers {
    let ports = objects::API_SERVER_PORTS.map(|port| json!({"port": port, "protocol": "TCP"}));
    let (metrics, api_server) = (Vec::new(), Vec::new());
    network::Peers { metrics, api_server_ports: json!(ports), api_server, namespaces: json!({}) }
}

/// One folder with a kustomization of its own.
struct Folder {
    name: &'static str,
    /// Name, and what is in it.
    files: Vec<(String, Vec<Value>)>,
}

/// Path below `config` -> content.
pub fn files() -> anyhow::Result<BTreeMap<String, String>> {
    let variant = variant();
    let here = json!(NAMESPACE);
    let everywhere = merged(rules::where_rollouts_are(), rules::cluster_wide());
    let [edit, view, operate] = variant.user_roles();
    let folders = [
        Folder { name: "crd", files: objects::crds()?.into_iter().map(|(file, crd)| (file, vec![crd])).collect() },
        Folder {
            name: "rbac",
            files: vec![
                ("service_account.yaml".into(), vec![variant.service_account()]),
                (
                    "operator_role.yaml".into(),
                    vec![variant.cluster_role(NAME, &everywhere), variant.cluster_role_binding(NAME)],
                ),
                (
                    "leader_election_role.yaml".into(),
                    vec![variant.role(NAME, &here, &rules::own_namespace()), variant.role_binding(NAME, &here)],
                ),
                ("rollouts_edit_role.yaml".into(), vec![edit]),
                ("rollouts_operate_role.yaml".into(), vec![operate]),
                ("rollouts_view_role.yaml".into(), vec![view]),
                ("agent_role.yaml".into(), vec![variant.cluster_role(policies::AGENT_ROLE, &policies::agent_rules())]),
            ],
        },
        Folder {
            name: "policy",
            files: super::admission(&variant.labels, "[]")
                .into_iter()
                .map(|(file, objects)| (file.to_owned(), objects.into()))
                .collect(),
        },
        Folder { name: "flow", files: vec![("leases.yaml".into(), network::flow(&variant.labels).into())] },
        // Not part of the default: where the API server is, and on which port, differs.
        Folder {
            name: "network-policy",
            files: vec![("operator.yaml".into(), vec![network::policy(&variant.labels, &here, &peers())])],
        },
        Folder {
            name: "manager",
            files: vec![
                ("namespace.yaml".into(), vec![objects::namespace()]),
                ("deployment.yaml".into(), vec![variant.deployment()]),
            ],
        },
    ];
    let mut files = BTreeMap::new();
    for folder in folders {
        let resources: Vec<String> = folder.files.iter().map(|(file, _)| file.clone()).collect();
        files.insert(format!("{}/kustomization.yaml", folder.name), kustomization(&resources)?);
        for (file, objects) in folder.files {
            let documents = objects.iter().map(text::yaml).collect::<anyhow::Result<Vec<_>>>()?;
            files.insert(format!("{}/{file}", folder.name), format!("{HEADER}{}", text::documents(&documents)));
        }
    }
    let all = ["../crd", "../flow", "../manager", "../policy", "../rbac"].map(str::to_owned);
    files.insert("default/kustomization.yaml".to_owned(), kustomization(&all)?);
    Ok(files)
}

fn kustomization(resources: &[String]) -> anyhow::Result<String> {
    let object =
        json!({"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": resources});
    Ok(format!("{HEADER}{}", text::yaml(&object)?))
}

fn merged(first: Value, second: Value) -> Value {
    let lists = [first, second].into_iter().filter_map(|list| match list {
        Value::Array(list) => Some(list),
        _ => None,
    });
    lists.flatten().collect()
}
