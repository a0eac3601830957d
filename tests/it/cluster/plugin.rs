//! The plugin as kubectl runs it, on a real API server. What needs an operator is in the tests of whole rollouts.
use std::{
    ffi::OsString,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use super::{
    api::cluster,
    support::{BIN, TestCluster},
};
use crate::sources;

/// `kubectl baton ARGS` with `input`: found in PATH, as a user has it.
pub fn baton(cluster: &TestCluster, args: &[&str], input: &str) -> Output {
    let mut child = start(cluster, args);
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn start(cluster: &TestCluster, args: &[&str]) -> Child {
    let plugin = Path::new(env!("CARGO_BIN_EXE_kubectl-baton")).parent().unwrap();
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let paths = [plugin.to_owned(), BIN.into()].into_iter().chain(std::env::split_paths(&paths));
    let path: OsString = std::env::join_paths(paths).unwrap();
    Command::new(Path::new(BIN).join("kubectl"))
        .arg("baton")
        .args(args)
        .env("KUBECONFIG", &cluster.kubeconfig)
        .env("PATH", path)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What `get bls bots -w` prints until the set is deleted, which it is after the first line.
fn followed_until_deleted(namespace: &str) -> String {
    let mut child = start(cluster(), &["get", "bls", "bots", "-w", "-n", namespace]);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut told = String::new();
    stdout.read_line(&mut told).unwrap();
    cluster().kubectl(&["delete", "bls", "bots", "-n", namespace]);
    stdout.read_to_string(&mut told).unwrap();
    assert!(child.wait().unwrap().success(), "{told}");
    told
}

/// What it prints; it must succeed.
#[track_caller]
fn says(args: &[&str], input: &str) -> String {
    let Output { status, stdout, stderr } = baton(cluster(), args, input);
    assert!(status.success(), "{args:?}: {status}\n{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// What it complains of; it must exit with this code.
#[track_caller]
fn complains(code: i32, args: &[&str], input: &str) -> String {
    let Output { status, stdout, stderr } = baton(cluster(), args, input);
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(code), "{args:?}\n{}{stderr}", String::from_utf8_lossy(&stdout));
    stderr
}

/// A namespace of the test's own.
fn namespace(name: &'static str) -> &'static str {
    cluster().kubectl(&["create", "namespace", name]);
    name
}

fn sample() -> String {
    std::fs::read_to_string(sources::root().join("config/samples/rollout_web.yaml")).unwrap()
}

#[test]
fn a_rollout_that_no_operator_has_seen_reads_pending() {
    let namespace = namespace("plugin-pending");
    cluster().kubectl(&["apply", "-n", namespace, "-f", &format!("{}/config/samples", sources::root().display())]);
    let shown = says(&["get", "rollout", "web", "-n", namespace], "");
    let header = "Name:       web                      Status:  • Pending   the operator has not seen the present spec yet\n\
                  Version:    1.0                      [░░░░░░░░░░░░] 0/4\n";
    assert!(shown.starts_with(header), "{shown}");
    assert!(!shown.contains('\u{1b}'), "colours only on a terminal: {shown:?}");
    assert_eq!(says(&["get", "rollouts.baton.dev/web", "-n", namespace, "-o", "name"], ""), "rollout.baton.dev/web\n");
    let object: serde_json::Value =
        serde_json::from_str(&says(&["get", "bro", "web", "-n", namespace, "-o", "json"], "")).unwrap();
    assert_eq!(object["spec"]["replicas"], 4);
    // What is shown can be applied: nothing is in it that the API server does not know.
    let file = cluster().dir.join("plugin-pending.yaml");
    std::fs::write(&file, says(&["get", "bro", "web", "-n", namespace, "-o", "yaml"], "")).unwrap();
    let applied = cluster().kubectl(&["apply", "-n", namespace, "-f", file.to_str().unwrap()]);
    assert!(applied.starts_with("rollout.baton.dev/web "), "{applied}");
    for unknown in ["instances", "status.instances"] {
        let mut object = object.clone();
        match unknown.split_once('.') {
            Some((status, field)) => object[status][field] = serde_json::json!([]),
            None => object[unknown] = serde_json::json!([]),
        }
        let refused = super::api::kubectl_with(&["apply", "-n", namespace, "-f", "-"], &object);
        let why = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && why.contains(&format!("unknown field \"{unknown}\"")), "{why}");
    }
    let instances = says(&["get", "instances", "web", "-n", namespace], "");
    let lines: Vec<&str> = instances.lines().collect();
    assert_eq!((lines.len(), lines[0]), (5, "INSTANCE  POD  VERSION  TARGET  STATE    REASON"), "{instances}");
    assert!(lines[4].starts_with("web-3") && lines[4].ends_with("Missing"), "{instances}");
    let all: serde_json::Value =
        serde_json::from_str(&says(&["get", "instances/web", "-n", namespace, "-o", "json"], "")).unwrap();
    assert_eq!((all["items"].as_array().unwrap().len(), &all["items"][3]["name"]), (4, &serde_json::json!("web-3")));
    assert_eq!(says(&["history", "web", "-n", namespace], ""), "rollout.baton.dev/web has no revision yet\n");
    let none = complains(1, &["history", "web", "--revision", "4", "-n", namespace], "");
    assert_eq!(none, "error: web has no revision 4, nor any other yet\n");
    let line = "Waiting for rollout spec update to be observed...\n";
    let Output { status, stdout, .. } = baton(cluster(), &["status", "web", "-n", namespace, "--watch=false"], "");
    assert_eq!((status.code(), String::from_utf8(stdout).unwrap().as_str()), (Some(4), line), "it is under way");
    let hint =
        "no operator has seen generation 1 of web yet: `kubectl get deployments -A -l app.kubernetes.io/name=baton` ";
    for timeout in ["1s", "7s"] {
        let given_up = complains(4, &["status", "rollout", "web", "-n", namespace, "--timeout", timeout], "");
        let late = format!("error: timed out after {timeout} waiting for rollout \"web\": the operator has not seen");
        let lines: Vec<&str> = given_up.lines().collect();
        assert!(lines[0].starts_with(hint) && lines[1].starts_with(&late) && lines.len() == 2, "{given_up}");
    }
    let Output { stderr, .. } = baton(cluster(), &["get", "rollout", "web", "-n", namespace], "");
    assert!(String::from_utf8_lossy(&stderr).starts_with(hint));
}

/// In a locale without UTF-8 no line is drawn with what it cannot show; what programs read stays as it is.
#[test]
fn a_plain_locale_gets_plain_signs() {
    let namespace = namespace("plugin-plain");
    let version = sample().replace("spec:\n  replicas", "spec:\n  version: größer\n  replicas");
    let file = cluster().dir.join("plugin-plain.yaml");
    std::fs::write(&file, version).unwrap();
    cluster().kubectl(&["apply", "-n", namespace, "-f", file.to_str().unwrap()]);
    let plain = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-baton"));
        command.args(args).args(["-n", namespace]).env("KUBECONFIG", &cluster().kubeconfig).env("LC_ALL", "C");
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let shown = plain(&["get", "web"]);
    assert!(shown.contains("Status:  - Pending") && shown.contains("[............] 0/4"), "{shown}");
    assert!(plain(&["get", "web", "-o", "yaml"]).contains("größer"), "data");
}

/// All Rollouts, in one namespace or in all, by either name of the verb.
#[test]
fn rollouts_are_listed() {
    let namespace = namespace("plugin-list");
    assert_eq!(says(&["list", "-n", namespace], ""), "there are no Rollouts in namespace plugin-list\n");
    for name in ["web", "worker"] {
        let file = format!("{}/config/samples/rollout_{name}.yaml", sources::root().display());
        cluster().kubectl(&["apply", "-n", namespace, "-f", &file]);
    }
    for form in [&["list"][..], &["get", "rollouts"], &["get", "bro"]] {
        let listed = says(&[form, &["-n", namespace]].concat(), "");
        let lines: Vec<&str> = listed.lines().collect();
        assert_eq!(
            lines[0].split_whitespace().collect::<Vec<_>>().join(" "),
            "NAME READY UP-TO-DATE STATUS VERSION AGE MESSAGE"
        );
        assert!(lines[1].starts_with("web ") && lines[2].starts_with("worker ") && lines.len() == 3, "{listed}");
        assert!(lines[1].contains("• Pending"), "{listed}");
    }
    let everywhere = says(&["get", "-A"], "");
    assert!(everywhere.starts_with("NAMESPACE ") && everywhere.contains("\nplugin-list"), "{everywhere}");
    assert_eq!(says(&["list", "-n", namespace, "-o", "name"], ""), "rollout.baton.dev/web\nrollout.baton.dev/worker\n");
    let all: serde_json::Value = serde_json::from_str(&says(&["list", "-n", namespace, "-o", "json"], "")).unwrap();
    assert_eq!((&all["kind"], all["items"].as_array().unwrap().len()), (&serde_json::json!("List"), 2));
    assert_eq!(all["items"][0]["kind"], "Rollout");
    let both = complains(2, &["get", "web", "-A"], "");
    assert!(both.contains("leave the name out"), "{both}");
    // As kubectl asks a plugin's companion.
    assert_eq!(says(&["__complete", "status", "-n", namespace, "wo"], ""), "worker\n:4\n");
    assert!(says(&["completion", "kubectl"], "").ends_with("exec kubectl-baton __complete \"$@\"\n"));
}

/// Nothing of a kubeconfig is printed, whatever is wrong with it.
#[test]
fn a_broken_kubeconfig_is_named_and_not_shown() {
    let file = cluster().dir.join("plugin-broken.kubeconfig");
    let text = std::fs::read_to_string(&cluster().kubeconfig).unwrap() + "- name: ann\n  user: {token: s3cr3t: x}\n";
    std::fs::write(&file, &text).unwrap();
    let (file, line) = (file.to_str().unwrap(), text.lines().count());
    let complaint = complains(6, &["list", "--kubeconfig", file], "");
    assert!(complaint.starts_with(&format!("error: {file}:{line}: ")) && !complaint.contains("s3cr3t"), "{complaint}");
    let gone = complains(6, &["list", "--kubeconfig", "/nowhere"], "");
    assert!(gone.contains("/nowhere cannot be read: "), "{gone}");
}

#[test]
fn what_is_not_there_is_looked_for_nearby() {
    let namespace = namespace("plugin-near");
    cluster().kubectl(&["apply", "-n", namespace, "-f", &format!("{}/config/samples", sources::root().display())]);
    let typo = complains(5, &["get", "rollout", "wbe", "-n", namespace], "");
    assert!(typo.contains("did you mean web?"), "{typo}");
    let nowhere = complains(5, &["get", "rollout", "wbe", "-n", "kube-public"], "");
    assert!(nowhere.ends_with("`kubectl get rollouts.baton.dev -A` lists all\n"), "{nowhere}");
    let kubeconfig = cluster().kubeconfig.to_str().unwrap();
    let unpinned = complains(1, &["unpin", "web", "--all", "-n", namespace, "--kubeconfig", kubeconfig], "");
    let command = format!("`kubectl baton get web -n {namespace} --kubeconfig {kubeconfig}`");
    assert!(unpinned.contains(&command), "{unpinned}");
    let elsewhere = complains(5, &["get", "rollout", "web", "-n", "kube-public"], "");
    assert!(elsewhere.contains("add -n plugin-"), "{elsewhere}");
    let other = complains(2, &["get", "deployment", "web"], "");
    assert!(other.contains("write `rollout NAME`"), "{other}");
    let context = complains(6, &["get", "rollout", "web", "--context", "nowhere"], "");
    assert!(context.contains("kubectl config get-contexts"), "{context}");
}

/// X12
#[test]
fn plan_foretells_without_doing() {
    let namespace = namespace("plugin-plan");
    let told = says(&["plan", "-n", namespace, "-f", "-"], &sample());
    assert!(told.starts_with("Rollout web: 1.0, 4 instances\n"), "{told}");
    assert!(told.contains("1/1    create  0-3        1.0\n"), "{told}");
    assert_eq!(cluster().kubectl(&["get", "rollouts.baton.dev,pods", "-n", namespace, "-o", "name"]), "");
}

#[test]
fn plan_repeats_what_the_api_server_refuses() {
    let namespace = namespace("plugin-refused");
    cluster().kubectl(&["apply", "-n", namespace, "-f", &format!("{}/config/samples", sources::root().display())]);
    let refused =
        |from: &str, to: &str| complains(1, &["plan", "-n", namespace, "-f", "-"], &sample().replace(from, to));
    let both = refused("batchSize: 2", "batchSize: 2\n    batches: [{upTo: 1}]");
    assert!(both.contains("batchSize and batches exclude each other; remove one of them"), "{both}");
    let typo = refused("batchSize", "batchsize");
    assert!(typo.contains("web cannot be applied: unknown field \"spec.strategy.batchsize\"\n"), "{typo}");
    let template = refused("name: http,", "name: http_http,");
    assert!(template.contains("spec.template: the API server refuses its Pods"), "{template}");
    let none = complains(1, &["plan", "-f", "-"], "kind: Service\napiVersion: v1\n");
    assert!(none.contains("holds no Rollout of baton.dev/v1alpha1"), "{none}");
}

/// A session that boot 1 of Pod `web-0` holds, and a listener of set `bots` that it has.
fn leases(set_uid: &str, pod_uid: &str) -> String {
    let identity = format!("web-0/{pod_uid}/1-r");
    let pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "name": "web-0", "uid": pod_uid});
    let set = serde_json::json!({"apiVersion": "baton.dev/v1alpha1", "kind": "ListenerSet", "name": "bots", "uid": set_uid,
        "controller": true});
    let lease = |name: &str, label: &str, owner: &serde_json::Value, epoch: i32| {
        serde_json::json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name, "labels": {"baton.dev/lease": label}, "ownerReferences": [owner]},
            "spec": {"holderIdentity": identity, "leaseTransitions": epoch, "leaseDurationSeconds": 15},
        })
    };
    let mut owned = lease("listener.bots.orders", "listener", &set, 7);
    owned["metadata"]["annotations"] = serde_json::json!({"baton.dev/from": "web-1/uid-web-1/3-r"});
    serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [lease("session.web-0", "session", &pod, 1), owned]})
        .to_string()
}

