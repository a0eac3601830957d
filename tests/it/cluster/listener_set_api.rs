//! ListenerSets as a person meets them with plain kubectl, while nobody serves them: what is taken, what is refused and in
//! which words, what is printed. And the names on the wire, as the API server judges them.
use std::{process::Output, slice::from_ref};

use baton::api::names;
use serde_json::{Value, json};

use super::api::{cluster, columns, kubectl_with};

/// A ListenerSet with two listeners and the given changes: a value at a JSON pointer below spec, null to remove it.
fn bots(changes: &[(&str, Value)]) -> Value {
    let mut object = json!({
        "apiVersion": "baton.dev/v1alpha1",
        "kind": "ListenerSet",
        "metadata": {"name": "bots"},
        "spec": {"rolloutRef": {"name": "web"}, "listeners": [{"name": "listener-1"}, {"name": "listener-2"}]},
    });
    for (pointer, value) in changes {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        let parent = object["spec"].pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}"));
        match field.parse::<usize>() {
            Ok(index) => parent[index] = value.clone(),
            Err(_) => parent[field] = value.clone(),
        }
    }
    object
}

/// The object as the API server would store it, or what kubectl says instead.
fn create(object: &Value) -> Result<Value, String> {
    let Output { status, stdout, stderr } =
        kubectl_with(&["create", "--dry-run=server", "--show-managed-fields", "-o", "json", "-f", "-"], object);
    if status.success() {
        Ok(serde_json::from_slice(&stdout).unwrap())
    } else {
        Err(String::from_utf8(stderr).unwrap())
    }
}

#[track_caller]
fn assert_refused(changes: &[(&str, Value)], sentences: &[&str]) {
    let said = create(&bots(changes)).expect_err("accepted");
    for sentence in sentences {
        assert!(said.contains(sentence), "{changes:?}\nshould say: {sentence}\nbut says: {said}");
    }
}

#[track_caller]
fn assert_taken(changes: &[(&str, Value)]) -> Value {
    create(&bots(changes)).unwrap_or_else(|said| panic!("{changes:?}: {said}"))
}

#[test]
fn what_contradicts_itself_is_refused() {
    let selector = ("/selector", json!({"matchLabels": {"app": "bots"}}));
    let pods =
        "spec: exactly one of rolloutRef and selector says which Pods hold the listeners; set one, remove the other";
    assert_refused(from_ref(&selector), &[pods]);
    assert_refused(&[("/rolloutRef", Value::Null)], &[pods]);
    assert_taken(&[selector, ("/rolloutRef", Value::Null)]);

    let (config_map, count) = (("/configMap", json!({"name": "tokens"})), ("/count", json!({"count": 10_000})));
    let source = "spec: exactly one of listeners, configMap and count says which listeners there are; set one, remove the others";
    let none = ("/listeners", Value::Null);
    assert_refused(from_ref(&none), &[source]);
    assert_refused(from_ref(&config_map), &[source]);
    assert_refused(&[none.clone(), config_map.clone(), count.clone()], &[source]);
    assert_taken(&[none.clone(), config_map]);
    assert_taken(&[none, count]);

    assert_refused(
        &[("/defaults", json!({"connectTimeoutSeconds": 90}))],
        &["spec.defaults.startTimeoutSeconds must be at least spec.defaults.connectTimeoutSeconds"],
    );
    assert_refused(
        &[("/listeners/0", json!({"name": "slow", "connectTimeoutSeconds": 61}))],
        &["spec.listeners[].connectTimeoutSeconds must not exceed spec.defaults.startTimeoutSeconds"],
    );
}

