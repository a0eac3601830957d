//! What the operator remembers of one ListenerSet alone.
use std::time::Duration;

use tokio::time::Instant;

use crate::{
    api::names,
    operator::memory::{Notes, ObjectMemory, Own, Written, note_taken},
    plan::{
        Applied, Outcome,
        listener_set::{
            self as planner, SetRecollection,
            change::{Origin, SetChange},
        },
    },
    snapshot::{
        index::{Kind, SetMemories},
        listener_set::SetSnapshot,
    },
};

/// Memory of one ListenerSet.
#[derive(Debug, Default)]
pub struct SetMemory {
    /// What no watch can tell.
    pub beyond_watches: SetMemories,
    /// What the planner remembers.
    pub recollection: SetRecollection,
    /// Until when names that were found taken are not tried again.
    pub taken_until: Option<Instant>,
    /// When to look again whether what an earlier set of this name has left is gone.
    pub sweeps_at: Option<Instant>,
    /// Since when not all that the set looks at has been listed.
    pub unread_since: Option<Instant>,
}

/// While a set is paused no boot is fenced and nothing is taken over: what one refused write costs must not grow.
impl Own for SetMemory {
    const PAUSE_MAX: Duration = Duration::from_secs(2);
}

/// How long a name counts as taken: its owner may be asked to give it up.
const TAKEN_FOR: Duration = Duration::from_secs(30);

impl ObjectMemory<SetMemory> {
    /// Forgets names that were found taken a while ago: they are tried again.
    pub fn forget_taken(&mut self) {
        if self.own.taken_until.is_some_and(|until| until <= Instant::now()) {
            self.own.taken_until = None;
            self.own.beyond_watches.taken_names.clear();
        }
    }

    /// Takes note of what became of the changes. False when something went wrong and a pause was set.
    pub fn note(&mut self, snapshot: &SetSnapshot, outcomes: &[Outcome<SetChange>], rng: &mut fastrand::Rng) -> bool {
        let set = snapshot.set.metadata.name.as_deref().unwrap_or_default();
        let pods = if snapshot.set.spec.rollout_ref.is_some() { Kind::Pod } else { Kind::AgentPod };
        let mut notes = Notes::default();
        for Outcome { change, result } in outcomes {
            planner::note_write(&mut self.own.recollection, change, result);
            let name = name(set, change);
            if *result == Applied::NameTaken {
                note_taken(&mut self.own.beyond_watches.taken_names, &name);
                self.own.taken_until = Some(Instant::now() + TAKEN_FOR);
            }
            let kind = match change {
                SetChange::KillPod { .. } => pods,
                SetChange::SetInbox { .. } => continue, // on its way
                _ => Kind::Lease,
            };
            self.note_write(&Written { kind, name: &name, version: version(change) }, result, &mut notes);
        }
        self.note_all(&notes, rng)
    }
}

/// Name of the object that a change of this set writes.
pub(super) fn name(set: &str, change: &SetChange) -> String {
    match change {
        SetChange::CreateSession { pod, .. } => names::session_lease_name(pod).unwrap_or_default(),
        SetChange::SetProfile { lease, .. } | SetChange::Fence { lease, .. } | SetChange::SetInbox { lease, .. } => {
            lease.clone()
        }
        SetChange::CreateOwnership { listener, .. }
        | SetChange::Assign { listener, .. }
        | SetChange::Configure { listener, .. }
        | SetChange::Mend { listener, .. }
        | SetChange::Retire { listener, .. } => names::listener_lease_name(set, listener),
        SetChange::KillPod { pod, .. } => pod.clone(),
    }
}

/// Why a change is made, where there are several possible reasons; else empty.
pub(super) fn reason(change: &SetChange) -> &'static str {
    match change {
        SetChange::Assign { from: Origin::Dead(_, proof), .. } => proof.as_label(),
        SetChange::Fence { why, .. } => why.as_label(),
        _ => "",
    }
}

/// The (uid, resourceVersion) that a change requires. A change of an inbox or a profile requires no version: the agent
/// renews its session all the time.
fn version(change: &SetChange) -> Option<(&str, &str)> {
    match change {
        SetChange::Fence { uid, resource_version, .. }
        | SetChange::Assign { uid, resource_version, .. }
        | SetChange::Configure { uid, resource_version, .. }
        | SetChange::Mend { uid, resource_version, .. }
        | SetChange::Retire { uid, resource_version, .. }
        | SetChange::KillPod { uid, resource_version, .. } => Some((uid, resource_version)),
        SetChange::CreateSession { .. }
        | SetChange::SetProfile { .. }
        | SetChange::SetInbox { .. }
        | SetChange::CreateOwnership { .. } => None,
    }
}
