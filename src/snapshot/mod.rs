//! What is known about one object, as plain values. Built by [`index`] from watch events; read by `plan` and `status`.
//! Pure: `now` is a value, nothing here asks a clock or the API server.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod agent;
pub mod call;
pub mod ends;
pub mod exit;
pub mod guard;
pub mod hook;
pub mod in_place;
pub mod index;
mod kubelet;
pub mod lease;
pub mod listener;
pub mod listener_set;
pub mod lists;
pub mod owner;
pub mod package;
pub mod pod;
pub mod ranges;
pub mod report;
pub mod resize;
pub mod revision;
pub mod service;
pub mod specimen;
pub mod telling;
pub mod template;
pub mod time;
mod views;
pub mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};

pub use call::Purpose;
pub use exit::{Exit, on_one_line};
pub use hook::{HookJob, HookJobs, HookPod, JobEnd, SeenHooks};
pub use in_place::InPlace;
pub use package::Fetched;
pub use pod::{Container, ContainerEnd, ContainerState, Pod, PodEnds, PodPhase};
pub use ranges::Ranges;
pub use resize::Resize;
pub use revision::Revision;
pub use service::{Service, ServiceSeen, Services, Switched};
pub use telling::Telling;
pub use template::TemplateCheck;

use crate::api::Rollout;

/// Everything the planner may look at for one Rollout.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The object, as last seen.
    pub rollout: Rollout,
    /// Pods whose controller ownerRef is this very object (uid), sorted by (slot, name).
    pub pods: Vec<Arc<Pod>>,
    /// ControllerRevisions whose controller ownerRef is this very object (uid), sorted by (number, name).
    pub revisions: Vec<Revision>,
    /// Failed Pods of this very object that are kept for a look, in no slot, sorted by name.
    pub specimens: Vec<Arc<Pod>>,
    /// What an earlier Rollout of this name left behind (`--cascade=orphan`).
    pub orphans: Orphans,
    /// Pods that the selector matches and that are of something else; None: this operator has not asked yet.
    pub overlap: Option<Overlap>,
    /// Names that a create found taken by an object that is not ours: Pods and ControllerRevisions.
    pub taken_names: BTreeSet<String>,
    /// Nodes that are gone or not Ready, of those that run our Pods. Empty where the operator may not watch Nodes.
    pub lost_nodes: BTreeSet<String>,
    /// What the API server said of a Pod of each revision in a dry run, by revision name; by [`ChangeRefusal::key_of`] of the
    /// resources of one for a Pod that is there.
    pub template_checks: BTreeMap<String, TemplateCheck>,
    /// The last refusal of a Pod create, until a create succeeds.
    pub create_refusal: Option<CreateRefusal>,
    /// Refusals to give Pods a revision in place, by revision name; by [`ChangeRefusal::key_of`] where resources are part of it,
    /// which depends on the Pod's node.
    pub change_refusals: BTreeMap<String, ChangeRefusal>,
    /// What applications were told, by uid of their Pods.
    pub tellings: BTreeMap<String, Telling>,
    /// What applications were asked, by uid of their Pods and purpose.
    pub calls: call::Calls,
    /// Which Pods stand in EndpointSlices as serving.
    pub endpoints: Endpoints,
    /// What the agents of these Pods tell.
    pub agents: Agents,
    /// The Services that the Rollout switches.
    pub services: Services,
    /// Jobs of its hooks.
    pub hooks: HookJobs,
    /// Name of the Job of a hook that this operator has seen, or made.
    pub hook_seen: Option<String>,
    /// The last refusal of a hook's Job, until one is made.
    pub hook_refusal: Option<CreateRefusal>,
    /// The time of this look.
    pub now: Timestamp,
}

/// Which Pods clients are sent to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Endpoints {
    /// EndpointSlices have not been listed, or may not be.
    #[default]
    Unknown,
    /// uids of Pods that are in any as serving.
    Serving(BTreeSet<String>),
}

/// Objects whose label names this Rollout, and that no object controls.
#[derive(Clone, Debug, Default)]
pub struct Orphans {
    /// Pods, sorted by (slot, name).
    pub pods: Vec<Arc<Pod>>,
    /// ControllerRevisions, sorted by (number, name).
    pub revisions: Vec<Revision>,
}

