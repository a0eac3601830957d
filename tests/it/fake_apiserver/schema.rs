//! A structural schema at work: what is not in it is dropped, what is missing is filled in, what does not fit is refused.
use std::{collections::BTreeMap, fmt, sync::OnceLock};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::validate::Cause;

/// As much of an `openAPIV3Schema` as ours say.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Schema {
    #[serde(rename = "type")]
    type_: Option<Type>,
    #[serde(rename = "x-kubernetes-int-or-string")]
    is_int_or_string: bool,
    #[serde(rename = "x-kubernetes-preserve-unknown-fields")]
    keeps_unknown: bool,
    nullable: bool,
    default: Option<Value>,
    properties: BTreeMap<String, Self>,
    additional_properties: Option<Box<Self>>,
    items: Option<Box<Self>>,
    required: Vec<String>,
    #[serde(rename = "enum")]
    allowed: Option<Vec<Value>>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    min_length: Option<f64>,
    max_length: Option<f64>,
    min_items: Option<f64>,
    max_items: Option<f64>,
    min_properties: Option<f64>,
    max_properties: Option<f64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

/// The schema of Rollouts, as it is installed.
pub fn rollout_json() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let crd = serde_json::to_value(baton::api::crd::rollout()).expect("a CustomResourceDefinition is JSON");
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
    })
}

/// The same, read.
pub fn rollout() -> &'static Schema {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    SCHEMA.get_or_init(|| Schema::deserialize(rollout_json()).expect("a schema of ours"))
}

/// Fields at the top of an object that are no business of the schema.
const ENVELOPE: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Where a value is in an object: spelled out only for what is wrong.
#[derive(Clone, Copy)]
enum Place<'a> {
    Top,
    Field(&'a Self, &'a str),
    Item(&'a Self, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Top => Ok(()),
            Self::Field(Self::Top, name) => f.write_str(name),
            Self::Field(above, name) => write!(f, "{above}.{name}"),
            Self::Item(above, index) => write!(f, "{above}[{index}]"),
        }
    }
}

impl Schema {
    /// Of one field.
    fn field(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(self.additional_properties.as_deref())
    }

    /// Drops unknown fields, and nulls where null is not allowed: they mean absent.
    pub fn prune(&self, object: &mut Value) {
        self.prune_below(object, &ENVELOPE);
    }

    fn prune_below(&self, value: &mut Value, also: &[&str]) {
        match value {
            Value::Object(fields) => fields.retain(|name, field| match self.field(name) {
                _ if also.contains(&name.as_str()) => true,
                None => self.keeps_unknown,
                Some(known) => {
                    known.prune_below(field, &[]);
                    !field.is_null() || known.nullable
                }
            }),
            Value::Array(items) => {
                let Some(known) = &self.items else { return };
                for item in items {
                    known.prune_below(item, &[]);
                }
            }
            _ => {}
        }
    }

