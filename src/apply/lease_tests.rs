//! Each change of a ListenerSet against each answer of the API server.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::{Value, json};

use super::*;
use crate::{
    api::session::SessionProfile,
    plan::listener_set::{
        change::{Origin, SetChange},
        death::Proof,
        ownership::Write,
    },
    scripted::{self, Answer, Call, recorded},
    snapshot::{
        index::ObjectKey,
        lease::{Holder, Letter, Order, Watched},
        listener::Settings,
        listener_set::{SessionSeen, SetSnapshot},
        report::AgentInfo,
    },
};

fn snapshot() -> SetSnapshot {
    let set = json!({
        "metadata": {"name": "bots", "namespace": "shop", "uid": "u1", "resourceVersion": "5"},
        "spec": {"rolloutRef": {"name": "web"}, "listeners": [{"name": "a"}]},
    });
    SetSnapshot {
        set: serde_json::from_value(set).unwrap(),
        listeners: Ok(std::sync::Arc::default()),
        pods: Vec::new(),
        sessions: BTreeMap::new(),
        ownerships: BTreeMap::new(),
        taken_names: BTreeSet::new(),
        unreadable: BTreeSet::new(),
        leaving: BTreeSet::new(),
        pods_in_the_end: 0,
        is_rolling: false,
        lost_nodes: BTreeSet::new(),
        now: "2026-01-01T10:00:00.123456Z".parse().unwrap(),
        uptime: Duration::ZERO,
    }
}

fn holder(pod: &str) -> Holder {
    Holder::parse(&format!("{pod}/uid-{pod}/1-r")).unwrap()
}

fn settings() -> Settings {
    serde_json::from_value(json!({
        "config": {}, "useProxy": false, "connectTimeoutSeconds": 1, "startTimeoutSeconds": 2, "stopTimeoutSeconds": 3,
        "checkpointSeconds": 0,
    }))
    .unwrap()
}

fn create_session() -> SetChange {
    SetChange::CreateSession { pod: "p".into(), pod_uid: "uid-p".into(), profile: SessionProfile::Fast }
}

fn create_ownership() -> SetChange {
    let write = Write { holder: Some(holder("p")), epoch: 8 };
    SetChange::CreateOwnership { listener: "a".into(), write, settings: settings(), config_hash: "c1".into() }
}

fn dead() -> Origin {
    Origin::Dead(holder("dead"), Proof::Fenced)
}

fn assign(from: Origin, to: Option<Holder>) -> SetChange {
    SetChange::Assign {
        listener: "a".into(),
        uid: "l1".into(),
        resource_version: "9".into(),
        write: Write { holder: to, epoch: 6 },
        from,
    }
}

fn set_inbox(letters: BTreeMap<String, Letter>) -> SetChange {
    SetChange::SetInbox { lease: "session.p".into(), uid: "s1".into(), letters }
}

fn of_what_exists() -> Vec<SetChange> {
    let (listener, uid, resource_version) = ("a".to_owned(), "l1".to_owned(), "9".to_owned());
    vec![
        SetChange::SetProfile { lease: "session.p".into(), uid: "s1".into(), profile: SessionProfile::Calm },
        SetChange::Fence {
            lease: "session.p".into(),
            uid: "s1".into(),
            resource_version: "9".into(),
            holder: holder("p"),
            why: crate::plan::listener_set::session::Fence::Silent,
        },
        assign(Origin::Unowned, Some(holder("p"))),
        SetChange::Configure {
            listener: listener.clone(),
            uid: uid.clone(),
            resource_version: resource_version.clone(),
            settings: settings(),
            config_hash: "c2".into(),
        },
        SetChange::Mend {
            listener: listener.clone(),
            uid: uid.clone(),
            resource_version: resource_version.clone(),
            write: Write { holder: Some(holder("p")), epoch: 5 },
        },
        SetChange::Retire { listener, uid, resource_version },
        SetChange::KillPod {
            pod: "p".into(),
            uid: "uid-p".into(),
            resource_version: "9".into(),
            message: "it does not let go".into(),
        },
    ]
}

fn calls(answer: impl Fn(Call) -> Answer + Send + Sync + 'static) -> Calls {
    let fence = Fence::closed();
    fence.extend(fence.now() + Duration::from_hours(1));
    Calls::new(scripted::client(answer), fence, call::CALL_TIMEOUT)
}

