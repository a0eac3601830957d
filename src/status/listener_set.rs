//! `status` of a ListenerSet, and the events of the way from one status to the next.
//!
//! | kstatus | reasons |
//! |---|---|
//! | Current | `Complete` |
//! | InProgress | `ListenerFailed`, `Unassigned`, `Moving`, `Starting`, `Restarting`, `Stopping`, `Retiring`: what is worst; `Deleting` |
//! | Failed | `InvalidSpec`, `InvalidConfigMap`, `ConfigMapMissing`: which listeners there are is not known, and those that are known go on |
use std::collections::{BTreeMap, BTreeSet};

use super::{
    conditions::{Statement, kstatus, say, stamp},
    notice::{Notice, normal, warning},
    text::{clip, count, seconds},
    verdict::{Kind, Verdict},
};
use crate::{
    api::{
        Condition, ConditionStatus, ConditionType, ListenerSetStatus, Time,
        bounds::{EXCEPTIONS_MAX, FAST_PODS_MAX, HOLDERS_MAX, MESSAGE_CHARS_MAX},
        listener_set_status::{Holder, LastMove, ListenerException, ListenerSetDisplay},
        names,
        session::SessionProfile,
    },
    plan::listener_set::change::{Place, SetPlan, Stage},
    snapshot::{
        lease::Claim,
        listener_set::{Course, SetPod, SetSnapshot},
        report::Gap,
    },
};

/// The whole status, as it should be written. `gaps`: of the last planned moves, once they are over
/// ([`crate::plan::listener_set::SetRecollection::gaps_of_last_moves`]); with none, what status says of them stays.
pub fn status(snapshot: &SetSnapshot, plan: &SetPlan, gaps: &[Gap]) -> ListenerSetStatus {
    let before = snapshot.set.status.clone().unwrap_or_default();
    let now = seconds(snapshot.now);
    let counts = Counts::new(snapshot, plan);
    let verdict = verdict(snapshot, plan, &counts);
    let holders = holders(snapshot, plan);
    let (exceptions, exceptions_omitted) = exceptions(plan, &before, &now);
    let statements = kstatus(&verdict).into_iter().chain(degraded(snapshot, plan)).chain([balanced(snapshot, plan)]);
    let generation = snapshot.set.metadata.generation;
    ListenerSetStatus {
        observed_generation: generation,
        listeners: counts.all,
        running: counts.of(Stage::Running),
        stopped: counts.of(Stage::Stopped) + counts.of(Stage::Stopping),
        moving: counts.of(Stage::Moving),
        starting: counts.of(Stage::Starting),
        unassigned: counts.of(Stage::Unassigned) + counts.of(Stage::Orphaned),
        failed: counts.of(Stage::Failed),
        epoch_floor: i32::try_from(plan.epoch_floor).unwrap_or(i32::MAX),
        holder_count: int(holders.len()),
        holders: holders.into_iter().take(HOLDERS_MAX).collect(),
        exceptions,
        exceptions_omitted,
        last_move: last_move(gaps, before.last_move, &now),
        display: Some(ListenerSetDisplay { running: format!("{}/{}", counts.of(Stage::Running), counts.should_run()) }),
        conditions: statements.map(|said| stamp(&said, &before.conditions, &now, generation)).collect(),
    }
}

