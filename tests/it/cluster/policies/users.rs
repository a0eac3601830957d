//! What those may change who have the roles that Baton installs: each right, field by field, as the API server judges it.
use std::{collections::BTreeSet, fmt::Write as _};

use serde_json::{Value, json};

use super::{
    account::Account,
    repository,
    rollouts::{ROLLOUTS, in_force},
    stage,
};
use crate::cluster::support::{TestCluster, eventually};

/// Columns of the tables: a name for the account, and the ClusterRoles that it is bound to.
const USERS: [(&str, &[&str]); 6] = [
    ("nobody", &[]),
    ("view", &["baton-rollouts-view"]),
    ("operate", &["baton-rollouts-operate"]),
    ("edit", &["baton-rollouts-edit", "baton-rollouts-view"]),
    ("agent", &["baton-agent"]),
    // Kubernetes' own role, of which Baton's are a part: it may also create Pods and Jobs.
    ("editor", &["edit"]),
];

/// What is tried: its name in the table, the kind, and how.
type Row = (String, &'static str, Try);

enum Try {
    Create(Value),
    /// Merged into the object of this name, or into a subresource of it.
    Patch(&'static str, &'static str, Value),
    Delete(&'static str),
}

fn spec(kind: &'static str, name: &'static str, field: &str, value: &Value) -> Row {
    (format!("{kind} spec.{field}"), kind, Try::Patch(name, "", json!({"spec": {field: value}})))
}

fn rollout() -> Value {
    let containers = json!([{"name": "a", "image": "example.local/none:1"}]);
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": containers}});
    let spec = json!({"replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "template": template});
    json!({"metadata": {"name": "web"}, "spec": spec})
}

fn set() -> Value {
    json!({"metadata": {"name": "bots"}, "spec": {"rolloutRef": {"name": "web"}, "listeners": [{"name": "one"}]}})
}

/// Every field of a Rollout's spec, with a value that is taken.
fn rollout_fields() -> Vec<(&'static str, Value)> {
    let at = json!("2026-01-01T10:00:00Z");
    let package = json!({"url": "https://example.com/a.tar.gz", "sha256": "0".repeat(64), "mountPath": "/opt/app"});
    let containers = json!([{"name": "a", "image": "evil.example.com/x:1", "env": [{"name": "A", "value": "b"}]}]);
    let template = json!({"spec": {"serviceAccountName": "other", "containers": containers}});
    let hook = json!({"name": "one", "when": "BeforeRollout", "template": {"spec": {"containers": containers}}});
    let check = json!({"name": "one", "httpGet": {"path": "/healthz", "port": 8080}});
    vec![
        ("replicas", json!(1)),
        ("selector", json!({"matchLabels": {"tier": "x"}})),
        ("version", json!("2")),
        ("package", package),
        ("template", template),
        ("hooks", json!([hook])),
        ("health", json!({"checks": [check]})),
        ("drain", json!({"settleSeconds": 1})),
        ("soak", json!({"seconds": 5})),
        ("minReadySeconds", json!(1)),
        ("progressDeadlineSeconds", json!(30)),
        ("revisionHistoryLimit", json!(3)),
        ("paused", json!(true)),
        ("strategy", json!({"maxSurge": 2})),
        ("approve", json!({"run": 1, "batch": 1})),
        ("abort", json!({"run": 1})),
        ("retryAt", at.clone()),
        ("restartAt", at),
        ("pins", json!([{"instances": "0", "revision": "web-1"}])),
        ("request", json!({"by": "somebody else"})),
    ]
}

/// The same of a ListenerSet.
fn set_fields() -> Vec<(&'static str, Value)> {
    let at = json!("2026-01-01T10:00:00Z");
    vec![
        ("rolloutRef", json!({"name": "api"})),
        ("selector", Value::Null),
        ("listeners", json!([{"name": "one", "config": {"endpoint": "https://evil.example.com"}}])),
        ("configMap", Value::Null),
        ("count", Value::Null),
        ("defaults", json!({"stopTimeoutSeconds": 1})),
        ("session", json!({"profile": "Fast"})),
        ("handoff", json!({"timeoutSeconds": 1})),
        ("startBudget", json!({"permits": 1, "periodSeconds": 5})),
        ("placement", json!({"maxPerPod": 1})),
        ("recoverAt", at.clone()),
        ("release", json!([{"listener": "one", "at": at, "force": true}])),
    ]
}

fn rows() -> Vec<Row> {
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "example.local/none:1"}]}});
    let lease = json!({"metadata": {"name": "session.p", "labels": {"baton.dev/lease": "session"}}, "spec": {}});
    let note = json!({"metadata": {"annotations": {"example.com/x": "y"}}});
    let mut rows: Vec<Row> = Vec::new();
    let mut row = |name: &str, kind: &'static str, what: Try| rows.push((name.to_owned(), kind, what));
    row("Rollout create", "Rollout", Try::Create(json!({"metadata": {"name": "new"}, "spec": rollout()["spec"]})));
    row("Rollout delete", "Rollout", Try::Delete("web"));
    row("Rollout labels", "Rollout", Try::Patch("web", "", json!({"metadata": {"labels": {"a": "b"}}})));
    row("Rollout scale", "Rollout", Try::Patch("web", "scale", json!({"spec": {"replicas": 2}})));
    row("Rollout status", "Rollout", Try::Patch("web", "status", json!({"status": {"run": 7}})));
    row("ListenerSet create", "ListenerSet", Try::Create(json!({"metadata": {"name": "new"}, "spec": set()["spec"]})));
    row("ListenerSet delete", "ListenerSet", Try::Delete("bots"));
    row("ListenerSet labels", "ListenerSet", Try::Patch("bots", "", json!({"metadata": {"labels": {"a": "b"}}})));
    row("ListenerSet status", "ListenerSet", Try::Patch("bots", "status", json!({"status": {"running": 7}})));
    row("Pod create", "Pod", Try::Create(pod));
    row("Pod annotation", "Pod", Try::Patch("a", "", note.clone()));
    row("Pod delete", "Pod", Try::Delete("a"));
    row(
        "Service annotation",
        "Service",
        Try::Patch("web", "", json!({"metadata": {"annotations": {"baton.dev/rollout": "web"}}})),
    );
    row(
        "ControllerRevision create",
        "ControllerRevision",
        Try::Create(json!({"metadata": {"name": "r"}, "data": {}, "revision": 1})),
    );
    row("Lease create", "Lease", Try::Create(lease));
    row("Lease of another program", "Lease", Try::Patch("lock", "", json!({"spec": {"holderIdentity": "x"}})));
    row("Lease of the hand-off", "Lease", Try::Patch("session.a", "", json!({"spec": {"holderIdentity": "x"}})));
    row("Lease delete", "Lease", Try::Delete("lock"));
    rows.extend(rollout_fields().iter().map(|(field, value)| spec("Rollout", "web", field, value)));
    rows.extend(set_fields().iter().map(|(field, value)| spec("ListenerSet", "bots", field, value)));
    rows
}

