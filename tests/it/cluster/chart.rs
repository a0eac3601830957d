//! The Helm chart and the kustomize base: two ways to the same objects.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use serde_json::{Value, json};

use super::support::{BIN, TestCluster, output_of};
use crate::sources;

const NAMESPACE: &str = "baton-system";

fn repository(path: &str) -> String {
    sources::root().join(path).display().to_string()
}

fn helm(cluster: Option<&TestCluster>, args: &[&str]) -> Command {
    let mut command = Command::new(format!("{BIN}/helm"));
    command.args(args).env_remove("KUBECONFIG");
    if let Some(cluster) = cluster {
        command.env("KUBECONFIG", &cluster.kubeconfig);
    }
    command
}

fn template(values: &[&str]) -> Vec<Value> {
    let mut args = vec!["template", "baton", "charts/baton", "--namespace", NAMESPACE];
    args.extend(values.iter().flat_map(|value| ["--set", value]));
    documents(&output_of(helm(None, &args).current_dir(sources::root())))
}

fn documents(yaml: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

/// `Kind namespace/name`.
fn key(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    format!("{} {}/{}", text(&object["kind"]), text(&metadata["namespace"]), text(&metadata["name"]))
}

/// What the API server made of an object, without what it or Helm adds to it.
fn essence(mut object: Value) -> Value {
    object.as_object_mut().unwrap().remove("status");
    let metadata = object["metadata"].as_object_mut().unwrap();
    for field in ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "annotations"] {
        metadata.remove(field);
    }
    if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
        for label in ["helm.sh/chart", "app.kubernetes.io/managed-by", "app.kubernetes.io/instance"] {
            labels.remove(label);
        }
    }
    if metadata.get("labels").is_some_and(|labels| labels == &serde_json::json!({})) {
        metadata.remove("labels");
    }
    object
}

/// The installed objects of the kustomize base, but for its Namespace, which Helm makes by a flag.
fn installed(cluster: &TestCluster) -> BTreeMap<String, Value> {
    let text = cluster.kubectl(&["get", "-k", &repository("config/default"), "-o", "json"]);
    let list: Value = serde_json::from_str(&text).unwrap();
    let objects = list["items"].as_array().unwrap().iter().filter(|object| object["kind"] != "Namespace");
    objects.map(|object| (key(object), essence(object.clone()))).collect()
}

#[test]
fn helm_and_kustomize_install_equal_objects_and_uninstalling_leaves_what_users_made() {
    let cluster = TestCluster::start("chart", "kwok:1");
    let chart = repository("charts/baton");
    output_of(&mut helm(Some(&cluster), &["install", "baton", &chart, "-n", NAMESPACE, "--create-namespace"]));
    let by_helm = installed(&cluster);
    let manifest = documents(&output_of(&mut helm(Some(&cluster), &["get", "manifest", "baton", "-n", NAMESPACE])));
    assert_eq!(manifest.iter().map(key).collect::<BTreeSet<_>>(), by_helm.keys().cloned().collect());

    cluster.kubectl(&["wait", "--for=condition=Established", "crd/rollouts.baton.dev", "--timeout=30s"]);
    cluster.kubectl(&["apply", "-f", &repository("config/samples/rollout_web.yaml")]);
    make_a_set_with_a_lease(&cluster);
    let policies =
        || cluster.kubectl(&["get", "validatingadmissionpolicies,validatingadmissionpolicybindings", "-o", "name"]);
    assert_eq!(policies().lines().count(), 8);
    output_of(&mut helm(Some(&cluster), &["uninstall", "baton", "-n", NAMESPACE, "--wait"]));
    // With them the rights of their agents, which need no operator to go on.
    let kinds = "rollouts.baton.dev,listenersets.baton.dev,leases";
    let left = cluster.kubectl(&["-n", "default", "get", kinds, "-o", "name"]);
    let all =
        ["rollout.baton.dev/web", "listenerset.baton.dev/inline", "lease.coordination.k8s.io/listener.inline.orders"];
    assert_eq!(left.lines().collect::<Vec<_>>(), all);
    cluster.kubectl(&["get", "clusterrole", "baton-agent"]);
    assert_eq!(policies(), "");

    cluster.kubectl(&["apply", "-k", &repository("config/default")]);
    let by_kustomize = installed(&cluster);
    assert_eq!(by_helm, by_kustomize);
    assert!(by_helm.contains_key("Deployment baton-system/baton-operator"), "{:?}", by_helm.keys());
    // In a namespace that enforces the Pod security standard "restricted".
    let available = ["wait", "deployment/baton-operator", "--for=condition=Available", "--timeout=60s"];
    cluster.kubectl(&[&["-n", NAMESPACE], &available[..]].concat());
    cluster.kubectl(&["apply", "-k", &repository("config/network-policy"), "--dry-run=server"]);
    let label = "jsonpath={.metadata.labels.pod-security\\.kubernetes\\.io/enforce}";
    assert_eq!(cluster.kubectl(&["get", "namespace", NAMESPACE, "-o", label]), "restricted");

    // With the CRDs the sets go, while the policy is in force or has just gone.
    assert_eq!(policies().lines().count(), 8);
    cluster.kubectl(&["delete", "-k", &repository("config/default"), "--timeout=120s"]);
    let roles = cluster.kubectl(&["get", "clusterroles", "-l", "app.kubernetes.io/name=baton", "-o", "name"]);
    assert_eq!((policies(), roles), (String::new(), String::new()));
}

