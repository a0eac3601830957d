//! Which Pods outside Rollouts serve a ListenerSet: those that accept it.
use serde_json::{Value, json};

use super::*;

fn decode<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn pod(accepts: Option<&str>) -> Event<PodView> {
    let annotations = accepts.map_or(json!({}), |accepts| json!({"baton.dev/listener-sets": accepts}));
    let metadata = json!({
        "name": "a", "namespace": "shop", "uid": "uid-a", "resourceVersion": "7", "labels": {"app": "bots"},
        "annotations": annotations,
    });
    Event::Applied(decode(
        json!({"metadata": metadata, "spec": {"nodeName": "node-1"}, "status": {"phase": "Running"}}),
    ))
}

/// F9: the right to write a ListenerSet gives no Pod that does not name the set in its annotation.
#[test]
fn a_pod_outside_rollouts_serves_the_sets_that_it_names() {
    let key = |name: &str| ObjectKey { namespace: "shop".into(), name: name.into() };
    let mut index = Index::default();
    for name in ["bots", "other"] {
        let metadata = json!({"name": name, "namespace": "shop", "uid": name, "resourceVersion": "5", "generation": 1});
        let spec = json!({"selector": {"matchLabels": {"app": "bots"}}, "listeners": [{"name": "a"}]});
        index.on_set(&None, Event::Applied(decode(json!({"metadata": metadata, "spec": spec}))));
    }
    let moment = Moment { now: jiff::Timestamp::UNIX_EPOCH, uptime: Duration::ZERO };
    let mut serves = |accepts: Option<&str>| {
        index.on_agent_pod(&None, pod(accepts));
        let has_pods = |name: &&str| {
            let seen = index.set_snapshot(&key(name), &SetMemories::default(), moment).unwrap().0;
            !seen.pods.is_empty()
        };
        ["bots", "other"].into_iter().filter(has_pods).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(serves(None), "");
    assert_eq!(serves(Some("")), "");
    assert_eq!(serves(Some("bot")), "");
    assert_eq!(serves(Some("bots")), "bots");
    assert_eq!(serves(Some("x, other")), "other");
    assert_eq!(serves(Some("other,bots")), "bots other");
    assert_eq!(serves(None), "", "it has thought better of it");
}
