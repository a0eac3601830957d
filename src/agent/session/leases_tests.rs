use super::*;

fn lease(value: &Value) -> Lease {
    serde_json::from_value(value.clone()).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn holder(pod: &str) -> Holder {
    Holder { pod: pod.into(), uid: format!("uid-{pod}"), boot: 2, random: "x".into() }
}

fn session() -> Value {
    json!({
        "metadata": {
            "name": "session.a", "uid": "uid-lease", "resourceVersion": "7", "labels": {"baton.dev/lease": "session"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "uid-a"}],
            "annotations": {
                "baton.dev/profile": "Fast",
                "inbox.baton.dev/bots": "[{\"listener\":\"one\",\"epoch\":4}]",
                "report.baton.dev/bots": "{}",
            },
        },
        "spec": {"holderIdentity": "a/uid-a/1-old", "leaseTransitions": 1, "leaseDurationSeconds": 15},
    })
}

fn listener() -> Value {
    json!({
        "metadata": {
            "name": "listener.bots.one", "uid": "uid-one", "resourceVersion": "9",
            "labels": {"baton.dev/lease": "listener", "baton.dev/listener-set": "bots"},
            "ownerReferences": [
                {"apiVersion": "baton.dev/v1alpha1", "kind": "ListenerSet", "name": "bots", "uid": "uid-set", "controller": true,
                    "blockOwnerDeletion": false},
                {"apiVersion": "v1", "kind": "Pod", "name": "old", "uid": "uid-old"},
            ],
            "annotations": {
                "baton.dev/listener": "one", "baton.dev/config-hash": "c1", "baton.dev/state": "7",
                "baton.dev/config": "{\"config\":{},\"useProxy\":true,\"connectTimeoutSeconds\":3,\"startTimeoutSeconds\":4,\
                    \"stopTimeoutSeconds\":5,\"checkpointSeconds\":0}",
                "baton.dev/stopped-at": "2026-01-01T10:00:00.250000Z", "baton.dev/from": "old/uid-old/1-y",
            },
        },
        "spec": {"holderIdentity": "a/uid-a/2-x", "leaseTransitions": 5},
    })
}

#[test]
fn a_session_tells_what_is_asked_and_suggested() {
    let read = SessionLease::read(&lease(&session())).unwrap();
    assert_eq!((read.profile, read.uid.as_str()), (Some(SessionProfile::Fast), "uid-lease"));
    assert_eq!(read.inbox["bots"]["one"].epoch, 4);
    assert_eq!(read.said, BTreeMap::from([("report.baton.dev/bots".to_owned(), "{}".to_owned())]));
    let mut unlabelled = session();
    unlabelled["metadata"]["labels"] = json!({});
    assert_eq!(SessionLease::read(&lease(&unlabelled)), None, "it counts as deleted");
    let mut unknown = session();
    unknown["metadata"]["annotations"]["baton.dev/profile"] = json!("Faster");
    assert_eq!(SessionLease::read(&lease(&unknown)).unwrap().profile, None);
}

#[test]
fn a_claim_is_conditioned_on_what_was_seen_and_forgets_old_reports() {
    let seen = SessionLease::read(&lease(&session())).unwrap();
    let patch = claim(
        &seen,
        &holder("a"),
        SessionProfile::Fast,
        "{}",
        (at("2026-01-01T09:59:58Z"), at("2026-01-01T10:00:00.25Z")),
    );
    let expected = json!({
        "metadata": {
            "uid": "uid-lease", "resourceVersion": "7",
            "annotations": {"baton.dev/agent": "{}", "report.baton.dev/bots": null},
        },
        "spec": {
            "holderIdentity": "a/uid-a/2-x", "leaseTransitions": 2, "leaseDurationSeconds": 5,
            "acquireTime": "2026-01-01T09:59:58.000000Z", "renewTime": "2026-01-01T10:00:00.250000Z",
        },
    });
    assert_eq!(patch, expected);
}

#[test]
fn a_renewal_tests_whose_session_it_is_and_a_new_duration_what_went_before() {
    let plain = renew(&holder("a"), &Renewal::default(), at("2026-01-01T10:00:03Z"));
    let expected = json!([
        {"op": "test", "path": "/spec/holderIdentity", "value": "a/uid-a/2-x"},
        {"op": "test", "path": "/metadata/labels/baton.dev~1lease", "value": "session"},
        {"op": "replace", "path": "/spec/renewTime", "value": "2026-01-01T10:00:03.000000Z"},
    ]);
    assert_eq!(plain, expected);
    let more = Renewal {
        annotations: BTreeMap::from([("report.baton.dev/bots".to_owned(), "{}".to_owned())]),
        is_first: false,
        duration: Some((SessionProfile::Calm, Some(at("2026-01-01T10:00:03Z")))),
    };
    let patch = renew(&holder("a"), &more, at("2026-01-01T10:00:06Z"));
    assert_eq!(patch[2], json!({"op": "test", "path": "/spec/renewTime", "value": "2026-01-01T10:00:03.000000Z"}));
    assert_eq!(patch[3], json!({"op": "replace", "path": "/spec/leaseDurationSeconds", "value": 90}));
    assert_eq!(patch[5]["path"], "/metadata/annotations/report.baton.dev~1bots");
}

