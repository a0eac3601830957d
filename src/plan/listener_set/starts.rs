//! Starts of listeners, as they are seen by their Leases.
use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::alarm::seconds;
use crate::{api::listener_set::StartBudget, snapshot::listener_set::SetSnapshot};

/// Starts that count against `spec.startBudget`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Starts {
    /// acquireTime of each listener, as it was last seen. None before the first look with a budget.
    acquired: Option<BTreeMap<String, Timestamp>>,
    /// Until when each start in another Pod than before counts.
    pub(super) elsewhere: Vec<Duration>,
    /// The same of those where it had run before.
    pub(super) in_place: Vec<Duration>,
}

impl Starts {
    /// Takes note of new ones: a Lease shows the last one alone. How long ago those before the first look were, only the
    /// Leases tell, by clocks that may be off.
    pub(super) fn remember(&mut self, snapshot: &SetSnapshot) {
        let Some(budget) = &snapshot.set.spec.start_budget else {
            *self = Self::default();
            return;
        };
        let (uptime, period) = (snapshot.uptime, seconds(budget.period_seconds));
        let given = snapshot.ownerships.iter().filter(|(_, seen)| seen.ownership.holder.is_some());
        let given = given.filter_map(|(name, seen)| Some((name, seen, seen.acquired_at?)));
        let mut acquired = BTreeMap::new();
        for (name, seen, at) in given {
            let known = self.acquired.as_ref().map(|acquired| acquired.get(name));
            if known != Some(Some(&at)) {
                let is_first = known.is_none();
                let age = if is_first { snapshot.now.duration_since(at).unsigned_abs() } else { Duration::ZERO };
                let is_same = seen.ownership.holder.as_ref().map(ToString::to_string) == seen.from;
                let kind = if is_same { &mut self.in_place } else { &mut self.elsewhere };
                kind.push(uptime.saturating_add(period.saturating_sub(age)));
            }
            acquired.insert(name.clone(), at);
        }
        self.acquired = Some(acquired);
        for kind in [&mut self.in_place, &mut self.elsewhere] {
            kind.retain(|until| *until > uptime);
            // More of them than there are permits say nothing more.
            kind.sort();
            kind.drain(..kind.len().saturating_sub(permits(budget)));
        }
    }
}

/// How many starts it permits in a period.
pub(super) fn permits(budget: &StartBudget) -> usize {
    usize::try_from(budget.permits).unwrap_or(0).max(1)
}
