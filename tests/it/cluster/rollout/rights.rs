//! What the verbs of the plugin need to be allowed, and what they say where they are not.
use serde_json::json;

use super::{
    plugin::run,
    stage::{Stage, simulated},
};
use crate::{cluster::support::eventually, sources};

/// A kubeconfig of a new service account of the stage's namespace.
fn user(stage: &Stage, name: &str) -> String {
    let (cluster, namespace) = (stage.cluster, stage.namespace.as_str());
    cluster.kubectl(&["create", "serviceaccount", name, "-n", namespace]);
    let token = cluster.kubectl(&["create", "token", name, "-n", namespace]);
    let file = cluster.dir.join(format!("{namespace}-{name}.kubeconfig"));
    std::fs::copy(&cluster.kubeconfig, &file).unwrap();
    let file = file.to_str().unwrap();
    let token = format!("--token={}", token.trim());
    cluster.kubectl(&["config", "set-credentials", name, &token, "--kubeconfig", file]);
    cluster.kubectl(&["config", "set-context", "--current", "--user", name, "--kubeconfig", file]);
    file.to_owned()
}

/// Gives that service account this role, `--role=…` or `--clusterrole=…`, and waits until it counts.
fn bind(stage: &Stage, name: &str, role: &str, can: &[&str]) {
    let (cluster, namespace) = (stage.cluster, stage.namespace.as_str());
    let account = format!("--serviceaccount={namespace}:{name}");
    cluster.kubectl(&["create", "rolebinding", name, "-n", namespace, role, &account]);
    let as_it = format!("--as=system:serviceaccount:{namespace}:{name}");
    eventually(30, "the role counts", || {
        let asked = cluster.try_kubectl(&[&["auth", "can-i", "-n", namespace, &as_it], can].concat());
        asked.status.success()
    });
}

/// Lets it create Pods, which takes who says what a Rollout runs: the policy `baton-rollouts` asks for that.
fn may_create_pods(stage: &Stage, name: &str) {
    let (cluster, namespace) = (stage.cluster, stage.namespace.as_str());
    let also = format!("{name}-creates");
    cluster.kubectl(&["create", "role", &also, "-n", namespace, "--verb=create", "--resource=pods"]);
    let account = format!("--serviceaccount={namespace}:{name}");
    cluster.kubectl(&["create", "rolebinding", &also, "-n", namespace, &format!("--role={also}"), &account]);
    let as_it = format!("--as=system:serviceaccount:{namespace}:{name}");
    eventually(30, "the role counts", || {
        cluster.try_kubectl(&["auth", "can-i", "-n", namespace, &as_it, "create", "pods"]).status.success()
    });
}

/// C9 C11: a Role of get and patch on the one Rollout is enough to pause, resume and restart it; with create of Pods it may also
/// be given another image.
#[tokio::test(flavor = "multi_thread")]
async fn two_rights_on_one_rollout_steer_it() {
    let stage = Stage::new(simulated(), "rights-one").await;
    stage.roll("1", json!({"replicas": 2})).await;
    stage.complete(30).await;
    let file = user(&stage, "one");
    let role = ["create", "role", "one", "-n", &stage.namespace, "--verb=get,patch", "--resource=rollouts.baton.dev"];
    stage.cluster.kubectl(&[&role[..], &["--resource-name=web"]].concat());
    bind(&stage, "one", "--role=one", &["patch", "rollouts.baton.dev/web"]);
    let does = |args: &[&str]| run(&stage, &[args, &["--kubeconfig", &file]].concat());
    let done = |args: &[&str]| {
        let (code, said, complaint) = does(args);
        assert_eq!((code, complaint.as_str()), (Some(0), ""), "{args:?}: {said}");
    };
    for verb in ["pause", "resume", "restart"] {
        done(&[verb, "web"]);
    }
    let policy = format!("{}/config/policy/rollouts.yaml", sources::root().display());
    stage.cluster.kubectl(&["apply", "-f", &policy]);
    let image = ["set", "image", "web", "web=example.local/sleeper:2"];
    let probe = r#"{"spec":{"template":{"metadata":{"annotations":{"a":"b"}}}}}"#;
    let probe = ["patch", "rollouts.baton.dev/web", "--type=merge", "--dry-run=server", "-p", probe];
    eventually(30, "the policy counts", || {
        let args = [&probe[..], &["-n", &stage.namespace, "--kubeconfig", &file]].concat();
        String::from_utf8_lossy(&stage.cluster.try_kubectl(&args).stderr).contains("baton-rollouts")
    });
    let (code, _, complaint) = does(&image);
    let sentence = "spec.template: who sets or changes this must be allowed to create pods in namespace rights-one";
    assert!(code == Some(1) && complaint.contains(sentence), "{code:?} {complaint}");
    may_create_pods(&stage, "one");
    done(&image);
    stage.complete(30).await;
    // The others say which right they lack, and end with a code of their own.
    for (args, sentence) in [
        (&["undo", "web"][..], "cannot list resource \"controllerrevisions\""),
        (&["history", "web"], "cannot list resource"),
        (&["list"], "cannot list resource \"rollouts\""),
        (&["get", "web"], "cannot list resource"),
        (&["pause", "api"], "cannot get resource \"rollouts\""),
    ] {
        let (code, _, complaint) = does(args);
        assert!(code == Some(6) && complaint.contains(sentence), "{args:?}: {code:?} {complaint}");
        assert!(complaint.contains("`kubectl auth can-i --list -n rights-one"), "{complaint}");
    }
    // What is not complete has to be watched.
    stage.roll("3", json!({"replicas": 2, "paused": true})).await;
    let (code, said, complaint) = does(&["status", "web", "--wait-for-approval"]);
    assert!(code == Some(6) && complaint.contains("cannot list resource \"rollouts\""), "{code:?} {said}{complaint}");
}

