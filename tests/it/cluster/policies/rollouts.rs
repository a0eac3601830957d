//! Who says what a Rollout runs must be allowed to run it, and who writes Jobs of hooks.
use std::time::Duration;

use serde_json::{Value, json};

use super::{account::Account, grant, stage};
use crate::cluster::support::{TestCluster, eventually};

pub const ROLLOUTS: &str = "ValidatingAdmissionPolicy 'baton-rollouts'";
const HOOKS: &str = "ValidatingAdmissionPolicy 'baton-hooks'";
const ON_ROLLOUTS: [(&str, &str, &[&str]); 2] = [
    ("baton.dev", "rollouts", &["get", "list", "create", "update", "patch", "delete"]),
    ("baton.dev", "rollouts/scale", &["update", "patch"]),
];
const ON_PODS: (&str, &str, &[&str]) = ("", "pods", &["create"]);
const ON_JOBS: (&str, &str, &[&str]) = ("batch", "jobs", &["create"]);

fn rollout(name: &str) -> Value {
    let containers = json!([{"name": "a", "image": "example.local/none:1"}]);
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": containers}});
    let spec = json!({"replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "template": template});
    json!({"metadata": {"name": name}, "spec": spec})
}

fn hook(name: &str, image: &str) -> Value {
    let containers = json!([{"name": "a", "image": image}]);
    json!({"name": name, "when": "BeforeRollout", "template": {"spec": {"containers": containers}}})
}

fn pin(instances: &str, revision: &str) -> Value {
    json!({"instances": instances, "revision": revision})
}

/// A ServiceAccount with these rights.
async fn user(cluster: &TestCluster, namespace: &str, name: &str, rules: &[(&str, &str, &[&str])]) -> Account {
    cluster.kubectl(&["-n", namespace, "create", "serviceaccount", name]);
    grant(cluster, namespace, name, rules);
    let as_it = format!("--as=system:serviceaccount:{namespace}:{name}");
    let (group, resource, verbs) = *rules.last().unwrap();
    let verb = *verbs.last().unwrap();
    let what = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
    // RBAC's subresources have a flag of their own; none comes last here.
    eventually(30, "the rights to count", || {
        cluster.try_kubectl(&["auth", "can-i", verb, &what, "-n", namespace, &as_it]).status.success()
    });
    let token = cluster.kubectl(&["-n", namespace, "create", "token", name]);
    Account::of(cluster, namespace, Some(&token)).await
}

/// It is refused for want of a right, in these words.
fn forbidden(what: &str, answer: Result<(), String>, words: &[&str]) {
    let said = answer.expect_err(&format!("{what}: done"));
    assert!(!said.contains("resulted in error"), "{what}: an expression that fails is no rule: {said}");
    assert!(said.contains("code: 403"), "{what}: {said}");
    for word in words {
        assert!(said.contains(word), "{what}: should say {word}\nbut says: {said}");
    }
}

/// Asks until the policy counts: it refuses this.
pub async fn in_force(account: &Account, kind: &str, object: &Value, policy: &str) {
    let account = Account { dry_run: true, ..account.clone() };
    for attempt in 0.. {
        if account.create(kind, object).await.is_err_and(|said| said.contains(policy)) {
            return;
        }
        assert!(attempt < 500, "{policy} does not come into force");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// S3: the right to write Rollouts steers them; what they run, and the hooks, take the right to run that.
#[tokio::test]
async fn what_a_rollout_runs_is_said_by_those_who_may_run_it() {
    let namespace = "policy-rollouts";
    let cluster = stage(namespace, &[]);
    let [on_rollouts, on_scale] = ON_ROLLOUTS;
    let only = user(cluster, namespace, "only", &[on_scale, on_rollouts]).await;
    let pods = user(cluster, namespace, "pods", &[on_scale, on_rollouts, ON_PODS]).await;
    let jobs = user(cluster, namespace, "jobs", &[on_scale, on_rollouts, ON_JOBS]).await;
    let both = user(cluster, namespace, "both", &[on_scale, on_rollouts, ON_PODS, ON_JOBS]).await;
    in_force(&only, "Rollout", &rollout("web"), ROLLOUTS).await;
    let lacks_pods = [ROLLOUTS, "must be allowed to create pods in namespace policy-rollouts"];
    let lacks_jobs = [ROLLOUTS, "spec.hooks: ", "must be allowed to create jobs.batch in namespace policy-rollouts"];

    // Create.
    let mut hooked = rollout("hooked");
    hooked["spec"]["hooks"] = json!([hook("one", "example.local/none:1")]);
    for account in [&only, &jobs] {
        forbidden("create", account.create("Rollout", &rollout("web")).await.map(drop), &lacks_pods);
        forbidden("create", account.create("Rollout", &hooked).await.map(drop), &lacks_pods);
    }
    forbidden("create with hooks", pods.create("Rollout", &hooked).await.map(drop), &lacks_jobs);
    both.create("Rollout", &hooked).await.unwrap();
    pods.create("Rollout", &rollout("web")).await.unwrap();

    // What steers takes no other right.
    let at = "2026-01-01T10:00:00Z";
    for spec in [
        json!({"paused": true}),
        json!({"replicas": 1}),
        json!({"approve": {"run": 1, "batch": 1}}),
        json!({"abort": {"run": 1}}),
        json!({"retryAt": at}),
        json!({"restartAt": at}),
        json!({"version": "2"}),
        json!({"strategy": {"maxSurge": 2}}),
        json!({"paused": false, "replicas": 0}),
    ] {
        only.patch("Rollout", "web", "", &json!({"spec": spec})).await.unwrap();
    }
    only.patch("Rollout", "web", "scale", &json!({"spec": {"replicas": 2}})).await.unwrap();

    // What runs takes one.
    let template = json!({"template": {"spec": {"serviceAccountName": "other"}}});
    let package = json!({"package": {"image": "example.local/files:1", "mountPath": "/opt/app"}});
    let pins = json!({"pins": [pin("0-4", "web-1"), pin("7", "web-2")]});
    let images = json!({"instances": "9", "base": "web-1", "images": {"a": "example.local/none:2"}});
    for (field, spec) in [("template", template), ("package", package), ("pins", pins)] {
        let patch = json!({"spec": spec});
        let place = format!("spec.{field}: ");
        let words = [lacks_pods[0], lacks_pods[1], place.as_str()];
        for account in [&only, &jobs] {
            forbidden(field, account.patch("Rollout", "web", "", &patch).await, &words);
        }
        pods.patch("Rollout", "web", "", &patch).await.unwrap();
        only.patch("Rollout", "web", "", &patch).await.unwrap();
    }
    let several = json!({"spec": {"package": null, "pins": [images], "paused": true}});
    forbidden("several", only.patch("Rollout", "web", "", &several).await, &["spec.package, spec.pins: "]);
    let hooks = json!({"spec": {"hooks": [hook("one", "example.local/none:1"), hook("two", "example.local/none:1")]}});
    for account in [&only, &pods] {
        forbidden("hooks", account.patch("Rollout", "web", "", &hooks).await, &lacks_jobs);
    }
    jobs.patch("Rollout", "web", "", &hooks).await.unwrap();
    let changed =
        json!({"spec": {"hooks": [hook("one", "example.local/none:1"), hook("two", "example.local/none:2")]}});
    forbidden("change a hook", only.patch("Rollout", "web", "", &changed).await, &lacks_jobs);

    // Without any, pins and hooks are taken away, also from some of the instances that a pin names.
    for spec in [
        json!({"pins": [pin("0-1", "web-1"), pin("3-4", "web-1"), pin("7", "web-2")]}),
        json!({"pins": [pin("7", "web-2")]}),
        json!({"pins": []}),
        json!({"hooks": [hook("two", "example.local/none:1")]}),
        json!({"hooks": null}),
    ] {
        only.patch("Rollout", "web", "", &json!({"spec": spec})).await.unwrap();
    }
    forbidden(
        "pin again",
        only.patch("Rollout", "web", "", &json!({"spec": {"pins": [pin("7", "web-2")]}})).await,
        &lacks_pods,
    );
    only.delete("Rollout", "web").await.unwrap();
}

fn job(name: &str, labels: &Value) -> Value {
    let container = json!({"name": "main", "image": "example.local/none:1"});
    let pod = json!({"restartPolicy": "Never", "containers": [container], "nodeSelector": {"no": "where"}});
    let spec = json!({"backoffLimit": 0, "podReplacementPolicy": "Failed", "template": {"spec": pod}});
    json!({"metadata": {"name": name, "labels": labels}, "spec": spec})
}

/// S3: no user makes a Job into one of a hook or changes one; Kubernetes runs it, and whoever may delete Jobs deletes it.
#[tokio::test]
async fn jobs_of_hooks_are_the_operators() {
    let namespace = "policy-hooks";
    let cluster = stage(namespace, &[]);
    let any: (&str, &str, &[&str]) = ("batch", "jobs", &["get", "create", "update", "patch", "delete"]);
    let user = user(cluster, namespace, "jobs", &[any]).await;
    let admin = Account::of(cluster, namespace, None).await;
    let ours = json!({"baton.dev/hook": "backup", "baton.dev/rollout": "web"});
    in_force(&user, "Job", &job("made", &ours), HOOKS).await;
    let words = [HOOKS, "only who may update rollouts/status in its namespace creates or changes it"];
    forbidden("create", user.create("Job", &job("made", &ours)).await.map(drop), &words);
    user.create("Job", &job("plain", &json!({"app": "web"}))).await.unwrap();
    let label = json!({"metadata": {"labels": {"baton.dev/hook": "backup"}}});
    forbidden("label", user.patch("Job", "plain", "", &label).await, &words);
    user.patch("Job", "plain", "", &json!({"metadata": {"labels": {"a": "b"}}})).await.unwrap();
    user.delete("Job", "plain").await.unwrap();

    let uid = admin.create("Job", &job("backup", &ours)).await.unwrap()["metadata"]["uid"].clone();
    let owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": "backup", "uid": uid});
    for (what, patch) in [
        ("take the label", json!({"metadata": {"labels": {"baton.dev/hook": null}}})),
        ("another hook", json!({"metadata": {"labels": {"baton.dev/hook": "migrate"}}})),
        ("another run", json!({"metadata": {"labels": {"baton.dev/run": "7"}}})),
        ("another point", json!({"metadata": {"annotations": {"baton.dev/point": "AfterBatch/2"}}})),
        ("another owner", json!({"metadata": {"ownerReferences": [owner]}})),
        ("suspend", json!({"spec": {"suspend": true}})),
    ] {
        forbidden(what, user.patch("Job", "backup", "", &patch).await, &words);
    }
    // The Job controller runs it to its end.
    let pods = ["-n", namespace, "get", "pods", "-l", "job-name=backup", "-o", "jsonpath={.items[*].metadata.name}"];
    eventually(30, "the Job's Pod", || !cluster.kubectl(&pods).is_empty());
    let done = json!({"status": {"phase": "Succeeded"}});
    admin.patch("Pod", cluster.kubectl(&pods).trim(), "status", &done).await.unwrap();
    cluster.kubectl(&["-n", namespace, "wait", "job/backup", "--for=condition=Complete", "--timeout=30s"]);
    user.delete("Job", "backup").await.unwrap();
}
