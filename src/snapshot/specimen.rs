//! A failed Pod that is kept for a look (`spec.strategy.keepFailed`): it is in no slot any more, and remembers in an annotation
//! what it was.
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::owner::Owner;
use crate::api::names;

/// What the annotation [`names::ANNOTATION_KEPT`] says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Specimen {
    /// When it is removed.
    pub until: Timestamp,
    /// status.run when it was kept: that of the way back.
    pub run: i64,
    /// Its slot.
    pub slot: i32,
    /// Name of its ControllerRevision.
    pub revision: String,
    /// The labels that were taken from it.
    pub labels: BTreeMap<String, String>,
}

impl Specimen {
    /// None for a Pod that is in a slot, or that a person has taken out of Baton's hands.
    pub(super) fn read(
        labels: &BTreeMap<String, String>,
        annotations: Option<&BTreeMap<String, String>>,
    ) -> Option<Self> {
        let is_in_slot = labels.contains_key(names::LABEL_INSTANCE);
        let said = annotations?.get(names::ANNOTATION_KEPT).filter(|_| !is_in_slot)?;
        serde_json::from_str(said).ok().filter(|specimen: &Self| specimen.slot >= 0)
    }
}

/// Under whom such a Pod is filed: no object has this uid, so that it is not taken for one of a slot.
pub(super) fn filed_under(owner: Owner) -> Owner {
    Owner { uid: format!("{}/kept", owner.uid), ..owner }
}
