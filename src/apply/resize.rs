//! Other resources for a Pod that stays, through its subresource `resize`.
use k8s_openapi::api::core::v1::Pod as ApiPod;

use super::{answer, pods, target::Target};
use crate::{
    plan::{Applied, resize},
    snapshot::{Pod, RefusalReason, TemplateCheck},
};

/// Asks by a dry run whether a Pod would be given the resources of a revision, if it is still the one we looked at.
pub(super) async fn check(target: &Target<'_>, uid: &str, revision: &str) -> Applied {
    let patch = pods::patch(target, uid, revision).and_then(|(pod, patch)| Some((pod, patch.resize?)));
    let Some((pod, patch)) = patch else { return Applied::Stale };
    let Err(error) = target.calls.resize(&target.namespace, &pod.name, &patch, true).await else {
        return Applied::Checked(TemplateCheck::Valid);
    };
    match answer::of_subresource(&error) {
        // Nothing was to be written, and it says nothing of other Pods.
        Applied::Unknown { message, retry_after: None } => {
            let now = target.snapshot.now;
            let recheck_at = now.saturating_add(pods::RECHECK_UNKNOWN).unwrap_or(now);
            Applied::Checked(TemplateCheck::Unknown { message, recheck_at })
        }
        other => named(other),
    }
}

/// Gives a Pod the resources that it is noted to get, if it is still the one we looked at.
pub(super) async fn perform(target: &Target<'_>, uid: &str) -> Applied {
    let noted = pod(target, uid).and_then(|pod| Some((pod, pod.in_place.as_ref()?)));
    let Some((pod, in_place)) = noted else { return Applied::Stale };
    let patch = resize::patch(pod, &in_place.resources);
    match target.calls.resize(&target.namespace, &pod.name, &patch, false).await {
        // A webhook takes it back: there is no version to wait for.
        Ok(written) if written.metadata.resource_version == pod.resource_version => {
            let message = "resize: what is written does not stay".to_owned();
            Applied::Refused { reason: RefusalReason::FailedCreate, message }
        }
        Ok(written) => Applied::Done { resource_version: written.metadata.resource_version },
        Err(error) => named(answer::of_subresource(&error)),
    }
}

/// Takes the note off a Pod that has them.
pub(super) async fn note_done(target: &Target<'_>, uid: &str) -> Applied {
    let patch = pod(target, uid).and_then(|pod| Some((pod, resize::patch_once_done(pod)?)));
    let Some((pod, patch)) = patch else { return Applied::Stale };
    answer::of_patch(target.calls.merge::<ApiPod>(&target.namespace, &pod.name, &patch).await)
}

fn pod<'t>(target: &'t Target<'_>, uid: &str) -> Option<&'t Pod> {
    target.snapshot.pods.iter().find(|pod| pod.uid == uid).map(|pod| &**pod)
}

