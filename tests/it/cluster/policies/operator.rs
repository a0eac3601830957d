//! What the operator's account may write: its token, objects of others, and every verb that writes.
use serde_json::{Value, json};

use super::{account::Account, repository, stage};
use crate::cluster::support::TestCluster;

const DENIED: &str = "ValidatingAdmissionPolicy 'baton-operator'";
/// Whose label and controller the objects have that the operator may write.
const ROLLOUT: &str = "web";

fn refused(what: &str, answer: Result<(), String>) {
    let said = answer.expect_err(&format!("{what}: done"));
    assert!(!said.contains("resulted in error"), "{what}: an expression that fails is no rule: {said}");
    let by_policy = said.contains(DENIED) && said.contains("code: 422");
    assert!(by_policy || said.contains("code: 403"), "{what}: {said}");
}

fn controller(kind: &str, name: &str, uid: &str) -> Value {
    let version = if kind == "Rollout" { "baton.dev/v1alpha1" } else { "apps/v1" };
    json!([{"apiVersion": version, "kind": kind, "name": name, "uid": uid, "controller": true}])
}

fn pod(name: &str, labels: &Value, owners: &Value) -> Value {
    let container = json!({"name": "main", "image": "example.local/none:1", "resources": {"requests": {"cpu": "2m"}}});
    json!({
        "metadata": {"name": name, "labels": labels, "ownerReferences": owners},
        "spec": {"containers": [container], "tolerations": [{"operator": "Exists"}], "nodeSelector": {"no": "where"}},
    })
}

fn job(name: &str, labels: &Value, owners: &Value) -> Value {
    let container = json!({"name": "main", "image": "example.local/none:1"});
    let pod = json!({"restartPolicy": "Never", "containers": [container], "nodeSelector": {"no": "where"}});
    json!({
        "metadata": {"name": name, "labels": labels, "ownerReferences": owners},
        "spec": {"backoffLimit": 0, "template": {"spec": pod}},
    })
}

