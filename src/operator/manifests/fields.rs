//! Reference pages of all fields, written from the schemas of the CustomResourceDefinitions.
use std::fmt::Write as _;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

/// `docs/reference/rollout.md` and the like, and its content. None for a definition without a schema.
pub(super) fn page(definition: &CustomResourceDefinition) -> Option<(String, String)> {
    let names = &definition.spec.names;
    let version = definition.spec.versions.first()?;
    let schema = version.schema.as_ref()?.open_api_v3_schema.as_ref()?;
    let mut text = format!(
        "<!-- Generated from the CustomResourceDefinition by `make generate`; do not edit. -->\n# Fields of a {}\n\n\
         `apiVersion: {}/{}`, `kind: {}`. `[]` stands for each entry of a list, `*` for each key of a map.\n",
        names.kind, definition.spec.group, version.name, names.kind
    );
    for part in ["spec", "status"] {
        let Some(schema) = schema.properties.as_ref().and_then(|properties| properties.get(part)) else { continue };
        let _ = write!(text, "\n## {part}\n\n| field | type | default | |\n|---|---|---|---|\n");
        write_fields(&mut text, part, schema);
    }
    Some((format!("docs/reference/{}.md", names.singular.as_deref()?), text))
}

fn write_fields(text: &mut String, path: &str, schema: &JSONSchemaProps) {
    let required = schema.required.as_deref().unwrap_or_default();
    for (name, field) in schema.properties.iter().flatten() {
        let path = format!("{path}.{name}");
        let default = match &field.default {
            Some(JSON(value)) => format!("`{value}`"),
            None if required.contains(name) => "required".to_owned(),
            None => String::new(),
        };
        let says = field.description.as_deref().unwrap_or_default().replace('\n', " ").replace('|', "\\|");
        let _ = writeln!(text, "| `{path}` | {} | {default} | {} |", type_of(field), says.trim());
        write_parts(text, &path, field);
    }
}

/// The fields within an object, an entry of a list, or a value of a map.
fn write_parts(text: &mut String, path: &str, schema: &JSONSchemaProps) {
    write_fields(text, path, schema);
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = &schema.items {
        write_parts(text, &format!("{path}[]"), item);
    }
    if let Some(value) = schema.additional_properties.as_ref().and_then(schema_of) {
        write_parts(text, &format!("{path}.*"), value);
    }
}

fn schema_of(value: &JSONSchemaPropsOrBool) -> Option<&JSONSchemaProps> {
    match value {
        JSONSchemaPropsOrBool::Schema(schema) => Some(schema),
        JSONSchemaPropsOrBool::Bool(_) => None,
    }
}

fn type_of(schema: &JSONSchemaProps) -> String {
    if let Some(values) = &schema.enum_ {
        let words: Vec<String> =
            values.iter().filter_map(|JSON(value)| Some(format!("`{}`", value.as_str()?))).collect();
        return words.join(", ");
    }
    if schema.x_kubernetes_int_or_string == Some(true) {
        return "integer or percentage".to_owned();
    }
    match (schema.type_.as_deref(), &schema.items) {
        (Some("array"), Some(JSONSchemaPropsOrArray::Schema(item))) => format!("list of {}", type_of(item)),
        (Some("object"), _) if schema.additional_properties.is_some() => "map".to_owned(),
        (Some("string"), _) if schema.format.as_deref() == Some("date-time") => "time".to_owned(),
        (Some(type_), _) => type_.to_owned(),
        (None, _) => "any".to_owned(),
    }
}
