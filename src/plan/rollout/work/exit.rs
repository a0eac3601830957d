//! How a Pod leaves, or is changed in place: what comes before the act that ends its containers. At most one write a Pod and plan.
//!
//! ```text
//!  it is to be deleted ──────┐            ┌─ the act is a deletion, or the Pod has no gate ────────────────┐
//!                            ├─> HandOver ┤                                                                ├─> Go
//!  containers start anew ────┘            └─> CloseGate ─> Settle (2 s, until the kubelet says not Ready) ─┘
//! ```
//! `HandOver` is passed by a Pod that holds no listener, and by each if no other Pod could take any. A Pod that is not Ready
//! does not wait: its agent, if it has one that works, hands over when it is told to end. What ends no container goes at once.
use std::collections::{BTreeMap, BTreeSet};

use crate::{
    plan::{
        change::{Change, Hold, HoldReason, PodAct},
        rollout::{
            pod::agent::{holds, is_heir},
            time::{Alarm, after},
        },
    },
    snapshot::{Pod, Snapshot},
};

/// How long after its gate was closed a Pod is left alone: the kubelet says that it is not Ready, and those who send to it
/// hear of that.
const SETTLE_SECONDS: i64 = 2;

/// Where a Pod stands on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Others take its listeners over first.
    HandOver,
    /// Its readiness gate is closed first.
    CloseGate,
    /// The closed gate has yet to be heard of.
    Settle,
    /// The act is done now.
    Go,
}

/// What has become of the acts that end containers.
#[derive(Default)]
pub(super) struct Exits {
    /// Names of Pods whose listeners others take over first.
    pub handing_over: BTreeSet<String>,
    /// Names of Pods that are changed in place, now or once they have left service.
    pub changed: BTreeSet<String>,
    /// Gates that are closed now.
    pub gates: Vec<Change>,
}

/// A container of this Pod can be started anew without clients noticing: it has a gate, or is not Ready.
pub(super) fn can_leave_service(pod: &Pod) -> bool {
    pod.in_service.is_some() || !pod.is_ready()
}

/// The Pod of which a change ends containers.
pub(super) fn ended_by(change: &Change) -> Option<&str> {
    match change {
        Change::Pod { seen, act: PodAct::Delete { .. } | PodAct::ChangeInPlace { restarts: true, .. } } => {
            Some(&seen.name)
        }
        _ => None,
    }
}

/// Takes the acts out of `changes` that something has to come before.
pub(super) fn walk(snapshot: &Snapshot, changes: &mut Vec<Change>, alarm: &mut Alarm) -> Exits {
    let mut exits = Exits::default();
    let ended: BTreeSet<String> = changes.iter().filter_map(ended_by).map(str::to_owned).collect();
    if ended.is_empty() {
        return exits;
    }
    let has_heir = snapshot.pods.iter().any(|pod| !ended.contains(&pod.name) && is_heir(snapshot, pod));
    let pods: BTreeMap<&str, &Pod> = snapshot.pods.iter().map(|pod| (pod.uid.as_str(), &**pod)).collect();
    changes.retain(|change| {
        let Change::Pod { seen, act } = change else { return true };
        let pod = pods.get(seen.uid.as_str()).copied();
        let is_changed = matches!(act, PodAct::ChangeInPlace { restarts: true, .. });
        let Some(pod) = pod else { return !is_changed };
        let step = step(snapshot, pod, act, has_heir, alarm);
        match step {
            Step::HandOver => drop(exits.handing_over.insert(pod.name.clone())),
            _ if is_changed => drop(exits.changed.insert(pod.name.clone())),
            _ => {}
        }
        if step == Step::CloseGate {
            exits.gates.push(Change::pod(pod, PodAct::SetInService { in_service: false, session_ready: None }));
        }
        step == Step::Go
    });
    exits
}

fn step(snapshot: &Snapshot, pod: &Pod, act: &PodAct, has_heir: bool, alarm: &mut Alarm) -> Step {
    match act {
        PodAct::Delete { .. } | PodAct::ChangeInPlace { restarts: true, .. } if has_heir && holds(snapshot, pod) => {
            Step::HandOver
        }
        PodAct::ChangeInPlace { restarts: true, .. } => match pod.in_service {
            None => Step::Go,
            Some(true) => Step::CloseGate,
            Some(false) if is_settled(snapshot, pod, alarm) && pod.ready_since.is_none() => Step::Go,
            Some(false) => Step::Settle,
        },
        _ => Step::Go,
    }
}

/// A clock that was set back does not make a Pod wait.
fn is_settled(snapshot: &Snapshot, pod: &Pod, alarm: &mut Alarm) -> bool {
    let since = pod.in_service_since.filter(|since| *since <= snapshot.now);
    since.is_none_or(|since| alarm.passed(after(since, SETTLE_SECONDS)))
}

/// What people read while Pods hand their listeners over.
pub(super) fn hold(snapshot: &Snapshot, handing_over: &BTreeSet<String>) -> Option<Hold> {
    let first = handing_over.first()?;
    let held: u32 = snapshot.agents.seen().filter(|(pod, _)| handing_over.contains(*pod)).map(|(_, a)| a.held).sum();
    let more =
        if handing_over.len() > 1 { format!(" and {} other Pods", handing_over.len() - 1) } else { String::new() };
    let message =
        format!("{first}{more} leaves, or is changed, once others have taken over its listeners ({held} to move)");
    Some(Hold { reason: HoldReason::HandingOver, message, until: None })
}
