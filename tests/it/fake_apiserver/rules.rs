//! The CEL rules of the CustomResourceDefinition of Rollouts.
use std::sync::OnceLock;

use kube::core::cel::{CompiledSchema, ErrorKind, Validator, compile_schema};
use serde_json::Value;

use super::{schema, validate::Cause};

/// What breaks a rule, by field. The evaluator knows no `type()`: what needs it is let through.
pub fn check(value: &Value, old: Option<&Value>) -> Vec<Cause> {
    static RULES: OnceLock<CompiledSchema> = OnceLock::new();
    let rules = RULES.get_or_init(|| compile_schema(schema::rollout()));
    let Err(broken) = Validator::new().validate_compiled(rules, value, old) else { return Vec::new() };
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
