//! The CustomResourceDefinitions as they are installed: what the derive gives, made to read and to default like a
//! built-in type.
use std::fmt::Write;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;
use serde_json::{Value, json};

use super::{ListenerSet, Rollout};

/// The CustomResourceDefinition of [`Rollout`].
pub fn rollout() -> CustomResourceDefinition {
    installed(Rollout::crd())
}

/// The CustomResourceDefinition of [`ListenerSet`].
pub fn listener_set() -> CustomResourceDefinition {
    installed(ListenerSet::crd())
}

/// All of them, by name.
pub fn all() -> [CustomResourceDefinition; 2] {
    [listener_set(), rollout()]
}

fn installed(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let Some(root) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) else {
            continue;
        };
        walk(root, &mut like_built_in);
        if let Some(spec) = root.properties.as_mut().and_then(|properties| properties.get_mut("spec")) {
            walk(spec, &mut says_its_default);
        }
        if let Some(status) = root.properties.as_mut().and_then(|properties| properties.get_mut("status")) {
            pending_at_first(status);
        }
    }
    crd
}

/// `null` means absent, as in built-in types: the API server drops it where it is not `nullable`, so that CEL's `has()`
/// and Helm charts with empty values agree. A line break of the source is none in `kubectl explain`.
fn like_built_in(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if let Some(description) = &mut schema.description {
        let paragraphs: Vec<String> = description.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect();
        *description = paragraphs.join("\n\n");
    }
}

/// `kubectl explain` shows descriptions, and no defaults. One of an object is that of its fields, which say theirs.
fn says_its_default(schema: &mut JSONSchemaProps) {
    let default = match &schema.default {
        None | Some(JSON(Value::Object(_) | Value::Array(_) | Value::Null)) => return,
        Some(JSON(Value::String(text))) => text.clone(),
        Some(JSON(plain)) => plain.to_string(),
    };
    let description = schema.description.get_or_insert_default();
    let _ = write!(description, " Default: {default}.");
}

/// An object that the operator has not seen yet reads Ready=Unknown, reason Pending: kstatus takes an object without
/// conditions for finished. Below the counters nothing is defaulted: the operator writes every entry in full.
fn pending_at_first(status: &mut JSONSchemaProps) {
    for field in status.properties.iter_mut().flatten().map(|(_, field)| field) {
        let default = field.default.take();
        walk(field, &mut |below| below.default = None);
        field.default = default.filter(|_| field.type_.as_deref() == Some("integer"));
    }
    if let Some(conditions) = status.properties.as_mut().and_then(|properties| properties.get_mut("conditions")) {
        conditions.default = Some(JSON(json!([{
            "type": "Ready",
            "status": "Unknown",
            "reason": "Pending",
            "message": "Waiting for baton-operator",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        }])));
    }
    // Without it the API server has no status to put the default of `conditions` into.
    status.default = Some(JSON(json!({})));
}