/// `yes`, `no` (for want of a right), `never` (whoever asks).
async fn judged(account: &Account, (name, kind, what): &Row) -> &'static str {
    let answer = match what {
        Try::Create(object) => account.create(kind, object).await.map(drop),
        Try::Patch(name, subresource, patch) => account.patch(kind, name, subresource, patch).await,
        Try::Delete(name) => account.delete(kind, name).await,
    };
    match answer {
        Ok(()) => "yes",
        Err(said) if said.contains("code: 403") => "no",
        Err(said) if said.contains("code: 422") => "never",
        Err(said) => panic!("{name}: {said}"),
    }
}

async fn user(cluster: &TestCluster, namespace: &str, name: &str, roles: &[&str]) -> Account {
    cluster.kubectl(&["-n", namespace, "create", "serviceaccount", name]);
    for role in roles {
        let (binding, role) = (format!("{name}-{role}"), format!("--clusterrole={role}"));
        let account = format!("--serviceaccount={namespace}:{name}");
        cluster.kubectl(&["-n", namespace, "create", "rolebinding", &binding, &role, &account]);
    }
    let token = cluster.kubectl(&["-n", namespace, "create", "token", name]);
    Account { dry_run: true, ..Account::of(cluster, namespace, Some(&token)).await }
}

/// S3: the whole table of who may change what. Rights know no fields: whoever may change one field of a spec may change all,
/// but those that nobody may, and those of a Rollout that say what runs: they take the right to create Pods or Jobs, too.
#[tokio::test]
async fn each_role_changes_what_it_is_for() {
    let namespace = "policy-users";
    let cluster = stage(namespace, &["a@bots"]);
    for role in ["rollouts_view_role", "rollouts_operate_role", "rollouts_edit_role"] {
        cluster.kubectl(&["apply", "-f", &repository(&format!("config/rbac/{role}.yaml"))]);
    }
    let admin = Account::of(cluster, namespace, None).await;
    admin.create("Rollout", &rollout()).await.unwrap();
    admin.create("ListenerSet", &set()).await.unwrap();
    let ports = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
    admin.create("Service", &ports).await.unwrap();
    for (name, labels) in [("lock", json!({})), ("session.a", json!({"baton.dev/lease": "session"}))] {
        admin.create("Lease", &json!({"metadata": {"name": name, "labels": labels}, "spec": {}})).await.unwrap();
    }
    let mut columns = Vec::new();
    for (name, roles) in USERS {
        columns.push(user(cluster, namespace, name, roles).await);
    }
    let may = |account: &str, what: [&str; 2]| {
        let user = format!("--as=system:serviceaccount:{namespace}:{account}");
        cluster.try_kubectl(&["auth", "can-i", what[0], what[1], "-n", namespace, &user]).status.success()
    };
    let last = [
        ("view", ["list", "rollouts.baton.dev"]),
        ("operate", ["patch", "rollouts.baton.dev"]),
        ("edit", ["list", "rollouts.baton.dev"]),
        ("agent", ["patch", "leases"]),
        ("editor", ["create", "pods"]),
        ("editor", ["patch", "rollouts.baton.dev"]),
    ];
    eventually(30, "the roles to count", || last.iter().all(|(account, what)| may(account, *what)));

    in_force(&columns[3], "Rollout", &json!({"metadata": {"name": "new"}, "spec": rollout()["spec"]}), ROLLOUTS).await;

    let mut table = String::new();
    for row in &rows() {
        write!(table, "{:<38}", row.0).unwrap();
        for account in &columns {
            write!(table, "{:<8}", judged(account, row).await).unwrap();
        }
        table.truncate(table.trim_end().len());
        table.push('\n');
    }
    insta::assert_snapshot!("rights_of_users", table);

    // Beside the spec, a status that is written is left out of what is stored.
    let editor = Account { dry_run: false, ..columns[3].clone() };
    editor.patch("Rollout", "web", "", &json!({"status": {"run": 7}, "spec": {"paused": true}})).await.unwrap();
    assert_eq!(
        cluster.kubectl(&["-n", namespace, "get", "rollouts.baton.dev", "web", "-o", "jsonpath={.status.run}"]),
        ""
    );
}

/// A field that is new has a row in the table above.
#[test]
fn every_field_of_a_spec_is_in_the_table() {
    for (crd, fields) in [("rollouts", rollout_fields()), ("listenersets", set_fields())] {
        let text = std::fs::read_to_string(repository(&format!("crds/{crd}.yaml"))).unwrap();
        let crd: Value = serde_saphyr::from_str(&text).unwrap();
        let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
        let known: BTreeSet<&str> = spec.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(fields.iter().map(|(field, _)| *field).collect::<BTreeSet<_>>(), known);
    }
}
