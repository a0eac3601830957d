//! Objects whose spec is kept whole.
use kube::{Resource, ResourceExt};

use crate::snapshot::guard::DeserializeGuard;

/// A Rollout or ListenerSet as the watch told it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Known<K> {
    pub uid: String,
    pub resource_version: String,
    pub generation: i64,
    /// Err: what could not be read of it. It is left alone, and does not stop the others.
    pub object: Result<Box<K>, String>,
}

impl<K: Resource> Known<K> {
    pub fn read(mut guard: DeserializeGuard<K>) -> Self
    where
        DeserializeGuard<K>: Resource,
    {
        guard.managed_fields_mut().clear();
        Self {
            uid: guard.uid().unwrap_or_default(),
            resource_version: guard.resource_version().unwrap_or_default(),
            generation: guard.meta().generation.unwrap_or_default(),
            object: guard.0.map(Box::new).map_err(|invalid| invalid.error),
        }
    }
}