fn session() -> SessionSeen {
    let zero = Duration::ZERO;
    SessionSeen {
        lease: "session.p".into(),
        uid: "s1".into(),
        watched: Watched {
            session: None,
            silent_for: zero,
            claimed_for: zero,
            of_pod_for: zero,
            fenced: None,
            duration: zero,
        },
        profile: None,
        info: AgentInfo::default(),
        report: None,
        holds_of_earlier_set: false,
        inbox: BTreeMap::new(),
        other_profiles: Vec::new(),
    }
}

async fn result(change: SetChange, answer: impl Fn(Call) -> Answer + Send + Sync + 'static) -> Applied {
    let mut outcomes = apply_set(&calls(answer), &snapshot(), &[change]).await;
    tokio::time::sleep(Duration::from_millis(1)).await; // letters are on their way
    outcomes.remove(0).result
}

/// What the API server was asked.
async fn request(change: SetChange) -> Call {
    let (answer, seen) = recorded(|| Answer::ok(json!({"metadata": {"resourceVersion": "99"}})));
    let done = result(change, answer).await;
    assert!(matches!(done, Applied::Done { .. }), "{done:?}");
    seen.lock().unwrap().remove(0)
}

fn word(applied: &Applied) -> &'static str {
    match applied {
        Applied::Done { .. } => "done",
        Applied::Stale => "stale",
        Applied::NameTaken => "taken",
        Applied::Refused { .. } => "refused",
        Applied::Unknown { retry_after: None, .. } => "unknown",
        Applied::Unknown { .. } => "later",
        Applied::Checked(_) => "checked",
        Applied::Fenced => "fenced",
    }
}

#[tokio::test(start_paused = true)]
async fn answers_to_writes_of_what_exists() {
    for change in of_what_exists() {
        for (code, expected) in [
            (200, "done"),
            (403, "refused"),
            (404, "stale"),
            (409, "stale"),
            (422, "refused"),
            (429, "later"),
            (500, "unknown"),
        ] {
            let applied = result(change.clone(), move |_| match code {
                200 => Answer::ok(json!({"metadata": {"resourceVersion": "99"}})),
                _ => Answer::failure(code, "Reason", "no"),
            })
            .await;
            assert_eq!(word(&applied), expected, "{code} {}", change.verb());
        }
        assert_eq!(word(&result(change, |_| Answer::Never).await), "unknown");
    }
}

/// L7: a PUT would make a Lease again that was deleted, and take what others wrote beside.
#[tokio::test(start_paused = true)]
async fn nothing_is_written_over_what_was_not_seen() {
    for change in of_what_exists().into_iter().chain([set_inbox(BTreeMap::new())]) {
        let (verb, call) = (change.verb(), request(change).await);
        let versions = match call.method.as_str() {
            "PATCH" => &call.body["metadata"],
            "DELETE" => &call.body["preconditions"],
            other => panic!("{other} of {verb}"),
        };
        assert!(versions["uid"].is_string(), "{verb}");
        // Letters and wishes: nothing rests on them, and the agent renews its Lease all the time.
        let is_advice = ["SetInbox", "SetProfile"].contains(&verb);
        assert_eq!(versions["resourceVersion"].is_string(), !is_advice, "{verb}");
    }
}

