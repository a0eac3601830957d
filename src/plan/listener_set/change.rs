//! The words of a ListenerSet's planner.
use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::{death::Proof, ownership::Write, session::Fence};
use crate::{
    api::session::SessionProfile,
    snapshot::{
        lease::{Holder, Letter},
        listener::Settings,
    },
};

/// What to do next for one ListenerSet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SetPlan {
    /// What `status.epochFloor` must be. When it is not, it is written (PUT with resourceVersion), and `changes` has nothing
    /// that rests on it.
    pub epoch_floor: u32,
    /// Writes, independent of each other and idempotent; the most urgent first.
    pub changes: Vec<SetChange>,
    /// Each listener of the set, and each that is being retired, by name: what status tells.
    pub listeners: BTreeMap<String, Place>,
    /// Most nodes fell silent at once: no boot is fenced for its silence now.
    pub is_braked: bool,
    /// After so long something changes without an event.
    pub wake_after: Option<Duration>,
}

/// Where one listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// What it does.
    pub stage: Stage,
    /// Name of the Pod that holds it; empty when none does.
    pub pod: String,
    /// Its epoch; 0 without a Lease.
    pub epoch: u32,
    /// Name of the Pod that it is to move to; empty when it stays.
    pub to: String,
    /// One CamelCase word where it is not as it should be.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// What a listener does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Its Pod cannot get it to run.
    Failed,
    /// Its holder is dead, and it has not been given to another yet.
    Orphaned,
    /// It should run, and no boot holds it.
    Unassigned,
    /// On its way from one Pod to another.
    Moving,
    /// Held, and not running yet.
    Starting,
    /// It should not run, and has not stopped yet.
    Stopping,
    /// No longer in the set, and not stopped yet.
    Retiring,
    /// As it should be.
    Running,
    /// As it should be: the spec says so.
    Stopped,
}

/// One write. Each carries what it is conditioned on; nothing is written over something that was not seen.
#[derive(Clone, Debug, PartialEq)]
pub enum SetChange {
    /// Make the session Lease of a Pod, which owns it: for its agent to claim.
    CreateSession {
        /// Name of the Pod.
        pod: String,
        /// uid of the Pod.
        pod_uid: String,
        /// What to ask the agent for.
        profile: SessionProfile,
    },
    /// Ask an agent for another profile.
    SetProfile {
        /// Name of the session Lease.
        lease: String,
        /// Precondition.
        uid: String,
        /// What to ask for.
        profile: SessionProfile,
    },
    /// Say that this boot may hold nothing any more.
    Fence {
        /// Name of the session Lease.
        lease: String,
        /// Precondition.
        uid: String,
        /// Precondition: a renewal that comes in between makes it fail.
        resource_version: String,
        /// Which boot.
        holder: Holder,
        /// Why.
        why: Fence,
    },
    /// Tell an agent what to do; replaces this set's whole inbox.
    SetInbox {
        /// Name of the session Lease.
        lease: String,
        /// Precondition.
        uid: String,
        /// By listener; none: the annotation is removed.
        letters: BTreeMap<String, Letter>,
    },
    /// Make the ownership Lease of a listener.
    CreateOwnership {
        /// The listener.
        listener: String,
        /// First content.
        write: Write,
        /// For the agent.
        settings: Settings,
        /// [`crate::plan::listener_set::wanted::config_hash`].
        config_hash: String,
    },
    /// Give a listener to a boot: it is unowned, or its owner is dead. One that is not to run is taken from a dead owner and
    /// stays unowned.
    Assign {
        /// The listener.
        listener: String,
        /// Precondition.
        uid: String,
        /// Precondition.
        resource_version: String,
        /// New content.
        write: Write,
        /// Who had it.
        from: Origin,
    },
    /// Write settings into the ownership Lease: the owner and its epoch stay.
    Configure {
        /// The listener.
        listener: String,
        /// Precondition.
        uid: String,
        /// Precondition.
        resource_version: String,
        /// For the agent.
        settings: Settings,
        /// Another hash than before makes the owner restart the listener.
        config_hash: String,
    },
    /// Write label and owner references anew, which do not name the holder: an agent had no right to write these, or another writer
    /// has changed them. Owner and epoch stay.
    Mend {
        /// The listener.
        listener: String,
        /// Precondition.
        uid: String,
        /// Precondition.
        resource_version: String,
        /// As it is.
        write: Write,
    },
    /// Delete the ownership Lease of a listener that is no longer in the set: it is unowned, and its epoch is at most
    /// `status.epochFloor`.
    Retire {
        /// The listener.
        listener: String,
        /// Precondition.
        uid: String,
        /// Precondition.
        resource_version: String,
    },
    /// Delete a Pod that does not let go of what it is to give away; what it holds is taken when it is dead.
    KillPod {
        /// Its name.
        pod: String,
        /// Precondition.
        uid: String,
        /// Precondition.
        resource_version: String,
        /// For the Event.
        message: String,
    },
}

/// Whose a listener was that is given to another boot. Only if its owner has let go of it so that another one may go on is
/// it a hand-over, and what the Lease says of his end counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was unowned: the owner before has let go of it, and it was to run all the time.
    Unowned,
    /// It was unowned, and for a while it was not to run.
    Rest,
    /// Its owner is dead, by this proof.
    Dead(Holder, Proof),
    /// Its owner may be alive: `spec.release` asks for it by force, at this time.
    Force(Holder, Timestamp),
}

impl SetChange {
    /// The listener whose ownership Lease it writes.
    pub fn listener(&self) -> Option<&str> {
        match self {
            Self::CreateOwnership { listener, .. }
            | Self::Assign { listener, .. }
            | Self::Configure { listener, .. }
            | Self::Mend { listener, .. }
            | Self::Retire { listener, .. } => Some(listener),
            Self::CreateSession { .. }
            | Self::SetProfile { .. }
            | Self::Fence { .. }
            | Self::SetInbox { .. }
            | Self::KillPod { .. } => None,
        }
    }

    /// What it does, in one CamelCase word.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::CreateSession { .. } => "CreateSession",
            Self::SetProfile { .. } => "SetProfile",
            Self::Fence { .. } => "Fence",
            Self::SetInbox { .. } => "SetInbox",
            Self::CreateOwnership { .. } => "CreateOwnership",
            Self::Assign { .. } => "Assign",
            Self::Configure { .. } => "Configure",
            Self::Mend { .. } => "Mend",
            Self::Retire { .. } => "Retire",
            Self::KillPod { .. } => "KillPod",
        }
    }
}