#[test]
fn names_that_are_none_are_refused() {
    assert_refused(
        &[("/listeners/1", json!({"name": "Listener_2"}))],
        &["spec.listeners[1].name: Invalid value", "must be a DNS label", "such as listener-1"],
    );
    assert_refused(
        &[("/listeners/1", json!({"name": "a".repeat(64)}))],
        &["spec.listeners[1].name: Too long: may not be more than 63"],
    );
    assert_refused(
        &[("/listeners/0", json!({"name": "a", "secretRef": {"name": "Token"}}))],
        &["spec.listeners[0].secretRef.name: Invalid value", "must be the name of a Secret", "such as token-1"],
    );
    assert_refused(&[("/rolloutRef/name", json!("web.shop"))], &["spec.rolloutRef.name must be the name of a Rollout"]);
    let mut object = bots(&[]);
    for name in ["a".repeat(41), "a.b".into(), "7up".into()] {
        object["metadata"]["name"] = json!(name);
        let said = create(&object).unwrap_err();
        assert!(said.contains("metadata.name must be a DNS label that starts with a letter, of at most 40"), "{said}");
    }
    object["metadata"]["name"] = json!("a".repeat(40));
    create(&object).unwrap();
}

/// L9, of listeners in the spec: the API server itself keeps names apart.
#[test]
fn a_name_that_comes_twice_is_refused() {
    assert_refused(
        &[("/listeners/1", json!({"name": "listener-1", "state": "Stopped"}))],
        &["spec.listeners[1]: Duplicate value", "listener-1"],
    );
    let release = json!({"listener": "listener-1", "at": "2026-01-01T10:00:00Z"});
    assert_refused(&[("/release", json!([release, release]))], &["spec.release[1]: Duplicate value"]);
    // Not by a change either.
    let namespace = "twice";
    cluster().kubectl(&["create", "namespace", namespace]);
    assert!(kubectl_with(&["create", "-n", namespace, "-f", "-"], &bots(&[])).status.success());
    let add = json!([{"op": "add", "path": "/spec/listeners/-", "value": {"name": "listener-2"}}]).to_string();
    let patch = ["patch", "listenersets.baton.dev", "bots", "-n", namespace, "--type=json", "-p", &add];
    let output = kubectl_with(&patch, &Value::Null);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("spec.listeners[2]: Duplicate value"), "{said}");
    cluster().kubectl(&["delete", "namespace", namespace, "--wait=false"]);
}

#[test]
fn values_outside_their_range_and_unknown_words_are_refused() {
    let outside = [
        ("/defaults", json!({"stopTimeoutSeconds": 0}), "spec.defaults.stopTimeoutSeconds"),
        ("/handoff", json!({"timeoutSeconds": 3_601}), "spec.handoff.timeoutSeconds"),
        ("/handoff", json!({"maxInFlightPerPod": 17}), "spec.handoff.maxInFlightPerPod"),
        ("/startBudget", json!({"permits": 0}), "spec.startBudget.permits"),
        ("/startBudget", json!({"periodSeconds": 86_401}), "spec.startBudget.periodSeconds"),
        ("/placement", json!({"maxPerPod": -1}), "spec.placement.maxPerPod"),
        ("/count", json!({"count": 10_001}), "spec.count.count"),
    ];
    for (pointer, value, field) in outside {
        assert_refused(&[(pointer, value)], &[&format!("{field}: Invalid value"), "should be"]);
    }
    assert_refused(
        &[("/handoff", json!({"checkpointSeconds": 4}))],
        &["spec.handoff.checkpointSeconds must be 0 (off), or 5 or more"],
    );
    assert_refused(
        &[("/session", json!({"profile": "Lazy"}))],
        &["spec.session.profile: Unsupported value: \"Lazy\"", "\"Calm\""],
    );
    assert_refused(
        &[("/listeners/0", json!({"name": "a", "state": "Paused"}))],
        &["spec.listeners[0].state: Unsupported value: \"Paused\"", "\"Stopped\""],
    );
    assert_refused(
        &[("/listeners/0", json!({"name": "a", "config": "text"}))],
        &["spec.listeners[0].config: Invalid value", "must be of type object"],
    );
    assert_refused(&[("/recoverAt", json!("today"))], &["spec.recoverAt: Invalid value", "date-time"]);
    assert_refused(&[("/handof", json!({}))], &["unknown field \"spec.handof\""]);
    assert_refused(&[("/release", json!([{"listener": "listener-1"}]))], &["spec.release[0].at: Required value"]);
}