#[test]
fn a_listener_lease_is_a_listener_sets() {
    let read = ListenerLease::read(&lease(&listener())).unwrap();
    assert_eq!((read.set.as_str(), read.set_uid.as_str(), read.listener.as_str()), ("bots", "uid-set", "one"));
    assert_eq!((read.ownership.epoch, read.settings.as_ref().unwrap().stop_timeout_seconds), (5, 5));
    assert_eq!(read.stopped_at, Some(at("2026-01-01T10:00:00.25Z")));
    let broken = |change: &dyn Fn(&mut Value)| {
        let mut broken = listener();
        change(&mut broken);
        ListenerLease::read(&lease(&broken))
    };
    assert_eq!(broken(&|lease| lease["metadata"]["labels"] = json!({})), None);
    assert_eq!(broken(&|lease| lease["metadata"]["name"] = json!("listener.bots.two")), None);
    assert_eq!(broken(&|lease| lease["metadata"]["ownerReferences"][0]["controller"] = json!(false)), None);
    assert_eq!(broken(&|lease| lease["metadata"]["ownerReferences"][0]["apiVersion"] = json!("other/v1")), None);
    let unreadable = broken(&|lease| lease["metadata"]["annotations"]["baton.dev/config"] = json!("no"));
    assert!(unreadable.unwrap().settings.is_err());
}

/// L7
#[test]
fn a_transfer_writes_everything_that_names_the_holder_at_once() {
    let seen = ListenerLease::read(&lease(&listener())).unwrap();
    let (me, now) = (holder("a"), at("2026-01-01T10:00:01Z"));
    let write = Write { holder: Some(holder("b")), epoch: 6 };
    let transfer = Transfer {
        seen: &seen,
        write: &write,
        me: &me,
        revision: "r2",
        state: Some("8"),
        stopped: Stopped::At(now),
        now,
    };
    let patch = transfer.patch(true);
    assert_eq!((&patch["metadata"]["uid"], &patch["metadata"]["resourceVersion"]), (&json!("uid-one"), &json!("9")));
    assert_eq!(patch["metadata"]["labels"]["baton.dev/holder"], names::holder_label("b/uid-b/2-x"));
    let expected = json!({
        "baton.dev/from": "a/uid-a/2-x", "baton.dev/revision": null, "baton.dev/state": "8",
        "baton.dev/stopped-at": "2026-01-01T10:00:01.000000Z",
    });
    assert_eq!(patch["metadata"]["annotations"], expected);
    let owners = patch["metadata"]["ownerReferences"].as_array().unwrap();
    assert_eq!(owners.len(), 2, "the ListenerSet, and the new holder's Pod alone");
    assert_eq!(owners[1], json!({"apiVersion": "v1", "kind": "Pod", "name": "b", "uid": "uid-b"}));
    assert_eq!(
        (&patch["spec"]["holderIdentity"], &patch["spec"]["leaseTransitions"]),
        (&json!("b/uid-b/2-x"), &json!(6))
    );
    assert_eq!(transfer.patch(false)["metadata"].get("ownerReferences"), None);

    let unowned = Write { holder: None, epoch: 6 };
    let patch = Transfer { write: &unowned, state: None, stopped: Stopped::Never, ..transfer.clone() }.patch(true);
    assert_eq!(patch["metadata"]["labels"], json!({"baton.dev/holder": null}));
    assert_eq!(patch["metadata"]["annotations"], json!({"baton.dev/from": "a/uid-a/2-x", "baton.dev/revision": null}));
    assert_eq!(patch["spec"], json!({"holderIdentity": null, "leaseTransitions": 6}));
    assert_eq!(patch["metadata"]["ownerReferences"].as_array().unwrap().len(), 1);

    let again = Write { holder: Some(me.clone()), epoch: 6 };
    let patch = Transfer { write: &again, stopped: Stopped::Forget, ..transfer }.patch(true);
    assert_eq!(patch["metadata"]["annotations"]["baton.dev/revision"], "r2");
    assert_eq!(patch["metadata"]["annotations"]["baton.dev/stopped-at"], Value::Null);
}