fn named(answer: Applied) -> Applied {
    match answer {
        Applied::Refused { reason, message } => Applied::Refused { reason, message: format!("resize: {message}") },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::{
        apply::{
            apply,
            tests::{calls, snapshot},
        },
        plan::{Change, PodAct, Question, Seen},
        scripted::{Answer, Call, failure, recorded},
        snapshot::{Snapshot, wire},
    };

    /// Pod `p1` of one CPU, noted to get two.
    fn noted() -> Snapshot {
        let mut snapshot = snapshot();
        let note = json!({"at": "2026-01-01T10:00:00Z", "resources": {"app": {"requests": {"cpu": "2"}}}});
        let pod = serde_json::from_value(json!({
            "metadata": {
                "name": "web-0-abc", "uid": "p1", "resourceVersion": "7",
                "labels": {"baton.dev/instance": "0", "baton.dev/revision": "web-abc"},
                "annotations": {"baton.dev/in-place": note.to_string()},
            },
            "spec": {"containers": [{"name": "app", "image": "web:1", "resources": {"requests": {"cpu": "1"}}}]},
        }));
        snapshot.pods = wire::pod(pod.unwrap()).map(Arc::new).into_iter().collect();
        snapshot
    }

    fn resize() -> Change {
        let (name, uid, resource_version) = ("web-0-abc".into(), "p1".into(), "7".into());
        Change::Pod { seen: Seen { name, uid, resource_version }, act: PodAct::Resize { revision: "web-abc".into() } }
    }

    async fn answered(
        snapshot: &Snapshot,
        change: Change,
        answer: impl Fn(Call) -> Answer + Send + Sync + 'static,
    ) -> Applied {
        apply(&calls(answer), snapshot, &[change]).await.remove(0).result
    }

    fn refused(message: &str) -> Applied {
        Applied::Refused { reason: RefusalReason::FailedCreate, message: message.into() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_gets_what_is_noted_and_then_the_note_is_taken_off() {
        let (answer, seen) = recorded(|| Answer::ok(json!({"metadata": {"resourceVersion": "8"}})));
        let (name, uid, resource_version) = ("web-0-abc".into(), "p1".into(), "7".into());
        let changes = [resize(), Change::Pod { seen: Seen { name, uid, resource_version }, act: PodAct::NoteResized }];
        let outcomes = apply(&calls(answer), &noted(), &changes).await;
        let done = Applied::Done { resource_version: "8".into() };
        assert!(outcomes.iter().all(|outcome| outcome.result == done), "{outcomes:?}");
        let seen = seen.lock().unwrap();
        let metadata = json!({"uid": "p1", "resourceVersion": "7"});
        let containers = json!([{"name": "app", "resources": {"requests": {"cpu": "2"}}}]);
        let path = "PATCH /api/v1/namespaces/shop/pods/web-0-abc";
        let to = |end: &str| seen.iter().find(|call| call.line() == format!("{path}{end}")).unwrap();
        assert_eq!(to("/resize").body, json!({"metadata": metadata, "spec": {"containers": containers}}));
        let note = json!({"at": "2026-01-01T10:00:00Z", "containers": {}}).to_string();
        let annotations = json!({"baton.dev/in-place": note});
        let metadata = json!({"uid": "p1", "resourceVersion": "7", "annotations": annotations});
        assert_eq!(to("").body, json!({"metadata": metadata}));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_resize_comes_to() {
        let missing = |details: Value| {
            let mut answer = failure(404, "NotFound", "not found");
            answer["details"] = details;
            move |_| Answer::Json(404, answer.clone())
        };
        let gone = answered(&noted(), resize(), missing(json!({"name": "web-0-abc", "kind": "pods"}))).await;
        assert_eq!(gone, Applied::Stale);
        let unknown = answered(&noted(), resize(), missing(json!({}))).await;
        assert_eq!(unknown, refused("resize: not found"), "the server has no such subresource");
        let other = answered(&noted(), resize(), |_| Answer::failure(422, "Invalid", "QOS")).await;
        assert_eq!(other, refused("resize: QOS"));
        let same = |_| Answer::ok(json!({"metadata": {"resourceVersion": "7"}}));
        let undone = answered(&noted(), resize(), same).await;
        assert_eq!(
            undone,
            refused("resize: what is written does not stay"),
            "no version will come that could be awaited"
        );
        let lost = answered(&noted(), resize(), |_| Answer::failure(500, "InternalError", "etcd")).await;
        assert!(matches!(lost, Applied::Unknown { retry_after: None, .. }), "{lost:?}");
    }

    /// Nothing is written on a Pod that would be refused the resources.
    #[tokio::test(start_paused = true)]
    async fn what_would_be_refused_is_asked_by_a_dry_run() {
        let mut snapshot = noted();
        let mut to = snapshot.revisions[0].clone();
        "web-bcd".clone_into(&mut to.name);
        to.data["template"]["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "2"}});
        snapshot.revisions.push(to);
        let (name, uid, resource_version) = ("web-0-abc".into(), "p1".into(), "7".into());
        let change =
            Change::Ask(Question::Resize { pod: Seen { name, uid, resource_version }, revision: "web-bcd".into() });
        let (answer, seen) = recorded(|| Answer::failure(403, "Forbidden", "node is too small"));
        assert_eq!(answered(&snapshot, change.clone(), answer).await, refused("resize: node is too small"));
        let call = seen.lock().unwrap().remove(0);
        let path = "PATCH /api/v1/namespaces/shop/pods/web-0-abc/resize";
        assert_eq!((call.line().as_str(), call.query["dryRun"].as_str()), (path, "All"));
        assert!(seen.lock().unwrap().is_empty());
        let unsure = answered(&snapshot, change.clone(), |_| Answer::failure(500, "InternalError", "etcd")).await;
        let recheck_at = snapshot.now + pods::RECHECK_UNKNOWN;
        assert!(
            matches!(&unsure, Applied::Checked(TemplateCheck::Unknown { recheck_at: at, .. }) if *at == recheck_at),
            "nothing can have been written: {unsure:?}"
        );
        let busy = answered(&snapshot, change.clone(), |_| Answer::failure(429, "TooManyRequests", "busy")).await;
        assert!(matches!(busy, Applied::Unknown { retry_after: Some(_), .. }), "{busy:?}");
        let accepted = answered(&snapshot, change, |_| Answer::ok(json!({"metadata": {"resourceVersion": "7"}}))).await;
        assert_eq!(accepted, Applied::Checked(TemplateCheck::Valid));
    }
}