/// The rules stay within what the API server allows them to cost, for as many listeners as there may be.
#[test]
fn a_thousand_listeners_are_taken_and_no_more() {
    let listeners = |count: usize| {
        let listener = |index: usize| {
            let name = format!("{}{index:04}", "l".repeat(59));
            let config = json!({"url": "https://example.com/".repeat(20), "nested": {"list": [index, null, 2.5]}});
            json!({"name": name, "config": config, "secretRef": {"name": "s".repeat(253)}, "connectTimeoutSeconds": 60})
        };
        json!((0..count).map(listener).collect::<Vec<_>>())
    };
    let stored = assert_taken(&[("/listeners", listeners(1_000))]);
    assert_eq!(stored["spec"]["listeners"][999]["config"]["nested"], json!({"list": [999, null, 2.5]}));
    // Settings have one owner as a whole: who owns what would else take more room than they do.
    let owners = stored["metadata"]["managedFields"].to_string();
    assert!(owners.contains("f:config") && !owners.contains("f:url"), "{} bytes", owners.len());
    assert_refused(
        &[("/listeners", listeners(1_001))],
        &["spec.listeners: Too many: 1001: must have at most 1000 items"],
    );
    let releases = (0..101).map(|index| json!({"listener": format!("l-{index}"), "at": "2026-01-01T10:00:00Z"}));
    assert_refused(&[("/release", releases.collect())], &["spec.release: Too many: 101: must have at most 100 items"]);
}

#[test]
fn what_is_not_said_is_filled_in_and_reads_pending() {
    let stored = assert_taken(&[
        ("/startBudget", json!({})),
        ("/release", json!([{"listener": "listener-1", "at": "2026-01-01T10:00:00Z"}])),
    ]);
    let spec = &stored["spec"];
    let defaults =
        json!({"connectTimeoutSeconds": 30, "useProxy": false, "startTimeoutSeconds": 60, "stopTimeoutSeconds": 30});
    assert_eq!(spec["defaults"], defaults);
    assert_eq!(spec["session"], json!({"profile": "Default"}));
    let handoff = json!({
        "prepare": true, "timeoutSeconds": 30, "maxInFlight": 128, "maxInFlightPerPod": 16, "checkpointSeconds": 0,
    });
    assert_eq!(spec["handoff"], handoff);
    assert_eq!(spec["startBudget"], json!({"permits": 1, "periodSeconds": 5}));
    assert_eq!(spec["placement"], json!({"maxPerPod": 0}));
    // What a listener does not say is the set's, so nothing is filled in but the state.
    assert_eq!(spec["listeners"][0], json!({"name": "listener-1", "state": "Started"}));
    assert_eq!(spec["release"][0]["force"], false);
    let ready = &stored["status"]["conditions"][0];
    assert_eq!(
        (&ready["type"], &ready["status"], &ready["reason"]),
        (&json!("Ready"), &json!("Unknown"), &json!("Pending"))
    );
}

#[test]
fn the_agreed_columns_are_shown() {
    let namespace = "listener-set-columns";
    cluster().kubectl(&["create", "namespace", namespace]);
    assert!(kubectl_with(&["create", "-n", namespace, "-f", "-"], &bots(&[])).status.success());
    let get = |kind: &str| cluster().kubectl(&["get", kind, "-n", namespace]);
    let printed = get("listenersets.baton.dev");
    assert_eq!(columns(&printed), ["NAME", "RUNNING", "DESIRED", "MOVING", "UNASSIGNED", "HOLDERS", "STATUS", "AGE"]);

    let ready = json!({
        "type": "Ready", "status": "False", "reason": "Moving", "lastTransitionTime": "2026-01-01T10:00:00Z",
    });
    let status = json!({"status": {
        "listeners": 14, "running": 11, "stopped": 2, "moving": 1, "holderCount": 4,
        "display": {"running": "11/12"}, "conditions": [ready],
    }});
    let patch = ["patch", "bls", "bots", "-n", namespace, "--subresource=status", "--type=merge", "-p"];
    cluster().kubectl(&[&patch[..], &[&status.to_string()]].concat());
    for kind in ["listenersets.baton.dev", "bls", "baton"] {
        let printed = get(kind);
        let row: Vec<_> = printed.lines().nth(1).unwrap().split_whitespace().collect();
        let name = if kind == "baton" { "listenerset.baton.dev/bots" } else { "bots" };
        assert!(row.len() == 8 && row[..7] == [name, "11/12", "14", "1", "0", "4", "Moving"], "{kind}: {printed}");
    }
    cluster().kubectl(&["delete", "namespace", namespace, "--wait=false"]);
}