fn int(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Listeners of the set by stage; those that were removed are not counted.
struct Counts {
    all: i32,
    by_stage: BTreeMap<Stage, i32>,
    retiring: i32,
    restarting: i32,
    to_move: i32,
}

impl Counts {
    fn new(snapshot: &SetSnapshot, plan: &SetPlan) -> Self {
        let mut counts = Self { all: 0, by_stage: BTreeMap::new(), retiring: 0, restarting: 0, to_move: 0 };
        for place in plan.listeners.values() {
            if place.stage == Stage::Retiring {
                counts.retiring += 1;
                continue;
            }
            counts.all += 1;
            *counts.by_stage.entry(place.stage).or_default() += 1;
            counts.restarting += i32::from(place.reason.starts_with("Restart"));
            counts.to_move += i32::from(!place.to.is_empty());
        }
        if let Ok(listeners) = &snapshot.listeners {
            counts.all = int(listeners.len());
        }
        counts
    }

    fn of(&self, stage: Stage) -> i32 {
        self.by_stage.get(&stage).copied().unwrap_or(0)
    }

    fn should_run(&self) -> i32 {
        self.all - self.of(Stage::Stopped) - self.of(Stage::Stopping)
    }
}

fn verdict(snapshot: &SetSnapshot, plan: &SetPlan, counts: &Counts) -> Verdict {
    if snapshot.set.metadata.deletion_timestamp.is_some() {
        let message = "being deleted; Kubernetes removes its Leases, and agents stop what has none";
        return Verdict { kind: Kind::InProgress, reason: "Deleting", message: message.into() };
    }
    if let Err(error) = &snapshot.listeners {
        return Verdict { kind: Kind::Failed, reason: error.reason, message: error.message.clone() };
    }
    let in_progress = |reason, message| Verdict { kind: Kind::InProgress, reason, message };
    if let Some((reason, number, stages)) = worst(counts) {
        let first = plan.listeners.iter().find(|(_, place)| stages.contains(&place.stage));
        return in_progress(reason, first.map_or_else(String::new, |(name, place)| sentence(name, place, number)));
    }
    if counts.to_move > 0 {
        return in_progress("Moving", format!("{} to move", count(counts.to_move as usize, "listener")));
    }
    if counts.restarting > 0 {
        let restarting = plan.listeners.values().filter(|place| place.reason.starts_with("Restart")).count();
        return in_progress("Restarting", format!("{} to restart with new settings", count(restarting, "listener")));
    }
    Verdict { kind: Kind::Current, reason: "Complete", message: runs(snapshot, plan, counts) }
}

/// The worst that any listener is in: a reason, how many, and the stages that count as it.
fn worst(counts: &Counts) -> Option<(&'static str, i32, &'static [Stage])> {
    const ORDER: [(&str, &[Stage]); 6] = [
        ("ListenerFailed", &[Stage::Failed]),
        ("Unassigned", &[Stage::Orphaned, Stage::Unassigned]),
        ("Moving", &[Stage::Moving]),
        ("Starting", &[Stage::Starting]),
        ("Stopping", &[Stage::Stopping]),
        ("Retiring", &[Stage::Retiring]),
    ];
    let number = |stages: &[Stage]| -> i32 {
        stages.iter().map(|stage| if *stage == Stage::Retiring { counts.retiring } else { counts.of(*stage) }).sum()
    };
    ORDER.iter().map(|(reason, stages)| (*reason, number(stages), *stages)).find(|(_, number, _)| *number > 0)
}

/// `listener-3 and 4 more: none of the Pods is ready`.
fn sentence(name: &str, place: &Place, number: i32) -> String {
    let others = if number > 1 { format!(" and {} more", number - 1) } else { String::new() };
    let way = match (place.pod.as_str(), place.to.as_str()) {
        ("", _) => String::new(),
        (pod, "") => format!(" on {pod}"),
        (pod, to) => format!(" from {pod} to {to}"),
    };
    let why = if place.message.is_empty() { String::new() } else { format!(": {}", place.message) };
    format!("{} {name}{way}{others}{why}", stage_word(place.stage).to_lowercase())
}

fn runs(snapshot: &SetSnapshot, plan: &SetPlan, counts: &Counts) -> String {
    let pods = holders(snapshot, plan).len();
    let stopped = match counts.of(Stage::Stopped) {
        0 => String::new(),
        stopped => format!(", {stopped} stopped as the spec says"),
    };
    match counts.should_run() {
        0 => format!("no listener is to run{stopped}"),
        running => format!("{} on {}{stopped}", count(running as usize, "listener"), count(pods, "Pod")),
    }
}

/// A stage as `status.exceptions[].state` has it.
pub fn stage_word(stage: Stage) -> &'static str {
    match stage {
        Stage::Failed => "Failed",
        Stage::Orphaned => "Orphaned",
        Stage::Unassigned => "Unassigned",
        Stage::Moving => "Moving",
        Stage::Starting => "Starting",
        Stage::Stopping => "Stopping",
        Stage::Retiring => "Retiring",
        Stage::Running => "Running",
        Stage::Stopped => "Stopped",
    }
}