/// The shared cluster with the operator's account, its own rights, and a Rollout that no operator works on: its uid.
async fn scene(namespace: &str) -> (&'static TestCluster, Account, Account, String) {
    let cluster = stage(namespace, &["operator@baton-operator"]);
    cluster.kubectl(&["apply", "-f", &repository("config/rbac/operator_role.yaml")]);
    let account = format!("--serviceaccount={namespace}:baton-operator");
    cluster.kubectl(&["create", "clusterrolebinding", namespace, "--clusterrole=baton-operator", &account]);
    let token = cluster.kubectl(&["-n", namespace, "create", "token", "baton-operator"]);
    let operator = Account::of(cluster, namespace, Some(&token)).await;
    let admin = Account::of(cluster, namespace, None).await;
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "example.local/none:1"}]}});
    let rollout = json!({
        "metadata": {"name": ROLLOUT},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "template": template},
    });
    let made = admin.create("Rollout", &rollout).await.unwrap();
    // Until the policy and the rights count.
    for attempt in 0.. {
        let probe = operator.create("Pod", &pod("probe", &json!({}), &json!([]))).await.unwrap_err();
        if probe.contains(DENIED) {
            break;
        }
        assert!(attempt < 500, "the policy does not come into force: {probe}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    (cluster, operator, admin, made["metadata"]["uid"].as_str().unwrap().to_owned())
}

/// F10: the operator's token writes no object of others, in no verb that its roles allow.
#[tokio::test]
async fn the_operators_token_writes_no_object_of_others() {
    let namespace = "policy-foreign";
    let (cluster, operator, admin, uid) = scene(namespace).await;
    let own = controller("Rollout", ROLLOUT, &uid);
    let other = controller("ReplicaSet", "web", "9c1b7e0a-0000-4000-8000-000000000001");
    let ours = json!({"baton.dev/rollout": ROLLOUT});
    // Pods: nobody's, of another controller, of a Rollout that the label does not name.
    for (what, labels, owners) in [
        ("no controller", &ours, &json!([])),
        ("another controller", &ours, &other),
        ("another label", &json!({"baton.dev/rollout": "api"}), &own),
        ("no label", &json!({}), &own),
    ] {
        refused(what, operator.create("Pod", &pod("made", labels, owners)).await.map(drop));
    }
    let pods = [
        ("loose", json!({"app": "web"}), json!([])),
        ("of-another", json!({"baton.dev/rollout": ROLLOUT}), json!([])),
        ("agent", json!({"baton.dev/agent": "true"}), json!([])),
    ];
    for (name, labels, owners) in &pods {
        admin.create("Pod", &pod(name, labels, owners)).await.unwrap();
    }
    let note = json!({"metadata": {"annotations": {"example.com/x": "y"}}});
    let condition = |type_: &str| json!({"status": {"conditions": [{"type": type_, "status": "True"}]}});
    for (name, ..) in &pods {
        refused(name, operator.patch("Pod", name, "", &note).await);
        refused(name, operator.patch("Pod", name, "status", &condition("baton.dev/in-service")).await);
        let resize = json!({"spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": "1m"}}}]}});
        refused(name, operator.patch("Pod", name, "resize", &resize).await);
        refused(name, operator.delete("Pod", name).await);
    }
    let adopt = json!({"metadata": {"ownerReferences": own}});
    refused("adopt what has no label", operator.patch("Pod", "loose", "", &adopt).await);
    let labelled = json!({"metadata": {"labels": ours, "ownerReferences": own}});
    refused("label and adopt", operator.patch("Pod", "loose", "", &labelled).await);

    // Leases: of other programs, a node's heartbeat, another's lock, ours without the label.
    let lease = |name: &str, labels: Value| json!({"metadata": {"name": name, "labels": labels}, "spec": {"holderIdentity": "x"}});
    refused("a lock", operator.create("Lease", &lease("other-lock", json!({}))).await.map(drop));
    admin.create("Lease", &lease("lock", json!({}))).await.unwrap();
    let steal = json!({"spec": {"holderIdentity": "me"}, "metadata": {"labels": {"baton.dev/lease": "session"}}});
    for patch in [&json!({"spec": {"holderIdentity": "me"}}), &steal] {
        refused("lock", operator.patch("Lease", "lock", "", patch).await);
    }
    refused("lock", operator.delete("Lease", "lock").await);
    cluster.kubectl(&["create", "namespace", &format!("{namespace}-2")]);
    let elsewhere = operator.in_namespace(&format!("{namespace}-2"));
    refused("another's lock", elsewhere.create("Lease", &lease("baton-operator", json!({}))).await.map(drop));
    admin.create("Lease", &lease("session.x", json!({"baton.dev/lease": "session"}))).await.unwrap();
    let bare = json!({"metadata": {"labels": {"baton.dev/lease": null}}});
    refused("take the label", operator.patch("Lease", "session.x", "", &bare).await);

    // Jobs: nobody's, of another controller, of a Rollout that the label does not name, of no hook.
    let hook = json!({"baton.dev/hook": "backup", "baton.dev/rollout": ROLLOUT});
    for (what, labels, owners) in [
        ("a Job of nobody", &hook, &json!([])),
        ("a Job of another controller", &hook, &other),
        ("a Job with another label", &json!({"baton.dev/hook": "backup", "baton.dev/rollout": "api"}), &own),
        ("a Job of no hook", &ours, &own),
    ] {
        refused(what, operator.create("Job", &job("made", labels, owners)).await.map(drop));
    }
    admin.create("Job", &job("of-another", &json!({}), &json!([]))).await.unwrap();
    refused("of-another", operator.delete("Job", "of-another").await);

    // ControllerRevisions of StatefulSets.
    let revision = |name: &str, owners: &Value| json!({"metadata": {"name": name, "ownerReferences": owners}, "data": {}, "revision": 1});
    for owners in [&json!([]), &other] {
        refused("a revision", operator.create("ControllerRevision", &revision("made", owners)).await.map(drop));
    }
    admin.create("ControllerRevision", &revision("of-a-set", &json!([]))).await.unwrap();
    refused("of-a-set", operator.patch("ControllerRevision", "of-a-set", "", &json!({"revision": 7})).await);
    refused("of-a-set", operator.delete("ControllerRevision", "of-a-set").await);

    // Nothing in the cluster's own namespaces, whoever controls it.
    for namespace in ["kube-system", "kube-node-lease", "kube-public"] {
        let there = operator.in_namespace(namespace);
        refused(namespace, there.create("Pod", &pod("made", &ours, &own)).await.map(drop));
        refused(namespace, there.create("ControllerRevision", &revision("made", &own)).await.map(drop));
        let made = there.create("Lease", &lease("session.x", json!({"baton.dev/lease": "session"}))).await;
        refused(namespace, made.map(drop));
    }
    let nodes = cluster.kubectl(&["-n", "kube-node-lease", "get", "leases", "-o", "name"]);
    let heartbeat = nodes.lines().next().and_then(|name| name.split('/').nth(1)).expect("a node's heartbeat");
    let there = operator.in_namespace("kube-node-lease");
    refused(heartbeat, there.patch("Lease", heartbeat, "", &json!({"spec": {"holderIdentity": "me"}})).await);
    refused(heartbeat, there.delete("Lease", heartbeat).await);
}