/// Visits a schema and every schema below it.
fn walk(schema: &mut JSONSchemaProps, visit: &mut impl FnMut(&mut JSONSchemaProps)) {
    visit(schema);
    for (_, property) in schema.properties.iter_mut().flatten() {
        walk(property, visit);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        walk(items, visit);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        walk(values, visit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ListenerSetStatus, RolloutStatus};

    fn schema_of(crd: &CustomResourceDefinition) -> &JSONSchemaProps {
        crd.spec.versions[0].schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref()).unwrap()
    }

    /// Every schema with its path and the schema above it.
    fn each(schema: &Value, path: &str, check: &mut impl FnMut(&str, &Value)) {
        check(path, schema);
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            each(property, &format!("{path}.{name}"), check);
        }
        for (field, suffix) in [("items", "[]"), ("additionalProperties", "{}")] {
            if schema[field].is_object() {
                each(&schema[field], &format!("{path}{suffix}"), check);
            }
        }
    }

    /// Paths such as `Rollout.spec.replicas`.
    fn offenders(wrong: impl Fn(&str, &Value) -> bool) -> Vec<String> {
        let mut found = Vec::new();
        for crd in all() {
            let schema = serde_json::to_value(schema_of(&crd)).unwrap();
            each(&schema, &crd.spec.names.kind, &mut |path, schema| {
                if wrong(path, schema) {
                    found.push(path.to_owned());
                }
            });
        }
        found
    }

    #[test]
    fn every_field_has_a_description() {
        let undescribed = offenders(|path, schema| {
            // An entry of a list or map is described by its list or map.
            let entry = path.ends_with("[]") || path.ends_with("{}");
            !entry && schema["description"].as_str().is_none_or(|text| text.trim().is_empty() || text.contains('\n'))
        });
        assert_eq!(undescribed, Vec::<String>::new(), "no description, or a broken line");
    }

    /// `kubectl explain` shows no defaults.
    #[test]
    fn every_default_stands_in_the_description() {
        let is_plain = |default: &Value| !default.is_null() && !default.is_object() && !default.is_array();
        let silent = offenders(|path, schema| {
            let text = schema["default"].as_str().map_or_else(|| schema["default"].to_string(), str::to_owned);
            let says = schema["description"].as_str().is_some_and(|it| it.ends_with(&format!(" Default: {text}.")));
            path.contains(".spec.") && is_plain(&schema["default"]) && !says
        });
        assert_eq!(silent, Vec::<String>::new());
        let spec = schema_of(&rollout()).properties.as_ref().unwrap()["spec"].properties.clone().unwrap();
        let surge = &spec["strategy"].properties.as_ref().unwrap()["maxSurge"];
        assert!(surge.description.as_ref().unwrap().ends_with(" Default: 25%."), "{surge:?}");
    }

    #[test]
    fn every_field_has_a_bound() {
        let unbounded = offenders(|_, schema| {
            let number = |field: &str| schema[field].is_number();
            match schema["type"].as_str() {
                Some("string") => {
                    !(number("maxLength") || schema["enum"].is_array() || schema["format"] == "date-time")
                }
                Some("array") => !number("maxItems"),
                Some("object") if schema["additionalProperties"].is_object() => !number("maxProperties"),
                // The upper bound of a counter is its format, which the API server checks.
                Some("integer") => !number("minimum") || !(number("maximum") || schema["format"].is_string()),
                Some("number" | "boolean" | "object") => schema["type"] == "number", // no floats in this API
                // Neither type nor enum: an int-or-string, whose CEL rule is the bound (a structural schema cannot say it).
                _ => schema["x-kubernetes-int-or-string"] != true || schema["x-kubernetes-validations"].is_null(),
            }
        });
        assert_eq!(unbounded, Vec::<String>::new());
    }

    #[test]
    fn raw_json_is_let_through_only_where_it_belongs_to_others() {
        let raw = offenders(|_, schema| schema["x-kubernetes-preserve-unknown-fields"] == true);
        let (pods, others): (Vec<_>, Vec<_>) = raw.into_iter().partition(|path| path.contains(".template.spec"));
        assert!(!pods.is_empty());
        assert_eq!(others, ["ListenerSet.spec.listeners[].config"]);
    }

    #[test]
    fn null_is_absent_and_only_shown_fields_of_status_are_defaulted() {
        assert_eq!(offenders(|_, schema| schema["nullable"] == true), Vec::<String>::new());
        let defaulted = offenders(|path, schema| path.contains(".status") && !schema["default"].is_null());
        let mut shown = Vec::new();
        for crd in all() {
            let kind = &crd.spec.names.kind;
            shown.extend([format!("{kind}.status"), format!("{kind}.status.conditions")]);
            let fields = schema_of(&crd).properties.as_ref().unwrap()["status"].properties.clone().unwrap();
            let counters = fields.into_iter().filter(|(_, field)| field.format.as_deref() == Some("int32"));
            shown.extend(counters.map(|(name, _)| format!("{kind}.status.{name}")));
        }
        assert!(defaulted.iter().all(|path| shown.contains(path)), "{defaulted:?}");
    }

    #[test]
    fn an_object_not_seen_yet_reads_pending() {
        for crd in all() {
            let status = &schema_of(&crd).properties.as_ref().unwrap()["status"];
            assert_eq!(status.default, Some(JSON(json!({}))));
            let conditions = status.properties.as_ref().unwrap()["conditions"].default.clone().unwrap().0;
            let fresh = json!({ "conditions": conditions });
            let rollout: RolloutStatus = serde_json::from_value(fresh.clone()).unwrap();
            let listener_set: ListenerSetStatus = serde_json::from_value(fresh).unwrap();
            for conditions in [rollout.conditions, listener_set.conditions] {
                assert_eq!(conditions.len(), 1);
                assert_eq!(conditions[0].reason, "Pending");
            }
        }
    }

    #[test]
    fn plain_kubectl_apply_can_carry_them() {
        // `kubectl apply` stores the object in an annotation of at most 256 KiB; the rest is room for what is to come.
        for crd in all() {
            let size = serde_json::to_string(&crd).unwrap().len();
            assert!(size < 100_000, "{}: {size} bytes", crd.spec.names.kind);
        }
    }

    #[test]
    fn nothing_else_changes() {
        for (derived, installed) in [(ListenerSet::crd(), listener_set()), (Rollout::crd(), rollout())] {
            assert_eq!(derived.spec.names, installed.spec.names);
            let paths = |crd: &CustomResourceDefinition| {
                let mut found = Vec::new();
                each(&serde_json::to_value(schema_of(crd)).unwrap(), "", &mut |path, schema| {
                    found.push((
                        path.to_owned(),
                        schema["x-kubernetes-validations"].clone(),
                        schema["required"].clone(),
                    ));
                });
                found
            };
            assert_eq!(paths(&derived), paths(&installed));
            let (derived, installed) = (&derived.spec.versions[0], &installed.spec.versions[0]);
            assert_eq!(derived.subresources, installed.subresources);
            assert_eq!(derived.additional_printer_columns, installed.additional_printer_columns);
        }
    }
}
