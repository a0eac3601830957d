//! Every object of `config/samples`, and the one a chart prints, is one the API server would take. The cluster tests
//! ask it; this asks the schema and its CEL rules, in a moment.
use std::collections::BTreeSet;

use baton::api::{Rollout, crd};
use kube::core::cel::{ErrorKind, Validator};
use serde_json::Value;

use crate::sources;

#[test]
fn samples_are_valid_and_have_no_unknown_field() {
    let mut names = BTreeSet::new();
    for source in sources::all().iter().filter(|source| source.is_in("config/samples")) {
        for object in documents(&source.text) {
            if object["kind"] == "Rollout" {
                assert_valid(&source.path, &object);
                let name = object["metadata"]["name"].as_str().unwrap().to_owned();
                assert!(names.insert(name), "{}: another sample has this name", source.path);
            } else {
                assert_eq!(object["kind"], "Service", "{}", source.path);
            }
        }
    }
    assert!(names.contains("web") && names.len() >= 3, "{names:?}");
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
    let rollout: Rollout = serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{path}: {error}"));
    let understood = serde_json::to_value(&rollout).unwrap();
    let mut lost = Vec::new();
    compare(object, &understood, "", &mut lost);
    assert!(lost.is_empty(), "{path}: fields that no Rollout has: {lost:?}");

    let crd = serde_json::to_value(crd::rollout()).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let refused = Validator::new().validate(schema, &understood, None).err();
    // The evaluator knows no `type()`, so what needs it is left to the cluster tests.
    let refused: Vec<_> =
        refused.iter().flatten().filter(|error| error.kind != ErrorKind::UnsupportedReference).collect();
    assert!(refused.is_empty(), "{path}: {refused:?}");
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
    let sample = sources::all().into_iter().find(|source| source.path == "config/samples/rollout_web.yaml").unwrap();
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut object = documents(&sample.text).remove(0);
        change(&mut object);
        std::panic::catch_unwind(|| assert_valid("sample", &object)).is_err()
    };
    assert!(!refused(&|_| {}));
    assert!(refused(&|object| object["spec"]["strategy"]["batchSise"] = 3.into()));
    assert!(refused(&|object| object["spec"]["selector"]["matchLabels"]["app"] = "other".into()));
}