/// F10: of a Service the operator's token writes the selector's key and three annotations, and only where the Service permits it.
#[tokio::test]
async fn the_operators_token_takes_no_service_that_does_not_permit_it() {
    let (_, operator, admin, _) = scene("policy-services").await;
    let service = |name: &str, annotations: Value| {
        json!({
            "metadata": {"name": name, "annotations": annotations},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
        })
    };
    admin.create("Service", &service("payments", json!({}))).await.unwrap();
    admin.create("Service", &service("web", json!({"baton.dev/rollout": "web", "example.com/x": "y"}))).await.unwrap();
    let key = json!({"spec": {"selector": {"baton.dev/revision": "web-1"}}});
    refused("payments", operator.patch("Service", "payments", "", &key).await);
    let permit = json!({"metadata": {"annotations": {"baton.dev/rollout": "web"}}, "spec": key["spec"]});
    refused("permit itself", operator.patch("Service", "payments", "", &permit).await);
    for (what, patch) in [
        ("own key", json!({"spec": {"selector": {"app": "other"}}})),
        ("drop a key", json!({"spec": {"selector": {"app": null}}})),
        ("add a key", json!({"spec": {"selector": {"tier": "x"}}})),
        ("ports", json!({"spec": {"ports": [{"port": 81}]}})),
        ("type", json!({"spec": {"type": "ExternalName", "externalName": "evil.example.com"}})),
        ("external address", json!({"spec": {"externalIPs": ["203.0.113.1"]}})),
        ("note", json!({"metadata": {"annotations": {"example.com/x": "z"}}})),
        ("drop a note", json!({"metadata": {"annotations": {"example.com/x": null}}})),
        ("another Rollout", json!({"metadata": {"annotations": {"baton.dev/rollout": "api"}}})),
        ("label", json!({"metadata": {"labels": {"a": "b"}}})),
        ("stay", json!({"metadata": {"finalizers": ["example.com/stay"]}})),
    ] {
        refused(what, operator.patch("Service", "web", "", &patch).await);
    }
    refused("delete", operator.delete("Service", "web").await);
    refused("create", operator.create("Service", &service("made", json!({}))).await.map(drop));
    // What it does: switch, overtake, let go; also of a Service that permits it no more.
    let switch = json!({
        "metadata": {"annotations": {"baton.dev/switched-at": "2026-01-01T10:00:00Z", "baton.dev/switched-from": "web-0"}},
        "spec": key["spec"],
    });
    operator.patch("Service", "web", "", &switch).await.unwrap();
    let withdrawn = json!({"metadata": {"annotations": {"baton.dev/rollout": null}}});
    admin.patch("Service", "web", "", &withdrawn).await.unwrap();
    let overtake = json!({"metadata": {"annotations": {"baton.dev/overtaken": "7"}}});
    operator.patch("Service", "web", "", &overtake).await.unwrap();
    let let_go = json!({
        "metadata": {"annotations": {"baton.dev/switched-at": null, "baton.dev/switched-from": null}},
        "spec": {"selector": {"baton.dev/revision": null}},
    });
    operator.patch("Service", "web", "", &let_go).await.unwrap();
    let mut empty = service("empty", json!({"baton.dev/rollout": "web"}));
    empty["spec"]["selector"].take();
    admin.create("Service", &empty).await.unwrap();
    let given = json!({"spec": {"selector": {"app": "web", "baton.dev/revision": "web-1"}}});
    operator.patch("Service", "empty", "", &given).await.unwrap();
}