    /// Fills in defaults.
    pub fn default(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (name, property) in &self.properties {
                    if let Some(default) = &property.default
                        && !fields.contains_key(name)
                    {
                        fields.insert(name.clone(), default.clone());
                    }
                }
                for (name, field) in fields {
                    self.field(name).into_iter().for_each(|known| known.default(field));
                }
            }
            Value::Array(items) => {
                let Some(known) = &self.items else { return };
                for item in items {
                    known.default(item);
                }
            }
            _ => {}
        }
    }

    /// What does not fit.
    pub fn check(&self, value: &Value) -> Vec<Cause> {
        let mut causes = Vec::new();
        self.check_at(Place::Top, value, &mut causes);
        causes
    }

    /// The same for one field at the top, when the others are known to fit.
    pub fn check_field(&self, value: &Value, name: &str) -> Vec<Cause> {
        let mut causes = Vec::new();
        if let (Some(known), Some(field)) = (self.field(name), value.get(name)) {
            known.check_at(Place::Field(&Place::Top, name), field, &mut causes);
        }
        causes
    }

    fn check_at(&self, place: Place<'_>, value: &Value, causes: &mut Vec<Cause>) {
        if !self.has_type(value) {
            let wanted = format!("{:?}", self.type_.unwrap_or(Type::String)).to_lowercase();
            let why = format!("{place} in body must be of type {wanted}");
            causes.push(Cause::wrong_type(&place.to_string(), value, &why));
            return;
        }
        self.check_bounds(place, value, causes);
        match value {
            Value::Object(fields) => self.check_fields(place, fields, causes),
            Value::Array(items) => {
                let Some(known) = &self.items else { return };
                for (index, item) in items.iter().enumerate() {
                    known.check_at(Place::Item(&place, index), item, causes);
                }
            }
            _ => {}
        }
    }

    fn check_fields(&self, place: Place<'_>, fields: &Map<String, Value>, causes: &mut Vec<Cause>) {
        for name in self.required.iter().filter(|name| !fields.contains_key(*name)) {
            causes.push(Cause::required(&Place::Field(&place, name).to_string(), ""));
        }
        for (name, field) in fields {
            if let Some(known) = self.field(name) {
                known.check_at(Place::Field(&place, name), field, causes);
            }
        }
    }

    fn has_type(&self, value: &Value) -> bool {
        match self.type_ {
            Some(Type::Object) => value.is_object(),
            Some(Type::Array) => value.is_array(),
            Some(Type::String) => value.is_string(),
            Some(Type::Integer) => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0),
            Some(Type::Number) => value.is_number(),
            Some(Type::Boolean) => value.is_boolean(),
            None if self.is_int_or_string => value.is_i64() || value.is_u64() || value.is_string(),
            None => true,
        }
    }

    fn check_bounds(&self, place: Place<'_>, value: &Value, causes: &mut Vec<Cause>) {
        let (size, least, most) = match value {
            Value::String(text) => (text.chars().count() as f64, self.min_length, self.max_length),
            Value::Array(items) => (items.len() as f64, self.min_items, self.max_items),
            Value::Object(fields) => (fields.len() as f64, self.min_properties, self.max_properties),
            Value::Number(number) => (number.as_f64().unwrap_or_default(), self.minimum, self.maximum),
            _ => (0.0, None, None),
        };
        let mut refuse = |why: String| {
            causes.push(Cause::invalid(&place.to_string(), value, &format!("{place} in body should be {why}")));
        };
        if let Some(least) = least.filter(|least| size < *least) {
            refuse(format!("greater than or equal to {least}"));
        }
        if let Some(most) = most.filter(|most| size > *most) {
            refuse(format!("less than or equal to {most}"));
        }
        if let Some(allowed) = self.allowed.as_ref().filter(|allowed| !allowed.contains(value)) {
            let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
            causes.push(Cause::unsupported(&place.to_string(), value, &allowed));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Schema {
        let batch = json!({"type": "object", "required": ["upTo"], "properties": {
            "upTo": {"type": "integer", "minimum": 1.0}, "pause": {"type": "boolean", "default": false},
        }});
        let schema = json!({"type": "object", "properties": {
            "spec": {"type": "object", "default": {}, "properties": {
                "replicas": {"type": "integer", "default": 1, "maximum": 5.0},
                "mode": {"type": "string", "enum": ["A", "B"]},
                "batches": {"type": "array", "items": batch},
                "raw": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            }},
        }});
        Schema::deserialize(schema).unwrap()
    }

    #[test]
    fn an_object_is_made_to_fit() {
        let mut object = json!({"metadata": {"name": "a"}, "extra": 1, "spec": {
            "replicas": null, "unknown": 1, "batches": [{"upTo": 1, "x": 2}], "raw": {"any": {"thing": null}},
            "labels": {"a": "b"},
        }});
        schema().prune(&mut object);
        schema().default(&mut object);
        let expected = json!({"metadata": {"name": "a"}, "spec": {
            "replicas": 1, "batches": [{"upTo": 1, "pause": false}], "raw": {"any": {"thing": null}},
            "labels": {"a": "b"},
        }});
        assert_eq!(object, expected);
        let mut empty = json!({});
        schema().default(&mut empty);
        assert_eq!(empty, json!({"spec": {"replicas": 1}}));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let wrong = json!({"spec": {"replicas": 6, "mode": "C", "batches": [{}, {"upTo": 0}], "raw": 1}});
        let causes: Vec<String> = schema().check(&wrong).iter().map(ToString::to_string).collect();
        let fields: Vec<&str> =
            causes.iter().filter_map(|cause| cause.split_once(':')).map(|(field, _)| field).collect();
        assert_eq!(fields, ["spec.batches[0].upTo", "spec.batches[1].upTo", "spec.mode", "spec.raw", "spec.replicas"]);
    }
}
