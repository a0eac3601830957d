//! What an agent tells on its session Lease: of itself, and of the listeners of each ListenerSet.
//!
//! Nothing that must never happen is prevented by a report: who owns what is in the ownership Leases, who is dead is told by
//! sessions and kubelets. A report only says how far things have come.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::api::fingerprint::{fingerprint, hexadecimal};

/// Entries of [`Report::units`]: with more to tell, the rest is told later.
pub const UNITS_MAX: usize = 48;
/// Entries of [`Report::gaps`].
pub const GAPS_MAX: usize = 16;

/// What an agent says of itself: the value of [`crate::api::names::ANNOTATION_AGENT`] as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentInfo {
    /// Revision of the Pod as its application sees it (`BATON_REVISION`); empty where there is none.
    pub revision: String,
    /// The Pod is to end: nothing more is to be given to it, and what it has is to be taken elsewhere.
    pub draining: bool,
}

/// What an agent tells of one ListenerSet: the value of `report.baton.dev/<set>` as JSON, below 8 KiB for 1,000 listeners.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Report {
    /// uid of the ListenerSet.
    pub set: String,
    /// How many listeners of it name this boot as their owner, as far as the agent has heard, or run here, begun or not yet
    /// proven to have ended.
    pub count: u32,
    /// Which name it: [`held_hash`] of their names and epochs.
    pub held: String,
    /// Which of these run, in order of their names: bit `i % 8`, lowest first, of byte `i / 8`, as hexadecimal digits.
    pub running: String,
    /// Listeners of which there is more to say, by name: at most [`UNITS_MAX`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub units: BTreeMap<String, UnitReport>,
    /// The last starts that followed a planned stop elsewhere: at most [`GAPS_MAX`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
}

/// One listener that is not simply running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnitReport {
    /// The epoch that this is about: of the owner that it would come from while it is prepared.
    pub epoch: u32,
    /// What of it there is.
    pub state: UnitState,
    /// One CamelCase word where something is wrong, such as ConnectTimeout.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// A sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Starts in a row that have failed on this Pod.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failures: u32,
}

impl UnitReport {
    /// It cannot be got to run. With a start budget what has failed waits for its next permit: it has failed no less.
    pub fn is_failing(&self) -> bool {
        match self.state {
            UnitState::Failed => true,
            UnitState::Waiting => self.failures > 0,
            UnitState::Prepared | UnitState::Starting | UnitState::Stopping => false,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What of a listener there is in a Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnitState {
    /// Not ours, but ready to be.
    Prepared,
    /// Begun, and not working yet.
    Starting,
    /// Told to stop, and not proven to have.
    Stopping,
    /// Ended by itself; tried again after a pause.
    Failed,
    /// Ended, and to be started again here: it waits for a permit.
    Waiting,
}

/// The time in which a listener ran nowhere, of one planned move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// Name.
    pub listener: String,
    /// The epoch that began.
    pub epoch: u32,
    /// From the old Pod's confirmed stop to the new one's start, each by its own node's clock.
    pub millis: u32,
}

/// A short fingerprint of names and epochs: agent and controller compare what they know by it.
pub fn held_hash<'a>(held: impl Iterator<Item = (&'a str, u32)>) -> String {
    fingerprint(held.map(|(name, epoch)| format!("{name} {epoch}\n")), 8)
}

impl Report {
    /// Notes which of these listeners, sorted by name, name this boot, and which run.
    pub fn set_held(&mut self, held: &BTreeMap<String, (u32, bool)>) {
        self.count = u32::try_from(held.len()).unwrap_or(u32::MAX);
        self.held = held_hash(held.iter().map(|(name, (epoch, _))| (name.as_str(), *epoch)));
        let mut bits = vec![0_u8; held.len().div_ceil(8)];
        for (index, _) in held.values().enumerate().filter(|(_, (_, runs))| *runs) {
            bits[index / 8] |= 1 << (index % 8);
        }
        self.running = hexadecimal(&bits);
    }

    /// Whether each of these runs, in their order; None when the agent speaks of others, or of other epochs. `held` is what
    /// the reader knows to name this boot: names and epochs, sorted by name.
    pub fn running(&self, held: &[(&str, u32)]) -> Option<Vec<bool>> {
        if self.held != held_hash(held.iter().copied()) {
            return None;
        }
        let byte = |index: usize| u8::from_str_radix(self.running.get(2 * index..2 * index + 2)?, 16).ok();
        (0..held.len()).map(|index| Some(byte(index / 8)? >> (index % 8) & 1 == 1)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_runs_survives_the_wire(held in prop::collection::btree_map("[a-z]{1,4}", (any::<u32>(), any::<bool>()), 0..40)) {
            let mut report = Report::default();
            report.set_held(&held);
            let read: Report = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
            let known: Vec<_> = held.iter().map(|(name, (epoch, _))| (name.as_str(), *epoch)).collect();
            prop_assert_eq!(read.running(&known), Some(held.values().map(|(_, runs)| *runs).collect::<Vec<_>>()));
            let mut more = known.clone();
            more.push(("zzzzz", 1));
            prop_assert_eq!(read.running(&more), None);
        }

        #[test]
        fn no_report_makes_a_controller_fall_over(running in ".{0,6}") {
            let mut report = Report::default();
            report.set_held(&[("a".to_owned(), (1, true))].into());
            report.running = running;
            report.running(&[("a", 1)]);
        }
    }

    #[test]
    fn a_thousand_listeners_fit_into_a_kilobyte() {
        let held = (0..1_000).map(|number| (format!("listener-{number:04}"), (7, number % 3 > 0))).collect();
        let mut report = Report { set: "8c1e7f0a-0000-4000-8000-000000000000".into(), ..Report::default() };
        report.set_held(&held);
        assert!(serde_json::to_string(&report).unwrap().len() < 1_024);
    }
}
