//! Instances that stay at a revision of their own.
use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{package::Package, request::Request};

/// Chosen instances on a revision of their own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.revision) != has(self.base)")
        .message("spec.pins[] must have exactly one of revision (which the instances run as it is) and base (which they run with another version, package or images): remove one or add one"),
    validation = Rule::new("!has(self.revision) || !(has(self.version) || has(self.package) || has(self.images))")
        .message("spec.pins[].revision runs unchanged: use base instead of revision to change its version, package or images"),
    validation = Rule::new("!has(self.base) || has(self.version) || has(self.package) || has(self.images)")
        .message("spec.pins[].base needs version, package or images: add one, or use revision instead of base to run that revision as it is")
)]
pub struct Pin {
    /// Pinned instances: numbers and ranges, such as "3,5-7".
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*$')").message("spec.pins[].instances must be numbers and ranges, such as 3,5-7"))]
    pub instances: String,
    /// Name of the ControllerRevision that these instances run, as in status.versions. Exactly one of revision and base
    /// is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub revision: Option<String>,
    /// Name of the ControllerRevision that these instances run with another version, package or images. Needs at least
    /// one of these three fields. Exactly one of revision and base is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub base: Option<String>,
    /// Version that people read, in place of the version of base. Only with base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub version: Option<String>,
    /// Package in place of the package of base. Only with base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<Package>,
    /// Images by container name (init containers too), in place of the images of base. Only with base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "images")]
    pub images: Option<BTreeMap<String, String>>,
    /// Who requested this pin and why; recorded in status.history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
}

fn images(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Images by name of the container (init containers too), instead of those of base.",
        "type": "object",
        "minProperties": 1,
        "maxProperties": 32,
        "additionalProperties": {"type": "string", "minLength": 1, "maxLength": 1024}
    })
}