/// C9 C11: with the role for it, and create of Pods, every verb that steers works, and no Rollout is created or deleted.
#[tokio::test(flavor = "multi_thread")]
async fn the_operate_role_steers_and_deletes_nothing() {
    let stage = Stage::new(simulated(), "rights-operate").await;
    let file = user(&stage, "ann");
    let role = format!("{}/config/rbac/rollouts_operate_role.yaml", sources::root().display());
    stage.cluster.kubectl(&["apply", "-f", &role]);
    bind(&stage, "ann", "--clusterrole=baton-rollouts-operate", &["patch", "rollouts.baton.dev"]);
    may_create_pods(&stage, "ann");
    let ends = |code: i32, args: &[&str]| {
        let (ended, said, complaint) = run(&stage, &[args, &["--kubeconfig", &file]].concat());
        assert_eq!(ended, Some(code), "{args:?}: {said}{complaint}");
        said
    };
    let batches = json!([{"upTo": 1, "pause": {}}]);
    stage.roll("1", json!({"replicas": 3, "strategy": {"batches": batches, "maxSurge": 1}})).await;
    stage.complete(30).await;
    let image = "web=example.local/sleeper:2";
    assert!(ends(0, &["set", "image", "web", image, "--reason", "new prices"]).contains("watch it with"));
    ends(3, &["status", "web"]);
    ends(0, &["approve", "web"]);
    ends(0, &["status", "web"]);
    assert!(ends(0, &["set", "image", "rollout/web", image]).contains("unchanged"));
    ends(1, &["set", "image", "web", "wbe=example.local/sleeper:2"]);
    ends(0, &["undo", "web"]);
    ends(3, &["status", "web"]);
    ends(0, &["abort", "web", "--reason", "not that one"]);
    ends(1, &["status", "web"]);
    // At once: the plugin waits until the operator has seen what was asked for a moment ago.
    ends(0, &["pause", "web"]);
    ends(0, &["retry", "web"]);
    ends(0, &["resume", "web"]);
    ends(3, &["status", "web"]);
    ends(0, &["promote", "web", "--to-end"]);
    ends(0, &["status", "web"]);
    ends(0, &["deploy", "web", "--version", "one", "--image", "example.local/sleeper:1", "--reason", "by its name"]);
    ends(3, &["status", "web"]);
    ends(0, &["approve", "web"]);
    ends(0, &["status", "web"]);
    ends(0, &["undo", "web", "--to", "2", "--instances", "0"]);
    ends(0, &["status", "web"]);
    ends(1, &["undo", "web", "--failed"]);
    ends(0, &["unpin", "web", "--all"]);
    ends(0, &["status", "web"]);
    let before = stage.live().await;
    ends(0, &["restart", "web"]);
    ends(0, &["status", "web"]);
    let uids: Vec<_> = stage.live().await.into_iter().map(|pod| pod.metadata.uid).collect();
    assert!(before.iter().all(|pod| !uids.contains(&pod.metadata.uid)), "it was restarted before it was done");
    for args in [&["get", "web"][..], &["get", "rollouts"], &["get", "instances", "web"], &["history", "web"]] {
        assert!(ends(0, args).contains("web"), "{args:?}");
    }
    let history = ends(0, &["history", "web"]);
    assert!(history.contains("system:serviceaccount:rights-operate:ann  new prices"), "{history}");
    ends(5, &["status", "nobody"]);
    let kubectl =
        |args: &[&str]| stage.cluster.try_kubectl(&[args, &["-n", &stage.namespace, "--kubeconfig", &file]].concat());
    assert!(kubectl(&["scale", "rollouts.baton.dev/web", "--replicas=2"]).status.success());
    for refused in
        [&["delete", "rollouts.baton.dev/web"][..], &["create", "-f", &sample()], &["delete", "pods", "--all"]]
    {
        let output = kubectl(refused);
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && why.contains("forbidden"), "{refused:?}: {why}");
    }
}

fn sample() -> String {
    format!("{}/config/samples/rollout_web.yaml", sources::root().display())
}
