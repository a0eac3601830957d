//! The holds: each a function of the view, with the sentence that people read.
use std::collections::BTreeSet;

use super::progress::{behind, undone_in_words};
use crate::{
    api::RolloutSpec,
    plan::{
        change::{Hold, HoldReason},
        rollout::{
            pod::{health, resize},
            policy::GoesBack,
            run::{
                View, released_services,
                slots::Done,
                update_path::{self, UpdatePath, update_path},
            },
            time::{after, seconds},
        },
    },
    snapshot::{Pod, Revision, TemplateCheck, template::refusal},
};

/// Reason of a run that a hook has failed.
pub const HOOK_FAILED: &str = "HookFailed";

pub(crate) fn spec_invalid(view: &View<'_>) -> Option<Hold> {
    Some(hold(HoldReason::SpecInvalid, problem_of(view.spec())?))
}

/// What the CRD's rules refuse too; here for objects that were stored before a rule existed.
fn problem_of(spec: &RolloutSpec) -> Option<&'static str> {
    let labels = spec.template.labels();
    let selected = !spec.selector.match_labels.is_empty()
        && spec.selector.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value));
    if !selected {
        return Some(
            "spec.selector.matchLabels must be among spec.template.metadata.labels: set the same labels in both",
        );
    }
    if spec.template.images().is_empty() {
        return Some("spec.template.spec.containers must name at least one container");
    }
    None
}

pub(crate) fn template_refused(view: &View<'_>) -> Option<Hold> {
    refused(view, view.lineage.effective?)
}

/// The API server does not accept Pods of this revision.
pub(crate) fn refused(view: &View<'_>, revision: &Revision) -> Option<Hold> {
    match view.snapshot.template_checks.get(&revision.name)? {
        TemplateCheck::Refused { message, recheck_at } => Some(Hold {
            reason: HoldReason::TemplateRefused,
            message: format!("{}: {}", revision.name, refusal(message)),
            until: Some(*recheck_at),
        }),
        TemplateCheck::Valid | TemplateCheck::Warned { .. } | TemplateCheck::Unknown { .. } => None,
    }
}

/// Pods may be changed in place alone, and what differs cannot be given to one.
pub(crate) fn not_in_place(view: &View<'_>) -> Option<Hold> {
    if !view.policy.update.is_in_place_only() || view.lineage.is_back() {
        return None;
    }
    let to = view.lineage.effective?;
    let opened = view.slots.unpinned().filter(|slot| slot.opened);
    let runs: BTreeSet<&str> = opened.flat_map(|slot| &slot.live).map(|pod| pod.revision.as_str()).collect();
    let mut ways = runs
        .into_iter()
        .filter(|from| *from != to.name)
        .map(|from| update_path(&view.policy.update, view.snapshot, from, to));
    let until = view.snapshot.change_refusals.get(&to.name).map(|refusal| refusal.retry_at);
    let held = |why| Hold { until, ..hold(HoldReason::NotInPlace, why) };
    let of_revision = ways.find_map(|way| if let UpdatePath::Impossible(why) = way { Some(held(why)) } else { None });
    of_revision.or_else(|| not_resized(view, to))
}

/// The API server refuses the resources of this revision to one of these Pods, where it is.
fn not_resized(view: &View<'_>, to: &Revision) -> Option<Hold> {
    let mut opened = view.slots.unpinned().filter(|slot| slot.opened).flat_map(|slot| &slot.live);
    let refusal = opened.find_map(|pod| resize::refusal(view.snapshot, pod, &to.name))?;
    let UpdatePath::Impossible(why) = update_path::refused(&view.policy.update, refusal) else { return None };
    Some(Hold { until: Some(refusal.retry_at), ..hold(HoldReason::NotInPlace, why) })
}

/// Until the dry run has answered, nothing new is begun. An answer that could not be had does not hold.
pub(crate) fn template_unchecked(view: &View<'_>) -> Option<Hold> {
    unchecked(view, view.lineage.effective.filter(|_| !view.lineage.is_back() && view.memory.batch.is_some())?)
}

pub(crate) fn unchecked(view: &View<'_>, revision: &Revision) -> Option<Hold> {
    let message = || format!("asking the API server whether it accepts Pods of {}", revision.name);
    let is_checked = view.snapshot.template_checks.contains_key(&revision.name);
    (!is_checked).then(|| hold(HoldReason::TemplateUnchecked, message()))
}

/// What holds pinned instances alone.
pub(crate) fn of_pins(held: &Hold) -> Hold {
    Hold { reason: HoldReason::Pinned, message: format!("pinned instances wait: {}", held.message), ..held.clone() }
}

/// Failed instances reached the threshold.
pub(crate) fn failed(view: &View<'_>) -> Option<Hold> {
    let failed = view.memory.failed.as_ref().filter(|failed| failed.at.is_some() && !view.lineage.is_back())?;
    let command = |verb| view.snapshot.rollout.command(verb);
    let remedy = if view.lineage.stable.is_none() {
        format!("change the spec, or {} (spec.retryAt)", command("retry"))
    } else if view.policy.goes_back == GoesBack::All {
        "going back".into()
    } else {
        let (retry, abort) = (command("retry"), command("abort"));
        format!("change the spec, {retry} (spec.retryAt) to try again, or {abort} (spec.abort) to go back")
    };
    Some(hold(HoldReason::FailureThreshold, format!("{}: {}; {remedy}", failed.reason, failed.message)))
}