#[tokio::test(start_paused = true)]
async fn all_that_names_a_holder_is_written_together() {
    let call = request(assign(dead(), Some(holder("p")))).await;
    assert_eq!(call.line(), "PATCH /apis/coordination.k8s.io/v1/namespaces/shop/leases/listener.bots.a");
    let me = "p/uid-p/1-r";
    assert_eq!(
        call.body,
        json!({
            "metadata": {
                "uid": "l1", "resourceVersion": "9",
                "labels": {"baton.dev/holder": crate::api::names::holder_label(me)},
                "annotations": {"baton.dev/from": "dead/uid-dead/1-r", "baton.dev/stopped-at": null, "baton.dev/revision": null},
                "ownerReferences": [
                    {"apiVersion": "baton.dev/v1alpha1", "kind": "ListenerSet", "name": "bots", "uid": "u1",
                        "controller": true, "blockOwnerDeletion": false},
                    {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "uid-p"},
                ],
            },
            "spec": {"holderIdentity": me, "leaseTransitions": 6, "acquireTime": "2026-01-01T10:00:00.123456Z"},
        })
    );
    let call = request(assign(dead(), None)).await;
    assert_eq!(call.body["metadata"]["labels"], json!({"baton.dev/holder": null}));
    assert_eq!(call.body["metadata"]["ownerReferences"].as_array().unwrap().len(), 1);
    assert_eq!(call.body["spec"], json!({"holderIdentity": null, "leaseTransitions": 6, "acquireTime": null}));
    // Who stopped it, and when, counts where it was to run all the time and its owner has let go of it.
    let stopped_at = json!({"baton.dev/stopped-at": null, "baton.dev/revision": null});
    let taken = json!({"baton.dev/from": "dead/uid-dead/1-r", "baton.dev/stopped-at": null, "baton.dev/revision": null,
        "baton.dev/forced-at": "1970-01-01T00:00:00Z"});
    for (from, expected) in [
        (Origin::Unowned, json!({"baton.dev/revision": null})),
        (Origin::Rest, stopped_at),
        (Origin::Force(holder("dead"), jiff::Timestamp::UNIX_EPOCH), taken),
    ] {
        let call = request(assign(from.clone(), Some(holder("p")))).await;
        assert_eq!(call.body["metadata"]["annotations"], expected, "{from:?}");
    }
}

/// Where the API server lets no agent write owner references, the operator does.
#[tokio::test(start_paused = true)]
async fn what_names_a_holder_is_mended_without_a_new_epoch() {
    let mend = of_what_exists().into_iter().find(|change| change.verb() == "Mend").unwrap();
    let me = "p/uid-p/1-r";
    assert_eq!(
        request(mend).await.body,
        json!({
            "metadata": {
                "uid": "l1", "resourceVersion": "9",
                "labels": {"baton.dev/holder": crate::api::names::holder_label(me)},
                "ownerReferences": [
                    {"apiVersion": "baton.dev/v1alpha1", "kind": "ListenerSet", "name": "bots", "uid": "u1",
                        "controller": true, "blockOwnerDeletion": false},
                    {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "uid-p"},
                ],
            },
            "spec": {"holderIdentity": me, "leaseTransitions": 5},
        })
    );
}

#[tokio::test(start_paused = true)]
async fn new_leases_say_what_they_are() {
    let call = request(create_session()).await;
    assert_eq!(call.body["spec"], json!({"leaseTransitions": 0, "leaseDurationSeconds": 5}));
    let metadata = &call.body["metadata"];
    assert_eq!((&metadata["name"], &metadata["labels"]), (&json!("session.p"), &json!({"baton.dev/lease": "session"})));
    assert_eq!(metadata["annotations"], json!({"baton.dev/profile": "Fast"}));
    assert_eq!(metadata["ownerReferences"], json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "uid-p"}]));
    let call = request(create_ownership()).await;
    let metadata = &call.body["metadata"];
    assert_eq!(metadata["labels"]["baton.dev/lease"], "listener");
    assert_eq!(metadata["labels"]["baton.dev/listener-set"], "bots");
    assert_eq!(metadata["annotations"]["baton.dev/listener"], "a");
    assert_eq!(metadata["annotations"]["baton.dev/config-hash"], "c1");
    assert!(metadata["annotations"]["baton.dev/config"].as_str().unwrap().contains("\"stopTimeoutSeconds\":3"));
    assert!(metadata["annotations"].get("baton.dev/revision").is_none(), "no null in a new object");
    assert_eq!(call.body["spec"]["leaseTransitions"], 8);
}

