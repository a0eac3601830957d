//! `kubectl explain` describes each field of both kinds.
use serde_json::Value;

use super::api::{cluster, repository};

#[test]
fn every_field_is_explained() {
    for (plural, fields_min) in [("listenersets", 60), ("rollouts", 60)] {
        let explained = explained(plural);
        assert!(explained > fields_min, "{plural}: {explained}");
    }
}

/// Number of fields of a kind, each of which `kubectl explain` describes.
fn explained(plural: &str) -> usize {
    let crd = std::fs::read_to_string(repository(&format!("crds/{plural}.yaml"))).unwrap();
    let crd: Value = serde_saphyr::from_str(&crd).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut objects = vec![(format!("{plural}.baton.dev"), schema)];
    let mut explained = 0;
    while let Some((path, schema)) = objects.pop() {
        let Some(fields) = schema["properties"].as_object() else { continue };
        let text = cluster().kubectl(&["explain", &path]);
        assert!(!text.contains("<no description>"), "{path}: {text}");
        for (name, field) in fields {
            // `apiVersion	<string>` and so on, with the description below it.
            assert!(
                text.lines().any(|line| line.trim_start().starts_with(&format!("{name}\t<"))),
                "{path}.{name}: {text}"
            );
            let below = if field["items"].is_object() { &field["items"] } else { field };
            objects.push((format!("{path}.{name}"), below));
            explained += 1;
        }
    }
    explained
}
