//! The policy on Leases of the hand-off and the agents' Role, as the API server judges them: with real tokens of Pods, in
//! every verb that writes.
use std::{collections::BTreeSet, fs, sync::OnceLock};

use hand::{Hand, refusal, uid};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use leases::{listener, pod_reference, session};
use serde_json::{Value, json};

use super::{
    api::cluster,
    support::{TestCluster, eventually},
};
use crate::sources;

mod account;
mod bounds;
mod flow;
mod hand;
mod leases;
mod operator;
mod rollouts;
mod users;

fn repository(path: &str) -> String {
    sources::root().join(path).display().to_string()
}

fn apply(cluster: &TestCluster, name: &str, text: &str) {
    let file = cluster.dir.join(format!("{name}.yaml"));
    fs::write(&file, text).unwrap();
    cluster.kubectl(&["apply", "-f", &file.display().to_string()]);
}

/// The shared cluster with the policy in force, and a namespace in it with a Pod of each of these names, whose
/// ServiceAccount is called as the text after `@`.
fn stage(namespace: &str, pods: &[&str]) -> &'static TestCluster {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    let cluster = cluster();
    INSTALLED.get_or_init(|| {
        cluster.kubectl(&["apply", "-k", &repository("config/policy")]);
        cluster.kubectl(&["apply", "-f", &repository("config/rbac/agent_role.yaml")]);
    });
    cluster.kubectl(&["create", "namespace", namespace]);
    for pod in pods {
        let (name, account) = pod.split_once('@').unwrap();
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": namespace}});
        apply(cluster, namespace, &account.to_string());
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "serviceAccountName": account["metadata"]["name"],
                "containers": [{"name": "main", "image": "example.local/none:1"}],
                "tolerations": [{"operator": "Exists"}],
            },
        });
        apply(cluster, namespace, &pod.to_string());
    }
    cluster
}

/// Gives a ServiceAccount rights in its namespace: verbs on resources.
fn grant(cluster: &TestCluster, namespace: &str, account: &str, rules: &[(&str, &str, &[&str])]) {
    let rules: Vec<_> = rules
        .iter()
        .map(|(group, resource, verbs)| json!({"apiGroups": [group], "resources": [resource], "verbs": verbs}))
        .collect();
    let metadata = json!({"name": account, "namespace": namespace});
    let group = "rbac.authorization.k8s.io";
    let version = format!("{group}/v1");
    let role = json!({"apiVersion": version, "kind": "Role", "metadata": metadata, "rules": rules});
    let binding = json!({
        "apiVersion": version, "kind": "RoleBinding", "metadata": metadata,
        "roleRef": {"apiGroup": group, "kind": "Role", "name": account},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
    });
    apply(cluster, namespace, &format!("{role}\n---\n{binding}\n"));
}

/// All there is to do with Leases: what is refused nevertheless, the policy refuses.
const ANYTHING: &[(&str, &str, &[&str])] = &[(
    "coordination.k8s.io",
    "leases",
    &["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"],
)];

fn remove(object: &mut Value, field: &str) {
    object.as_object_mut().unwrap().remove(field);
}

fn names(lease: &mut Value, holder: &str, epoch: i64) {
    lease["spec"]["holderIdentity"] = json!(holder);
    lease["spec"]["leaseTransitions"] = json!(epoch);
}

/// The garbage collector deletes what has only owners that never were: so these Leases belong to something that is there.
async fn belonging(admin: &Hand, cluster: &TestCluster, namespace: &str, mut lease: Value) {
    let set = cluster.kubectl(&["-n", namespace, "get", "bls", "bots", "-o", "jsonpath={.metadata.uid}"]);
    if lease["metadata"]["ownerReferences"][0]["kind"] == "ListenerSet" {
        lease["metadata"]["ownerReferences"][0]["uid"] = json!(set);
    }
    admin.create(&lease).await.unwrap();
}

