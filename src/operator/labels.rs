//! Labels of metrics.
use prometheus_client::encoding::EncodeLabelSet;

use crate::snapshot::index::ObjectKey;

/// Labels of a Rollout's series.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RolloutLabels {
    /// metadata.namespace.
    pub namespace: String,
    /// metadata.name.
    pub rollout: String,
}

impl From<&ObjectKey> for RolloutLabels {
    fn from(key: &ObjectKey) -> Self {
        Self { namespace: key.namespace.clone(), rollout: key.name.clone() }
    }
}

/// Labels of a ListenerSet's series.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SetLabels {
    /// metadata.namespace.
    pub namespace: String,
    /// metadata.name.
    pub listener_set: String,
}

impl From<&ObjectKey> for SetLabels {
    fn from(key: &ObjectKey) -> Self {
        Self { namespace: key.namespace.clone(), listener_set: key.name.clone() }
    }
}
