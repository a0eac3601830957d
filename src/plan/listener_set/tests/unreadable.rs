//! What cannot be read is there, and says nothing.
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    plan::listener_set::death,
    snapshot::{
        guard::DeserializeGuard,
        index::{Event, Index, Kind, Moment, ObjectKey, Recollection, SetMemories, Touched},
        lease::{Claim, Holder},
        listener_set::SetSnapshot,
        wire::{LeaseView, NodeView, PodView, RevisionView},
    },
};

/// As the watch gives it.
fn told<K>(object: &Value) -> Event<K>
where
    DeserializeGuard<K>: serde::de::DeserializeOwned,
    K: From<DeserializeGuard<K>>,
{
    Event::Applied(K::from(serde_json::from_value(object.clone()).unwrap()))
}

fn key(name: &str) -> ObjectKey {
    ObjectKey { namespace: "shop".into(), name: name.into() }
}

fn metadata(name: &str, version: u32, labels: &Value, owners: &Value) -> Value {
    json!({"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "resourceVersion": version.to_string(),
        "labels": labels, "ownerReferences": owners})
}

fn of_rollout() -> Value {
    json!([{"apiVersion": "baton.dev/v1alpha1", "kind": "Rollout", "name": "web", "uid": "uid-web", "controller": true}])
}

fn pod(version: u32, phase: &Value) -> Value {
    let labels = json!({"baton.dev/rollout": "web", "baton.dev/instance": "3", "baton.dev/revision": "web-r"});
    let conditions = json!([{"type": "Ready", "status": "True"}]);
    json!({"metadata": metadata("a", version, &labels, &of_rollout()), "spec": {"nodeName": "node-0"},
        "status": {"phase": phase, "conditions": conditions}})
}

fn revision(version: u32, number: &Value) -> Value {
    json!({"metadata": metadata("web-r", version, &json!({"baton.dev/rollout": "web"}), &of_rollout()),
        "data": {}, "revision": number})
}

