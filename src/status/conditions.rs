//! Conditions; the only place that sets lastTransitionTime.
use std::collections::BTreeSet;

use super::{
    instances::State,
    look::Look,
    text::{clip, count},
    verdict::{self, Kind, Verdict},
};
use crate::{
    api::{Condition, ConditionStatus, ConditionType, Time, bounds, hooks::HookFailure, status::HistoryEntry},
    plan::{Applied, Change, Question, rollout::HOOK_FAILED},
    snapshot::{Pod, TemplateCheck},
};

/// Type, status, reason, message: a condition before it has a time.
pub(super) struct Statement {
    type_: ConditionType,
    status: ConditionStatus,
    reason: String,
    message: String,
}

pub(super) fn say(
    type_: ConditionType,
    status: ConditionStatus,
    reason: &str,
    message: impl Into<String>,
) -> Statement {
    Statement { type_, status, reason: reason.into(), message: message.into() }
}

/// All conditions, in a fixed order.
pub(super) fn conditions(look: &Look<'_>, verdict: &Verdict, history: &[HistoryEntry]) -> Vec<Condition> {
    let statements = kstatus(verdict).into_iter().chain([available(look), progressing(look, verdict)]);
    let statements = statements.chain(paused(look)).chain(degraded(look, verdict, history));
    let statements = statements.chain(selector_overlaps(look)).chain([template_valid(look)]);
    let now = look.now();
    let generation = look.snapshot.rollout.metadata.generation;
    statements.map(|statement| stamp(&statement, &look.before.conditions, &now, generation)).collect()
}

/// The time of the last change of `status` is kept while `status` stays.
pub(super) fn stamp(said: &Statement, before: &[Condition], now: &Time, generation: Option<i64>) -> Condition {
    let same = before.iter().find(|known| known.type_ == said.type_ && known.status == said.status);
    Condition {
        type_: said.type_,
        status: said.status,
        reason: clip(&said.reason, 64),
        message: clip(&said.message, bounds::MESSAGE_CHARS_MAX),
        last_transition_time: same.map_or_else(|| now.clone(), |known| known.last_transition_time.clone()),
        observed_generation: generation,
    }
}

/// Exactly one of Ready=True; Reconciling=True with Ready=False; Stalled=True with Ready=False.
pub(super) fn kstatus(verdict: &Verdict) -> Vec<Statement> {
    let with = |type_, status| say(type_, status, verdict.reason, verdict.message.clone());
    match verdict.kind {
        Kind::Current => vec![with(ConditionType::Ready, ConditionStatus::True)],
        Kind::InProgress => vec![
            with(ConditionType::Ready, ConditionStatus::False),
            with(ConditionType::Reconciling, ConditionStatus::True),
        ],
        Kind::Failed => vec![
            with(ConditionType::Ready, ConditionStatus::False),
            with(ConditionType::Stalled, ConditionStatus::True),
        ],
    }
}

/// As of a Deployment: enough instances are available.
fn available(look: &Look<'_>) -> Statement {
    let available = |pod: &Pod| pod.is_available(look.spec().min_ready_seconds, look.snapshot.now);
    let have = look.slots.wanted().filter(|slot| look.serves(slot, available)).count() as i32;
    let need = crate::plan::rollout::Policy::of(look.spec()).fewest_available();
    let message = format!("{have} of {} instances are available, at least {need} must be", look.replicas());
    if have >= need {
        say(ConditionType::Available, ConditionStatus::True, "MinimumReplicasAvailable", message)
    } else {
        say(ConditionType::Available, ConditionStatus::False, "MinimumReplicasUnavailable", message)
    }
}

/// As of a Deployment: False when it does not get on, Unknown while a person holds it.
fn progressing(look: &Look<'_>, verdict: &Verdict) -> Statement {
    let status = match verdict.kind {
        Kind::Failed => ConditionStatus::False,
        Kind::InProgress | Kind::Current if look.spec().paused && verdict.reason == "Paused" => {
            ConditionStatus::Unknown
        }
        Kind::InProgress | Kind::Current => ConditionStatus::True,
    };
    say(ConditionType::Progressing, status, verdict.reason, verdict.message.clone())
}

fn paused(look: &Look<'_>) -> Option<Statement> {
    let message = "spec.paused is true: nothing new is begun";
    look.spec().paused.then(|| say(ConditionType::Paused, ConditionStatus::True, "Paused", message))
}

/// What is wrong and does not stop the rollout; the most important gives the reason.
fn degraded(look: &Look<'_>, verdict: &Verdict, history: &[HistoryEntry]) -> Option<Statement> {
    let found: Vec<(&str, String)> = [
        failed_instances(look),
        create_refused(look, verdict),
        hook_failed(look),
        refused_writes(look),
        stale_answer(look, history),
        pins(look),
        orphans(look),
        pod_conflict(look),
        unconfirmed(look),
    ]
    .into_iter()
    .flatten()
    .collect();
    let (reason, _) = *found.first().as_ref()?;
    let messages: Vec<&str> = found.iter().map(|(_, message)| message.as_str()).collect();
    Some(say(ConditionType::Degraded, ConditionStatus::True, reason, messages.join("; ")))
}