fn make_set(cluster: &TestCluster, namespace: &str) {
    let set = json!({
        "apiVersion": "baton.dev/v1alpha1", "kind": "ListenerSet", "metadata": {"name": "bots", "namespace": namespace},
        "spec": {"rolloutRef": {"name": "web"}, "listeners": [{"name": "one"}]},
    });
    apply(cluster, namespace, &set.to_string());
}

/// A4: whatever RBAC allows it, a Pod writes nothing of another's, in no verb.
#[tokio::test]
async fn a_pod_cannot_touch_what_another_holds() {
    let namespace = "policy-theft";
    let cluster = stage(namespace, &["a@bots", "b@bots"]);
    grant(cluster, namespace, "bots", ANYTHING);
    make_set(cluster, namespace);
    let admin = Hand::of(cluster, namespace, None).await;
    let (a, b) = (uid(cluster, namespace, "a"), uid(cluster, namespace, "b"));
    let thief = Hand::of_pod(cluster, namespace, "b").await;
    thief.waits_for_the_policy().await;
    belonging(&admin, cluster, namespace, session("a", &a)).await;
    let mut claimed = admin.get("session.a").await;
    names(&mut claimed, &format!("a/{a}/1-x"), 1);
    admin.write("put", &admin.get("session.a").await, &claimed, false).await.unwrap().unwrap();
    belonging(&admin, cluster, namespace, listener("one", Some(("a", &a)))).await;
    belonging(&admin, cluster, namespace, listener("free", None)).await;

    let own = "a Pod may write its own session and the listeners that it holds";
    let mine = format!("b/{b}/1-y");
    for name in ["session.a", "listener.bots.one", "listener.bots.free"] {
        let whose = format!("{own}: {name} is not of Pod b");
        let refused = async |what: &str, change: &dyn Fn(&mut Value)| {
            thief.refused(name, &admin, what, &whose, change).await;
        };
        refused("renew", &|it| it["spec"]["renewTime"] = json!("2026-01-01T10:00:00.000000Z")).await;
        refused("take", &|it| {
            let epoch = it["spec"]["leaseTransitions"].as_i64().unwrap();
            names(it, &mine, epoch + 1);
        })
        .await;
        refused("take in the holder's name", &|it| names(it, &format!("a/{a}/2-z"), 6)).await;
        refused("fence", &|it| it["spec"]["holderIdentity"] = json!(format!("fenced:a/{a}/1-x"))).await;
        refused("stop counting", &|it| it["metadata"]["labels"]["baton.dev/lease"] = json!("other")).await;
        refused("take the label", &|it| remove(&mut it["metadata"]["labels"], "baton.dev/lease")).await;
        refused("re-point", &|it| it["metadata"]["ownerReferences"] = json!([pod_reference("b", &b)])).await;
        refused("orphan", &|it| remove(&mut it["metadata"], "ownerReferences")).await;
        refused("note", &|it| it["metadata"]["annotations"]["baton.dev/state"] = json!("{}")).await;
        refused("block its end", &|it| it["metadata"]["finalizers"] = json!(["example.com/stay"])).await;
    }
    for name in ["session.a", "listener.bots.one"] {
        let free = |it: &mut Value| remove(&mut it["spec"], "holderIdentity");
        thief.refused(name, &admin, "release", own, free).await;
        thief.refused(name, &admin, "lower", "never goes back", |it| it["spec"]["leaseTransitions"] = json!(0)).await;
    }

    // Neither the name alone makes a session its own, nor the owner alone.
    let mut named = session("b", &a);
    named["metadata"]["ownerReferences"] = json!([pod_reference("a", &a)]);
    let mut owned = session("c", &b);
    owned["metadata"]["ownerReferences"] = json!([pod_reference("b", &b)]);
    for lease in [named, owned] {
        admin.create(&lease).await.unwrap();
        let name = lease["metadata"]["name"].as_str().unwrap();
        thief.refused(name, &admin, "claim", own, |it| names(it, &mine, 1)).await;
    }

    // Who looks for the reason finds it in the API server's audit log too.
    let log = fs::read_to_string(cluster.dir.join("logs/audit.log")).unwrap();
    let refusals =
        log.lines().filter(|line| line.contains("\"validation.policy.admission.k8s.io/validation_failure\""));
    assert!(refusals.into_iter().any(|line| line.contains("listener.bots.one is not of Pod b")));

    // A Lease of another program, as far as the policy goes, is that program's; it does not become one of ours.
    admin
        .create(&json!({"metadata": {"name": "lock"}, "spec": {"holderIdentity": "x", "leaseTransitions": 3}}))
        .await
        .unwrap();
    thief.done("lock", &admin, "lock", |it| names(it, "y", 2)).await;
    thief
        .refused("lock", &admin, "label", own, |it| {
            it["metadata"]["labels"] = json!({"baton.dev/lease": "session"});
        })
        .await;
}