/// Every instance of the batch in work was pinned since it was opened: nothing has shown that the version works.
pub(crate) fn batch_pinned(view: &View<'_>) -> Option<Hold> {
    let mut members = view.slots.members().peekable();
    members.peek()?;
    let (index, count) = view.memory.batch.as_ref().map(|batch| (batch.index, batch.count))?;
    let message = format!(
        "every instance of batch {index}/{count} is pinned, nothing shows that the version works: unpin one, or {}",
        approval(view, "approve", index)
    );
    let is_held = !is_approved(view, index) && members.all(|slot| slot.pin.is_some());
    is_held.then(|| hold(HoldReason::AwaitingApproval, message))
}

/// A person has said that the run may go on past this batch.
pub(crate) fn is_approved(view: &View<'_>, index: i32) -> bool {
    let answer = view.spec().approve.as_ref().filter(|answer| answer.run == view.memory.run);
    answer.is_some_and(|answer| answer.batch == -1 || answer.batch >= index)
}

/// How a person says so.
pub(crate) fn approval(view: &View<'_>, verb: &str, index: i32) -> String {
    let (command, run) = (view.snapshot.rollout.command(verb), view.memory.run);
    format!("{command}, or set spec.approve to {{run: {run}, batch: {index}}}")
}

/// A version that no instance runs has not been proven.
pub(crate) fn all_pinned(view: &View<'_>) -> Option<Hold> {
    let is_all = view.replicas() > 0 && view.slots.unpinned().next().is_none();
    is_all.then(|| hold(HoldReason::Pinned, "every instance is pinned: the present version runs nowhere"))
}

/// An instance answers none of its checks, and neither does one of the stable version: the network or the operator is at fault.
pub(crate) fn check_unreachable(view: &View<'_>) -> Option<Hold> {
    view.spec().health.as_ref()?;
    let is_new = |pod: &&Pod| view.lineage.effective.is_some_and(|effective| effective.name == pod.revision);
    let pods = view.snapshot.pods.iter().map(|pod| &**pod).filter(is_new);
    let pod = pods.filter(|pod| health::is_unreachable(view.snapshot, pod)).find(|pod| {
        let since = health::due_since(view.snapshot, pod);
        since.is_some_and(|since| health::is_reference_reached(view.snapshot, since) == Some(false))
    })?;
    let said = health::in_words(view.snapshot, pod).unwrap_or_default();
    let message =
        format!("{}: {said}; no instance of the stable version can be reached either: check NetworkPolicies", pod.name);
    Some(hold(HoldReason::CheckUnreachable, message))
}

pub(crate) fn paused(view: &View<'_>) -> Option<Hold> {
    let message = || format!("spec.paused is true: {}", view.snapshot.rollout.command("resume"));
    view.spec().paused.then(|| hold(HoldReason::Paused, message()))
}

/// All batches are opened, all that is left are failed instances that the threshold tolerates.
pub(crate) fn progress_deadline(view: &View<'_>) -> Option<Hold> {
    let Done::Not(undone) = view.slots.done() else { return None };
    let last = view.slots.opened() == view.replicas() && behind(view).is_none();
    last.then(|| hold(HoldReason::ProgressDeadline, undone_in_words(view, &undone)))
}

/// With all batches opened there is none that waits; but one in which an instance has failed is not finished by itself, and
/// while it is paused no deadline ends that.
pub(crate) fn paused_between_batches(view: &View<'_>) -> Option<Hold> {
    let is_last = view.slots.opened() == view.replicas() && view.replicas() > 0;
    if is_last && view.memory.failed.is_none() { None } else { paused(view) }
}

pub(crate) fn previous_batch_not_healthy(view: &View<'_>) -> Option<Hold> {
    let behind = behind(view)?;
    Some(hold(HoldReason::PreviousBatchNotHealthy, undone_in_words(view, &behind)))
}

/// The pause after the batch in work, when that is done, and `spec.approve` does not pass it.
fn pause(view: &View<'_>) -> Option<(i32, Option<i32>)> {
    let (number, pause) = view.slots.pause()?;
    let index = i32::try_from(number).ok()?;
    (!is_approved(view, index)).then_some((index, pause.seconds))
}

pub(crate) fn pause_timer(view: &View<'_>) -> Option<Hold> {
    let (index, pause_seconds) = pause(view)?;
    let completed_at = view.memory.batch.as_ref()?.completed_at.as_ref();
    let until = after(completed_at.map_or(seconds(view.now()).0, |at| at.0), i64::from(pause_seconds?));
    let message = format!("{}; pause until {}", reached_in_words(view, index)?, seconds(until).0);
    (until > view.now()).then_some(Hold { reason: HoldReason::PauseTimer, message, until: Some(until) })
}

pub(crate) fn awaiting_approval(view: &View<'_>) -> Option<Hold> {
    let (index, None) = pause(view)? else { return None };
    let what = if index == 0 {
        " to begin"
    } else if view.slots.opened() == view.replicas() {
        " to complete the run"
    } else {
        ""
    };
    let reached = reached_in_words(view, index)?;
    let message = format!("{reached}; waiting for approval{what}: {}", approval(view, "approve", index));
    Some(hold(HoldReason::AwaitingApproval, message))
}

/// Where a pause stands.
fn reached_in_words(view: &View<'_>, index: i32) -> Option<String> {
    let count = view.memory.batch.as_ref()?.count;
    Some(if index == 0 { "no instance is changed yet".into() } else { format!("batch {index}/{count} is done") })
}

/// A revert in the spec obeys `paused`; abort and automatic rollback pass.
pub(crate) fn paused_revert(view: &View<'_>) -> Option<Hold> {
    if view.lineage.is_revert() { paused(view) } else { None }
}

/// A Service that the spec names no more still selects one revision alone.
pub(crate) fn released_service(view: &View<'_>) -> Option<Hold> {
    released_services::hold(view.snapshot)
}

fn hold(reason: HoldReason, message: impl Into<String>) -> Hold {
    Hold { reason, message: message.into(), until: None }
}
