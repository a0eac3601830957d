//! What the operator remembers of a ListenerSet between looks. It may be lost at any time: then a wait begins anew, and
//! nothing else happens.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

use crate::snapshot::report::Gap;

/// What [`super::plan`] remembers until the next look. Moments are of [`crate::snapshot::listener_set::SetSnapshot::uptime`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SetRecollection {
    /// Since when most nodes have been silent, or had been until lately.
    pub braked_since: Option<Duration>,
    /// Since when they are heard again.
    pub heard_since: Option<Duration>,
    /// Since when there has been a listener that waits for more Pods.
    pub crowded_since: Option<Duration>,
    /// Orders to release that stand unanswered, by listener.
    pub released: BTreeMap<String, Since>,
    /// Invitations to prepare that stand unanswered, by listener.
    pub invited: BTreeMap<String, Since>,
    /// Settings that make an owner restart its listener, and have not yet, by listener.
    pub restarting: BTreeMap<String, Since>,
    /// Pods (uid) that have tried a listener in vain, by listener.
    pub tried: BTreeMap<String, Tried>,
    /// The last epoch in which each listener was seen to run: what is read from a report that is behind the Leases.
    pub ran: BTreeMap<String, u32>,
    /// Requests of `spec.release` that have been seen, by listener: when, and the epoch that it was about.
    pub requests: BTreeMap<String, (Timestamp, u32)>,
    /// How long each listener of the last planned moves ran nowhere: for status.
    pub gaps: Vec<Gap>,
    /// Which of the reported gaps are known. None before the first look: those are of moves of an earlier operator.
    pub known_gaps: Option<BTreeSet<(String, u32)>>,
    /// Listeners were on their way at the last look.
    pub is_moving: bool,
    /// The next gap is of other moves than those in `gaps`.
    pub begins_anew: bool,
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

/// Pods that have tried a listener in vain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// Their uids.
    pub pods: BTreeSet<String>,
    /// When the last of them was found.
    pub at: Duration,
}