/// Pods whose boot owns listeners and is not dead, by name.
fn holders(snapshot: &SetSnapshot, plan: &SetPlan) -> Vec<Holder> {
    let mut running: BTreeMap<&str, i32> = BTreeMap::new();
    for place in plan.listeners.values() {
        let is_held = !matches!(place.stage, Stage::Orphaned | Stage::Unassigned | Stage::Stopped);
        if is_held && !place.pod.is_empty() {
            // One that moves runs where it is until the other Pod is ready for it.
            *running.entry(&place.pod).or_default() += i32::from(matches!(place.stage, Stage::Running | Stage::Moving));
        }
    }
    let revision = |pod: &str| snapshot.sessions.get(pod).map_or(String::new(), |seen| clip(&seen.info.revision, 63));
    running.into_iter().map(|(pod, running)| Holder { pod: clip(pod, 253), revision: revision(pod), running }).collect()
}

fn exceptions(plan: &SetPlan, before: &ListenerSetStatus, now: &Time) -> (Vec<ListenerException>, i32) {
    let mut wrong: Vec<(&String, &Place)> =
        plan.listeners.iter().filter(|(_, place)| !matches!(place.stage, Stage::Running | Stage::Stopped)).collect();
    wrong.sort_by_key(|(name, place)| (place.stage, *name));
    let omitted = wrong.len().saturating_sub(EXCEPTIONS_MAX);
    let known: BTreeMap<(&str, &str), &ListenerException> =
        before.exceptions.iter().map(|known| ((known.listener.as_str(), known.state.as_str()), known)).collect();
    let shown = wrong.into_iter().take(EXCEPTIONS_MAX).map(|(name, place)| {
        let state = stage_word(place.stage);
        let since = known.get(&(name.as_str(), state)).and_then(|known| known.since.clone());
        ListenerException {
            listener: clip(name, 63),
            state: state.to_owned(),
            holder: clip(&place.pod, 253),
            reason: clip(&place.reason, 64),
            message: clip(&place.message, MESSAGE_CHARS_MAX),
            since: since.or_else(|| Some(now.clone())),
        }
    });
    (shown.collect(), int(omitted))
}

/// With the same gaps as before nothing has happened since.
fn last_move(gaps: &[Gap], before: Option<LastMove>, now: &Time) -> Option<LastMove> {
    let mut millis: Vec<u32> = gaps.iter().map(|gap| gap.millis).collect();
    millis.sort_unstable();
    let Some(longest) = millis.last() else { return before };
    let bounded = |millis: u32| i32::try_from(millis).unwrap_or(i32::MAX);
    let found = LastMove {
        count: int(millis.len()),
        gap_milliseconds_p50: bounded(millis[(millis.len() - 1) / 2]),
        gap_milliseconds_max: bounded(*longest),
        at: None,
    };
    let same = before.filter(|known| LastMove { at: None, ..known.clone() } == found);
    Some(same.unwrap_or(LastMove { at: Some(now.clone()), ..found }))
}

/// What is wrong and does not stop the set; the most important gives the reason.
fn degraded(snapshot: &SetSnapshot, plan: &SetPlan) -> Option<Statement> {
    let found: Vec<(&str, String)> = [
        failed(plan),
        braked(plan),
        name_taken(snapshot),
        no_agent(snapshot),
        too_many_for_fast(snapshot),
        grace_too_short(snapshot),
        release_of_none(snapshot),
    ]
    .into_iter()
    .flatten()
    .collect();
    let (reason, _) = *found.first()?;
    let messages: Vec<&str> = found.iter().map(|(_, message)| message.as_str()).collect();
    Some(say(ConditionType::Degraded, ConditionStatus::True, reason, messages.join("; ")))
}

fn failed(plan: &SetPlan) -> Option<(&'static str, String)> {
    let failed: Vec<_> = plan.listeners.iter().filter(|(_, place)| place.stage == Stage::Failed).collect();
    let (name, place) = failed.first()?;
    Some(("ListenerFailed", sentence(name, place, int(failed.len()))))
}

fn braked(plan: &SetPlan) -> Option<(&'static str, String)> {
    let message =
        "most nodes fell silent at once: for a minute nothing is taken over but from Pods that are proven dead";
    plan.is_braked.then(|| ("MostNodesSilent", message.to_owned()))
}

fn name_taken(snapshot: &SetSnapshot) -> Option<(&'static str, String)> {
    let first = snapshot.taken_names.first()?;
    let others = match snapshot.taken_names.len() - 1 {
        0 => String::new(),
        more => format!(" and {}", count(more, "other Lease")),
    };
    Some(("NameTaken", format!("Lease {first}{others} belongs to something else: delete it, or rename what it is for")))
}

