//! A revision: what a slot can be assigned; stored as a ControllerRevision.
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

/// A ControllerRevision of ours.
#[derive(Clone, Debug, PartialEq)]
pub struct Revision {
    /// Object name.
    pub name: String,
    /// Object uid.
    pub uid: String,
    /// Object resourceVersion.
    pub resource_version: String,
    /// The ten-character hash of `data`, from the label.
    pub hash: String,
    /// `revision`: counts up; the wanted revision has the highest.
    pub number: i64,
    /// Canonical JSON {package, template, version} (see [`crate::plan::revision`]).
    pub data: Value,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// When it completed (annotation).
    pub completed_at: Option<Timestamp>,
    /// When it failed or was aborted (annotation), since it last became the wanted one.
    pub failed_at: Option<Timestamp>,
    /// Why (annotation), as `Reason: message`.
    pub failed_reason: Option<String>,
    /// Who asked for it and why (annotation).
    pub change_cause: Option<String>,
    /// SHA-256 of what the first instance has fetched as its package, where the data names none (annotation).
    pub package_sha256: Option<String>,
    /// Digests of the images that its first Pod ran, by name of the container (annotation); None: none has been noted.
    pub image_digests: Option<BTreeMap<String, String>>,
    /// The newest backup that a hook made while this was the stable revision (annotation), as `id hook run`.
    pub backup: Option<String>,
    /// True once deletion has begun.
    pub deleting: bool,
}
