//! A failed Pod that is kept for a look.
use serde_json::json;

use super::{
    tests::{calls, snapshot},
    *,
};
use crate::scripted::{Answer, recorded};

fn keep(uid: &str) -> Change {
    let (name, resource_version) = ("web-0-abc".into(), "7".into());
    let until = "2026-01-01T10:10:00Z".parse().unwrap();
    Change::Pod { seen: Seen { name, uid: uid.into(), resource_version }, act: PodAct::Keep { until, run: 4 } }
}

/// Every label that a Service could select it by is gone, in one write that a Pod which has changed since refuses.
#[tokio::test(start_paused = true)]
async fn a_pod_that_is_kept_loses_its_labels_and_remembers_them() {
    let (answer, seen) = recorded(|| Answer::Json(200, json!({"metadata": {"resourceVersion": "8"}})));
    let mut snapshot = snapshot();
    snapshot.revisions[0].data["template"]["metadata"]["labels"]["tier"] = json!("front");
    let outcomes = apply(&calls(answer), &snapshot, &[keep("p1")]).await;
    assert_eq!(outcomes[0].result, Applied::Done { resource_version: "8".into() });
    let calls = seen.lock().unwrap();
    assert_eq!(
        (calls.len(), calls[0].method.as_str(), calls[0].path.as_str()),
        (1, "PATCH", "/api/v1/namespaces/shop/pods/web-0-abc")
    );
    let metadata = &calls[0].body["metadata"];
    assert_eq!((&metadata["uid"], &metadata["resourceVersion"]), (&json!("p1"), &json!("7")));
    let labels = json!({
        "app": null, "tier": null, "baton.dev/instance": null, "baton.dev/revision": null, "controller-revision-hash": null,
        "apps.kubernetes.io/pod-index": null, "baton.dev/rollout": "", "baton.dev/kept": "web",
    });
    assert_eq!(metadata["labels"], labels);
    let noted: serde_json::Value =
        serde_json::from_str(metadata["annotations"]["baton.dev/kept"].as_str().unwrap()).unwrap();
    let remembered = json!({
        "until": "2026-01-01T10:10:00Z", "run": 4, "slot": 0, "revision": "web-abc", "labels": {"app": "web", "tier": "front"},
    });
    assert_eq!(noted, remembered);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_not_known_is_not_kept() {
    let outcomes = apply(&calls(|_| Answer::Never), &snapshot(), &[keep("other")]).await;
    assert_eq!(outcomes[0].result, Applied::Stale);
}

/// R9: a create that finds the name taken by it takes another name.
#[tokio::test(start_paused = true)]
async fn the_name_of_a_pod_that_is_kept_is_taken() {
    let kept =
        json!({"until": "2026-01-01T10:10:00Z", "run": 4, "slot": 0, "revision": "web-abc", "labels": {}}).to_string();
    let answer = move |call: crate::scripted::Call| match call.method.as_str() {
        "POST" => Answer::failure(409, "AlreadyExists", "pods \"web-0-abc\" already exists"),
        _ => Answer::Json(
            200,
            json!({"metadata": {"name": "web-0-abc", "uid": "p1", "resourceVersion": "9",
                "labels": {"baton.dev/rollout": "", "baton.dev/kept": "web"}, "annotations": {"baton.dev/kept": kept},
                "ownerReferences": [{"apiVersion": "baton.dev/v1alpha1", "kind": "Rollout", "name": "web", "uid": "u1", "controller": true}]}}),
        ),
    };
    let create = Change::CreatePod {
        name: "web-0-abc".into(),
        slot: 0,
        revision: "web-abc".into(),
        restarted_at: None,
        reason: crate::plan::PodReason::Refill,
    };
    let outcomes = apply(&calls(answer), &snapshot(), &[create]).await;
    assert_eq!(outcomes[0].result, Applied::NameTaken);
}
