//! ListenerSets over Pods that no Rollout controls.
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::cluster::{
    rollout::stage::{Stage, simulated},
    support::eventually,
};

/// F9: a set over Pods of others does nothing to them until a Pod accepts it by its annotation.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_others_is_left_alone_until_it_accepts_the_set() {
    let stage = Stage::new(simulated(), "foreign-pods").await;
    let (cluster, namespace) = (stage.cluster, stage.namespace.as_str());
    let pods: Api<Pod> = Api::namespaced(stage.client.clone(), namespace);
    let pod = json!({
        "metadata": {"name": "payments", "labels": {"app": "payments", "baton.dev/agent": "true"}},
        "spec": {"containers": [{"name": "main", "image": "example.local/none:1"}], "tolerations": [{"operator": "Exists"}]},
    });
    let made = pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let set = json!({
        "apiVersion": "baton.dev/v1alpha1", "kind": "ListenerSet", "metadata": {"name": "bots", "namespace": namespace},
        "spec": {"selector": {"matchLabels": {"app": "payments"}}, "listeners": [{"name": "one"}]},
    });
    let file = cluster.dir.join("foreign-pods.json");
    std::fs::write(&file, set.to_string()).unwrap();
    cluster.kubectl(&["apply", "-f", &file.display().to_string()]);
    let told =
        || cluster.kubectl(&["-n", namespace, "get", "listenersets.baton.dev", "bots", "-o", "jsonpath={.status}"]);
    let words = "spec.selector selects no Pods that have the label baton.dev/agent";
    eventually(30, "the set to say why", || told().contains(words));
    assert!(told().contains("the annotation baton.dev/listener-sets with the name bots"), "{}", told());
    let leases: Api<Lease> = Api::namespaced(stage.client.clone(), namespace);
    let of_hand_off = ListParams::default().labels("baton.dev/lease=session");
    assert!(leases.list(&of_hand_off).await.unwrap().items.is_empty());
    assert_eq!(pods.get("payments").await.unwrap().metadata.uid, made.metadata.uid);
    let accepts = json!({"metadata": {"annotations": {"baton.dev/listener-sets": "other, bots"}}});
    pods.patch("payments", &PatchParams::default(), &Patch::Merge(accepts)).await.unwrap();
    let sessions =
        || cluster.kubectl(&["-n", namespace, "get", "leases", "-l", "baton.dev/lease=session", "-o", "name"]);
    eventually(30, "a session for the Pod", || sessions().contains("/session.payments"));
}
