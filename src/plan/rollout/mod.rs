//! How a Rollout decides.
pub mod fold;

use super::change::Plan;
use crate::snapshot::Snapshot;

/// The next changes for this Rollout. Pure and total.
pub fn plan(_snapshot: &Snapshot) -> Plan {
    Plan::default()
}