/// A4: a Pod cannot go back, skip a boot or undo a fence, nor change what the controller has written on its session.
#[tokio::test]
async fn a_session_is_claimed_and_renewed_and_nothing_else() {
    let namespace = "policy-session";
    let cluster = stage(namespace, &["a@bots", "b@bots"]);
    grant(cluster, namespace, "bots", ANYTHING);
    let admin = Hand::of(cluster, namespace, None).await;
    let (a, b) = (uid(cluster, namespace, "a"), uid(cluster, namespace, "b"));
    let hand = Hand::of_pod(cluster, namespace, "a").await;
    hand.waits_for_the_policy().await;
    admin.create(&session("a", &a)).await.unwrap();

    let claim = "a session is claimed with";
    let (first, second) = (format!("a/{a}/1-x"), format!("a/{a}/2-y"));
    let other = format!("b/{b}/1-y");
    let refused = async |name: &str, words: &str, what: &str, change: &dyn Fn(&mut Value)| {
        hand.refused(name, &admin, what, words, change).await;
    };
    let name = "session.a";
    refused(name, claim, "nobody's, not claimed", &|it| it["spec"]["renewTime"] = json!("2026-01-01T10:00:00.000000Z"))
        .await;
    refused(name, claim, "skip a boot", &|it| names(it, &second, 2)).await;
    refused(name, claim, "another boot than it says", &|it| names(it, &second, 1)).await;
    refused(name, claim, "as another Pod", &|it| names(it, &other, 1)).await;
    hand.done(name, &admin, "claim", |it| {
        names(it, &first, 1);
        it["spec"]["acquireTime"] = json!("2026-01-01T10:00:00.000000Z");
        it["spec"]["renewTime"] = json!("2026-01-01T10:00:00.000000Z");
        it["metadata"]["annotations"]["baton.dev/agent"] = json!("{}");
    })
    .await;
    hand.done(name, &admin, "renew, with a report and a longer D", |it| {
        it["spec"]["renewTime"] = json!("2026-01-01T10:00:03.000000Z");
        it["spec"]["leaseDurationSeconds"] = json!(90);
        it["metadata"]["annotations"]["report.baton.dev/bots"] = json!("{}");
        it["metadata"]["annotations"]["baton.dev/agent"] = json!("{\"draining\":true}");
    })
    .await;
    refused(name, claim, "release", &|it| remove(&mut it["spec"], "holderIdentity")).await;
    refused(name, claim, "an epoch without a claim", &|it| it["spec"]["leaseTransitions"] = json!(2)).await;
    refused(name, claim, "another random", &|it| it["spec"]["holderIdentity"] = json!(format!("a/{a}/1-z"))).await;
    refused(name, claim, "fence", &|it| it["spec"]["holderIdentity"] = json!(format!("fenced:{first}"))).await;
    refused(name, claim, "claimed when?", &|it| it["spec"]["acquireTime"] = json!("2026-01-01T09:00:00.000000Z")).await;
    refused(name, claim, "for ever", &|it| it["spec"]["leaseDurationSeconds"] = json!(3_600)).await;
    refused(name, claim, "for a moment", &|it| it["spec"]["leaseDurationSeconds"] = json!(1)).await;
    refused(name, "never goes back", "lower", &|it| it["spec"]["leaseTransitions"] = json!(0)).await;
    let metadata = "of its session's metadata";
    refused(name, metadata, "write to oneself", &|it| {
        it["metadata"]["annotations"]["inbox.baton.dev/bots"] = json!("[1]");
    })
    .await;
    refused(name, metadata, "profile", &|it| it["metadata"]["annotations"]["baton.dev/profile"] = json!("Calm")).await;
    refused(name, metadata, "drop the inbox", &|it| remove(&mut it["metadata"]["annotations"], "inbox.baton.dev/bots"))
        .await;
    refused(name, metadata, "any note", &|it| it["metadata"]["annotations"]["example.com/x"] = json!("")).await;
    refused(name, metadata, "drop the label", &|it| remove(&mut it["metadata"]["labels"], "baton.dev/lease")).await;
    refused(name, metadata, "any label", &|it| it["metadata"]["labels"]["example.com/x"] = json!("")).await;
    refused(name, metadata, "be nobody's", &|it| remove(&mut it["metadata"], "ownerReferences")).await;
    refused(name, metadata, "be another's", &|it| it["metadata"]["ownerReferences"] = json!([pod_reference("b", &b)]))
        .await;
    refused(name, metadata, "stay", &|it| it["metadata"]["finalizers"] = json!(["example.com/stay"])).await;
    // A fence is not taken back by the boot that it names; the next boot claims.
    admin.done(name, &admin, "fence", |it| it["spec"]["holderIdentity"] = json!(format!("fenced:{first}"))).await;
    refused(name, claim, "un-fence", &|it| it["spec"]["holderIdentity"] = json!(first)).await;
    refused(name, claim, "renew fenced", &|it| it["spec"]["renewTime"] = json!("2026-01-01T10:00:09.000000Z")).await;
    hand.done(name, &admin, "claim again", |it| names(it, &second, 2)).await;
}