fn failed_instances(look: &Look<'_>) -> Option<(&'static str, String)> {
    let mut failed = look.troubles.iter().filter(|trouble| trouble.state == State::Failed);
    let first = failed.next()?;
    let others = match failed.count() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(("InstanceFailed", format!("{} ({}){others} failed", look.instance(first.instance), first.word())))
}

/// A hook of this run has failed, and its failure is ignored or cannot be taken back.
fn hook_failed(look: &Look<'_>) -> Option<(&'static str, String)> {
    let hooks = &look.memory().hooks;
    let is_left = |name: &str| hooks.current.as_ref().is_none_or(|current| current.name != name);
    let of_run = hooks.log.iter().filter(|record| record.run == look.memory().run && record.result == "Failed");
    let record = of_run.filter(|record| is_left(&record.name)).find(|record| {
        let settings = look.spec().hook(&record.name);
        settings.is_some_and(|hook| hook.on_failure == HookFailure::Ignore)
    })?;
    Some((HOOK_FAILED, format!("hook {} failed and is ignored: {}", record.name, record.message)))
}

fn create_refused(look: &Look<'_>, verdict: &Verdict) -> Option<(&'static str, String)> {
    let refusal = look.refusal()?;
    let said = ["QuotaExceeded", "FailedCreate"].contains(&verdict.reason);
    (!said && verdict.kind != Kind::Current)
        .then(|| ("FailedCreate", format!("Pods cannot be created: {}", refusal.message)))
}

/// Refusals that the snapshot does not remember. Time-outs and the like are not shown: they would come and go with
/// every look.
fn refused_writes(look: &Look<'_>) -> Option<(&'static str, String)> {
    look.outcomes.iter().find_map(|outcome| match (&outcome.change, &outcome.result) {
        (Change::CreatePod { .. } | Change::CreateHook { .. }, _) => None,
        (_, Applied::Refused { message, .. }) => {
            Some(("WriteRefused", format!("the API server refuses a write: {message}")))
        }
        _ => None,
    })
}

/// An abort of a run that is over, unless it was acted on; an answer to a run that was never begun. An approval of an
/// earlier run is normal: it stays in the spec after it was used.
fn stale_answer(look: &Look<'_>, history: &[HistoryEntry]) -> Option<(&'static str, String)> {
    let run = look.memory().run;
    let spec = look.spec();
    // While the revision stands aborted, the abort that did it is no news.
    let is_aborted = verdict::is_aborted(look);
    let is_noted = |of: i64| history.iter().any(|entry| entry.run == of && entry.result == super::history::ABORTED);
    let acted_on = |of: i64| is_noted(of) || (is_aborted && of < run);
    let abort = spec.abort.as_ref().map(|abort| abort.run).filter(|of| *of != run && !acted_on(*of));
    let abort = abort.filter(|of| *of > run || look.memory().batch.is_some()).map(|of| ("abort", of));
    let approve = spec.approve.as_ref().map(|approve| ("approve", approve.run)).filter(|(_, of)| *of > run);
    let (field, of) = abort.or(approve)?;
    Some(("StaleAnswer", format!("spec.{field} is about run {of}, the present run is {run}: ignored")))
}

/// Pins that mean nothing, or nothing now.
pub(super) fn pins(look: &Look<'_>) -> Option<(&'static str, String)> {
    let problems = crate::plan::rollout::pin_problems(look.snapshot);
    let (reason, first) = problems.first()?;
    let others = match problems.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more of spec.pins)"),
    };
    Some((reason, format!("{first}{others}")))
}

fn pod_conflict(look: &Look<'_>) -> Option<(&'static str, String)> {
    let answered = look.outcomes.iter().filter(|outcome| outcome.result == Applied::NameTaken);
    let answered = answered.filter_map(|outcome| match &outcome.change {
        Change::CreatePod { name, .. } | Change::CreateRevision { name, .. } | Change::CreateHook { name, .. } => {
            Some(name.as_str())
        }
        _ => None,
    });
    let names: BTreeSet<&str> = look.snapshot.taken_names.iter().map(String::as_str).chain(answered).collect();
    let first = names.first()?;
    let others = match names.len() - 1 {
        0 => String::new(),
        more => format!(" and {}", count(more, "other name")),
    };
    Some(("PodConflict", format!("{first}{others} belongs to something else; another name is used instead")))
}

