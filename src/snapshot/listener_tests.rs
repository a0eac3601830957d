use serde_json::json;

use super::*;
use crate::snapshot::lists;

fn set(spec: &Value) -> ListenerSet {
    let object =
        json!({"apiVersion": "baton.dev/v1alpha1", "kind": "ListenerSet", "metadata": {"name": "bots"}, "spec": spec});
    serde_json::from_value(object).unwrap()
}

fn inline(listeners: &Value) -> Result<Vec<Wanted>, SourceError> {
    read(&set(&json!({"rolloutRef": {"name": "web"}, "listeners": listeners})), None)
}

fn config_map(text: Result<&str, String>) -> Result<Vec<Wanted>, SourceError> {
    let list = text.map(lists::read);
    let set = set(&json!({"rolloutRef": {"name": "web"}, "configMap": {"name": "tokens"}}));
    read(&set, Some(list.as_ref().map_err(String::clone)))
}

fn names(listeners: Result<Vec<Wanted>, SourceError>) -> Vec<String> {
    listeners.unwrap().into_iter().map(|wanted| wanted.name).collect()
}

#[test]
fn listeners_come_sorted_with_the_defaults_of_the_set() {
    let spec = json!({"rolloutRef": {"name": "web"}, "defaults": {"useProxy": true, "connectTimeoutSeconds": 7},
        "handoff": {"checkpointSeconds": 9},
        "listeners": [{"name": "b"}, {"name": "a", "useProxy": false, "connectTimeoutSeconds": 8, "state": "Stopped",
            "config": {"room": 7}, "secretRef": {"name": "token-1"}}]});
    let listeners = read(&set(&spec), None).unwrap();
    let [a, b] = &listeners[..] else { panic!("{listeners:?}") };
    assert_eq!((a.name.as_str(), a.state, a.secret.as_deref()), ("a", ListenerState::Stopped, Some("token-1")));
    assert_eq!((a.settings.use_proxy, a.settings.connect_timeout_seconds), (false, 8));
    assert_eq!(a.settings.config, *json!({"room": 7}).as_object().unwrap());
    assert_eq!((b.settings.use_proxy, b.settings.connect_timeout_seconds, b.settings.checkpoint_seconds), (true, 7, 9));
    assert_eq!(
        (b.settings.start_timeout_seconds, b.settings.stop_timeout_seconds, b.state),
        (60, 30, ListenerState::Started)
    );
    // As it is written on the Lease, and read from there.
    let text = serde_json::to_string(&a.settings).unwrap();
    assert_eq!(serde_json::from_str::<Settings>(&text).unwrap(), a.settings);
}

#[test]
fn a_config_map_is_yaml_or_json() {
    assert_eq!(names(config_map(Ok("- name: b\n- name: a\n  config: {room: 7}\n"))), ["a", "b"]);
    assert_eq!(names(config_map(Ok(r#" [{"name": "a"}]"#))), ["a"]);
    assert_eq!(names(config_map(Ok("[]"))), [""; 0]);
    for text in ["", "a: b", "- 7", "- name: {}", "[{", "- name: a\n  state: Running\n"] {
        let error = config_map(Ok(text)).unwrap_err();
        assert_eq!(error.reason, "InvalidConfigMap", "{text}");
        assert!(error.message.starts_with("ConfigMap tokens key listeners.yaml must be a list"), "{}", error.message);
    }
    let gone = config_map(Err("ConfigMap tokens does not exist: create it".into())).unwrap_err();
    assert_eq!(
        (gone.reason, gone.message.as_str()),
        ("ConfigMapMissing", "ConfigMap tokens does not exist: create it")
    );
}

#[test]
fn numbered_ones_have_a_prefix() {
    let count = |count: i32, prefix: &str| {
        read(&set(&json!({"rolloutRef": {"name": "web"}, "count": {"count": count, "namePrefix": prefix}})), None)
    };
    assert_eq!(names(count(2, "shard-")), ["shard-0", "shard-1"]);
    assert_eq!(count(10_000, "s").unwrap().len(), 10_000);
    assert!(
        count(10_001, "s").unwrap_err().message.starts_with("spec.count: a ListenerSet has at most 10000 listeners")
    );
    assert!(count(10, &"s".repeat(63)).unwrap_err().message.contains("must be a DNS label"));
}

/// In a spec the API server refuses it.
#[test]
fn a_misspelt_field_of_a_config_map_is_named() {
    for text in ["- name: a\n- {name: b, stat: Stopped}", r#"[{"name": "a"}, {"name": "b", "stat": "Stopped"}]"#] {
        let error = config_map(Ok(text)).unwrap_err();
        assert_eq!(error.reason, "InvalidConfigMap");
        let sentence =
            "[1].stat: no such field; a listener has config, connectTimeoutSeconds, name, secretRef, state, useProxy";
        assert!(error.message.ends_with(sentence), "{}", error.message);
    }
    assert!(config_map(Ok("- nmae: a")).unwrap_err().message.contains("[0].nmae: no such field"));
}

/// L9
#[test]
fn what_the_schema_cannot_see_is_said_with_a_remedy() {
    let large = "x".repeat(4_096);
    let many: serde_json::Map<String, Value> = (0..65).map(|number| (number.to_string(), json!(0))).collect();
    for (listener, sentence) in [
        (json!({"name": "a"}), "[1].name: a is there twice"),
        (json!({"name": "A"}), "[1].name: \"A\" must be a DNS label"),
        (json!({"name": "-a"}), "[1].name: \"-a\" must be a DNS label"),
        (json!({"name": "b".repeat(64)}), "must be a DNS label"),
        (json!({"name": "b", "connectTimeoutSeconds": 0}), "[1].connectTimeoutSeconds of b is 0; it must be 1 to 600"),
        (json!({"name": "b", "connectTimeoutSeconds": 61}), "exceeds spec.defaults.startTimeoutSeconds (60)"),
        (json!({"name": "b", "secretRef": {"name": "T"}}), "[1].secretRef.name of b must be the name of a Secret"),
        (json!({"name": "b", "config": {"a": large}}), "[1].config of b is 4104 bytes as compact JSON, at most 4096"),
        (json!({"name": "b", "config": many}), "[1].config of b has 65 fields"),
    ] {
        let from_spec = inline(&json!([{"name": "a"}, listener])).unwrap_err();
        assert_eq!(from_spec.reason, "InvalidSpec");
        assert!(
            from_spec.message.starts_with("spec.listeners") && from_spec.message.contains(sentence),
            "{}",
            from_spec.message
        );
        let text = json!([{"name": "a"}, listener]).to_string();
        let from_config_map = config_map(Ok(&text)).unwrap_err();
        assert_eq!(from_config_map.reason, "InvalidConfigMap");
        assert!(from_config_map.message.contains(sentence), "{}", from_config_map.message);
    }
    let large: Vec<Value> =
        (0..300).map(|number| json!({"name": format!("l{number}"), "config": {"a": "x".repeat(4_000)}})).collect();
    assert!(inline(&json!(large)).unwrap_err().message.contains("the config of all listeners is"));
    assert_eq!(read(&set(&json!({"rolloutRef": {"name": "web"}})), None).unwrap_err().reason, "InvalidSpec");
}