/// A sample, and a Lease as the hand-off has them for one of its listeners.
fn make_a_set_with_a_lease(cluster: &TestCluster) {
    cluster.kubectl(&["wait", "--for=condition=Established", "crd/listenersets.baton.dev", "--timeout=30s"]);
    cluster.kubectl(&["apply", "-f", &repository("config/samples/listenersets/listenerset_inline.yaml")]);
    let uid = cluster.kubectl(&["get", "listenersets.baton.dev", "inline", "-o", "jsonpath={.metadata.uid}"]);
    let set = json!({
        "apiVersion": "baton.dev/v1alpha1", "kind": "ListenerSet", "name": "inline", "uid": uid, "controller": true,
    });
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {
            "name": "listener.inline.orders", "labels": {"baton.dev/lease": "listener"}, "ownerReferences": [set],
        },
    });
    let file = cluster.dir.join("lease.json");
    fs::write(&file, lease.to_string()).unwrap();
    cluster.kubectl(&["create", "-f", &file.display().to_string()]);
}

/// Who may not grant rights in the whole cluster installs it for namespaces.
#[test]
fn watched_namespaces_get_a_role_each_and_nothing_reaches_further() {
    let objects = template(&["watchNamespaces={shop,bank}"]);
    let keys: BTreeSet<_> = objects.iter().map(key).collect();
    for namespace in ["shop", "bank"] {
        for kind in ["Role", "RoleBinding"] {
            let wanted = format!("{kind} {namespace}/baton-operator-rollouts");
            assert!(keys.contains(&wanted), "{wanted}: {keys:?}");
        }
    }
    let cluster_scoped: Vec<_> = keys.iter().filter(|key| key.contains(" /")).map(String::as_str).collect();
    let only = [
        "ClusterRole /baton-agent",
        "ClusterRole /baton-rollouts-edit",
        "ClusterRole /baton-rollouts-operate",
        "ClusterRole /baton-rollouts-view",
        "CustomResourceDefinition /listenersets.baton.dev",
        "CustomResourceDefinition /rollouts.baton.dev",
        "FlowSchema /baton-leases",
        "PriorityLevelConfiguration /baton-leases",
        "ValidatingAdmissionPolicy /baton-hooks",
        "ValidatingAdmissionPolicy /baton-leases",
        "ValidatingAdmissionPolicy /baton-operator",
        "ValidatingAdmissionPolicy /baton-rollouts",
        "ValidatingAdmissionPolicyBinding /baton-hooks",
        "ValidatingAdmissionPolicyBinding /baton-leases",
        "ValidatingAdmissionPolicyBinding /baton-operator",
        "ValidatingAdmissionPolicyBinding /baton-rollouts",
    ];
    assert_eq!(cluster_scoped, only);
    // F10: of the namespaces kube-* those that are named.
    let policy = objects.iter().find(|object| key(object) == "ValidatingAdmissionPolicy /baton-operator").unwrap();
    let named = r#"request.namespace in ["shop","bank"] ||"#;
    assert!(policy["spec"]["validations"][0]["expression"].as_str().unwrap().contains(named), "{policy}");
    let rules = objects.iter().filter(|object| object["kind"] == "Role").map(|role| role["rules"].to_string());
    assert!(rules.into_iter().all(|rules| !rules.contains("nodes")));
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
    assert!(arguments.contains("--namespace=shop") && arguments.contains("--namespace=bank"), "{arguments}");
    // The CRDs belong to somebody else, where one may not install them.
    let keys: Vec<_> = template(&["watchNamespaces={shop}", "crds.install=false"]).iter().map(key).collect();
    assert!(!keys.iter().any(|key| key.contains(" /")), "{keys:?}");
}

