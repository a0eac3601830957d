//! What is remembered between looks.
use std::collections::{BTreeMap, BTreeSet};

use crate::snapshot::{ChangeRefusal, CreateRefusal, Overlap, TemplateCheck};

/// What the operator remembers of one Rollout between looks that no watch can tell it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recollection {
    /// See [`crate::snapshot::Snapshot::taken_names`].
    pub taken_names: BTreeSet<String>,
    /// See [`crate::snapshot::Snapshot::template_checks`].
    pub template_checks: BTreeMap<String, TemplateCheck>,
    /// See [`crate::snapshot::Snapshot::create_refusal`].
    pub create_refusal: Option<CreateRefusal>,
    /// See [`crate::snapshot::Snapshot::change_refusals`].
    pub change_refusals: BTreeMap<String, ChangeRefusal>,
    /// resourceVersion of our own last write to each Service, by name: what is older does not count.
    pub services: BTreeMap<String, String>,
    /// See [`crate::snapshot::Snapshot::hook_seen`].
    pub hook_seen: Option<String>,
    /// See [`crate::snapshot::Snapshot::hook_refusal`].
    pub hook_refusal: Option<CreateRefusal>,
    /// See [`crate::snapshot::Snapshot::overlap`].
    pub overlap: Option<Overlap>,
}
