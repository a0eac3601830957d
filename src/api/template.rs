//! The Pod template: raw JSON, so that fields newer than this client survive; its schema is typed just so far that CEL
//! can check what Baton relies on. Whether Kubernetes accepts it, a server-side dry run tells.
use std::{borrow::Cow, collections::BTreeMap};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A Pod template as the user wrote it: an object with `metadata` (labels, annotations) and `spec`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PodTemplate(pub Map<String, Value>);

impl PodTemplate {
    /// `metadata.labels`; what is no string is left out (the schema refuses it).
    pub fn labels(&self) -> BTreeMap<String, String> {
        self.strings("labels")
    }

    /// `metadata.annotations`, likewise.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        self.strings("annotations")
    }

    /// `spec`, when it is an object.
    pub fn spec(&self) -> Option<&Map<String, Value>> {
        self.0.get("spec")?.as_object()
    }

    /// `(name, image)` of each container, in order.
    pub fn images(&self) -> Vec<(&str, &str)> {
        let containers = self.spec().and_then(|spec| spec.get("containers")).and_then(Value::as_array);
        containers.into_iter().flatten().map(|container| (text(container, "name"), text(container, "image"))).collect()
    }

    fn strings(&self, field: &str) -> BTreeMap<String, String> {
        let entries = self.0.get("metadata").and_then(|metadata| metadata.get(field)).and_then(Value::as_object);
        entries
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect()
    }
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or_default()
}

impl JsonSchema for PodTemplate {
    fn schema_name() -> Cow<'static, str> {
        "PodTemplate".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Pod template, as in a Deployment: each instance runs one Pod of it. Labels and annotations that begin with baton.dev/ are set by Baton.",
            "type": "object",
            "required": ["metadata", "spec"],
            "properties": {
                "metadata": {
                    "description": "Labels and annotations of the Pods.",
                    "type": "object",
                    "required": ["labels"],
                    "properties": {
                        "labels": strings_schema("Labels of the Pods. They must include spec.selector.matchLabels.", 64, 63),
                        "annotations": strings_schema("Annotations of the Pods.", 64, 16_384)
                    },
                    "x-kubernetes-validations": [{
                        "rule": "!has(self.labels) || self.labels.all(k, !k.startsWith('baton.dev/') && k != 'controller-revision-hash' && k != 'apps.kubernetes.io/pod-index')",
                        "message": "spec.template.metadata.labels: baton.dev/…, controller-revision-hash and apps.kubernetes.io/pod-index are set by Baton; remove them"
                    }, {
                        "rule": "!has(self.annotations) || self.annotations.all(k, !k.startsWith('baton.dev/') || (k == 'baton.dev/agent' && self.annotations[k] in ['own', 'install', 'sidecar']))",
                        "message": "spec.template.metadata.annotations: names that begin with baton.dev/ are set by Baton; remove them. Only baton.dev/agent is allowed: own (the image has baton-agent), install (Baton copies it into /baton) or sidecar (Baton adds a container for it)"
                    }]
                },
                "spec": {
                    "description": "PodSpec: any field that the Pod API of this cluster has.",
                    "type": "object",
                    "required": ["containers"],
                    "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {
                        "containers": containers_schema("Containers of the Pod.", 1, 64),
                        "initContainers": containers_schema("Init containers of the Pod.", 0, 64),
                        "hostNetwork": {"description": "Whether the Pod uses the network of its node. Not allowed with update HotReload.", "type": "boolean"},
                        "restartPolicy": {"description": "Must be Always if it is set.", "type": "string", "maxLength": 16}
                    },
                    "x-kubernetes-validations": [{
                        "rule": "!has(self.restartPolicy) || self.restartPolicy == 'Always'",
                        "message": "spec.template.spec.restartPolicy must be Always, because an instance runs until it is replaced: set it to Always or remove it"
                    }]
                }
            }
        })
    }
}

/// Labels or annotations: at most so many, each of at most so many characters.
pub(super) fn strings_schema(what: &str, count_max: u32, values_max: u32) -> Schema {
    json_schema!({
        "description": what,
        "type": "object",
        "maxProperties": count_max,
        "additionalProperties": {"type": "string", "maxLength": values_max}
    })
}

/// Containers, typed as far as rules look at them.
pub(super) fn containers_schema(what: &str, min: u32, max: u32) -> Schema {
    json_schema!({
        "description": what,
        "type": "array",
        "minItems": min,
        "maxItems": max,
        "items": {
            "type": "object",
            "required": ["name"],
            "x-kubernetes-preserve-unknown-fields": true,
            "properties": {
                "name": {"description": "Name of the container.", "type": "string", "maxLength": 63},
                "image": {"description": "Container image.", "type": "string", "maxLength": 1024}
            }
        }
    })
}
