//! For which Rollout changes are made.
use kube::core::ObjectMeta;

use super::call::Calls;
use crate::snapshot::{Snapshot, wire};

/// The Rollout that changes are made for.
pub(super) struct Target<'a> {
    pub calls: &'a Calls,
    pub snapshot: &'a Snapshot,
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl Target<'_> {
    /// The object is of an earlier Rollout of this name, and no object controls it.
    pub fn left_behind(&self, metadata: &ObjectMeta) -> bool {
        wire::orphaned_by(metadata).is_some_and(|owner| owner.name == self.name)
    }
}