/// Pods that the selector of a Rollout matches and that are of something else, as of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// When they were listed.
    pub at: Timestamp,
    /// metadata.generation of the Rollout at that time.
    pub generation: Option<i64>,
    /// How many were listed.
    pub count: usize,
    /// There are more than were listed.
    pub has_more: bool,
    /// Names of the first [`Overlap::NAMED_MAX`], each with what controls it, as `api-x7 (ReplicaSet api)`.
    pub named: Vec<String>,
}

impl Overlap {
    /// So many are named.
    pub const NAMED_MAX: usize = 5;
    /// A list that is older is taken anew.
    const AGE_MAX: SignedDuration = SignedDuration::from_mins(9);

    /// It says what is there now, as far as that matters.
    pub fn is_recent(&self, rollout: &Rollout, now: Timestamp) -> bool {
        self.generation == rollout.metadata.generation && now.duration_since(self.at) < Self::AGE_MAX
    }
}

#[cfg(test)]
impl Snapshot {
    /// Its Pods, to be changed.
    pub(crate) fn pods_mut(&mut self) -> impl Iterator<Item = &mut Pod> {
        self.pods.iter_mut().map(Arc::make_mut)
    }

    /// One of its Pods, to be changed.
    pub(crate) fn pod_mut(&mut self, index: usize) -> &mut Pod {
        Arc::make_mut(&mut self.pods[index])
    }
}

/// What the agents of a Rollout's Pods tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Agents {
    /// No ListenerSet gives work to these Pods: no agent is asked for.
    #[default]
    NotAsked,
    /// It is not known yet whether anybody asks, or what they tell: ListenerSets or Leases have not been listed.
    Unknown,
    /// By Pod name: of every Pod.
    Seen(BTreeMap<String, AgentSeen>),
}

impl Agents {
    /// By Pod name; none where nothing is known.
    pub fn seen(&self) -> impl Iterator<Item = (&String, &AgentSeen)> {
        if let Self::Seen(agents) = self { Some(agents) } else { None }.into_iter().flatten()
    }

    /// The agent of this Pod, where it is known.
    pub fn of(&self, pod: &str) -> Option<&AgentSeen> {
        if let Self::Seen(agents) = self { agents.get(pod) } else { None }
    }
}

/// Where the session of a Pod stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionState {
    /// It has not been claimed yet: its agent has yet to start, or there is none.
    #[default]
    Unclaimed,
    /// The Pod's agent holds it.
    Held,
    /// It was fenced.
    Lost,
}

/// What is known of the agent of a Pod, of all ListenerSets that name its Rollout together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentSeen {
    /// Its session.
    pub session: SessionState,
    /// It leaves: it may be given nothing more.
    pub draining: bool,
    /// Listeners that name this boot as their owner.
    pub held: u32,
    /// Of these, those that it is known to run.
    pub running: u32,
    /// ListenerSets of which it holds listeners, or runs some that have not been proven to have ended: with how many.
    pub busy: Vec<(String, u32)>,
    /// When another Pod last handed a listener over to it.
    pub last_gained: Option<Timestamp>,
    /// The listener that has failed most often in a row here: how often, its name, why.
    pub failing: Option<(u32, String, String)>,
}

/// A create that the API server refused; creates wait until `retry_at` (backed off by the shell).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateRefusal {
    /// `QuotaExceeded` or `FailedCreate`.
    pub reason: RefusalReason,
    /// The API server's sentence.
    pub message: String,
    /// First refusal in a row.
    pub since: Timestamp,
    /// No create before this time.
    pub retry_at: Timestamp,
}

/// The API server refused to give a Pod a revision in place; not tried again before `retry_at`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeRefusal {
    /// The API server's sentence.
    pub message: String,
    /// No try before this time.
    pub retry_at: Timestamp,
}

impl ChangeRefusal {
    /// Where it is about this Pod alone.
    pub fn key_of(revision: &str, uid: &str) -> String {
        format!("{revision}/{uid}")
    }
}

/// Why a create was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalReason {
    /// 403 "exceeded quota".
    QuotaExceeded,
    /// Anything else.
    FailedCreate,
}
