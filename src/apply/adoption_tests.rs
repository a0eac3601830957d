//! Whose an object is: our own of before, an orphan of the Rollout's name, or of something else; against answers of the API server.
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{
    apply, overlap,
    tests::{calls, snapshot, word},
};
use crate::{
    plan::{Applied, Change, PodAct, PodReason, RevisionAct, Seen},
    scripted::{Answer, Call},
    snapshot::Overlap,
};

fn create_pod() -> Change {
    let (name, revision) = ("web-0-abc".into(), "web-abc".into());
    Change::CreatePod { name, slot: 0, revision, restarted_at: None, reason: PodReason::Refill }
}

fn create_revision() -> Change {
    let data = snapshot().revisions[0].data.clone();
    Change::CreateRevision { name: "web-abc".into(), hash: "abc".into(), number: 1, data, change_cause: None }
}

fn existing_pod(owner_uid: &str, slot: &str, watched: bool) -> Value {
    let mut labels = json!({"baton.dev/instance": slot, "baton.dev/revision": "web-abc"});
    if watched {
        labels["baton.dev/rollout"] = json!("web");
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {
        "name": "web-0-abc", "namespace": "shop", "uid": "p1", "resourceVersion": "7", "labels": labels,
        "ownerReferences": [{"apiVersion": "baton.dev/v1alpha1", "kind": "Rollout", "name": "web", "uid": owner_uid, "controller": true}],
    }})
}

/// A Pod of our name that is not ours is never adopted.
#[tokio::test(start_paused = true)]
async fn a_taken_name_is_ours_only_by_the_uid_of_the_owner() {
    for (existing, expected) in [
        (Some(existing_pod("u1", "0", true)), "done"),
        (Some(existing_pod("u2", "0", true)), "taken"), // of a Rollout deleted and recreated under its name
        (Some(existing_pod("u1", "0", false)), "taken"), // it was taken out of our hands
        (Some(existing_pod("u1", "1", true)), "taken"),
        (None, "stale"),
    ] {
        let calls = calls(move |call| match (call.method.as_str(), &existing) {
            ("POST", _) => Answer::failure(409, "AlreadyExists", "pods \"web-0-abc\" already exists"),
            (_, Some(pod)) => Answer::ok(pod.clone()),
            (_, None) => Answer::failure(404, "NotFound", "not found"),
        });
        let outcomes = apply(&calls, &snapshot(), &[create_pod()]).await;
        assert_eq!(word(&outcomes[0].result), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_taken_revision_is_ours_only_with_the_same_data() {
    for (owner, data, expected) in
        [("u1", snapshot().revisions[0].data.clone(), "done"), ("u1", json!({}), "taken"), ("u2", json!({}), "taken")]
    {
        let object = json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": 1, "data": data, "metadata": {
            "name": "web-abc", "ownerReferences":
                [{"apiVersion": "baton.dev/v1alpha1", "kind": "Rollout", "name": "web", "uid": owner, "controller": true}],
        }});
        let calls = calls(move |call| match call.method.as_str() {
            "POST" => Answer::failure(409, "AlreadyExists", "already exists"),
            _ => Answer::ok(object.clone()),
        });
        let outcomes = apply(&calls, &snapshot(), &[create_revision()]).await;
        assert_eq!(word(&outcomes[0].result), expected);
    }
}

/// The controller is set by a patch that names what was seen, and merges the list of owners.
#[tokio::test(start_paused = true)]
async fn an_orphan_is_taken_as_it_was_seen_or_not_at_all() {
    let adopt = |of: &str| {
        let (name, uid, resource_version) = ("web-0-abc".to_owned(), "p1".to_owned(), "7".to_owned());
        match of {
            "pods" => Change::Pod { seen: Seen { name, uid, resource_version }, act: PodAct::Adopt },
            _ => Change::Revision { seen: Seen { name, uid, resource_version }, act: RevisionAct::Adopt },
        }
    };
    for (kind, path) in [
        ("pods", "/api/v1/namespaces/shop/pods/web-0-abc"),
        ("controllerrevisions", "/apis/apps/v1/namespaces/shop/controllerrevisions/web-0-abc"),
    ] {
        let seen: Arc<Mutex<Vec<Call>>> = Arc::default();
        let record = seen.clone();
        let calls_ok = calls(move |call| {
            record.lock().unwrap().push(call);
            Answer::ok(json!({"metadata": {"uid": "p1", "resourceVersion": "9"}}))
        });
        let outcomes = apply(&calls_ok, &snapshot(), &[adopt(kind)]).await;
        assert_eq!(outcomes[0].result, Applied::Done { resource_version: "9".into() });
        let seen = std::mem::take(&mut *seen.lock().unwrap());
        assert_eq!((seen[0].method.as_str(), seen[0].path.as_str()), ("PATCH", path));
        let owner = json!({"apiVersion": "baton.dev/v1alpha1", "kind": "Rollout", "name": "web", "uid": "u1",
            "controller": true, "blockOwnerDeletion": true});
        let metadata = json!({"uid": "p1", "resourceVersion": "7", "ownerReferences": [owner]});
        assert_eq!(seen[0].body, json!({"metadata": metadata}));
        let calls_stale = calls(|_| Answer::failure(409, "Conflict", "the object has been modified"));
        let outcomes = apply(&calls_stale, &snapshot(), &[adopt(kind)]).await;
        assert_eq!(outcomes[0].result, Applied::Stale);
    }
}