/// Whoever applies the set again and again, as GitOps does, without a word on `state`, does not start a listener that a
/// person has stopped, nor bring anything else of it back.
#[test]
fn a_stop_outlives_those_who_apply_the_rest() {
    let namespace = "listener-set-owners";
    cluster().kubectl(&["create", "namespace", namespace]);
    let apply = |listeners: Value| {
        let arguments =
            ["apply", "-n", namespace, "--server-side", "--field-manager=gitops", "--force-conflicts", "-f", "-"];
        let output = kubectl_with(&arguments, &bots(&[("/listeners", listeners)]));
        assert!(output.status.success(), "{output:?}");
    };
    apply(json!([{"name": "listener-1", "config": {"a": 1, "b": 1}}, {"name": "listener-2"}]));
    let stop = json!([{"op": "replace", "path": "/spec/listeners/0/state", "value": "Stopped"}]).to_string();
    cluster().kubectl(&["patch", "bls", "bots", "-n", namespace, "--type=json", "-p", &stop]);
    apply(json!([{"name": "listener-3"}, {"name": "listener-1", "config": {"a": 2}}]));
    let stored = cluster().kubectl(&["get", "bls", "bots", "-n", namespace, "-o", "jsonpath={.spec.listeners}"]);
    let mut stored: Vec<Value> = serde_json::from_str(&stored).unwrap();
    stored.sort_by_key(|listener| listener["name"].to_string());
    let expected = json!([
        {"name": "listener-1", "state": "Stopped", "config": {"a": 2}}, {"name": "listener-3", "state": "Started"},
    ]);
    assert_eq!(json!(stored), expected);
    cluster().kubectl(&["delete", "namespace", namespace, "--wait=false"]);
}

/// L10: the longest names there can be are names to the API server too, with their labels and annotations.
#[test]
fn leases_can_have_the_names_that_baton_gives_them() {
    let (set, listener) = ("s".repeat(40), "l".repeat(63));
    let identity = "bots-3-6f7c9d8b5k/9c1b7e0a/1-f00d";
    let ownership = json!({
        "name": names::listener_lease_name(&set, &listener),
        "labels": {names::LABEL_LEASE: names::LEASE_LISTENER, names::LABEL_LISTENER_SET: set, names::LABEL_HOLDER: names::holder_label(identity)},
        "annotations": {
            names::ANNOTATION_FROM: identity, names::ANNOTATION_REVISION: "bots-6f7c9d8b5k",
            names::ANNOTATION_STATE: "{}", names::ANNOTATION_CONFIG: "{}", names::ANNOTATION_CONFIG_HASH: "44136fa3",
        },
    });
    let session = json!({
        "name": names::session_lease_name(&"p".repeat(245)).unwrap(),
        "labels": {names::LABEL_LEASE: names::LEASE_SESSION},
        "annotations": {names::inbox_annotation(&set): "[]", names::report_annotation(&set): "{}"},
    });
    let dotted = json!({"name": names::session_lease_name("a.listener.b").unwrap()});
    for metadata in [ownership, session, dotted] {
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata});
        create(&lease).unwrap_or_else(|said| panic!("{metadata}: {said}"));
    }
    // One character more is one too many: that is why there is no such name.
    let name = format!("session.{}", "p".repeat(246));
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}});
    assert_eq!(names::session_lease_name(&"p".repeat(246)), None);
    assert!(create(&lease).unwrap_err().contains("must be no more than 253"));
}
