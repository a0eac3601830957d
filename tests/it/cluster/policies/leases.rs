//! Leases of the hand-off, as its controller would make them.
use serde_json::{Value, json};

pub fn pod_reference(name: &str, uid: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid})
}

pub fn session(pod: &str, uid: &str) -> Value {
    json!({
        "metadata": {
            "name": format!("session.{pod}"),
            "labels": {"baton.dev/lease": "session"},
            "annotations": {"baton.dev/profile": "Default", "inbox.baton.dev/bots": "[]"},
            "ownerReferences": [pod_reference(pod, uid)],
        },
        "spec": {"leaseTransitions": 0, "leaseDurationSeconds": 15},
    })
}

pub fn listener(name: &str, holder: Option<(&str, &str)>) -> Value {
    let set = json!({
        "apiVersion": "baton.dev/v1alpha1", "kind": "ListenerSet", "name": "bots",
        "uid": "9c1b7e0a-0000-4000-8000-000000000001", "controller": true, "blockOwnerDeletion": false,
    });
    let owners: Vec<_> = [set].into_iter().chain(holder.map(|(pod, uid)| pod_reference(pod, uid))).collect();
    let mut lease = json!({
        "metadata": {
            "name": format!("listener.bots.{name}"),
            "labels": {"baton.dev/lease": "listener", "baton.dev/listener-set": "bots"},
            "annotations": {"baton.dev/listener": name, "baton.dev/config": "{}", "baton.dev/config-hash": "c1"},
            "ownerReferences": owners,
        },
        "spec": {"leaseTransitions": 5},
    });
    if let Some((pod, uid)) = holder {
        lease["spec"]["holderIdentity"] = json!(format!("{pod}/{uid}/1-x"));
        lease["metadata"]["labels"]["baton.dev/holder"] = json!("0123");
    }
    lease
}