/// A16: Pods without an agent are tolerated, and it is said.
fn no_agent(snapshot: &SetSnapshot) -> Option<(&'static str, String)> {
    let pods: Vec<&SetPod> = snapshot.pods.iter().filter(|pod| pod.is_ready && has_no_agent(snapshot, pod)).collect();
    let first = pods.first()?;
    let others = if pods.len() > 1 { format!(" and {} more", pods.len() - 1) } else { String::new() };
    let message = format!(
        "{}{others} has no agent and gets no listeners: annotate the template with {}, or run baton-agent in its image",
        first.name,
        names::LABEL_AGENT
    );
    Some(("NoAgent", message))
}

/// Its session waits to be claimed, or cannot be made.
fn has_no_agent(snapshot: &SetSnapshot, pod: &SetPod) -> bool {
    let session = snapshot.sessions.get(&pod.name).and_then(|seen| seen.watched.session.as_ref());
    match session {
        Some(session) => session.pod_uid == pod.uid && session.claim == Claim::Empty,
        None => names::session_lease_name(&pod.name).is_none(),
    }
}

fn too_many_for_fast(snapshot: &SetSnapshot) -> Option<(&'static str, String)> {
    let is_asked = snapshot.set.spec.session.profile == SessionProfile::Fast;
    (is_asked && snapshot.pods.len() > FAST_PODS_MAX).then(|| {
        let pods = snapshot.pods.len();
        let message = format!(
            "spec.session.profile: Fast serves at most {FAST_PODS_MAX} Pods, and there are {pods}: Default is used; set \
             Default or Calm"
        );
        ("TooManyPodsForFast", message)
    })
}

/// What the kubelet kills before it has handed over is taken over as after a crash. Of the templates that are to stay.
fn grace_too_short(snapshot: &SetSnapshot) -> Option<(&'static str, String)> {
    let spec = &snapshot.set.spec;
    let (stop, handoff) = (spec.defaults.stop_timeout_seconds, spec.handoff.timeout_seconds);
    let needed = i64::from(stop) + i64::from(handoff) + GRACE_SPARE_SECONDS;
    let grace = |pod: &SetPod| pod.grace_seconds.unwrap_or(GRACE_SECONDS_DEFAULT);
    let is_short = |pod: &&SetPod| pod.course == Course::Target && !pod.is_terminating && grace(pod) < needed;
    let pods: Vec<&SetPod> = snapshot.pods.iter().filter(is_short).collect();
    let first = pods.first()?;
    let others = if pods.len() > 1 { format!(" and {} more", pods.len() - 1) } else { String::new() };
    let template = match &spec.rollout_ref {
        Some(rollout) => format!("in the template of Rollout {}", rollout.name),
        None => "in the Pods' template".to_owned(),
    };
    let message = format!(
        "{}{others}: terminationGracePeriodSeconds is {}, and {needed} are needed (stopTimeoutSeconds {stop} + \
         handoff.timeoutSeconds {handoff} + {GRACE_SPARE_SECONDS}): raise it {template}, or lower these",
        first.name,
        grace(first)
    );
    Some(("GraceTooShort", message))
}

/// `spec.release` of what is no listener of the set.
fn release_of_none(snapshot: &SetSnapshot) -> Option<(&'static str, String)> {
    let listeners = snapshot.listeners.as_ref().ok()?;
    let is_none = |name: &&str| !listeners.iter().any(|wanted| wanted.name == *name);
    let asked = snapshot.set.spec.release.iter().map(|release| release.listener.as_str());
    let unknown: Vec<&str> = asked.filter(is_none).collect();
    let others = if unknown.len() > 1 { format!(" (and {} more)", unknown.len() - 1) } else { String::new() };
    let first = unknown.first()?;
    Some(("UnknownListener", format!("spec.release names {first}{others}, which is no listener of this set: ignored")))
}

/// What the kubelet and the agent take beside the listeners.
const GRACE_SPARE_SECONDS: i64 = 5;
/// As the API server sets it.
const GRACE_SECONDS_DEFAULT: i64 = 30;

