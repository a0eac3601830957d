//! The CEL rules of the CustomResourceDefinition of Rollouts.
use std::sync::{Mutex, OnceLock, PoisonError};

use kube::core::cel::{CompiledSchema, ErrorKind, Validator, compile_schema};
use serde_json::{Map, Value};

use super::{schema, validate::Cause};

/// What breaks a rule, by field. The evaluator knows no `type()`: what needs it is let through.
pub fn check(value: &Value, old: Option<&Value>) -> Vec<Cause> {
    // To make an evaluator is to register all functions: more than to judge one object.
    static RULES: OnceLock<(CompiledSchema, Mutex<Validator>)> = OnceLock::new();
    let (rules, validator) = RULES.get_or_init(|| (compile_schema(schema::rollout_json()), Validator::new().into()));
    let (value, old) = (ruled(value), old.map(ruled));
    let validator = validator.lock().unwrap_or_else(PoisonError::into_inner);
    let Err(broken) = validator.validate_compiled(rules, &value, old.as_ref()) else { return Vec::new() };
    let broken = broken.iter().filter(|error| error.kind != ErrorKind::UnsupportedReference);
    let mut causes: Vec<Cause> = broken
        .map(|error| {
            // As the real one calls the whole object.
            let field = if error.field_path.is_empty() { "<nil>" } else { &error.field_path };
            Cause::broken_rule(field, &error.message)
        })
        .collect();
    // The evaluator walks maps without an order.
    causes.sort_by_key(ToString::to_string);
    causes
}

/// What rules are about: there is none about status, and the evaluator converts whatever it is given once a level.
fn ruled(value: &Value) -> Value {
    let fields = value.as_object().into_iter().flatten().filter(|(name, _)| *name != "status");
    Value::Object(fields.map(|(name, field)| (name.clone(), field.clone())).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rule_is_about_status() {
        let schema = schema::rollout_json();
        let has_rules = |field: &str| schema["properties"][field].to_string().contains("x-kubernetes-validations");
        assert!(has_rules("spec") && !has_rules("status"));
    }
}
