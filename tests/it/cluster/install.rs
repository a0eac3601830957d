//! The operator as its users run it: Pods of the chart, under its own ServiceAccount, with exactly its rights.
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use baton::{
    api::hooks::{HookPoint, Point},
    plan::hook,
};
use serde_json::{Value, json};

use super::support::{BIN, TestCluster, eventually, output_of};
use crate::{sources, testbed};

const NAMESPACE: &str = "baton-system";
const OPERATOR: &str = env!("CARGO_BIN_EXE_baton-operator");
const AGENT: &str = env!("CARGO_BIN_EXE_baton-agent");
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// As whom the operator's requests arrive.
const USER: &str = "system:serviceaccount:baton-system:baton-operator";

/// Rights whose use no request shows.
const UNSEEN: &[(&str, &str)] =
    &[("update rollouts/finalizers", "asked of the authorizer when an ownerReference with blockOwnerDeletion is set")];

/// `(group, resource, verb)`; a subresource as `pods/status`.
type Right = (String, String, String);

fn repository(path: &str) -> String {
    sources::root().join(path).display().to_string()
}

/// Puts a program into the cluster's image `name:tag`.
fn image(cluster: &TestCluster, name: &str, tag: &str, program: &Path) {
    let folder: PathBuf = cluster.dir.join("images").join(name).join(tag);
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join(name);
    let _ = fs::remove_file(&file); // of an earlier run
    fs::hard_link(program, &file).or_else(|_| fs::copy(program, &file).map(drop)).unwrap();
    // Equal programs are different images under different tags.
    fs::write(folder.join("VERSION"), tag).unwrap();
}

fn helm(cluster: &TestCluster, args: &[&str]) {
    let mut command = Command::new(format!("{BIN}/helm"));
    output_of(command.args(args).args(["--namespace", NAMESPACE]).env("KUBECONFIG", &cluster.kubeconfig));
}

/// The Pod that holds the leader's lock; empty while nobody does.
fn leader(cluster: &TestCluster) -> String {
    let holder = ["-n", NAMESPACE, "get", "lease", "baton-operator", "-o", "jsonpath={.spec.holderIdentity}"];
    cluster.kubectl(&holder).split('/').next().unwrap_or_default().to_owned()
}

fn wait_ready(cluster: &TestCluster, namespace: &str) {
    let wait = ["wait", "--for=condition=Ready", "rollout.baton.dev/web", "--timeout=90s"];
    cluster.kubectl(&[&["-n", namespace], &wait[..]].concat());
}

/// `name image` of each Pod of the sample, sorted.
fn pods(cluster: &TestCluster, namespace: &str) -> Vec<String> {
    let path = "jsonpath={range .items[*]}{.metadata.name} {.spec.containers[0].image}{'\\n'}{end}";
    let text = cluster.kubectl(&["-n", namespace, "get", "pods", "-l", "app=web", "-o", path]);
    let mut pods: Vec<_> = text.lines().map(str::to_owned).collect();
    pods.sort();
    pods
}

/// X11: `helm --wait` and `kubectl wait` work; the rights that are granted are the rights that are used.
#[test]
fn the_chart_runs_an_operator_that_does_its_work_with_exactly_its_rights() {
    let cluster = TestCluster::start("install", "process");
    image(&cluster, "baton-operator", VERSION, Path::new(OPERATOR));
    image(&cluster, "web", "1.0", &testbed::web::program());
    image(&cluster, "web", "1.1", &testbed::web::program());
    image(&cluster, "bots", "1.0", Path::new(AGENT));

    let chart = repository("charts/baton");
    helm(&cluster, &["install", "baton", &chart, "--create-namespace", "--wait", "--timeout", "90s"]);
    cluster.kubectl(&["apply", "-f", &repository("config/samples/rollout_web.yaml")]);
    wait_ready(&cluster, "default");
    assert_eq!(pods(&cluster, "default").len(), 4);

    scales_and_rolls(&cluster);
    changes_in_place(&cluster);
    meets_taken_names_and_cleans_up(&cluster);
    gives_listeners_to_pods(&cluster);
    switches_a_service(&cluster);
    runs_hooks(&cluster);
    another_takes_over(&cluster);
    compare_rights(&cluster);
    restricted_to_a_namespace(&cluster, &chart);
}

