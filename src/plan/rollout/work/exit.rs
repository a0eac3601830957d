//! How a Pod leaves, or is changed in place: what comes before the act that ends its containers. At most one write a Pod and plan.
//!
//! ```text
//!  it is to be deleted ──────┐            ┌─ the act is a deletion, or the Pod has no gate ────────────────┐
//!                            ├─> HandOver ┤                                                                ├─> Go
//!  containers start anew ────┘            └─> CloseGate ─> Settle (2 s, until the kubelet says not Ready) ─┘
//! ```
//! With `spec.drain`, deletions too:
//!
//! ```text
//!  CloseGate ─> Settle, until no EndpointSlice has it ─> Ask, after settleSeconds, until it says that it is drained ─> Go
//!               └───────────────────────────── timeoutSeconds ───────────────────────────────────────────────────────> Go
//! ```
//! A Pod that is not to leave any more is put back in service, at any of these steps.
//!
//! `HandOver` is passed by a Pod that holds no listener, and by each if no other Pod could take any. A Pod that is not Ready
//! does not wait: its agent, if it has one that works, hands over when it is told to end. What ends no container goes at once.
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::{
    plan::{
        change::{Change, Hold, HoldReason, PodAct, PodReason},
        rollout::{
            pod::{
                agent::{holds, is_heir},
                drain::{self, Stage},
            },
            time::{Alarm, after},
            work::ask::{call, is_due},
        },
    },
    snapshot::{Pod, Purpose, Snapshot},
};

/// How long after its gate was closed a Pod is left alone: the kubelet says that it is not Ready, and those who send to it
/// hear of that.
const SETTLE_SECONDS: i64 = 2;

/// From one question whether a Pod is drained to the next.
const ASK_AGAIN_SECONDS: i64 = 1;

/// Where a Pod stands on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Others take its listeners over first.
    HandOver,
    /// Its readiness gate is closed first.
    CloseGate,
    /// The closed gate has yet to be heard of.
    Settle,
    /// It is asked whether it is drained.
    Ask,
    /// It has not said in time that it is drained: the act is done now.
    GoLate,
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
    /// Questions whether Pods are drained.
    pub asks: Vec<Change>,
    /// Names of Pods that leave service, and have not left it.
    pub draining: BTreeSet<String>,
    /// Names of Pods whose time to drain is over.
    pub late: BTreeSet<String>,
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
        exits.asks = deleted_by_others(snapshot, alarm);
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
            // Its gate stays closed.
            _ if is_changed || pod.in_service.is_some() => drop(exits.changed.insert(pod.name.clone())),
            _ => {}
        }
        match step {
            Step::Settle | Step::Ask if drain::settings(snapshot).is_some() => {
                exits.draining.insert(pod.name.clone());
            }
            Step::GoLate => drop(exits.late.insert(pod.name.clone())),
            _ => {}
        }
        if step == Step::Ask {
            exits.asks.extend(ask(snapshot, pod, drain::since(pod), alarm));
        }
        if step == Step::CloseGate {
            exits.gates.push(Change::pod(pod, PodAct::SetInService { in_service: false, session_ready: None }));
        }
        matches!(step, Step::Go | Step::GoLate)
    });
    exits.asks.extend(deleted_by_others(snapshot, alarm));
    exits
}

/// The question that is due, if one is.
fn ask(snapshot: &Snapshot, pod: &Pod, of: Option<Timestamp>, alarm: &mut Alarm) -> Option<Change> {
    let of = of?;
    let known = snapshot.calls.get(&(pod.uid.clone(), Purpose::Drain)).filter(|known| known.of == of);
    is_due(known, snapshot.now, ASK_AGAIN_SECONDS, alarm).then(|| call(pod, Purpose::Drain, of))
}

/// Pods that somebody else deletes are asked as long as they live: their kubelet does not wait for the answer.
fn deleted_by_others(snapshot: &Snapshot, alarm: &mut Alarm) -> Vec<Change> {
    let asks = drain::settings(snapshot).is_some_and(|drain| drain.http_post.is_some());
    let is_it = |pod: &&Pod| asks && pod.deletion.is_some() && !pod.is_finished() && pod.in_service == Some(true);
    let leaving = snapshot.pods.iter().map(|pod| &**pod).filter(is_it);
    let is_drained = |pod: &&Pod| {
        let call = snapshot.calls.get(&(pod.uid.clone(), Purpose::Drain));
        call.is_some_and(|call| call.answer == Some(Ok(())))
    };
    leaving.filter(|pod| !is_drained(pod)).filter_map(|pod| ask(snapshot, pod, pod.deletion, alarm)).collect()
}

fn step(snapshot: &Snapshot, pod: &Pod, act: &PodAct, has_heir: bool, alarm: &mut Alarm) -> Step {
    match act {
        PodAct::Delete { .. } | PodAct::ChangeInPlace { restarts: true, .. } if has_heir && holds(snapshot, pod) => {
            Step::HandOver
        }
        PodAct::Delete { reason, .. } if !matches!(reason, PodReason::Finished | PodReason::Kept) => {
            drained_first(snapshot, pod, alarm).unwrap_or(Step::Go)
        }
        PodAct::ChangeInPlace { restarts: true, .. }
            if let Some(step) = drained_first(snapshot, pod, alarm).filter(|step| *step != Step::Go) =>
        {
            step
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

/// What `spec.drain` asks for before the act. None: nothing.
fn drained_first(snapshot: &Snapshot, pod: &Pod, alarm: &mut Alarm) -> Option<Step> {
    Some(match drain::stage(snapshot, pod, alarm)? {
        Stage::InService => Step::CloseGate,
        Stage::Leaving => Step::Settle,
        Stage::Asking => Step::Ask,
        Stage::Done => Step::Go,
        Stage::TimedOut => Step::GoLate,
    })
}

/// What people read while Pods are drained.
pub(super) fn draining(snapshot: &Snapshot, draining: &BTreeSet<String>) -> Option<Hold> {
    let first = draining.first()?;
    let more = if draining.len() > 1 { format!(" and {} other Pods", draining.len() - 1) } else { String::new() };
    let pod = snapshot.pods.iter().find(|pod| pod.name == *first)?;
    let said =
        snapshot.calls.get(&(pod.uid.clone(), Purpose::Drain)).and_then(|call| call.answer.as_ref()?.as_ref().err());
    let said = said.map(|said| format!(" ({said})")).unwrap_or_default();
    let at_most = drain::settings(snapshot)?.timeout_seconds;
    let message = format!("{first}{more} is drained before it leaves, for at most {at_most} s{said}");
    Some(Hold { reason: HoldReason::Draining, message, until: None })
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
