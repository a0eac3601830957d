//! What an event of a Lease touches.
use std::collections::BTreeSet;

use crate::snapshot::index::event::ObjectKey;

/// What an event may have changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Touch {
    /// These ListenerSets.
    pub sets: BTreeSet<ObjectKey>,
    /// Every ListenerSet that these Pods serve.
    pub sessions: BTreeSet<ObjectKey>,
    /// What these Pods hold.
    pub holders: BTreeSet<ObjectKey>,
}