/// A4: a holder cannot go back, jump, hand over without an epoch, or change what the controller has written.
#[tokio::test]
async fn a_holder_keeps_to_the_hand_off() {
    let namespace = "policy-holder";
    let cluster = stage(namespace, &["a@bots", "b@bots"]);
    // The cluster itself asks for the second right, where a reference to a Pod is to block its deletion.
    grant(cluster, namespace, "bots", &[ANYTHING[0], ("", "pods/finalizers", &["update"])]);
    make_set(cluster, namespace);
    let admin = Hand::of(cluster, namespace, None).await;
    let (a, b) = (uid(cluster, namespace, "a"), uid(cluster, namespace, "b"));
    let hand = Hand::of_pod(cluster, namespace, "a").await;
    hand.waits_for_the_policy().await;
    belonging(&admin, cluster, namespace, listener("one", Some(("a", &a)))).await;

    let (first, other) = (format!("a/{a}/1-x"), format!("b/{b}/1-y"));
    let refused = async |name: &str, words: &str, what: &str, change: &dyn Fn(&mut Value)| {
        hand.refused(name, &admin, what, words, change).await;
    };
    let name = "listener.bots.one";
    let epoch = "a listener changes hands with leaseTransitions one more";
    refused(name, "never goes back", "lower", &|it| it["spec"]["leaseTransitions"] = json!(4)).await;
    refused(name, epoch, "hand over without an epoch", &|it| it["spec"]["holderIdentity"] = json!(other)).await;
    refused(name, epoch, "release without an epoch", &|it| remove(&mut it["spec"], "holderIdentity")).await;
    refused(name, epoch, "skip epochs", &|it| names(it, &other, 1_005)).await;
    let metadata = "of a listener's metadata";
    for note in ["baton.dev/config", "baton.dev/config-hash", "baton.dev/listener", "example.com/x"] {
        refused(name, metadata, note, &|it| it["metadata"]["annotations"][note] = json!("{\"a\":1}")).await;
    }
    refused(name, metadata, "drop the settings", &|it| remove(&mut it["metadata"]["annotations"], "baton.dev/config"))
        .await;
    let long = "x".repeat(4_097);
    refused(name, metadata, "a long state", &|it| it["metadata"]["annotations"]["baton.dev/state"] = json!(long)).await;
    for label in ["baton.dev/lease", "baton.dev/listener-set", "example.com/x"] {
        refused(name, metadata, label, &|it| it["metadata"]["labels"][label] = json!("session")).await;
    }
    refused(name, metadata, "drop the label", &|it| remove(&mut it["metadata"]["labels"], "baton.dev/lease")).await;
    refused(name, metadata, "stay", &|it| it["metadata"]["finalizers"] = json!(["example.com/stay"])).await;
    let owners = "of a listener's owner references";
    let reference = |it: &mut Value, reference: Value| {
        it["metadata"]["ownerReferences"].as_array_mut().unwrap().push(reference);
    };
    refused(name, owners, "leave the set", &|it| it["metadata"]["ownerReferences"] = json!([pod_reference("a", &a)]))
        .await;
    refused(name, owners, "another set", &|it| {
        let set = &mut it["metadata"]["ownerReferences"][0];
        (set["uid"], set["controller"]) = (json!(b), json!(false));
    })
    .await;
    refused(name, owners, "a Pod that does not hold it", &|it| reference(it, pod_reference("b", &b))).await;
    refused(name, owners, "a Pod under another's name", &|it| {
        names(it, &other, 6);
        reference(it, pod_reference("a", &b));
    })
    .await;
    refused(name, owners, "a Pod that blocks", &|it| {
        names(it, &other, 6);
        let mut owner = pod_reference("b", &b);
        owner["blockOwnerDeletion"] = json!(true);
        reference(it, owner);
    })
    .await;
    hand.done(name, &admin, "checkpoint", |it| it["metadata"]["annotations"]["baton.dev/state"] = json!(&long[1..]))
        .await;
    hand.done(name, &admin, "take back", |it| it["spec"]["leaseTransitions"] = json!(6)).await;
    hand.done(name, &admin, "hand over", |it| {
        names(it, &other, 7);
        it["spec"]["acquireTime"] = json!("2026-01-01T10:00:00.000000Z");
        it["metadata"]["labels"]["baton.dev/holder"] = json!("4567");
        for note in ["from", "revision", "stopped-at"] {
            it["metadata"]["annotations"][format!("baton.dev/{note}")] = json!("x");
        }
        it["metadata"]["ownerReferences"][1] = pod_reference("b", &b);
    })
    .await;
    refused(name, "is not of Pod a", "take back what is given", &|it| names(it, &first, 8)).await;
    Hand::of_pod(cluster, namespace, "b")
        .await
        .done(name, &admin, "give to nobody", |it| {
            it["spec"]["leaseTransitions"] = json!(8);
            remove(&mut it["spec"], "holderIdentity");
            remove(&mut it["metadata"]["labels"], "baton.dev/holder");
            it["metadata"]["ownerReferences"].as_array_mut().unwrap().truncate(1);
        })
        .await;
    refused(name, "is not of Pod a", "take what is nobody's", &|it| names(it, &first, 9)).await;
}

