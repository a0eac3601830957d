//! What the operator remembers of a ListenerSet between looks. It may be lost at any time: then a wait begins anew, and what
//! is known of a Lease that vanished is what agents still tell ([`super::vanished`]).
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use super::starts::Starts;
use crate::snapshot::{lease::Holder, listener::Wanted, report::Gap};

/// What [`super::plan`] remembers until the next look. Moments are of [`crate::snapshot::listener_set::SetSnapshot::uptime`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SetRecollection {
    /// The listeners as they could last be read: they count while they cannot be. Not what a standby has read, which
    /// an earlier leader may have gone beyond.
    pub last_read: Option<Arc<Vec<Wanted>>>,
    /// Since when most nodes have been silent, or had been until lately.
    pub braked_since: Option<Duration>,
    /// How many nodes had Pods of the set then, at most.
    pub braked_nodes: usize,
    /// Since when they are heard again.
    pub heard_since: Option<Duration>,
    /// Since when there has been a listener that waits for more Pods.
    pub crowded_since: Option<Duration>,
    /// Since when there has been a listener that does not run, and a Pod that is about to be Ready.
    pub awaited_since: Option<Duration>,
    /// Orders to release that stand unanswered, by listener.
    pub released: BTreeMap<String, Since>,
    /// Invitations to prepare that stand unanswered, by listener.
    pub invited: BTreeMap<String, Since>,
    /// Pods (uid) that report of other Leases than those that name them: [`crate::snapshot::report::held_hash`] of these, and
    /// since when.
    pub unheard: BTreeMap<String, (String, Duration)>,
    /// Settings that make an owner restart its listener, and have not yet, by listener.
    pub restarting: BTreeMap<String, Since>,
    /// Pods (uid) that have tried a listener in vain, by listener.
    pub tried: BTreeMap<String, Tried>,
    /// In which epoch each listener was last told to run: what is read from a report that is behind the Leases.
    pub ran: BTreeMap<String, Ran>,
    /// Who owned each listener at the last look, and its epoch.
    pub owned: BTreeMap<String, (Option<Holder>, u32)>,
    /// Listeners whose Lease was deleted while these boots held it, and who may not have stopped yet. Without a name: one
    /// whose names are not known.
    pub vanished: BTreeMap<(String, Holder), Vanished>,
    /// Boots that hold listeners of an earlier set of this name: when each session was last watched, and how long others
    /// wait for it.
    pub earlier: BTreeMap<Holder, (Duration, Duration)>,
    /// What `status.epochFloor` must be at least, for the sake of those.
    pub epoch_floor: u32,
    /// Since when something is on a Pod that its Rollout wants to delete, and no Pod has room for it within its share.
    pub stranded_since: Option<Duration>,
    /// Requests of `spec.release` that have been seen, by listener: when, and the epoch that it was about.
    pub requests: BTreeMap<String, (Timestamp, u32)>,
    /// Starts that count against the budget.
    pub starts: Starts,
    /// Listeners that are unowned since they were not to run.
    pub resting: BTreeSet<String>,
    /// How long each listener of the last planned moves ran nowhere, as far as reported.
    pub gaps: Vec<Gap>,
    /// Which of the reported gaps are known. None before the first look: those are of moves of an earlier operator.
    pub known_gaps: Option<BTreeSet<(String, u32)>>,
    /// When a gap was last reported.
    pub moved_at: Option<Duration>,
    /// `gaps` are complete: the next one is of other moves.
    pub moves_are_over: bool,
}

impl SetRecollection {
    /// How long each listener of the last planned moves ran nowhere. Empty while moves are under way.
    pub fn gaps_of_last_moves(&self) -> &[Gap] {
        if self.moves_are_over { &self.gaps } else { &[] }
    }
}

/// Since when something about one epoch has been waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Since {
    /// Which epoch; 0 where any is meant.
    pub epoch: u32,
    /// Pod (uid) that it is waited for.
    pub pod: String,
    /// Since when.
    pub since: Duration,
}

/// A listener was told to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ran {
    /// In this epoch.
    pub epoch: u32,
    /// When that was last told.
    pub at: Duration,
}

/// An ownership Lease was deleted while a boot held it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vanished {
    /// When that was found.
    pub since: Duration,
    /// renewTime of its holder's session then: what it told before says nothing.
    pub renewed_at: Option<Timestamp>,
    /// Its holder had told that it ran.
    pub was_told: bool,
    /// When its holder's session was last watched.
    pub watched_at: Duration,
    /// How long others wait for that session.
    pub duration: Duration,
}

/// Pods that have tried a listener in vain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// Their uids.
    pub pods: BTreeSet<String>,
    /// When the last of them was found.
    pub at: Duration,
}