/// F10: what the operator does passes, also where the install test does not come by: adoption, Pods that are kept, conditions,
/// Pods outside Rollouts that accept a set.
#[tokio::test]
async fn what_the_operator_does_passes_its_own_policy() {
    let (_, operator, admin, uid) = scene("policy-own").await;
    let own = controller("Rollout", ROLLOUT, &uid);
    let ours = json!({"baton.dev/rollout": ROLLOUT, "app": "web"});
    operator.create("Pod", &pod("web-0-abc", &ours, &own)).await.unwrap();
    let in_place = json!({"metadata": {"labels": {"tier": "gold"}, "annotations": {"baton.dev/in-place": "{}"}}});
    operator.patch("Pod", "web-0-abc", "", &in_place).await.unwrap();
    let condition = |type_: &str| json!({"status": {"conditions": [{"type": type_, "status": "True"}]}});
    for type_ in ["baton.dev/in-service", "baton.dev/session-ready", "baton.dev/drained"] {
        operator.patch("Pod", "web-0-abc", "status", &condition(type_)).await.unwrap();
    }
    for (what, patch) in [
        ("ready", condition("Ready")),
        ("another gate", condition("example.com/gate")),
        ("address", json!({"status": {"podIP": "10.9.9.9", "podIPs": [{"ip": "10.9.9.9"}]}})),
        ("phase", json!({"status": {"phase": "Failed"}})),
        ("label by status", json!({"metadata": {"labels": {"a": "b"}}})),
    ] {
        refused(what, operator.patch("Pod", "web-0-abc", "status", &patch).await);
    }
    let give =
        json!({"metadata": {"ownerReferences": controller("Rollout", "api", "9c1b7e0a-0000-4000-8000-000000000002")}});
    refused("give it to another", operator.patch("Pod", "web-0-abc", "", &give).await);
    let keep = json!({"metadata": {"labels": {"baton.dev/rollout": "", "baton.dev/kept": "web", "app": null}}});
    operator.patch("Pod", "web-0-abc", "", &keep).await.unwrap();
    operator.delete("Pod", "web-0-abc").await.unwrap();

    // Adoption of what an earlier Rollout of this name has left.
    admin.create("Pod", &pod("web-1-abc", &ours, &json!([]))).await.unwrap();
    let adopt = json!({"metadata": {"ownerReferences": own}});
    operator.patch("Pod", "web-1-abc", "", &adopt).await.unwrap();
    operator.delete("Pod", "web-1-abc").await.unwrap();
    let revision = json!({"metadata": {"name": "web-abc", "labels": ours}, "data": {}, "revision": 1});
    admin.create("ControllerRevision", &revision).await.unwrap();
    operator.patch("ControllerRevision", "web-abc", "", &adopt).await.unwrap();
    operator.delete("ControllerRevision", "web-abc").await.unwrap();

    // A Pod outside Rollouts that accepts a set may be deleted, and nothing else.
    let mut agent = pod("agent", &json!({"baton.dev/agent": "true"}), &json!([]));
    agent["metadata"]["annotations"] = json!({"baton.dev/listener-sets": "bots"});
    admin.create("Pod", &agent).await.unwrap();
    refused("agent", operator.patch("Pod", "agent", "", &json!({"metadata": {"labels": {"a": "b"}}})).await);
    operator.delete("Pod", "agent").await.unwrap();

    let hook = json!({"baton.dev/hook": "backup", "baton.dev/rollout": ROLLOUT});
    operator.create("Job", &job("web-hook-abc", &hook, &own)).await.unwrap();
    operator.delete("Job", "web-hook-abc").await.unwrap();

    let lease = json!({"metadata": {"name": "session.x", "labels": {"baton.dev/lease": "session"}}, "spec": {}});
    operator.create("Lease", &lease).await.unwrap();
    operator.patch("Lease", "session.x", "", &json!({"spec": {"holderIdentity": "fenced:x"}})).await.unwrap();
    operator.delete("Lease", "session.x").await.unwrap();
    let lock = json!({"metadata": {"name": "baton-operator"}, "spec": {"holderIdentity": "x"}});
    operator.create("Lease", &lock).await.unwrap();
}
