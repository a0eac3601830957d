use std::slice::from_ref;

use kube::core::cel::Validator;
use serde_json::{Value, json};

use super::*;
use crate::api::crd;

/// With defaults as the API server fills them in; a value at a JSON pointer below spec is replaced, null removes it.
fn set(changes: &[(&str, Value)]) -> Value {
    let mut object = json!({
        "apiVersion": "baton.dev/v1alpha1",
        "kind": "ListenerSet",
        "metadata": {"name": "bots"},
        "spec": {"rolloutRef": {"name": "web"}, "listeners": [{"name": "listener-1"}, {"name": "listener-2"}]},
    });
    for (pointer, value) in changes {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        let parent = object["spec"].pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}"));
        match parent {
            Value::Array(items) => items[field.parse::<usize>().unwrap()] = value.clone(),
            _ if value.is_null() => drop(parent.as_object_mut().unwrap().remove(field)),
            _ => parent[field] = value.clone(),
        }
    }
    let understood: ListenerSet = serde_json::from_value(object).unwrap();
    serde_json::to_value(understood).unwrap()
}

/// The messages of all CEL rules that `object` breaks.
fn broken(object: &Value) -> Vec<String> {
    let crd = serde_json::to_value(crd::listener_set()).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let errors = Validator::new().validate(schema, object, None).err();
    errors.iter().flatten().map(|error| error.message.clone()).collect()
}

#[track_caller]
fn assert_refused(changes: &[(&str, Value)], sentence: &str) {
    let messages = broken(&set(changes));
    assert!(messages.len() == 1 && messages[0].starts_with(sentence), "{changes:?}: {messages:?}");
}

#[track_caller]
fn assert_taken(changes: &[(&str, Value)]) {
    assert_eq!(broken(&set(changes)), Vec::<String>::new(), "{changes:?}");
}

#[test]
fn exactly_one_says_which_pods() {
    let selector = ("/selector", json!({"matchLabels": {"app": "bots"}}));
    let sentence = "spec: exactly one of rolloutRef and selector";
    assert_taken(&[]);
    assert_taken(&[selector.clone(), ("/rolloutRef", Value::Null)]);
    assert_refused(&[selector], sentence);
    assert_refused(&[("/rolloutRef", Value::Null)], sentence);
}

#[test]
fn exactly_one_says_which_listeners() {
    let none = ("/listeners", Value::Null);
    let config_map = ("/configMap", json!({"name": "tokens"}));
    let count = ("/count", json!({"count": 3}));
    let sentence = "spec: exactly one of listeners, configMap and count";
    assert_taken(&[none.clone(), config_map.clone()]);
    assert_taken(&[none.clone(), count.clone()]);
    assert_taken(&[("/listeners", json!([]))]);
    assert_refused(&[none], sentence);
    assert_refused(from_ref(&config_map), sentence);
    assert_refused(from_ref(&count), sentence);
    assert_refused(&[("/listeners", Value::Null), config_map, count], sentence);
}

#[test]
fn names_are_dns_labels() {
    let sentence = "spec.listeners[].name must be a DNS label";
    for wrong in ["A", "a_b", "a.b", "-a", "a-", "ä"] {
        assert_refused(&[("/listeners/0", json!({"name": wrong}))], sentence);
        let releases = json!([{"listener": wrong, "at": "2026-01-01T10:00:00Z"}]);
        assert_refused(&[("/release", releases)], "spec.release[].listener must be the name of a listener");
    }
    for right in ["a", "7", "listener-1", &"a".repeat(63)] {
        assert_taken(&[("/listeners/0", json!({"name": right}))]);
    }
    assert_refused(&[("/rolloutRef/name", json!("web.shop"))], "spec.rolloutRef.name must be the name of a Rollout");
    for (wrong, right) in [("Shard", "shard-"), ("-a", "7")] {
        let prefix = |prefix| [("/listeners", Value::Null), ("/count", json!({"count": 3, "namePrefix": prefix}))];
        assert_refused(&prefix(wrong), "spec.count.namePrefix must begin with");
        assert_taken(&prefix(right));
    }
    let mut object = set(&[]);
    for (name, messages) in [("a".repeat(40), 0), ("a".repeat(41), 1), ("a.b".into(), 1), ("7a".into(), 1)] {
        object["metadata"]["name"] = json!(name);
        assert_eq!(broken(&object).len(), messages, "{name}");
    }
}

#[test]
fn a_start_outlasts_its_connection() {
    let sentence = "spec.defaults.startTimeoutSeconds must be at least spec.defaults.connectTimeoutSeconds";
    assert_taken(&[("/defaults", json!({"connectTimeoutSeconds": 60}))]);
    assert_refused(&[("/defaults", json!({"connectTimeoutSeconds": 61}))], sentence);
    let listener = |seconds: i32| [("/listeners/1", json!({"name": "slow", "connectTimeoutSeconds": seconds}))];
    assert_taken(&listener(60));
    assert_refused(&listener(61), "spec.listeners[].connectTimeoutSeconds must not exceed");
}

#[test]
fn checkpoints_are_off_or_rare() {
    for right in [0, 5, 60] {
        assert_taken(&[("/handoff", json!({"checkpointSeconds": right}))]);
    }
    assert_refused(&[("/handoff", json!({"checkpointSeconds": 4}))], "spec.handoff.checkpointSeconds must be 0 (off)");
}

#[test]
fn defaults_are_the_agreed_ones() {
    let spec =
        &set(&[("/startBudget", json!({})), ("/listeners", Value::Null), ("/count", json!({"count": 2}))])["spec"];
    let agreed = json!({
        "rolloutRef": {"name": "web"},
        "count": {"count": 2, "namePrefix": "listener-"},
        "defaults": {"connectTimeoutSeconds": 30, "useProxy": false, "startTimeoutSeconds": 60, "stopTimeoutSeconds": 30},
        "session": {"profile": "Default"},
        "handoff": {
            "prepare": true, "timeoutSeconds": 30, "maxInFlight": 128, "maxInFlightPerPod": 16, "checkpointSeconds": 0,
        },
        "startBudget": {"permits": 1, "periodSeconds": 5},
        "placement": {"maxPerPod": 0},
    });
    assert_eq!(*spec, agreed);
    // The schema's, which the API server fills in, are the same.
    let crd = serde_json::to_value(crd::listener_set()).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    for field in ["defaults", "session", "handoff", "placement"] {
        assert_eq!(schema[field]["default"], agreed[field], "{field}");
    }
    let listener: Listener = serde_json::from_value(json!({"name": "a"})).unwrap();
    assert_eq!(listener.state, ListenerState::Started);
    // Absent means the set's, not a value of its own.
    assert_eq!((listener.use_proxy, listener.connect_timeout_seconds), (None, None));
}

#[test]
fn config_comes_through_as_it_is() {
    let config = json!({"token": null, "shards": [1, 2.5, {"deep": []}], "": "ü"});
    let spec = &set(&[("/listeners/0", json!({"name": "a", "config": config}))])["spec"];
    assert_eq!(spec["listeners"][0]["config"], config);
}