/// A5: the plugin reads who holds what from the Leases, with no operator.
#[test]
fn a_listener_set_shows_who_holds_what() {
    let namespace = namespace("plugin-listeners");
    let set = serde_json::json!({
        "apiVersion": "baton.dev/v1alpha1", "kind": "ListenerSet", "metadata": {"name": "bots"},
        "spec": {"rolloutRef": {"name": "web"}, "listeners": [{"name": "orders"}, {"name": "trades"}]},
    });
    let apply = |object: &str| {
        let output =
            super::api::kubectl_with(&["apply", "-n", namespace, "-f", "-"], &serde_json::from_str(object).unwrap());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    apply(&set.to_string());
    let uid = cluster().kubectl(&["get", "bls", "bots", "-n", namespace, "-o", "jsonpath={.metadata.uid}"]);
    // Without its Pod the garbage collector would take the session.
    super::support::eventually(30, "the service account", || {
        !cluster().kubectl(&["get", "serviceaccounts", "-n", namespace, "-o", "name"]).is_empty()
    });
    cluster().kubectl(&["run", "web-0", "-n", namespace, "--image=example.local/none:1", "--restart=Never"]);
    let pod_uid = cluster().kubectl(&["get", "pod", "web-0", "-n", namespace, "-o", "jsonpath={.metadata.uid}"]);
    apply(&leases(uid.trim(), pod_uid.trim()));
    for form in [&["get", "listenerset", "bots"][..], &["get", "bls/bots"], &["get", "listenersets.baton.dev", "bots"]]
    {
        let shown = says(&[form, &["-n", namespace]].concat(), "");
        let header = "Name:       bots                     Status:  • Pending   the operator has not seen the present spec yet\n";
        assert!(shown.starts_with(header), "{shown}");
        assert!(shown.contains("├─□ web-0     Pod          ✔ SessionHeld       1 listener\n"), "{shown}");
        assert!(shown.contains("│ └─○ orders"), "{shown}");
        assert!(shown.contains("epoch 7, from web-1\n"), "{shown}");
        assert!(shown.contains("└─○ trades"), "{shown}");
    }
    assert_eq!(says(&["get", "bls", "bots", "-n", namespace, "-o", "name"], ""), "listenerset.baton.dev/bots\n");
    let yaml = says(&["get", "bls", "bots", "-n", namespace, "-o", "yaml"], "");
    assert!(yaml.contains("kind: ListenerSet") && !yaml.contains("managedFields"), "{yaml}");
    let typo = complains(5, &["get", "bls", "bot", "-n", namespace], "");
    assert!(typo.contains("listenersets.baton.dev \"bot\" not found") && typo.contains("did you mean bots?"), "{typo}");
    let other = complains(5, &["get", "bls", "feeds", "-n", namespace], "");
    assert!(other.contains("there is bots"), "those that exist: {other}");
    let verb = complains(2, &["status", "bls", "bots", "-n", namespace], "");
    assert!(verb.contains("kubectl baton get listenerset bots"), "{verb}");
    let followed = followed_until_deleted(namespace);
    let lines: Vec<&str> = followed.lines().collect();
    assert!(lines[0].contains("• Pending  0/2  the operator has not seen the present spec yet"), "{followed}");
    assert_eq!(lines.last(), Some(&"listenerset \"bots\" is deleted"), "{followed}");
}

/// A5: which listeners there are may stand in a ConfigMap.
#[test]
fn a_listener_set_shows_what_its_config_map_names() {
    let namespace = namespace("plugin-config-map");
    let set = serde_json::json!({
        "apiVersion": "baton.dev/v1alpha1", "kind": "ListenerSet", "metadata": {"name": "bots"},
        "spec": {"rolloutRef": {"name": "web"}, "configMap": {"name": "tokens", "key": "l.yaml"}},
    });
    let output = super::api::kubectl_with(&["apply", "-n", namespace, "-f", "-"], &set);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let missing = says(&["get", "bls", "bots", "-n", namespace], "");
    assert!(
        missing.contains("Warning:    ConfigMapMissing: spec.configMap.name: there is no ConfigMap tokens"),
        "{missing}"
    );
    let literal = "--from-literal=l.yaml=[{\"name\": \"orders\"}, {\"name\": \"trades\"}]";
    cluster().kubectl(&["create", "configmap", "tokens", "-n", namespace, literal]);
    let shown = says(&["get", "bls", "bots", "-n", namespace], "");
    assert!(shown.contains("] 0/2\n") && shown.contains("└─○ trades"), "{shown}");
    assert!(!shown.contains("Warning:"), "{shown}");
    let followed = followed_until_deleted(namespace);
    assert!(followed.lines().next().unwrap().contains("• Pending  0/2  "), "{followed}");
}

/// Who may see ListenerSets but no Leases is told what it takes.
#[test]
fn without_rights_to_leases_it_says_what_it_takes() {
    let namespace = namespace("plugin-no-leases");
    cluster().kubectl(&[
        "apply",
        "-n",
        namespace,
        "-f",
        &format!("{}/config/samples/listenersets/listenerset_count.yaml", sources::root().display()),
    ]);
    let name = cluster().kubectl(&["get", "bls", "-n", namespace, "-o", "jsonpath={.items[0].metadata.name}"]);
    cluster().kubectl(&[
        "create",
        "role",
        "sees",
        "-n",
        namespace,
        "--verb=get,list,watch",
        "--resource=listenersets.baton.dev",
    ]);
    cluster().kubectl(&[
        "create",
        "rolebinding",
        "sees",
        "-n",
        namespace,
        "--role=sees",
        &format!("--serviceaccount={namespace}:default"),
    ]);
    super::support::eventually(30, "the service account", || {
        !cluster().kubectl(&["get", "serviceaccounts", "-n", namespace, "-o", "name"]).is_empty()
    });
    let token = cluster().kubectl(&["create", "token", "default", "-n", namespace]);
    let file = cluster().dir.join("plugin-no-leases.kubeconfig");
    std::fs::copy(&cluster().kubeconfig, &file).unwrap();
    let file = file.to_str().unwrap();
    cluster().kubectl(&[
        "config",
        "set-credentials",
        "ann",
        &format!("--token={}", token.trim()),
        "--kubeconfig",
        file,
    ]);
    cluster().kubectl(&["config", "set-context", "--current", "--user=ann", "--kubeconfig", file]);
    let complaint = complains(6, &["get", "bls", name.trim(), "-n", namespace, "--kubeconfig", file], "");
    assert!(complaint.contains("it takes get, list and watch on leases.coordination.k8s.io"), "{complaint}");
}