#[tokio::test(start_paused = true)]
async fn letters_are_replaced_as_a_whole_and_removed_when_there_are_none() {
    let letter = Letter { epoch: 4, order: Order::Release(Some(holder("q"))) };
    let call = request(set_inbox([("a".to_owned(), letter)].into())).await;
    let text = call.body["metadata"]["annotations"]["inbox.baton.dev/bots"].as_str().unwrap().to_owned();
    assert_eq!(text, r#"[{"listener":"a","epoch":4,"releaseTo":"q/uid-q/1-r"}]"#);
    let call = request(set_inbox(BTreeMap::new())).await;
    assert_eq!(call.body["metadata"]["annotations"], json!({"inbox.baton.dev/bots": null}));
}

/// H11: what says who is alive, and who holds what, is given up after 3 s; letters are not waited for at all.
#[tokio::test(start_paused = true)]
async fn a_look_waits_for_no_letter_and_not_long_for_a_lease() {
    for (change, seconds) in
        [(set_inbox(BTreeMap::new()), 0), (of_what_exists().remove(1), 3), (assign(dead(), None), 3)]
    {
        let began = tokio::time::Instant::now();
        apply_set(&calls(|_| Answer::Never), &snapshot(), std::slice::from_ref(&change)).await;
        assert_eq!(began.elapsed().as_secs(), seconds, "{}", change.verb());
    }
}

/// H11: what is on its way counts as written until the watch is as far; what was not written is planned again.
#[tokio::test(start_paused = true)]
async fn letters_count_while_they_are_on_their_way() {
    let key = ObjectKey { namespace: "shop".into(), name: "bots".into() };
    let shown = |calls: &Calls, is_told: bool| {
        let mut snapshot = snapshot();
        snapshot.sessions.insert("p".into(), session());
        calls.letters().show(&key, &mut snapshot, |_| is_told);
        snapshot.sessions["p"].inbox.keys().cloned().collect::<String>()
    };
    let letter =
        |listener: &str| set_inbox([(listener.to_owned(), Letter { epoch: 4, order: Order::Incoming })].into());
    let ended = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = ended.clone();
    let tells = move |_| {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    };
    let calls = calls(|call| {
        if call.body["metadata"]["annotations"].to_string().contains("never") {
            return Answer::Never;
        }
        Answer::ok(json!({"metadata": {"resourceVersion": "99"}}))
    });
    let calls = calls.with_letters(std::sync::Arc::new(tells));
    assert_eq!(shown(&calls, false), "");
    apply_set(&calls, &snapshot(), &[letter("a"), letter("b")]).await;
    assert_eq!(shown(&calls, true), "a", "one at a time");
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!((shown(&calls, false), ended.load(std::sync::atomic::Ordering::Relaxed)), ("a".into(), 1));
    assert_eq!(shown(&calls, true), "", "the watch tells what stands there now");
    apply_set(&calls, &snapshot(), &[letter("never")]).await;
    tokio::time::sleep(Duration::from_millis(2_900)).await;
    assert_eq!(shown(&calls, true), "never");
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!((shown(&calls, true), ended.load(std::sync::atomic::Ordering::Relaxed)), (String::new(), 2));
}

#[tokio::test(start_paused = true)]
async fn a_fence_names_the_boot() {
    let call = request(of_what_exists().remove(1)).await;
    assert_eq!(call.body["spec"], json!({"holderIdentity": "fenced:p/uid-p/1-r"}));
    assert!(call.body["metadata"].get("labels").is_none(), "it stays where the watch sees it");
}

/// A Lease of our name that is not ours is never touched.
#[tokio::test(start_paused = true)]
async fn a_taken_name_is_ours_only_by_uid_and_label() {
    let found = |label: &str, owner: Value| json!({"metadata": {"resourceVersion": "7", "labels": {"baton.dev/lease": label}, "ownerReferences": [owner]}});
    let pod = |uid: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid});
    let set = |name: &str, uid: &str| json!({"apiVersion": "baton.dev/v1alpha1", "kind": "ListenerSet", "name": name, "uid": uid, "controller": true});
    let cases: Vec<(SetChange, Option<Value>, &str)> = vec![
        (create_session(), Some(found("session", pod("uid-p"))), "done"),
        (create_session(), Some(found("other", pod("uid-p"))), "taken"),
        (create_session(), Some(found("session", pod("uid-before"))), "stale"),
        (create_session(), Some(found("session", set("bots", "u1"))), "taken"),
        (create_session(), None, "stale"),
        (create_ownership(), Some(found("listener", set("bots", "u1"))), "done"),
        (create_ownership(), Some(found("listener", set("bots", "u0"))), "stale"),
        (create_ownership(), Some(found("listener", set("others", "u2"))), "taken"),
        (create_ownership(), Some(found("listener", pod("u1"))), "taken"),
    ];
    for (change, existing, expected) in cases {
        let shown = format!("{} {existing:?}", change.verb());
        let applied = result(change, move |call| match (call.method.as_str(), &existing) {
            ("POST", _) => Answer::failure(409, "AlreadyExists", "already exists"),
            (_, Some(lease)) => Answer::ok(lease.clone()),
            (_, None) => Answer::failure(404, "NotFound", "not found"),
        })
        .await;
        assert_eq!(word(&applied), expected, "{shown}");
    }
}