fn session(version: u32, holder: &Value) -> Value {
    let owners = json!([{"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "uid-a"}]);
    json!({"metadata": metadata("session.a", version, &json!({"baton.dev/lease": "session"}), &owners),
        "spec": {"holderIdentity": holder, "leaseTransitions": 1, "leaseDurationSeconds": 15}})
}

fn ownership(version: u32, holder: &Value) -> Value {
    let owners = json!([
        {"apiVersion": "baton.dev/v1alpha1", "kind": "ListenerSet", "name": "bots", "uid": "uid-bots", "controller": true},
        {"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "uid-a"},
    ]);
    json!({"metadata": metadata("listener.bots.one", version, &json!({"baton.dev/lease": "listener"}), &owners),
        "spec": {"holderIdentity": holder, "leaseTransitions": 3}})
}

fn me() -> Value {
    json!("a/uid-a/1-r")
}

/// Rollout `web` with Pod `a`, which serves the set `bots`.
fn index() -> Index {
    let mut index = Index::default();
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app"}]}});
    let rollout = json!({"metadata": metadata("web", 1, &json!({}), &json!([])),
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template}});
    index.on_rollout(&None, Event::Applied(serde_json::from_value(rollout).unwrap()));
    index.on_set(&None, Event::Listed { objects: Vec::new(), resource_version: "1".into() });
    let set = json!({"metadata": metadata("bots", 1, &json!({}), &json!([])),
        "spec": {"rolloutRef": {"name": "web"}, "listeners": [{"name": "one"}]}});
    index.on_set(&None, Event::Applied(serde_json::from_value(set).unwrap()));
    index.on_pod(&None, told::<PodView>(&pod(2, &json!("Running"))));
    index.on_lease(&None, Event::Listed { objects: Vec::new(), resource_version: "1".into() }, Duration::ZERO);
    index
}

fn lease(index: &mut Index, lease: &Value, seconds: u64) -> Touched {
    index.on_lease(&None, told::<LeaseView>(lease), Duration::from_secs(seconds))
}

fn look(index: &Index, seconds: u64) -> SetSnapshot {
    let moment = Moment { now: Timestamp::UNIX_EPOCH, uptime: Duration::from_secs(seconds) };
    index.set_snapshot(&key("bots"), &SetMemories::default(), moment).unwrap().0
}

fn held(index: &Index) -> u32 {
    let snapshot = index.snapshot(&key("web"), &Recollection::default(), Timestamp::UNIX_EPOCH).unwrap();
    snapshot.agents.of("a").unwrap().held
}

fn large() -> Value {
    json!("x".repeat(1_400_000))
}

/// L1: a session that cannot be read proves no death, however long it has been so, and whether or not it was read before.
#[test]
fn a_session_that_cannot_be_read_is_not_missing() {
    for poison in [large(), json!(7)] {
        for was_read in [true, false] {
            let mut index = index();
            if was_read {
                lease(&mut index, &session(10, &me()), 1);
            }
            lease(&mut index, &ownership(11, &me()), 1);
            lease(&mut index, &session(12, &poison), 2);
            let watched = look(&index, 100_000).sessions["a"].watched.clone();
            assert_eq!(watched.session.as_ref().map(|session| &session.claim), Some(&Claim::Unreadable));
            for holder in ["a/uid-a/1-r", "a/uid-a/2-r", "a/uid-another/1-r"] {
                assert_eq!(death::proof(&Holder::parse(holder).unwrap(), &watched, None), None, "{holder}");
            }
            assert_eq!(held(&index), 1, "its Pod holds what names it");
            // It is deleted: from now on it is missing, and D begins.
            index.on_lease(
                &None,
                Event::Deleted(serde_json::from_value(session(13, &me())).unwrap()),
                Duration::from_secs(90),
            );
            let missing = |seconds| {
                death::proof(&Holder::parse("a/uid-a/1-r").unwrap(), &look(&index, seconds).sessions["a"].watched, None)
            };
            assert_eq!(missing(104), None);
            assert!(missing(90 + 120).is_some());
        }
    }
}

/// L1: an ownership that cannot be read is not given away, and its Pod's until it can be read.
#[test]
fn an_ownership_that_cannot_be_read_is_left_alone() {
    for was_read in [true, false] {
        let mut index = index();
        lease(&mut index, &session(10, &me()), 1);
        if was_read {
            lease(&mut index, &ownership(11, &me()), 1);
            assert_eq!(look(&index, 2).ownerships.len(), 1);
        }
        lease(&mut index, &ownership(12, &large()), 2);
        let seen = look(&index, 3);
        assert!(seen.ownerships.is_empty(), "no write is decided on it");
        assert_eq!(seen.unreadable, ["listener.bots.one".to_owned()].into());
        assert_eq!(held(&index), 1, "its Pod may not leave as if it held nothing");
        assert_eq!(index.version(Kind::Lease, &key("listener.bots.one")), Some(("uid-listener.bots.one", "12")));
        // The set is made anew: what its namesake has left is not deleted before it can be read.
        assert!(index.left_behind(&key("bots")).is_empty());
        lease(&mut index, &ownership(13, &me()), 4);
        let seen = look(&index, 5);
        assert_eq!((seen.ownerships.len(), seen.unreadable.len(), held(&index)), (1, 0, 1));
    }
}

#[test]
fn a_pod_that_cannot_be_read_keeps_its_slot() {
    let mut index = index();
    for (version, poison) in [(3, large()), (4, json!(7))] {
        index.on_pod(&None, told::<PodView>(&pod(version, &poison)));
        let snapshot = index.snapshot(&key("web"), &Recollection::default(), Timestamp::UNIX_EPOCH).unwrap();
        let seen = &snapshot.pods[0];
        assert_eq!((snapshot.pods.len(), seen.slot, seen.revision.as_str()), (1, 3, "web-r"));
        assert_eq!((seen.is_unreadable, seen.is_ready(), seen.is_observed), (true, false, false));
    }
    // Not even its labels can be read: it is where it was.
    let mut nowhere = pod(5, &large());
    nowhere["metadata"]["labels"] = json!(7);
    index.on_pod(&None, told::<PodView>(&nowhere));
    let listed = PodView::from(serde_json::from_value::<DeserializeGuard<PodView>>(nowhere).unwrap());
    index.on_pod(&None, Event::Listed { objects: vec![listed], resource_version: "6".into() });
    let pods = index.snapshot(&key("web"), &Recollection::default(), Timestamp::UNIX_EPOCH).unwrap().pods;
    assert_eq!(pods.len(), 1);
    assert_eq!(index.unreadables().map(|(kind, key, _)| (kind, key.name.as_str())).collect::<Vec<_>>(), [("Pod", "a")]);
    index.on_pod(&None, Event::Listed { objects: Vec::new(), resource_version: "7".into() });
    assert_eq!(index.unreadables().count(), 0, "what is gone is gone");
}

/// What its instances are to run is not known: the Rollout is left alone.
#[test]
fn a_revision_that_cannot_be_read_stops_its_rollout_alone() {
    let mut index = index();
    index.on_revision(&None, told::<RevisionView>(&revision(3, &json!(1))));
    assert_eq!(index.unreadable(&key("web")), None);
    index.on_revision(&None, told::<RevisionView>(&revision(4, &large())));
    let error = index.unreadable(&key("web")).unwrap();
    assert!(error.starts_with("its ControllerRevision web-r: it is too large"), "{error}");
    index.on_revision(&None, told::<RevisionView>(&revision(5, &json!(1))));
    assert_eq!(index.unreadable(&key("web")), None);
}

#[test]
fn a_node_that_cannot_be_read_is_not_lost() {
    let node = |ready: &Value| json!({"metadata": {"name": "node-0"}, "status": {"conditions": [{"type": "Ready", "status": ready}]}});
    let lost = |index: &Index| {
        index.snapshot(&key("web"), &Recollection::default(), Timestamp::UNIX_EPOCH).unwrap().lost_nodes.len()
    };
    let mut index = index();
    index.on_node(told::<NodeView>(&node(&large())));
    assert_eq!(lost(&index), 0, "never read");
    index.on_node(told::<NodeView>(&node(&json!("False"))));
    assert_eq!(lost(&index), 1);
    index.on_node(told::<NodeView>(&node(&large())));
    assert_eq!(lost(&index), 1, "as it was");
}