/// Pods beside ours that look like ours to people and to Services, and cannot be adopted.
fn orphans(look: &Look<'_>) -> Option<(&'static str, String)> {
    let mut orphans = crate::plan::adoption::left_alone(look.snapshot);
    let first = orphans.next()?;
    let others = match orphans.count() {
        0 => String::new(),
        more => format!(" and {}", count(more, "other Pod")),
    };
    let why = match crate::plan::adoption::refusal(look.snapshot, &first.uid) {
        Some(refusal) => format!("the API server refuses that: {}; it is tried again each minute", refusal.message),
        None => format!(
            "spec.selector does not match their labels, or their names are not of the form {}-HASH: delete them",
            look.instance(first.slot)
        ),
    };
    let message = format!(
        "{}{others} of an earlier Rollout of this name still run and are not adopted, because {why}",
        first.name
    );
    Some(("OrphansPresent", message))
}

/// Pods of something else that the selector matches. What an operator before this one has seen stands until it is asked again.
fn selector_overlaps(look: &Look<'_>) -> Option<Statement> {
    let known = || look.before.conditions.iter().find(|known| known.type_ == ConditionType::SelectorOverlaps);
    let say = |message: &str| say(ConditionType::SelectorOverlaps, ConditionStatus::True, "OtherPods", message);
    let Some(overlap) = &look.snapshot.overlap else { return known().map(|known| say(&known.message)) };
    let others = match overlap.count.checked_sub(overlap.named.len())? {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let message = format!(
        "spec.selector also matches {}{} of something else: {}{others}. A Service or autoscaler with these labels counts them \
         as well. Change the labels of those Pods, or make a new Rollout with a narrower spec.selector. While you migrate from \
         another workload, this ends with that workload",
        if overlap.has_more { "at least " } else { "" },
        count(overlap.count, "Pod"),
        overlap.named.join(", ")
    );
    (overlap.count > 0).then(|| say(&message))
}

/// Pods whose end was waited for in vain: with strategy Recreate a person may care.
fn unconfirmed(look: &Look<'_>) -> Option<(&'static str, String)> {
    let mut pods = crate::plan::rollout::unconfirmed(look.snapshot);
    let first = pods.next()?;
    let others = match pods.count() {
        0 => String::new(),
        more => format!(" and {}", count(more, "other Pod")),
    };
    let node = first.node.as_ref().map(|node| format!(" on node {node}")).unwrap_or_default();
    let message = format!(
        "{} ({}){node}{others} were told to end and may still run; nothing waits for them any more",
        first.name, first.version
    );
    Some(("EndNotSeen", message))
}

/// Reason of a template that is accepted with a warning.
pub(super) const WARNED: &str = "AcceptedWithWarnings";

/// A warning outlives the operator that was given it, for as long as its revision is the wanted one.
fn warned_before<'a>(look: &Look<'a>) -> Option<&'a Condition> {
    let is_same = look.before.update_revision == look.memory().update;
    look.before.conditions.iter().find(|known| is_same && known.reason == WARNED)
}

/// What the API server said of a Pod of the wanted revision in a dry run.
fn template_valid(look: &Look<'_>) -> Statement {
    use ConditionStatus::{False, True, Unknown};
    let say = |status, reason, message: &str| say(ConditionType::TemplateValid, status, reason, message);
    let update = look.memory().update.as_ref().filter(|_| look.is_recorded);
    let answered = look.outcomes.iter().find_map(|outcome| match (&outcome.change, &outcome.result) {
        (Change::Ask(Question::Template { revision }), Applied::Checked(check)) if Some(revision) == update => {
            Some(check)
        }
        _ => None,
    });
    match answered.or_else(|| look.snapshot.template_checks.get(update?)) {
        Some(TemplateCheck::Warned { message }) => {
            say(True, WARNED, &format!("the API server accepts Pods of spec.template, and warns: {message}"))
        }
        Some(TemplateCheck::Valid) => say(True, "Accepted", "the API server accepts Pods of spec.template"),
        Some(TemplateCheck::Refused { message, .. }) => say(False, "Refused", message),
        Some(TemplateCheck::Unknown { message, .. }) => say(Unknown, "NotAnswered", message),
        None if let Some(warned) = warned_before(look) => say(True, WARNED, &warned.message),
        None if look.snapshot.pods.iter().any(|pod| Some(&pod.revision) == update) => {
            say(True, "Accepted", "the API server accepts Pods of spec.template")
        }
        // A verdict outlives the operator that asked for it, for as long as the spec does.
        None => match look.before.conditions.iter().find(|known| {
            known.type_ == ConditionType::TemplateValid
                && known.observed_generation == look.snapshot.rollout.metadata.generation
        }) {
            Some(known) => say(known.status, &known.reason, &known.message),
            None => say(Unknown, "NotAsked", "the API server has not been asked yet"),
        },
    }
}
