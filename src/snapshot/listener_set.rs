//! What is known about one ListenerSet, as plain values.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use super::{
    lease::{Letter, Named, Ownership, Watched},
    listener::Wanted,
    report::{AgentInfo, Report},
};
pub use super::{listener::SourceError, pod::PodEnds};
use crate::api::{ListenerSet, session::SessionProfile};

/// Everything the planner may look at for one ListenerSet.
#[derive(Clone, Debug)]
pub struct SetSnapshot {
    /// The object, as last seen.
    pub set: ListenerSet,
    /// Its listeners sorted by name, or why they are not known.
    pub listeners: Result<Arc<Vec<Wanted>>, SourceError>,
    /// The Pods that may hold them, sorted by name: of the Rollout, or those that the selector selects.
    pub pods: Vec<SetPod>,
    /// Sessions by name of the Pod: of these Pods, and of every Pod that an ownership names.
    pub sessions: BTreeMap<String, SessionSeen>,
    /// Ownership Leases of this set by name of the listener, of listeners that are no longer wanted too.
    pub ownerships: BTreeMap<String, OwnershipSeen>,
    /// Names of Leases that a create found taken by an object that is not ours.
    pub taken_names: BTreeSet<String>,
    /// Names of ownership Leases that are there and cannot be read: they are left alone, and so are their listeners.
    pub unreadable: BTreeSet<String>,
    /// Number of Pods that there will be once nothing is being replaced.
    pub pods_in_the_end: usize,
    /// Names of Pods that are to be deleted once they hold nothing, as their Rollout plans.
    pub leaving: BTreeSet<String>,
    /// Pods are being replaced: nothing is evened out now.
    pub is_rolling: bool,
    /// Nodes with sessions that are gone or not Ready: their silence is no accident of ours.
    pub lost_nodes: BTreeSet<String>,
    /// The time of this look. Only for what people are told: sessions are judged by their observed silence.
    pub now: Timestamp,
    /// The time of this look on the operator's own clock, which cannot be set: time since some moment.
    pub uptime: Duration,
}

/// A Pod that may hold listeners of the set.
#[derive(Clone, Debug, PartialEq)]
pub struct SetPod {
    /// Name.
    pub name: String,
    /// uid.
    pub uid: String,
    /// resourceVersion.
    pub resource_version: String,
    /// Its instance, where Pods have numbers.
    pub slot: Option<i32>,
    /// Node that runs it.
    pub node: Option<String>,
    /// What becomes of it, as its Rollout plans; without a Rollout a Pod that is not terminating is [`Course::Target`].
    pub course: Course,
    /// Ready, and neither terminating nor finished.
    pub is_ready: bool,
    /// It has a deletionTimestamp.
    pub is_terminating: bool,
    /// terminationGracePeriodSeconds.
    pub grace_seconds: Option<i64>,
    /// Ends of its containers, as the kubelet reports them (state and lastState).
    pub ends: PodEnds,
}

/// What becomes of a Pod, as its Rollout plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// Of the revision that its slot is assigned: it stays.
    Target,
    /// It will be replaced, but its turn has not come.
    Stays,
    /// It is to end as soon as it holds nothing.
    Leaves,
}

/// A session Lease, as this set sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionSeen {
    /// Name of the Lease.
    pub lease: String,
    /// uid of the Lease.
    pub uid: String,
    /// What has been seen of it over time.
    pub watched: Watched,
    /// The profile that the agent has been asked for.
    pub profile: Option<SessionProfile>,
    /// What the agent says of itself.
    pub info: AgentInfo,
    /// What it tells of this set, if it speaks of this very object (uid).
    pub report: Option<Report>,
    /// What it tells is of an earlier set of this name (another uid), of which it still holds listeners (count > 0).
    pub holds_of_earlier_set: bool,
    /// This set's inbox, as it stands.
    pub inbox: BTreeMap<String, Letter>,
    /// Profiles that other ListenerSets which serve the same Pod get ([`SessionProfile::affordable`]).
    pub other_profiles: Vec<SessionProfile>,
}

/// An ownership Lease, with what is not needed to decide who may run it.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnershipSeen {
    /// Name of the Lease.
    pub lease: String,
    /// Who owns it; where it cannot be read, the owner that was known last.
    pub ownership: Ownership,
    /// It cannot be read.
    pub is_unreadable: bool,
    /// The settings as they stand in it: JSON.
    pub settings: String,
    /// acquireTime: when it was last given to a boot.
    pub acquired_at: Option<Timestamp>,
    /// Which request of `spec.release` has last taken it by force.
    pub forced_at: Option<Timestamp>,
    /// The owner before.
    pub from: Option<String>,
    /// That one is of another Pod, had stopped it, and gave it on: it was not taken from the dead.
    pub is_handed_over: bool,
    /// How it names its owner.
    pub named: Named,
}