fn scales_and_rolls(cluster: &TestCluster) {
    cluster.kubectl(&["scale", "rollouts.baton.dev/web", "--replicas=6"]);
    eventually(60, "six ready instances", || {
        cluster.kubectl(&["get", "rollouts.baton.dev", "web", "-o", "jsonpath={.status.readyReplicas}"]) == "6"
    });
    let patch =
        json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "example.local/web:1.1"}]);
    cluster.kubectl(&["patch", "rollouts.baton.dev", "web", "--type=json", "-p", &patch.to_string()]);
    eventually(90, "six instances at 1.1 and nothing else", || {
        let pods = pods(cluster, "default");
        pods.len() == 6 && pods.iter().all(|pod| pod.ends_with(" example.local/web:1.1"))
    });
    wait_ready(cluster, "default");
    let events = cluster.kubectl(&["get", "events.events.k8s.io", "-o", "jsonpath={.items[*].reportingController}"]);
    assert!(events.contains("baton-operator"), "no event about the roll: {events}");
}

/// B4: another label, and more CPU, is given to the Pods that are there.
fn changes_in_place(cluster: &TestCluster) {
    let told = |what: &str| cluster.kubectl(&["get", "pods", "-l", "app=web", "-o", &format!("jsonpath={what}")]);
    let uids = || told("{.items[*].metadata.uid}");
    let before = uids();
    let patch = json!({"spec": {
        "strategy": {"update": "InPlaceIfPossible", "maxUnavailable": 1},
        "template": {"metadata": {"labels": {"tier": "gold"}}},
    }});
    cluster.kubectl(&["patch", "rollouts.baton.dev", "web", "--type=merge", "-p", &patch.to_string()]);
    eventually(60, "six Pods with another label", || told("{.items[*].metadata.labels.tier}") == ["gold"; 6].join(" "));
    wait_ready(cluster, "default");
    let resources = "/spec/template/spec/containers/0/resources/requests/cpu";
    let patch = json!([{"op": "replace", "path": resources, "value": "20m"}]);
    cluster.kubectl(&["patch", "rollouts.baton.dev", "web", "--type=json", "-p", &patch.to_string()]);
    let has = || told("{.items[*].status.containerStatuses[0].resources.requests.cpu}") == ["20m"; 6].join(" ");
    eventually(60, "six Pods with other resources", has);
    wait_ready(cluster, "default");
    assert_eq!(uids(), before);
}

