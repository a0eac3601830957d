use std::collections::BTreeSet;

use clap::Parser;
use serde_json::{Value, json};

use super::{files, objects::PROBE_PORT, rules};
use crate::operator::settings::Settings;

/// Every object of the kustomize base, as values.
fn objects() -> Vec<Value> {
    let files = files().unwrap();
    let yaml = files.iter().filter(|(path, _)| path.starts_with("config/") && !path.ends_with("kustomization.yaml"));
    yaml.flat_map(|(path, text)| {
        serde_saphyr::from_multiple::<Value>(text).unwrap_or_else(|error| panic!("{path}: {error}"))
    })
    .collect()
}

fn strings<'a>(rule: &'a Value, field: &str) -> Vec<&'a str> {
    rule[field].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// `(kind of role, group, resource, verb)` for everything that is granted.
fn grants() -> BTreeSet<(String, String, String, String)> {
    let mut grants = BTreeSet::new();
    for role in objects().iter().filter(|object| object["rules"].is_array()) {
        for rule in role["rules"].as_array().unwrap() {
            assert!(rule.get("nonResourceURLs").is_none(), "{role}");
            for group in strings(rule, "apiGroups") {
                for resource in strings(rule, "resources") {
                    for verb in strings(rule, "verbs") {
                        let kind = format!("{}/{}", role["kind"], role["metadata"]["name"]).replace('"', "");
                        grants.insert((kind, group.into(), resource.into(), verb.into()));
                    }
                }
            }
        }
    }
    grants
}

#[test]
fn no_right_is_more_than_needed() {
    let grants = grants();
    assert!(grants.len() > 20, "{grants:?}");
    for grant in &grants {
        let (role, group, resource, verb) = grant;
        assert!(![group, resource, verb].into_iter().any(|word| word.contains('*')), "a wildcard: {grant:?}");
        assert!(
            !["secrets", "pods/exec", "pods/attach", "serviceaccounts/token"].contains(&resource.as_str()),
            "{grant:?}"
        );
        assert!(!["bind", "escalate", "impersonate", "approve", "sign"].contains(&verb.as_str()), "{grant:?}");
        assert!(
            !["rbac.authorization.k8s.io", "admissionregistration.k8s.io", "apiextensions.k8s.io"]
                .contains(&group.as_str()),
            "{grant:?}"
        );
        // A ClusterRole that may write to what belongs to no namespace could harm everyone.
        if resource == "nodes" {
            assert!(["list", "watch"].contains(&verb.as_str()), "{grant:?}");
        }
        // Other controllers' locks are none of ours: elsewhere a Lease is never replaced as a whole, and always named.
        if group == "coordination.k8s.io"
            && !["Role/baton-operator", "ClusterRole/baton-agent"].contains(&role.as_str())
        {
            assert!(["get", "list", "watch", "create", "patch", "delete"].contains(&verb.as_str()), "{grant:?}");
        }
        if resource == "services" {
            assert!(["get", "list", "watch", "patch"].contains(&verb.as_str()), "{grant:?}");
        }
        if resource == "configmaps" {
            assert!(["get", "list", "watch"].contains(&verb.as_str()), "{grant:?}");
        }
    }
}

#[test]
fn the_deployment_speaks_the_operators_language() {
    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        settings: Settings,
    }

    let installed = objects();
    let deployment = installed.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let arguments = ["baton-operator"].into_iter().chain(strings(container, "args")).chain(["--namespace=shop"]);
    let settings = Cli::try_parse_from(arguments).unwrap().settings;
    assert_eq!(settings.state_dir.unwrap().to_str(), container["volumeMounts"][0]["mountPath"].as_str());
    assert_eq!(settings.lease_name, rules::LEASE);
    // What names the Pod comes from the environment; the port of the probes is the default.
    let variables = container["env"].as_array().unwrap();
    let names: BTreeSet<_> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["POD_IP", "POD_NAME", "POD_NAMESPACE", "POD_UID"].into());
    let defaults = Cli::try_parse_from(["baton-operator", "--pod-ip=10.0.0.7"]).unwrap().settings;
    assert_eq!(i32::from(defaults.bind().port()), PROBE_PORT);
}

#[test]
fn nothing_is_installed_that_could_stop_a_cluster() {
    let kinds: BTreeSet<_> = objects().iter().map(|object| object["kind"].as_str().unwrap().to_owned()).collect();
    let expected = [
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "Deployment",
        "FlowSchema",
        "Namespace",
        "NetworkPolicy",
        "PriorityLevelConfiguration",
        "Role",
        "RoleBinding",
        "ServiceAccount",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    ];
    assert_eq!(kinds, expected.map(str::to_owned).into());
    for (path, text) in files().unwrap() {
        // A FlowSchema gives no rights: it is about requests in all namespaces.
        let text = text.replace("namespaces:\n      - \"*\"\n", "");
        for word in ["WebhookConfiguration", "kind: Secret", "\"*\"", "- '*'"] {
            assert!(!text.contains(word), "{path} has {word}");
        }
    }
}

#[test]
fn crds_are_the_same_everywhere_and_small() {
    let files = files().unwrap();
    for file in ["listenersets.yaml", "rollouts.yaml"] {
        let plain = &files[&format!("crds/{file}")];
        assert_eq!(plain, &files[&format!("config/crd/{file}")]);
        let crd: Value = serde_saphyr::from_str(plain).unwrap();
        let bytes = crd.to_string().len();
        assert!(bytes < 200 * 1024, "{file}: {bytes} bytes");
        // A CRD of Helm's `{{` would be taken for an expression.
        assert!(!plain.contains("{{") && !plain.contains("__"), "{file}: escape it for Helm");
        assert!(files.contains_key(&format!("charts/baton/templates/crds/{file}")));
    }
}

#[test]
fn nothing_is_left_to_fill_in() {
    for (path, text) in files().unwrap() {
        assert!(!text.contains("__"), "{path} has a mark that no expression replaces");
        assert!(!text.contains("COLUMN"), "{path}");
    }
}

#[test]
fn images_may_be_pinned_by_digest() {
    let files = files().unwrap();
    let values: Value = serde_saphyr::from_str(&files["charts/baton/values.yaml"]).unwrap();
    let schema: Value = serde_json::from_str(&files["charts/baton/values.schema.json"]).unwrap();
    for path in ["/image", "/agent/image"] {
        let image = values.pointer(path).unwrap();
        assert_eq!((&image["tag"], &image["digest"]), (&json!(""), &json!("")), "{path}");
        let known = schema.pointer(&path.replace('/', "/properties/")).unwrap();
        assert_eq!(known["properties"]["digest"]["pattern"], "^(sha256:[0-9a-f]{64})?$", "{path}");
    }
    // Both references are put together by the one named template.
    let deployment = &files["charts/baton/templates/deployment.yaml"];
    for values in [".Values.image", ".Values.agent.image"] {
        assert!(deployment.contains(&format!("{{{{ include \"baton.image\" (list $ {values}) }}}}")), "{deployment}");
    }
}
