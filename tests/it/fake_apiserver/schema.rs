//! A structural schema at work: what is not in it is dropped, what is missing is filled in, what does not fit is refused.
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::validate::Cause;

/// The schema of Rollouts, as it is installed.
pub fn rollout() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let crd = serde_json::to_value(baton::api::crd::rollout()).expect("a CustomResourceDefinition is JSON");
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
    })
}

/// Fields at the top of an object that are no business of the schema.
const ENVELOPE: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Drops unknown fields, and nulls where null is not allowed: they mean absent.
pub fn prune(schema: &Value, object: &mut Value) {
    prune_below(schema, object, &ENVELOPE);
}

fn prune_below(schema: &Value, value: &mut Value, also: &[&str]) {
    match value {
        Value::Object(fields) => {
            let keeps_unknown = schema["x-kubernetes-preserve-unknown-fields"] == true;
            let values = &schema["additionalProperties"];
            fields.retain(|name, field| {
                let property = &schema["properties"][name];
                let known = if property.is_object() { property } else { values };
                if also.contains(&name.as_str()) || !known.is_object() {
                    return keeps_unknown || also.contains(&name.as_str());
                }
                prune_below(known, field, &[]);
                !field.is_null() || known["nullable"] == true
            });
        }
        Value::Array(items) => items.iter_mut().for_each(|item| prune_below(&schema["items"], item, &[])),
        _ => {}
    }
}

/// Fills in defaults.
pub fn default(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                if let Some(default) = property.get("default")
                    && !fields.contains_key(name)
                {
                    fields.insert(name.clone(), default.clone());
                }
                if let Some(field) = fields.get_mut(name) {
                    self::default(property, field);
                }
            }
            if schema["additionalProperties"].is_object() {
                fields.values_mut().for_each(|field| self::default(&schema["additionalProperties"], field));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| self::default(&schema["items"], item)),
        _ => {}
    }
}

/// What does not fit.
pub fn check(schema: &Value, value: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    check_below(schema, value, "", &mut causes);
    causes
}

/// The same for one field at the top, when the others are known to fit.
pub fn check_field(schema: &Value, value: &Value, field: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    if let Some(value) = value.get(field) {
        check_below(&schema["properties"][field], value, field, &mut causes);
    }
    causes
}

fn check_below(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if !has_type(schema, value) {
        let wanted = schema["type"].as_str().unwrap_or_default();
        let why = format!("{path} in body must be of type {wanted}");
        causes.push(Cause::wrong_type(path, value, &why));
        return;
    }
    check_bounds(schema, value, path, causes);
    match value {
        Value::Object(fields) => {
            for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if !fields.contains_key(name) {
                    causes.push(Cause::required(&below(path, name), ""));
                }
            }
            for (name, field) in fields {
                let property = &schema["properties"][name];
                let known = if property.is_object() { property } else { &schema["additionalProperties"] };
                check_below(known, field, &below(path, name), causes);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                check_below(&schema["items"], item, &format!("{path}[{index}]"), causes);
            }
        }
        _ => {}
    }
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn has_type(schema: &Value, value: &Value) -> bool {
    match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        _ if schema["x-kubernetes-int-or-string"] == true => value.is_i64() || value.is_u64() || value.is_string(),
        _ => true,
    }
}

fn check_bounds(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let size = match value {
        Value::String(text) => Some((text.chars().count(), "minLength", "maxLength")),
        Value::Array(items) => Some((items.len(), "minItems", "maxItems")),
        Value::Object(fields) => Some((fields.len(), "minProperties", "maxProperties")),
        _ => None,
    };
    let number = value.as_f64().map(|number| (number, "minimum", "maximum"));
    let size = size.map(|(size, least, most)| (size as f64, least, most));
    if let Some((size, least, most)) = number.or(size) {
        if schema[least].as_f64().is_some_and(|least| size < least) {
            let why = format!("{path} in body should be greater than or equal to {}", schema[least]);
            causes.push(Cause::invalid(path, value, &why));
        }
        if schema[most].as_f64().is_some_and(|most| size > most) {
            let why = format!("{path} in body should be less than or equal to {}", schema[most]);
            causes.push(Cause::invalid(path, value, &why));
        }
    }
    if let Some(allowed) = schema["enum"].as_array().filter(|allowed| !allowed.contains(value)) {
        let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        causes.push(Cause::unsupported(path, value, &allowed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Value {
        let batch = json!({"type": "object", "required": ["upTo"], "properties": {
            "upTo": {"type": "integer", "minimum": 1.0}, "pause": {"type": "boolean", "default": false},
        }});
        json!({"type": "object", "properties": {
            "spec": {"type": "object", "default": {}, "properties": {
                "replicas": {"type": "integer", "default": 1, "maximum": 5.0},
                "mode": {"type": "string", "enum": ["A", "B"]},
                "batches": {"type": "array", "items": batch},
                "raw": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            }},
        }})
    }

    #[test]
    fn an_object_is_made_to_fit() {
        let mut object = json!({"metadata": {"name": "a"}, "extra": 1, "spec": {
            "replicas": null, "unknown": 1, "batches": [{"upTo": 1, "x": 2}], "raw": {"any": {"thing": null}},
            "labels": {"a": "b"},
        }});
        prune(&schema(), &mut object);
        default(&schema(), &mut object);
        let expected = json!({"metadata": {"name": "a"}, "spec": {
            "replicas": 1, "batches": [{"upTo": 1, "pause": false}], "raw": {"any": {"thing": null}},
            "labels": {"a": "b"},
        }});
        assert_eq!(object, expected);
        let mut empty = json!({});
        default(&schema(), &mut empty);
        assert_eq!(empty, json!({"spec": {"replicas": 1}}));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let wrong = json!({"spec": {"replicas": 6, "mode": "C", "batches": [{}, {"upTo": 0}], "raw": 1}});
        let causes: Vec<String> = check(&schema(), &wrong).iter().map(ToString::to_string).collect();
        let fields: Vec<&str> =
            causes.iter().filter_map(|cause| cause.split_once(':')).map(|(field, _)| field).collect();
        assert_eq!(fields, ["spec.batches[0].upTo", "spec.batches[1].upTo", "spec.mode", "spec.raw", "spec.replicas"]);
    }
}