/// Objects of others under the names that it would choose, and revisions beyond the limit: what uses its rarest rights.
fn meets_taken_names_and_cleans_up(cluster: &TestCluster) {
    let rollout = |name: &str| {
        let text = fs::read_to_string(repository("config/samples/rollout_web.yaml")).unwrap();
        let mut object = serde_saphyr::from_multiple::<Value>(&text).unwrap().remove(0);
        object["metadata"]["name"] = json!(name);
        object["spec"]["replicas"] = json!(0);
        object["spec"]["revisionHistoryLimit"] = json!(0);
        object["spec"]["selector"]["matchLabels"] = json!({"app": "spare"});
        object["spec"]["template"]["metadata"]["labels"] = json!({"app": "spare"});
        object
    };
    let revisions = |name: &str| {
        let of = format!("baton.dev/rollout={name}");
        let hashes = "jsonpath={.items[*].metadata.labels.controller-revision-hash}";
        let text = cluster.kubectl(&["get", "controllerrevisions", "-l", &of, "-o", hashes]);
        text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    create(cluster, &rollout("spare"));
    eventually(60, "a revision", || !revisions("spare").is_empty());
    let hash = revisions("spare").remove(0);

    // The hash is of the template alone, so the names of both are known beforehand.
    let foreign = json!({
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {"name": format!("other-{hash}")},
        "data": {},
        "revision": 1,
    });
    create(cluster, &foreign);
    create(cluster, &rollout("other"));
    eventually(60, "a revision under another name", || revisions("other") == [hash.clone()]);
    let pod = format!("spare-0-{hash}");
    cluster.kubectl(&["run", &pod, "--image=example.local/web:1.0", "--command", "--", "web"]);
    cluster.kubectl(&["scale", "rollouts.baton.dev/spare", "--replicas=1"]);
    let ours = ["get", "pods", "-l", "baton.dev/rollout=spare", "-o", "jsonpath={.items[*].metadata.name}"];
    eventually(60, "a Pod under another name", || cluster.kubectl(&ours) == format!("{pod}-1"));

    for tag in ["1.1", "1.2", "1.3"] {
        let patch = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": format!("example.local/web:{tag}")}]);
        let before = revisions("other");
        cluster.kubectl(&["patch", "rollouts.baton.dev", "other", "--type=json", "-p", &patch.to_string()]);
        eventually(60, "another revision", || revisions("other").iter().any(|hash| !before.contains(hash)));
    }
    eventually(60, "the oldest revision to go", || !revisions("other").contains(&hash));
    cluster.kubectl(&["delete", "rollouts.baton.dev", "spare", "other"]);
}

fn create(cluster: &TestCluster, object: &Value) {
    let file = cluster.dir.join("object.json");
    fs::write(&file, object.to_string()).unwrap();
    cluster.kubectl(&["create", "-f", &file.display().to_string()]);
}

/// Listeners from a ConfigMap, given, taken away one by one and with their set: under the policy that the chart installs.
fn gives_listeners_to_pods(cluster: &TestCluster) {
    cluster.kubectl(&["apply", "-f", &repository("config/samples/listenersets/agent_rights.yaml")]);
    let listeners = |names: &[&str]| {
        let list: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
        json!({"data": {"listeners.yaml": json!(list).to_string()}}).to_string()
    };
    cluster.kubectl(&["create", "configmap", "bots"]);
    cluster.kubectl(&["patch", "configmap", "bots", "--type=merge", "-p", &listeners(&["a", "b"])]);
    let template = json!({
        "metadata": {"labels": {"app": "bots"}, "annotations": {"baton.dev/agent": "own"}},
        "spec": {
            "serviceAccountName": "bots",
            "containers": [{
                "name": "bots", "image": "example.local/bots:1.0", "command": ["bots", "exec", "--", "sleep", "1000"],
                "volumeMounts": [{"name": "baton", "mountPath": "/baton"}],
            }],
            "volumes": [{"name": "baton", "emptyDir": {}}],
        },
    });
    let spec = json!({"replicas": 1, "selector": {"matchLabels": {"app": "bots"}}, "template": template});
    let named = |kind: &str, spec: Value| json!({"apiVersion": "baton.dev/v1alpha1", "kind": kind, "metadata": {"name": "bots"}, "spec": spec});
    create(cluster, &named("Rollout", spec));
    create(cluster, &named("ListenerSet", json!({"rolloutRef": {"name": "bots"}, "configMap": {"name": "bots"}})));
    let running = || cluster.kubectl(&["get", "listenersets.baton.dev", "bots", "-o", "jsonpath={.status.running}"]);
    eventually(60, "two listeners", || running() == "2");
    cluster.kubectl(&["patch", "configmap", "bots", "--type=merge", "-p", &listeners(&["a"])]);
    let leases = || cluster.kubectl(&["get", "leases", "-l", "baton.dev/listener-set=bots", "-o", "name"]);
    eventually(60, "one listener and one Lease", || running() == "1" && leases().lines().count() == 1);
    cluster.kubectl(&["delete", "listenersets.baton.dev", "bots"]);
    eventually(60, "no Lease of a listener", || leases().is_empty());
    cluster.kubectl(&["delete", "rollouts.baton.dev", "bots"]);
}

/// A Service that a Rollout names is switched, and the old set ended.
fn switches_a_service(cluster: &TestCluster) {
    let ports = json!([{"port": 80, "targetPort": 8080}]);
    let metadata = json!({"name": "shop", "annotations": {"baton.dev/rollout": "shop"}});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"selector": {"app": "shop"}, "ports": ports}});
    create(cluster, &service);
    let mut object: Value =
        serde_json::from_str(&cluster.kubectl(&["get", "rollouts.baton.dev", "web", "-o", "json"])).unwrap();
    let template = object["spec"]["template"]["spec"].take();
    let settings = json!({"type": "BlueGreen", "blueGreen": {"activeService": "shop", "scaleDownDelaySeconds": 1}});
    let template = json!({"metadata": {"labels": {"app": "shop"}}, "spec": template});
    let spec = json!({"replicas": 1, "selector": {"matchLabels": {"app": "shop"}}, "strategy": settings, "template": template});
    create(
        cluster,
        &json!({"apiVersion": "baton.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "shop"}, "spec": spec}),
    );
    let selected =
        || cluster.kubectl(&["get", "service", "shop", "-o", r"jsonpath={.spec.selector.baton\.dev/revision}"]);
    eventually(60, "the Service to select the first set", || !selected().is_empty());
    let first = selected();
    cluster.kubectl(&["patch", "rollouts.baton.dev", "shop", "--type=merge", "-p", r#"{"spec": {"version": "next"}}"#]);
    eventually(60, "the Service to select the second set", || selected() != first);
    let old = ["get", "pods", "-l", &format!("baton.dev/revision={first}"), "-o", "name"];
    eventually(60, "the old set to end", || cluster.kubectl(&old).is_empty());
    cluster.kubectl(&["delete", "rollouts.baton.dev", "shop"]);
}

/// B8: the Job of a hook whose name is taken has another one; one that runs when its run is aborted is stopped. Clients are known to be
/// sent to an instance no more before it goes.
fn runs_hooks(cluster: &TestCluster) {
    let template = json!({
        "metadata": {"labels": {"app": "care"}},
        "spec": {"containers": [{"name": "web", "image": "example.local/web:1.0", "command": ["sleep", "1000"]}]},
    });
    let spec = json!({"selector": {"matchLabels": {"app": "care"}}, "version": "1", "drain": {}, "template": template});
    let metadata = json!({"name": "care"});
    create(
        cluster,
        &json!({"apiVersion": "baton.dev/v1alpha1", "kind": "Rollout", "metadata": metadata, "spec": spec}),
    );
    let told = |what: &str| cluster.kubectl(&["get", "rollouts.baton.dev", "care", "-o", &format!("jsonpath={what}")]);
    let reason = || told("{.status.conditions[?(@.type=='Ready')].reason}");
    eventually(60, "the first version", || reason() == "Complete");
    let point = Point::of_run(HookPoint::BeforeRollout);
    let taken = hook::job_name("care", &hook::key(&told("{.metadata.uid}"), 2, point, "load"), 1, |_| false);
    cluster.kubectl(&["create", "job", &taken, "--image=example.local/web:1.0", "--", "true"]);
    let script = |name: &str, when: &str, script: &str| {
        let container = json!({"name": "main", "image": "example.local/web:1.0", "command": ["sh", "-c", script]});
        json!({"name": name, "when": when, "onAbort": "Stop", "template": {"spec": {"containers": [container]}}})
    };
    let hooks = [script("load", "BeforeRollout", "true"), script("test", "AfterBatch", "sleep 600")];
    let patch = json!({"spec": {"version": "2", "hooks": hooks}}).to_string();
    cluster.kubectl(&["patch", "rollouts.baton.dev", "care", "--type=merge", "-p", &patch]);
    let jobs = || cluster.kubectl(&["get", "jobs", "-l", "baton.dev/hook=test", "-o", "name"]);
    eventually(90, "the test to run", || !jobs().is_empty());
    cluster.kubectl(&[
        "patch",
        "rollouts.baton.dev",
        "care",
        "--type=merge",
        "-p",
        r#"{"spec": {"abort": {"run": 2}}}"#,
    ]);
    eventually(90, "the test to be stopped, and the way back", || jobs().is_empty() && reason() == "Aborted");
    cluster.kubectl(&["delete", "rollouts.baton.dev", "care"]);
    cluster.kubectl(&["delete", "job", &taken]);
}

/// Two replicas, one leads; when it is gone, the other does.
fn another_takes_over(cluster: &TestCluster) {
    let replicas = cluster.kubectl(&["-n", NAMESPACE, "get", "pods", "-o", "name"]);
    let first = leader(cluster);
    assert_eq!(replicas.lines().filter(|pod| *pod == format!("pod/{first}")).count(), 1, "{first}: {replicas}");
    assert_eq!(replicas.lines().count(), 2, "{replicas}");
    cluster.kubectl(&["-n", NAMESPACE, "delete", "pod", &first, "--wait=false"]);
    eventually(60, "the other replica to lead", || {
        let now = leader(cluster);
        !now.is_empty() && now != first
    });
    cluster.kubectl(&["scale", "rollouts.baton.dev/web", "--replicas=5"]);
    eventually(60, "the new leader to scale down", || pods(cluster, "default").len() == 5);
}

/// What the audit log says the operator did, against what its roles allow.
fn compare_rights(cluster: &TestCluster) {
    let (used, refused) = used(&cluster.dir.join("logs/audit.log"));
    assert!(refused.is_empty(), "asked for more than it may: {refused:#?}");
    let granted = granted(cluster);
    assert!(used.is_subset(&granted), "rights of somebody else: {:#?}", used.difference(&granted));
    let spare: Vec<_> = granted.difference(&used).map(|(_, resource, verb)| format!("{verb} {resource}")).collect();
    assert_eq!(spare, UNSEEN.iter().map(|(right, _)| *right).collect::<Vec<_>>(), "granted, but not used");
}

/// Rights used, and requests refused for lack of one, or by a policy (F10).
fn used(audit_log: &Path) -> (BTreeSet<Right>, Vec<String>) {
    let (mut used, mut refused) = (BTreeSet::new(), Vec::new());
    for line in fs::read_to_string(audit_log).unwrap().lines() {
        let Ok(entry) = serde_json::from_str::<Value>(line) else { continue }; // still being written
        let object = &entry["objectRef"];
        if entry["user"]["username"] != USER || object["resource"].is_null() {
            continue;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut resource = text(&object["resource"]);
        if let Some(subresource) = object["subresource"].as_str() {
            resource = format!("{resource}/{subresource}");
        }
        let right = (text(&object["apiGroup"]), resource, text(&entry["verb"]));
        let by_policy = &entry["annotations"]["validation.policy.admission.k8s.io/validation_failure"];
        if entry["annotations"]["authorization.k8s.io/decision"] == "forbid" || !by_policy.is_null() {
            refused.push(format!("{right:?} {}", entry["requestURI"]));
        } else {
            used.insert(right);
        }
    }
    (used, refused)
}

/// Every right that some role gives the operator.
fn granted(cluster: &TestCluster) -> BTreeSet<Right> {
    let mut granted = BTreeSet::new();
    for role in ["clusterrole/baton-operator", "role/baton-operator"] {
        let role: Value =
            serde_json::from_str(&cluster.kubectl(&["-n", NAMESPACE, "get", role, "-o", "json"])).unwrap();
        for rule in role["rules"].as_array().unwrap() {
            let words =
                |field: &str| rule[field].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned());
            for group in words("apiGroups") {
                for resource in words("resources") {
                    granted.extend(words("verbs").map(|verb| (group.clone(), resource.clone(), verb)));
                }
            }
        }
    }
    granted
}

/// The same release, restricted to one namespace: it serves that one, without any right elsewhere.
fn restricted_to_a_namespace(cluster: &TestCluster, chart: &str) {
    cluster.kubectl(&["create", "namespace", "shop"]);
    let before = pods(cluster, "default");
    let restricted = "watchNamespaces={shop}";
    helm(cluster, &["upgrade", "baton", chart, "--set", restricted, "--wait", "--timeout", "90s"]);
    cluster.kubectl(&["-n", "shop", "apply", "-f", &repository("config/samples/rollout_web.yaml")]);
    wait_ready(cluster, "shop");
    assert_eq!(pods(cluster, "default"), before, "an upgrade of the operator touches no Pod");
    for (namespace, may) in [("shop", "yes"), ("default", "no")] {
        let mut can = Command::new(format!("{BIN}/kubectl"));
        let user = format!("--as={USER}");
        can.args(["auth", "can-i", "create", "pods", "-n", namespace, &user]).env("KUBECONFIG", &cluster.kubeconfig);
        let answer = String::from_utf8(can.output().unwrap().stdout).unwrap(); // "no" is exit code 1
        assert_eq!(answer.trim(), may, "{namespace}");
    }
}