/// The watch lags: the object is there, and was left behind. It is waited for, where another name would make a second set.
#[tokio::test(start_paused = true)]
async fn a_name_that_an_orphan_has_is_not_taken() {
    let labels = json!({"app": "web", "baton.dev/rollout": "web", "baton.dev/instance": "0",
        "baton.dev/revision": "web-abc", "controller-revision-hash": "abc"});
    let answers = |labels: Value, deleting: bool| {
        move |call: Call| match call.method.as_str() {
            "POST" => Answer::failure(409, "AlreadyExists", "already exists"),
            _ => Answer::ok(json!({"metadata": {
                "name": call.path.rsplit('/').next(), "namespace": "shop", "uid": "x1", "resourceVersion": "7",
                "labels": labels, "deletionTimestamp": deleting.then_some("2026-01-01T09:00:00Z"),
            }, "data": {}, "revision": 1})),
        }
    };
    let mut foreign = labels.clone();
    foreign["baton.dev/rollout"] = json!("other");
    for change in [create_pod(), create_revision()] {
        let result = async |labels: &Value, deleting| {
            let calls = calls(answers(labels.clone(), deleting));
            apply(&calls, &snapshot(), std::slice::from_ref(&change)).await.remove(0).result
        };
        assert_eq!(result(&labels, false).await, Applied::Stale);
        assert_eq!(result(&labels, true).await, Applied::NameTaken, "it ends");
        assert_eq!(result(&foreign, false).await, Applied::NameTaken);
    }
}

/// One list, of the metadata of the first few; what ends is not counted.
#[tokio::test(start_paused = true)]
async fn what_else_the_selector_matches_is_asked_in_one_list() {
    let seen: Arc<Mutex<Vec<Call>>> = Arc::default();
    let record = seen.clone();
    let calls = calls(move |call| {
        record.lock().unwrap().push(call);
        let pod = |n: usize| {
            let owner =
                json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "api", "uid": "r", "controller": true}]);
            json!({"metadata": {"name": format!("api-{n}"), "ownerReferences": if n == 0 { json!([]) } else { owner }}})
        };
        let mut items: Vec<Value> = (0..7).rev().map(pod).collect();
        items[0]["metadata"]["deletionTimestamp"] = json!("2026-01-01T09:00:00Z");
        Answer::ok(
            json!({"kind": "PartialObjectMetadataList", "metadata": {"resourceVersion": "9", "continue": "more"}, "items": items}),
        )
    });
    let snapshot = snapshot();
    let found = overlap::list(&calls, &snapshot).await.unwrap();
    let named = [
        "api-0",
        "api-1 (ReplicaSet api)",
        "api-2 (ReplicaSet api)",
        "api-3 (ReplicaSet api)",
        "api-4 (ReplicaSet api)",
    ];
    assert_eq!(
        found,
        Overlap {
            at: snapshot.now,
            generation: None,
            count: 6,
            has_more: true,
            named: named.map(str::to_owned).to_vec()
        }
    );
    let seen = seen.lock().unwrap();
    assert_eq!((seen.len(), seen[0].path.as_str()), (1, "/api/v1/namespaces/shop/pods"));
    let selector = &seen[0].query["labelSelector"];
    assert!(selector.contains("app") && selector.contains("baton.dev") && selector.contains("rollout"), "{selector}");
    assert_eq!(seen[0].query["limit"], "50");
    assert_eq!(seen[0].query.get("resourceVersion"), None, "the API server ignores the limit of such a list");
}

/// The API server says so where it has found none.
#[tokio::test(start_paused = true)]
async fn a_list_without_items_is_empty() {
    let calls = calls(|_| Answer::ok(json!({"metadata": {"resourceVersion": "9"}, "items": null})));
    let snapshot = snapshot();
    let none = Overlap { at: snapshot.now, generation: None, count: 0, has_more: false, named: vec![] };
    assert_eq!(overlap::list(&calls, &snapshot).await.unwrap(), none);
}
