//! The plugin as kubectl runs it, on a real API server. What needs an operator is in the tests of whole rollouts.
use std::{
    ffi::OsString,
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

use super::{
    api::cluster,
    support::{BIN, TestCluster},
};
use crate::sources;

/// `kubectl baton ARGS` with `input`: found in PATH, as a user has it.
pub fn baton(cluster: &TestCluster, args: &[&str], input: &str) -> Output {
    let plugin = Path::new(env!("CARGO_BIN_EXE_kubectl-baton")).parent().unwrap();
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let paths = [plugin.to_owned(), BIN.into()].into_iter().chain(std::env::split_paths(&paths));
    let path: OsString = std::env::join_paths(paths).unwrap();
    let mut child = Command::new(Path::new(BIN).join("kubectl"))
        .arg("baton")
        .args(args)
        .env("KUBECONFIG", &cluster.kubeconfig)
        .env("PATH", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// What it prints; it must succeed.
#[track_caller]
fn says(args: &[&str], input: &str) -> String {
    let Output { status, stdout, stderr } = baton(cluster(), args, input);
    assert!(status.success(), "{args:?}: {status}\n{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// What it complains of; it must exit with 1.
#[track_caller]
fn complains(args: &[&str], input: &str) -> String {
    let Output { status, stdout, stderr } = baton(cluster(), args, input);
    assert_eq!(status.code(), Some(1), "{args:?}\n{}", String::from_utf8_lossy(&stdout));
    String::from_utf8(stderr).unwrap()
}

/// A namespace of the test's own.
fn namespace(name: &str) -> &str {
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
    let line = "Waiting for rollout spec update to be observed...\n";
    assert_eq!(says(&["status", "web", "-n", namespace, "--watch=false"], ""), line);
    let given_up = complains(&["status", "rollout", "web", "-n", namespace, "--timeout", "1s"], "");
    assert!(
        given_up.contains("timed out after 1s waiting for rollout \"web\": the operator has not seen"),
        "{given_up}"
    );
}

#[test]
fn what_is_not_there_is_looked_for_nearby() {
    let namespace = namespace("plugin-near");
    cluster().kubectl(&["apply", "-n", namespace, "-f", &format!("{}/config/samples", sources::root().display())]);
    let typo = complains(&["get", "rollout", "wbe", "-n", namespace], "");
    assert!(typo.contains("did you mean web?"), "{typo}");
    let elsewhere = complains(&["get", "rollout", "web", "-n", "kube-public"], "");
    assert!(elsewhere.contains("add -n plugin-"), "{elsewhere}");
    let other = complains(&["get", "deployment", "web"], "");
    assert!(other.contains("write `rollout NAME`"), "{other}");
    let context = complains(&["get", "rollout", "web", "--context", "nowhere"], "");
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
    let refused = |from: &str, to: &str| complains(&["plan", "-n", namespace, "-f", "-"], &sample().replace(from, to));
    let both = refused("batchSize: 2", "batchSize: 2\n    batches: [{upTo: 1}]");
    assert!(both.contains("batchSize and batches exclude each other; remove one of them"), "{both}");
    let typo = refused("batchSize", "batchsize");
    assert!(typo.contains("web cannot be applied: unknown field \"spec.strategy.batchsize\"\n"), "{typo}");
    let template = refused("name: http,", "name: http_http,");
    assert!(template.contains("spec.template: the API server refuses its Pods"), "{template}");
    let none = complains(&["plan", "-f", "-"], "kind: Service\napiVersion: v1\n");
    assert!(none.contains("holds no Rollout of baton.dev/v1alpha1"), "{none}");
}