/// The numbers of any two Pods that take listeners differ by at most one.
fn balanced(snapshot: &SetSnapshot, plan: &SetPlan) -> Statement {
    let takes = |pod: &&SetPod| {
        let session = snapshot.sessions.get(&pod.name);
        let is_held = session
            .and_then(|seen| seen.watched.session.as_ref())
            .is_some_and(|session| session.pod_uid == pod.uid && matches!(session.claim, Claim::Held(_)));
        pod.is_ready && pod.course == Course::Target && is_held && session.is_some_and(|seen| !seen.info.draining)
    };
    let names: BTreeSet<&str> = snapshot.pods.iter().filter(takes).map(|pod| pod.name.as_str()).collect();
    let mut loads: BTreeMap<&str, usize> = names.into_iter().map(|name| (name, 0)).collect();
    for place in plan.listeners.values() {
        let runs = !matches!(place.stage, Stage::Stopped | Stage::Stopping | Stage::Retiring | Stage::Unassigned);
        if let Some(load) = loads.get_mut(place.pod.as_str()).filter(|_| runs) {
            *load += 1;
        }
    }
    let (most, fewest) = (loads.values().max().copied().unwrap_or(0), loads.values().min().copied().unwrap_or(0));
    let message = format!("{} with {fewest} to {most} listeners each", count(loads.len(), "Pod"));
    if most - fewest <= 1 {
        say(ConditionType::Balanced, ConditionStatus::True, "Even", message)
    } else if snapshot.is_rolling {
        say(ConditionType::Balanced, ConditionStatus::False, "RolloutInProgress", message)
    } else {
        say(ConditionType::Balanced, ConditionStatus::False, "Uneven", message)
    }
}

/// What happened between two statuses of a ListenerSet; empty when they are equal.
pub fn notices(before: &ListenerSetStatus, after: &ListenerSetStatus) -> Vec<Notice> {
    let mut found = Vec::new();
    found.extend(state_reached(before, after));
    found.extend(moved(before, after));
    found.extend(degraded_by(before, after));
    found
}

fn condition(status: &ListenerSetStatus, type_: ConditionType) -> Option<&Condition> {
    status.conditions.iter().find(|condition| condition.type_ == type_)
}

/// The Ready condition has another reason.
fn state_reached(before: &ListenerSetStatus, after: &ListenerSetStatus) -> Option<Notice> {
    let (was, now) = (condition(before, ConditionType::Ready), condition(after, ConditionType::Ready)?);
    if was.is_some_and(|was| was.reason == now.reason) {
        return None;
    }
    let message = now.message.as_str();
    match now.reason.as_str() {
        "Complete" => Some(normal("ListenersRunning", "Assign", message)),
        // Every set begins so: its Rollout, or that one's Pods, come a moment later.
        "Unassigned" if was.is_none_or(|was| was.reason == "Pending") => {
            Some(normal("ListenersUnassigned", "Assign", message))
        }
        "Unassigned" => Some(warning("ListenersUnassigned", "Assign", message)),
        "InvalidSpec" => Some(warning("InvalidSpec", "ReadListeners", message)),
        "InvalidConfigMap" => Some(warning("InvalidConfigMap", "ReadListeners", message)),
        "ConfigMapMissing" => Some(warning("ConfigMapMissing", "ReadListeners", message)),
        _ => None,
    }
}

fn moved(before: &ListenerSetStatus, after: &ListenerSetStatus) -> Option<Notice> {
    let last = after.last_move.as_ref().filter(|last| before.last_move.as_ref() != Some(last))?;
    let note = format!(
        "{} moved; each ran nowhere for {} ms (median), {} ms at most",
        count(usize::try_from(last.count).unwrap_or(0), "listener"),
        last.gap_milliseconds_p50,
        last.gap_milliseconds_max
    );
    Some(normal("ListenersMoved", "Move", &note))
}

fn degraded_by(before: &ListenerSetStatus, after: &ListenerSetStatus) -> Option<Notice> {
    const REASONS: [&str; 7] = [
        "ListenerFailed",
        "MostNodesSilent",
        "NameTaken",
        "NoAgent",
        "TooManyPodsForFast",
        "GraceTooShort",
        "UnknownListener",
    ];
    let now = condition(after, ConditionType::Degraded)?;
    if condition(before, ConditionType::Degraded).is_some_and(|was| was.reason == now.reason) {
        return None;
    }
    let reason = REASONS.into_iter().find(|known| *known == now.reason)?;
    Some(warning(reason, "Assign", &now.message))
}

#[cfg(test)]
#[path = "listener_set_tests.rs"]
mod tests;