#[test]
fn values_are_used_and_typos_refused() {
    let objects = template(&[
        "image.repository=registry.example.com/baton",
        "image.tag=1.2.3",
        "image.pullPolicy=Always",
        "replicaCount=3",
        "resources.limits.memory=1Gi",
        "crds.keep=false",
        "policies.enabled=false",
        "flowSchema.enabled=false",
        "agent.image.repository=registry.example.com/agent",
        "agent.image.tag=v7",
    ]);
    let find = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap();
    let spec = &find("Deployment")["spec"];
    let container = &spec["template"]["spec"]["containers"][0];
    assert_eq!(spec["replicas"], 3);
    assert_eq!(container["image"], "registry.example.com/baton:1.2.3");
    assert_eq!(container["imagePullPolicy"], "Always");
    assert_eq!(container["resources"]["limits"]["memory"], "1Gi");
    let arguments = |objects: &[Value]| {
        let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
        deployment["spec"]["template"]["spec"]["containers"][0]["args"].to_string()
    };
    assert!(arguments(&objects).contains("\"--agent-image=registry.example.com/agent:v7\""), "{}", arguments(&objects));
    assert!(!arguments(&template(&["agent.image.repository="])).contains("agent"));
    assert!(find("CustomResourceDefinition")["metadata"]["annotations"].is_null());
    for kind in ["ValidatingAdmissionPolicy", "FlowSchema", "PriorityLevel", "NetworkPolicy"] {
        assert!(!objects.iter().any(|object| key(object).starts_with(kind)), "{kind}");
    }

    let digest = format!("sha256:{}", "0a".repeat(32));
    for (tag, reference) in [("", format!("r/o@{digest}")), ("v7", format!("r/o:v7@{digest}"))] {
        let image = |of: &str| format!("{of}.repository=r/o,{of}.tag={tag},{of}.digest={digest}");
        let objects = template(&[&image("image"), &image("agent.image")]);
        let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
        assert_eq!(deployment["spec"]["template"]["spec"]["containers"][0]["image"], json!(reference));
        assert!(arguments(&objects).contains(&format!("\"--agent-image={reference}\"")), "{}", arguments(&objects));
    }

    for (typo, said) in [
        ("image.digest=v7", "does not match pattern"),
        ("imagee.tag=1", "'imagee' not allowed"),
        ("image.tagg=1", "'tagg' not allowed"),
        ("agent.image.name=x", "'name' not allowed"),
        ("crds.remove=true", "'remove' not allowed"),
        ("policies.enable=true", "'enable' not allowed"),
        ("networkPolicy.from={}", "'from' not allowed"),
        ("flowSchema.enabled=2", "want boolean"),
        ("replicaCount=two", "want integer"),
        ("watchNamespaces={Shop}", "does not match pattern"),
    ] {
        let output = helm(None, &["template", "baton", "charts/baton", "--set", typo])
            .current_dir(sources::root())
            .output()
            .unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && message.contains(said), "{typo}: {message}");
    }
}

/// F6: with a value, nothing reaches the operator but probes and metrics, and it reaches the API server and Pods only.
#[test]
fn a_network_policy_is_one_value_away() {
    let policy = |values: &[&str]| {
        let objects = template(&[&["networkPolicy.enabled=true"], values].concat());
        objects.into_iter().find(|object| key(object) == "NetworkPolicy baton-system/baton-operator").unwrap()
    };
    let port = |port: i32| json!({"port": port, "protocol": "TCP"});
    let by_default = policy(&[]);
    let labels = json!({"app.kubernetes.io/component": "operator", "app.kubernetes.io/name": "baton"});
    let expected = json!({
        "podSelector": {"matchLabels": labels},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"ports": [port(8080)]}],
        "egress": [{"ports": [port(443), port(6443)]}, {"to": [{"namespaceSelector": {"matchLabels": {}}}]}],
    });
    assert_eq!(by_default["spec"], expected);
    let narrow = policy(&[
        "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.team=monitoring",
        "networkPolicy.apiServerCIDRs={10.0.0.1/32}",
        "networkPolicy.apiServerPorts={8443}",
        "watchNamespaces={shop,bank}",
    ]);
    let peers = json!([{"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}]);
    assert_eq!(narrow["spec"]["ingress"], json!([{"ports": [port(8080)], "from": peers}]));
    let served = json!([{"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["shop", "bank"]}]);
    let api_server = json!({"ports": [port(8443)], "to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}]});
    let pods = json!({"to": [{"namespaceSelector": {"matchExpressions": served}}]});
    assert_eq!(narrow["spec"]["egress"], json!([api_server, pods]));
}