/// A3: Leases come and go by the operator alone, and by whoever collects what has no owner any more.
#[tokio::test]
async fn leases_come_by_the_operator_and_go_with_their_owners() {
    let namespace = "policy-life";
    let cluster = stage(namespace, &["a@bots", "b@bots", "operator@operator"]);
    grant(cluster, namespace, "bots", ANYTHING);
    grant(cluster, namespace, "operator", &[ANYTHING[0], ("baton.dev", "listenersets/status", &["update"])]);
    make_set(cluster, namespace);
    let admin = Hand::of(cluster, namespace, None).await;
    let (a, b) = (uid(cluster, namespace, "a"), uid(cluster, namespace, "b"));
    let (agent, operator) =
        (Hand::of_pod(cluster, namespace, "a").await, Hand::of_pod(cluster, namespace, "operator").await);
    agent.waits_for_the_policy().await;

    let only = "only Baton's operator creates and deletes Leases";
    for lease in [session("a", &a), listener("one", Some(("a", &a))), listener("free", None)] {
        let said = refusal(agent.create(&lease).await.map(drop));
        assert!(said.contains(only), "{said}");
        let mut applied = lease.clone();
        applied["apiVersion"] = json!("coordination.k8s.io/v1");
        applied["kind"] = json!("Lease");
        let name = lease["metadata"]["name"].as_str().unwrap();
        let params = PatchParams::apply("somebody").force();
        let said = refusal(agent.leases.patch(name, &params, &Patch::Apply(applied)).await.map(drop));
        assert!(said.contains(only), "{said}");
        belonging(&operator, cluster, namespace, lease.clone()).await;
        let said = refusal(agent.leases.delete(name, &DeleteParams::default()).await.map(drop));
        assert!(said.contains(only), "{said}");
    }
    let all = agent.leases.delete_collection(&DeleteParams::default(), &ListParams::default()).await;
    assert!(refusal(all.map(drop)).contains(only));
    assert_eq!(admin.leases.list(&ListParams::default()).await.unwrap().items.len(), 3);

    // The operator assigns, tells, fences; and does not go back either.
    let (held, next) = (format!("a/{a}/1-x"), format!("b/{b}/1-y"));
    agent.done("session.a", &admin, "claim", |it| names(it, &held, 1)).await;
    operator
        .done("session.a", &admin, "tell", |it| it["metadata"]["annotations"]["inbox.baton.dev/bots"] = json!("[2]"))
        .await;
    operator
        .done("session.a", &admin, "fence", |it| it["spec"]["holderIdentity"] = json!(format!("fenced:{held}")))
        .await;
    operator.done("listener.bots.free", &admin, "assign", |it| names(it, &next, 6)).await;
    operator
        .done("listener.bots.one", &admin, "reassign, with other settings", |it| {
            names(it, &next, 6);
            it["metadata"]["annotations"]["baton.dev/config-hash"] = json!("c2");
            it["metadata"]["ownerReferences"][1] = pod_reference("b", &b);
        })
        .await;
    let back = |it: &mut Value| it["spec"]["leaseTransitions"] = json!(0);
    for hand in [&operator, &admin] {
        hand.refused("listener.bots.one", &admin, "lower", "never goes back, from 6 to 0", back).await;
    }
    operator.leases.delete("listener.bots.free", &DeleteParams::default()).await.unwrap();
    // A token of its ServiceAccount that is no Pod's has no session and holds nothing.
    let token = cluster.kubectl(&["-n", namespace, "create", "token", "bots"]);
    let loose = Hand::of(cluster, namespace, Some(&token)).await;
    let words = "whose token is no Pod's";
    loose.refused("listener.bots.one", &admin, "take", words, |it| names(it, &held, 7)).await;

    // The garbage collector takes a lost Pod's reference away, and what has nobody left.
    cluster.kubectl(&["-n", namespace, "delete", "pod", "a", "b", "--force", "--grace-period=0"]);
    let get = |what: &str, path: &str| {
        cluster.kubectl(&["-n", namespace, "get", what, "--ignore-not-found", "-o", &format!("jsonpath={{{path}}}")])
    };
    eventually(30, "the session to go with its Pod", || get("lease/session.a", ".metadata.name").is_empty());
    let owners = || get("lease/listener.bots.one", ".metadata.ownerReferences[*].kind");
    eventually(30, "the reference to the Pod to go", || owners() == "ListenerSet");
    cluster.kubectl(&["-n", namespace, "delete", "bls", "bots"]);
    eventually(30, "the listener to go with its set", || get("lease/listener.bots.one", ".metadata.name").is_empty());

    // A namespace goes with what is in it, whoever owns that.
    let mut left = listener("left", None);
    remove(&mut left["metadata"], "ownerReferences");
    operator.create(&left).await.unwrap();
    cluster.kubectl(&["delete", "namespace", namespace, "--timeout=60s"]);
}

