//! Each change against each answer of the API server.
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::{
    api::Rollout,
    plan::{PodReason, RevisionMark, Selection},
    scripted::{self, Answer, Call, recorded},
    snapshot::{
        RefusalReason, Revision, Switched, TemplateCheck,
        index::{Event, Index, ObjectKey, Recollection},
        wire,
    },
};

const NOW: &str = "2026-01-01T10:00:00Z";

pub(super) fn snapshot() -> Snapshot {
    let template =
        json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app", "image": "web:1"}]}});
    let rollout: Rollout = serde_json::from_value(json!({
        "apiVersion": "baton.dev/v1alpha1", "kind": "Rollout",
        "metadata": {"name": "web", "namespace": "shop", "uid": "u1", "resourceVersion": "5"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template},
    }))
    .unwrap();
    let mut index = Index::default();
    index.on_rollout(&None, Event::Applied(crate::snapshot::guard::DeserializeGuard(Ok(rollout))));
    let key = ObjectKey { namespace: "shop".into(), name: "web".into() };
    let mut snapshot = index.snapshot(&key, &Recollection::default(), NOW.parse().unwrap()).unwrap();
    snapshot.revisions.push(Revision {
        name: "web-abc".into(),
        uid: "r1".into(),
        resource_version: "4".into(),
        hash: "abc".into(),
        number: 1,
        data: json!({"template": template}),
        created: None,
        completed_at: None,
        failed_at: None,
        failed_reason: None,
        change_cause: None,
        package_sha256: None,
        image_digests: None,
        backup: None,
        deleting: false,
    });
    let pod = serde_json::from_value(json!({
        "metadata": {"name": "web-0-abc", "uid": "p1", "resourceVersion": "7",
            "labels": {"baton.dev/instance": "0", "baton.dev/revision": "web-abc"},
            "annotations": {"baton.dev/in-place": r#"{"at": "2026-01-01T09:59:00Z", "reload": {}}"#}},
    }));
    snapshot.pods.extend(wire::pod(pod.unwrap()).map(Arc::new));
    snapshot
}

fn open_fence() -> Fence {
    let fence = Fence::closed();
    fence.extend(fence.now() + Duration::from_hours(1));
    fence
}

pub(super) fn calls(answer: impl Fn(Call) -> Answer + Send + Sync + 'static) -> Calls {
    Calls::new(scripted::client(answer), open_fence(), call::CALL_TIMEOUT)
}

fn create_pod(slot: i32) -> Change {
    let name = format!("web-{slot}-abc");
    Change::CreatePod { name, slot, revision: "web-abc".into(), restarted_at: None, reason: PodReason::Refill }
}

fn delete_pod() -> Change {
    let (name, uid, resource_version) = ("web-0-abc".into(), "p1".into(), "7".into());
    Change::Pod {
        seen: Seen { name, uid, resource_version },
        act: PodAct::Delete { slot: 0, reason: PodReason::Forward },
    }
}

fn set_in_service() -> Change {
    let (name, uid, resource_version) = ("web-0-abc".into(), "p1".into(), "7".into());
    Change::Pod {
        seen: Seen { name, uid, resource_version },
        act: PodAct::SetInService { in_service: true, session_ready: Some(true) },
    }
}

fn change_in_place() -> Change {
    let (name, uid, resource_version) = ("web-0-abc".into(), "p1".into(), "7".into());
    let (revision, reason) = ("web-abc".into(), PodReason::Forward);
    Change::Pod {
        seen: Seen { name, uid, resource_version },
        act: PodAct::ChangeInPlace { slot: 0, revision, restarts: true, resizes: false, reason },
    }
}

fn switch_service() -> Change {
    let (name, uid, resource_version) = ("web".into(), "s1".into(), "7".into());
    Change::Service {
        seen: Seen { name, uid, resource_version },
        select: Selection { revision: Some("web-abc".into()), labels: [].into(), switched: None },
    }
}

fn set_drained() -> Change {
    let (name, uid, resource_version) = ("web-0-abc".into(), "p1".into(), "7".into());
    Change::Pod { seen: Seen { name, uid, resource_version }, act: PodAct::SetDrained { busy: "3 of bots".into() } }
}

fn note_reloaded() -> Change {
    let (name, uid, resource_version) = ("web-0-abc".into(), "p1".into(), "7".into());
    Change::Pod { seen: Seen { name, uid, resource_version }, act: PodAct::NoteReloaded }
}

fn create_revision() -> Change {
    let data = snapshot().revisions[0].data.clone();
    Change::CreateRevision { name: "web-abc".into(), hash: "abc".into(), number: 1, data, change_cause: None }
}

fn mark_revision() -> Change {
    let mark = RevisionMark::Completed { at: NOW.parse().unwrap() };
    Change::Revision {
        seen: Seen { name: "web-abc".into(), uid: "r1".into(), resource_version: "4".into() },
        act: RevisionAct::Mark(mark),
    }
}

fn delete_revision() -> Change {
    Change::Revision {
        seen: Seen { name: "web-abc".into(), uid: "r1".into(), resource_version: "4".into() },
        act: RevisionAct::Delete,
    }
}

fn check_template() -> Change {
    Change::Ask(Question::Template { revision: "web-abc".into() })
}

/// What becomes of a change when the API server gives this answer to everything.
async fn result(change: &Change, code: u16, reason: &'static str, message: &'static str) -> Applied {
    let answer = move |_| match code {
        0 => Answer::Never,
        200..=299 => Answer::Json(code, json!({"metadata": {"resourceVersion": "99"}})),
        _ => Answer::failure(code, reason, message),
    };
    let mut outcomes = apply(&calls(answer), &snapshot(), std::slice::from_ref(change)).await;
    assert_eq!(outcomes.len(), 1);
    outcomes.remove(0).result
}

/// One word for a result, so that tables can be read.
pub(super) fn word(applied: &Applied) -> &'static str {
    match applied {
        Applied::Done { .. } => "done",
        Applied::Stale => "stale",
        Applied::NameTaken => "taken",
        Applied::Refused { reason: RefusalReason::QuotaExceeded, .. } => "quota",
        Applied::Refused { .. } => "refused",
        Applied::Checked(TemplateCheck::Valid) => "valid",
        Applied::Checked(TemplateCheck::Warned { .. }) => "warned",
        Applied::Checked(TemplateCheck::Refused { .. }) => "template refused",
        Applied::Checked(TemplateCheck::Unknown { .. }) => "no verdict",
        Applied::Unknown { retry_after: None, .. } => "unknown",
        Applied::Unknown { .. } => "later",
        Applied::Fenced => "fenced",
    }
}

async fn table(change: Change, rows: &[(u16, &'static str, &'static str, &str)]) {
    for (code, reason, message, expected) in rows {
        let applied = result(&change, *code, reason, message).await;
        assert_eq!(word(&applied), *expected, "{code} {reason} {message}: {applied:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn creating_a_pod() {
    let quota =
        "pods \"web-0-abc\" is forbidden: exceeded quota: small, requested: pods=1, used: pods=4, limited: pods=4";
    table(
        create_pod(0),
        &[
            (201, "", "", "done"),
            (400, "BadRequest", "cannot be handled as a Pod", "refused"),
            (401, "Unauthorized", "token expired", "unknown"),
            (403, "Forbidden", quota, "quota"),
            (403, "Forbidden", "violates PodSecurity \"restricted:latest\"", "refused"),
            (404, "NotFound", "namespaces \"shop\" not found", "refused"),
            (409, "Conflict", "Operation cannot be fulfilled on resourcequotas \"small\"", "later"),
            (410, "Gone", "gone", "refused"),
            (422, "Invalid", "spec.containers: Required value", "refused"),
            (429, "TooManyRequests", "try again", "later"),
            (500, "InternalError", "etcd", "unknown"),
            (503, "ServiceUnavailable", "restarting", "unknown"),
            (504, "Timeout", "may have been processed", "unknown"),
            (0, "", "", "unknown"),
        ],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn changing_what_exists() {
    for change in [
        delete_pod(),
        change_in_place(),
        switch_service(),
        set_in_service(),
        set_drained(),
        note_reloaded(),
        mark_revision(),
        delete_revision(),
    ] {
        table(
            change,
            &[
                (200, "", "", "done"),
                (403, "Forbidden", "a policy says no", "refused"),
                (404, "NotFound", "not found", "stale"),
                (409, "Conflict", "the object has been modified", "stale"),
                (410, "Gone", "gone", "stale"),
                (422, "Invalid", "invalid", "refused"),
                (429, "TooManyRequests", "try again", "later"),
                (500, "InternalError", "etcd", "unknown"),
                (0, "", "", "unknown"),
            ],
        )
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn creating_a_revision() {
    table(
        create_revision(),
        &[
            (201, "", "", "done"),
            (403, "Forbidden", "no", "refused"),
            (404, "NotFound", "namespaces \"shop\" not found", "refused"),
            (422, "Invalid", "invalid", "refused"),
            (429, "TooManyRequests", "try again", "later"),
            (500, "InternalError", "etcd", "unknown"),
            (0, "", "", "unknown"),
        ],
    )
    .await;
}

/// 422 and policies are about the template; quota, load and what is missing just now are not.
#[tokio::test(start_paused = true)]
async fn checking_a_template() {
    let webhook = "admission webhook \"x.example.com\" does not support dry run";
    let account =
        "pods \"x\" is forbidden: error looking up service account shop/web: serviceaccount \"web\" not found";
    table(
        check_template(),
        &[
            (201, "", "", "valid"),
            (409, "AlreadyExists", "pods \"x\" already exists", "valid"),
            (422, "Invalid", "spec.containers[0].image: Required value", "template refused"),
            (422, "Invalid", "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no", "template refused"),
            (400, "BadRequest", "Pod in version \"v1\" cannot be handled as a Pod", "template refused"),
            (400, "BadRequest", webhook, "no verdict"),
            (403, "Forbidden", "violates PodSecurity \"restricted:latest\": runAsNonRoot", "template refused"),
            (403, "Forbidden", "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no", "template refused"),
            (403, "Forbidden", "admission webhook \"x.example.com\" denied the request: no", "template refused"),
            (403, "Forbidden", "exceeded quota: small", "no verdict"),
            (403, "Forbidden", account, "no verdict"),
            (
                403,
                "Forbidden",
                "unable to create new content in namespace shop because it is being terminated",
                "no verdict",
            ),
            (404, "NotFound", "namespaces \"shop\" not found", "no verdict"),
            (429, "TooManyRequests", "try again", "no verdict"),
            (500, "InternalError", "etcd", "no verdict"),
            (0, "", "", "no verdict"),
        ],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_check_leaves_nothing_behind_and_is_asked_again_after_a_while() {
    let (answer, seen) = recorded(|| Answer::failure(422, "Invalid", "no"));
    let calls = calls(answer);
    let outcomes = apply(&calls, &snapshot(), &[check_template()]).await;
    let call = seen.lock().unwrap().remove(0);
    assert_eq!((call.line().as_str(), call.query["dryRun"].as_str()), ("POST /api/v1/namespaces/shop/pods", "All"));
    assert_eq!(call.body["metadata"]["name"], "web-0-abc-probe");
    let now: Timestamp = NOW.parse().unwrap();
    let recheck_at = now + SignedDuration::from_mins(1);
    let refused = TemplateCheck::Refused { message: "no".into(), recheck_at };
    assert_eq!(outcomes[0].result, Applied::Checked(refused));
}

#[tokio::test(start_paused = true)]
async fn a_timed_out_call_ends_after_ten_seconds() {
    let began = Instant::now();
    assert_eq!(word(&result(&create_pod(0), 0, "", "").await), "unknown");
    assert_eq!(began.elapsed(), call::CALL_TIMEOUT);
}

/// R10
#[tokio::test(start_paused = true)]
async fn deletes_and_marks_carry_preconditions() {
    let (answer, seen) = recorded(|| Answer::ok(json!({"metadata": {"resourceVersion": "99"}})));
    let calls = calls(answer);
    let outcomes = apply(&calls, &snapshot(), &[delete_pod(), delete_revision(), mark_revision()]).await;
    assert!(outcomes.iter().all(|outcome| word(&outcome.result) == "done"), "{outcomes:?}");
    let seen = seen.lock().unwrap();
    let of = |method: &str, end: &str| seen.iter().find(|c| c.method == method && c.path.ends_with(end)).unwrap();
    let preconditions = |call: &Call| call.body["preconditions"].clone();
    assert_eq!(preconditions(of("DELETE", "/pods/web-0-abc")), json!({"uid": "p1", "resourceVersion": "7"}));
    let revision = of("DELETE", "/controllerrevisions/web-abc");
    assert_eq!(preconditions(revision), json!({"uid": "r1", "resourceVersion": "4"}));
    // Its own grace period: none is named.
    assert_eq!(of("DELETE", "/pods/web-0-abc").body.get("gracePeriodSeconds"), None);
    let mark = &of("PATCH", "/controllerrevisions/web-abc").body["metadata"];
    assert_eq!((&mark["uid"], &mark["resourceVersion"]), (&json!("r1"), &json!("4")));
}

/// B3: of a Service one key and two annotations are written, if it is still the one that was seen.
#[tokio::test(start_paused = true)]
async fn a_switch_writes_one_key() {
    let (answer, seen) = recorded(|| Answer::ok(json!({"metadata": {"resourceVersion": "99"}})));
    let calls = calls(answer);
    let switched = Some(Switched { from: "web-abc".into(), at: NOW.parse().unwrap() });
    let (name, uid, resource_version) = ("web".to_owned(), "s1".to_owned(), "7".to_owned());
    let switch = |revision: Option<&str>, switched| {
        let (name, uid, resource_version) = (name.clone(), uid.clone(), resource_version.clone());
        Change::Service {
            seen: Seen { name, uid, resource_version },
            select: Selection { revision: revision.map(str::to_owned), labels: [].into(), switched },
        }
    };
    let outcomes = apply(&calls, &snapshot(), &[switch(Some("web-bcd"), switched)]).await;
    assert_eq!(outcomes[0].result, Applied::Done { resource_version: "99".into() });
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    assert_eq!(seen[0].line(), "PATCH /api/v1/namespaces/shop/services/web");
    let annotations = json!({"baton.dev/switched-from": "web-abc", "baton.dev/switched-at": NOW});
    let metadata = json!({"uid": "s1", "resourceVersion": "7", "annotations": annotations});
    let spec = json!({"selector": {"baton.dev/revision": "web-bcd"}});
    assert_eq!(seen[0].body, json!({"metadata": metadata, "spec": spec}));
    let (answer, seen) = recorded(|| Answer::ok(json!({"metadata": {"resourceVersion": "99"}})));
    apply(&self::calls(answer), &snapshot(), &[switch(None, None)]).await;
    let annotations = json!({"baton.dev/switched-from": null, "baton.dev/switched-at": null});
    let metadata = json!({"uid": "s1", "resourceVersion": "7", "annotations": annotations});
    let let_go = json!({"metadata": metadata, "spec": {"selector": {"baton.dev/revision": null}}});
    assert_eq!(seen.lock().unwrap()[0].body, let_go);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_when_the_lock_may_end_first() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    let client = scripted::client(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Answer::ok(json!({"metadata": {"resourceVersion": "1"}}))
    });
    let fence = Fence::closed();
    let calls = Calls::new(client, fence.clone(), call::CALL_TIMEOUT);
    let changes = [create_pod(0), delete_pod(), create_revision(), mark_revision(), delete_revision()];
    fence.extend(fence.now() + call::CALL_TIMEOUT.saturating_sub(Duration::from_millis(1)));
    let outcomes = apply(&calls, &snapshot(), &changes).await;
    assert!(outcomes.iter().all(|outcome| outcome.result == Applied::Fenced), "{outcomes:?}");
    assert_eq!(sent.load(Ordering::Relaxed), 0);
    fence.extend(fence.now() + call::CALL_TIMEOUT);
    let outcomes = apply(&calls, &snapshot(), &changes).await;
    assert!(outcomes.iter().all(|outcome| word(&outcome.result) == "done"), "{outcomes:?}");
}

/// Quota exhausted: asked a few times, not once for every Pod.
#[tokio::test(start_paused = true)]
async fn creates_start_slowly_and_stop_at_a_refusal() {
    let tried = Arc::new(AtomicUsize::new(0));
    let count = tried.clone();
    let calls = calls(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0..5 => Answer::ok(json!({"metadata": {"resourceVersion": "1"}})),
        _ => Answer::failure(403, "Forbidden", "exceeded quota: small"),
    });
    let changes: Vec<Change> = (0..64).map(create_pod).collect();
    let outcomes = apply(&calls, &snapshot(), &changes).await;
    assert_eq!(tried.load(Ordering::Relaxed), 7, "1 + 2 + 4: the third batch is refused");
    assert_eq!(outcomes.len(), 7);
    assert_eq!(outcomes.iter().filter(|outcome| word(&outcome.result) == "quota").count(), 2);
}

#[tokio::test(start_paused = true)]
async fn at_most_16_writes_of_one_namespace_are_in_flight() {
    let calls_seen = Arc::new(AtomicUsize::new(0));
    let count = calls_seen.clone();
    let calls = calls(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Answer::Never
    });
    let changes: Vec<Change> = (0..100).map(|_| delete_pod()).collect();
    let snapshot = snapshot();
    let all = apply(&calls, &snapshot, &changes);
    let _ = tokio::time::timeout(Duration::from_secs(5), all).await;
    assert_eq!(calls_seen.load(Ordering::Relaxed), call::IN_FLIGHT_MAX / 4);
}

#[tokio::test(start_paused = true)]
async fn outcomes_come_in_the_order_of_the_changes() {
    let calls = calls(|_| Answer::ok(json!({"metadata": {"resourceVersion": "1"}})));
    let changes = [create_pod(0), delete_pod(), create_pod(1), create_revision(), create_pod(2)];
    let outcomes = apply(&calls, &snapshot(), &changes).await;
    let order: Vec<&Change> = outcomes.iter().map(|outcome| &outcome.change).collect();
    assert_eq!(order, changes.iter().collect::<Vec<_>>());
}

/// A Pod that a lost write may still reach: the same one, at another version.
#[tokio::test]
async fn a_lost_write_is_overtaken_by_its_own_preconditions() {
    let client = |call: Call| {
        assert_eq!(call.line(), "PATCH /api/v1/namespaces/shop/pods/web-0-abc");
        let annotations = json!({"baton.dev/overtaken": "7"});
        assert_eq!(call.body, json!({"metadata": {"uid": "p1", "resourceVersion": "7", "annotations": annotations}}));
        Answer::ok(json!({"metadata": {"resourceVersion": "8"}}))
    };
    assert_eq!(word(&overtake_pod(&calls(client), "shop", "web-0-abc", ("p1", "7")).await), "done");
    let modified = |_| Answer::failure(409, "Conflict", "modified");
    assert_eq!(word(&overtake_pod(&calls(modified), "shop", "web-0-abc", ("p1", "7")).await), "stale");
}

/// C8: what the first instance has fetched is written once, on the revision that was seen, and asked of all later Pods.
#[tokio::test]
async fn a_package_is_bound_by_its_first_fetch() {
    let sha256 = "0f".repeat(32);
    let mark = RevisionMark::Fetched { sha256: sha256.clone() };
    let change = Change::Revision {
        seen: Seen { name: "web-abc".into(), uid: "r1".into(), resource_version: "4".into() },
        act: RevisionAct::Mark(mark),
    };
    let noted = sha256.clone();
    let client = move |call: Call| {
        let metadata = json!({"uid": "r1", "resourceVersion": "4", "annotations": {"baton.dev/package-sha256": noted}});
        assert_eq!(call.body, json!({"metadata": metadata}));
        Answer::Json(200, json!({"metadata": {"resourceVersion": "99"}}))
    };
    assert_eq!(word(&apply(&calls(client), &snapshot(), &[change]).await[0].result), "done");

    let mark = RevisionMark::Ran { images: [("app".to_owned(), "sha256:0f".to_owned())].into() };
    let change = Change::Revision {
        seen: Seen { name: "web-abc".into(), uid: "r1".into(), resource_version: "4".into() },
        act: RevisionAct::Mark(mark),
    };
    let client = move |call: Call| {
        let noted = &call.body["metadata"]["annotations"]["baton.dev/image-digests"];
        assert_eq!(noted, r#"{"app":"sha256:0f"}"#);
        Answer::Json(200, json!({"metadata": {"resourceVersion": "99"}}))
    };
    assert_eq!(word(&apply(&calls(client), &snapshot(), &[change]).await[0].result), "done");

    let mut snapshot = snapshot();
    snapshot.revisions[0].data["package"] =
        json!({"url": "https://packages.example.com/web.zip", "mountPath": "/opt/web"});
    snapshot.revisions[0].package_sha256 = Some(sha256.clone());
    let client = move |call: Call| {
        let arguments = call.body["spec"]["initContainers"][0]["args"].as_array().unwrap();
        assert_eq!(arguments[5..], [json!("--sha256"), json!(sha256)]);
        Answer::Json(201, json!({"metadata": {"resourceVersion": "99"}}))
    };
    let calls = calls(client).with_agent_image(Some("registry/agent:1"));
    assert_eq!(word(&apply(&calls, &snapshot, &[create_pod(0)]).await[0].result), "done");
}
