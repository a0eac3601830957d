//! Every object of `config/samples`, and the one a chart prints, is one the API server would take. The cluster tests
//! ask it; this asks the schema and its CEL rules, in a moment.
use std::collections::BTreeSet;

use baton::api::{ListenerSet, Rollout, crd, listener_set::Listener};
use kube::core::cel::{ErrorKind, Validator};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::sources;

#[test]
fn samples_are_valid_and_have_no_unknown_field() {
    let mut names = BTreeSet::new();
    for source in sources::all().iter().filter(|source| source.is_in("config/samples")) {
        for object in documents(&source.text) {
            let kind = object["kind"].as_str().unwrap();
            if ["Rollout", "ListenerSet"].contains(&kind) {
                assert_valid(&source.path, &object);
                let name = format!("{kind}/{}", object["metadata"]["name"].as_str().unwrap());
                assert!(names.insert(name), "{}: another sample has this name", source.path);
            } else {
                assert!(
                    ["Service", "ConfigMap", "ServiceAccount", "RoleBinding"].contains(&kind),
                    "{}: {kind}",
                    source.path
                );
            }
        }
    }
    let count = |kind: &str| names.iter().filter(|name| name.starts_with(kind)).count();
    assert!(names.contains("Rollout/web") && count("Rollout/") >= 3, "{names:?}");
    assert_eq!(count("ListenerSet/"), 3, "one for each source: {names:?}");
}

/// Listeners in a ConfigMap are as in the spec.
#[test]
fn a_sampled_config_map_has_the_listeners_that_its_set_names() {
    let path = "config/samples/listenersets/listenerset_configmap.yaml";
    let source = sources::all().into_iter().find(|source| source.path == path).unwrap();
    let [config_map, set]: [Value; 2] = documents(&source.text).try_into().unwrap();
    let source = &set["spec"]["configMap"];
    assert_eq!(source["name"], config_map["metadata"]["name"]);
    let text = config_map["data"][source["key"].as_str().unwrap()].as_str().unwrap();
    let written: Vec<Value> = serde_saphyr::from_str(text).unwrap();
    let mut inline = set.clone();
    inline["spec"].as_object_mut().unwrap().remove("configMap");
    inline["spec"]["listeners"] = written.clone().into();
    assert_valid(path, &inline);
    let listeners: Vec<Listener> = serde_json::from_value(written.into()).unwrap();
    let names: BTreeSet<_> = listeners.iter().map(|listener| &listener.name).collect();
    assert!(names.len() == listeners.len() && names.len() > 1, "{names:?}");
}

#[test]
fn the_chart_prints_a_valid_object() {
    let notes = sources::all().into_iter().find(|source| source.path == "charts/baton/templates/NOTES.txt").unwrap();
    let (_, pasted) = notes.text.split_once("-f -\n").unwrap();
    let (object, _) = pasted.split_once("EOF\n").unwrap();
    assert_valid(&notes.path, &documents(object)[0]);
}

fn documents(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(yaml).unwrap()
}

fn assert_valid(path: &str, object: &Value) {
    let (understood, crd) = match object["kind"].as_str() {
        Some("Rollout") => (understood::<Rollout>(path, object), crd::rollout()),
        Some("ListenerSet") => (understood::<ListenerSet>(path, object), crd::listener_set()),
        kind => panic!("{path}: {kind:?}"),
    };
    let mut lost = Vec::new();
    compare(object, &understood, "", &mut lost);
    assert!(lost.is_empty(), "{path}: fields that this kind does not have: {lost:?}");

    let crd = serde_json::to_value(crd).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let refused = Validator::new().validate(schema, &understood, None).err();
    // The evaluator knows no `type()`, so what needs it is left to the cluster tests.
    let refused: Vec<_> =
        refused.iter().flatten().filter(|error| error.kind != ErrorKind::UnsupportedReference).collect();
    assert!(refused.is_empty(), "{path}: {refused:?}");
}

/// The object as its type takes it, with defaults.
fn understood<K: DeserializeOwned + Serialize>(path: &str, object: &Value) -> Value {
    let typed: K = serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::to_value(&typed).unwrap()
}

/// Paths of what is in `written` and not in `understood`.
fn compare(written: &Value, understood: &Value, path: &str, lost: &mut Vec<String>) {
    match (written, understood) {
        (Value::Object(written), Value::Object(understood)) => {
            for (key, value) in written {
                let path = format!("{path}.{key}");
                match understood.get(key) {
                    Some(other) => compare(value, other, &path, lost),
                    None => lost.push(path),
                }
            }
        }
        (Value::Array(written), Value::Array(understood)) if written.len() == understood.len() => {
            for (index, (value, other)) in written.iter().zip(understood).enumerate() {
                compare(value, other, &format!("{path}[{index}]"), lost);
            }
        }
        _ if written == understood => {}
        _ => lost.push(path.to_owned()),
    }
}

/// The two checks above see what they are meant to see.
#[test]
fn a_wrong_object_is_refused() {
    let refused = |path: &str, change: &dyn Fn(&mut Value)| {
        let sample = sources::all().into_iter().find(|source| source.path == path).unwrap();
        let mut object = documents(&sample.text).remove(0);
        change(&mut object);
        std::panic::catch_unwind(|| assert_valid("sample", &object)).is_err()
    };
    let rollout = "config/samples/rollout_web.yaml";
    assert!(!refused(rollout, &|_| {}));
    assert!(refused(rollout, &|object| object["spec"]["strategy"]["batchSise"] = 3.into()));
    assert!(refused(rollout, &|object| object["spec"]["selector"]["matchLabels"]["app"] = "other".into()));
    let set = "config/samples/listenersets/listenerset_inline.yaml";
    assert!(!refused(set, &|_| {}));
    assert!(refused(set, &|object| object["spec"]["handof"] = Value::Object(serde_json::Map::new())));
    assert!(refused(set, &|object| object["spec"]["listeners"][0]["name"] = "a.b".into()));
}