/// A4: the Role that users bind is enough for an agent, with the reference to the successor left to the controller where
/// the cluster enforces permission for that; and it is no more.
#[tokio::test]
async fn the_agents_role_is_enough_and_no_more() {
    let namespace = "policy-role";
    let cluster = stage(namespace, &["a@bots", "b@bots"]);
    let sample = fs::read_to_string(repository("config/samples/listenersets/agent_rights.yaml")).unwrap();
    let sample = sample.replace("namespace: default", &format!("namespace: {namespace}"));
    let file = cluster.dir.join("agent_rights.yaml");
    fs::write(&file, &sample).unwrap();
    // By whom it may be bound: an administrator of the namespace, who has as many rights on Leases.
    cluster.kubectl(&["-n", namespace, "create", "rolebinding", "owner", "--clusterrole=admin", "--user=owner"]);
    cluster.kubectl(&["-n", namespace, "apply", "--as=owner", "-f", &file.display().to_string()]);
    make_set(cluster, namespace);
    let admin = Hand::of(cluster, namespace, None).await;
    let (a, b) = (uid(cluster, namespace, "a"), uid(cluster, namespace, "b"));
    belonging(&admin, cluster, namespace, session("a", &a)).await;
    belonging(&admin, cluster, namespace, listener("one", Some(("a", &a)))).await;
    let (agent, other) = (Hand::of_pod(cluster, namespace, "a").await, Hand::of_pod(cluster, namespace, "b").await);

    let (mine, next) = (format!("a/{a}/1-x"), format!("b/{b}/1-y"));
    agent.done("session.a", &admin, "claim", |it| names(it, &mine, 1)).await;
    agent.done("session.a", &admin, "renew", |it| it["spec"]["renewTime"] = json!("2026-01-01T10:00:03.000000Z")).await;
    let name = "listener.bots.one";
    let old = agent.get(name).await;
    let mut new = old.clone();
    names(&mut new, &next, 6);
    new["metadata"]["ownerReferences"][1] = pod_reference("b", &b);
    let said = refusal(agent.write("merge patch", &old, &new, false).await.unwrap().map(drop));
    assert!(
        said.contains("cannot set an ownerRef on a resource you can't delete") && said.contains("code: 403"),
        "{said}"
    );
    agent.done(name, &admin, "hand over, without the reference", |it| names(it, &next, 6)).await;
    other.done(name, &admin, "take back", |it| it["spec"]["leaseTransitions"] = json!(7)).await;

    for said in [
        refusal(agent.create(&session("b", &b)).await.map(drop)),
        refusal(agent.leases.delete(name, &DeleteParams::default()).await.map(drop)),
        refusal(agent.leases.delete_collection(&DeleteParams::default(), &ListParams::default()).await.map(drop)),
    ] {
        assert!(said.contains("code: 403") && said.contains("cannot "), "{said}");
    }
    let rights = |account: &str| -> BTreeSet<String> {
        let user = format!("--as=system:serviceaccount:{namespace}:{account}");
        let list = cluster.kubectl(&["auth", "can-i", "--list", "-n", namespace, &user, "--no-headers"]);
        list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    let more: Vec<_> = rights("bots").difference(&rights("default")).cloned().collect();
    assert_eq!(more, ["leases.coordination.k8s.io [] [] [get list watch update patch]"]);
}
