//! What holds each class of work: chains of holds. The first hold of a class is what status shows.
use super::{
    holds::{
        all_pinned, awaiting_approval, batch_pinned, check_unreachable, failed, not_in_place, of_pins, pause_timer,
        paused, paused_between_batches, paused_revert, previous_batch_not_healthy, progress_deadline, refused,
        released_service, spec_invalid, template_refused, template_unchecked, unchecked,
    },
    hooks, sets, soak,
};
use crate::{
    plan::{
        change::Hold,
        rollout::{
            pod::counts::counts,
            policy::GoesBack,
            run::{View, sets::Sets},
            time::Alarm,
            verdict::holds::HOOK_FAILED,
        },
    },
    snapshot::Revision,
};

type Gate = fn(&View<'_>) -> Option<Hold>;

/// Refill, scale, finish a slot already begun: held by deletion and a stale cache alone, before any plan.
const BACK: &[Gate] = &[paused_revert, hooks::running, hooks::on_rollback, template_refused];
const TEMPLATE: &[Gate] = &[spec_invalid, template_refused, template_unchecked];
/// The very first Pods, which come up all at once.
const FIRST: &[Gate] = &[hooks_failed, hooks::running, hooks::before_rollout, hooks::before_batch];
const RENEW: &[Gate] = &[paused];
const FORWARD: &[Gate] = &[spec_invalid, template_refused, template_unchecked, not_in_place, failed, paused];
/// One that stays at the update revision, where only what failed leaves it.
const STAY: &[Gate] = &[spec_invalid, template_refused, template_unchecked, paused];
/// The next batch: what holds a change within the opened ones, and what is about batches.
const OPEN: &[Gate] = &[
    spec_invalid,
    template_refused,
    template_unchecked,
    failed,
    all_pinned,
    sets::trouble,
    released_service,
    check_unreachable,
    progress_deadline,
    paused_between_batches,
    previous_batch_not_healthy,
    batch_pinned,
    hooks::after_batch,
    pause_timer,
    awaiting_approval,
    hooks::running,
    hooks::before_rollout,
    hooks::before_batch,
];
/// The end of a run.
const END: &[Gate] = &[hooks::after_batch, after_last_pause];
/// The same once clients have the new version (strategy BlueGreen: after the switch).
const END_IN_USE: &[Gate] = &[soak::soaking, hooks::running, hooks::after_rollout];

/// What takes the blame for lateness from the instances: a person or the API server holds them.
const STOPS_CLOCK: &[Gate] =
    &[spec_invalid, template_refused, not_in_place, paused, check_unreachable, before_first, waits_while_down];

/// True while the progress deadline's clock stands still.
pub(crate) fn stop_clock(view: &View<'_>) -> bool {
    let gates = if view.lineage.is_back() { BACK } else { STOPS_CLOCK };
    gates.iter().any(|gate| gate(view).is_some())
}

/// Holds a change towards the update revision.
pub(crate) fn forward(view: &View<'_>, alarm: &mut Alarm) -> Option<Hold> {
    first(FORWARD, view, alarm)
}

/// Holds a new Pod of the update revision for a Pod that does not get its resources where it is. With onFailure RollbackFailed
/// the failure of other instances does not hold it: an instance that has not failed stays at this version, with its resources.
pub(crate) fn stay(view: &View<'_>, alarm: &mut Alarm) -> Option<Hold> {
    let goes_on = view.policy.goes_back == GoesBack::FailedOnly;
    first(if goes_on { STAY } else { FORWARD }, view, alarm)
}

/// Holds the next batch.
pub(crate) fn open(view: &View<'_>, alarm: &mut Alarm) -> Option<Hold> {
    first(OPEN, view, alarm)
}

/// Holds the completion of the very first revision: it has failed, wholly or in as many instances as are tolerated.
pub(crate) fn first_creation(view: &View<'_>, alarm: &mut Alarm) -> Option<Hold> {
    if view.lineage.is_first() { first(&[failed, progress_deadline], view, alarm) } else { None }
}

/// Holds a change back to the stable revision.
pub(crate) fn back(view: &View<'_>, alarm: &mut Alarm) -> Option<Hold> {
    first(BACK, view, alarm)
}

/// Holds the very first Pods of a revision.
pub(crate) fn template(view: &View<'_>, alarm: &mut Alarm) -> Option<Hold> {
    first(TEMPLATE, view, alarm)
}

/// Holds a restart at the same revision.
pub(crate) fn renew(view: &View<'_>, alarm: &mut Alarm) -> Option<Hold> {
    first(RENEW, view, alarm)
}

/// Holds a change to this revision, which a pin asks for.
pub(crate) fn pin(view: &View<'_>, revision: &Revision, alarm: &mut Alarm) -> Option<Hold> {
    let held = paused(view).or_else(|| template_of(view, revision, alarm))?;
    Some(of_pins(&held))
}

/// Holds Pods of this revision.
pub(crate) fn template_of(view: &View<'_>, revision: &Revision, alarm: &mut Alarm) -> Option<Hold> {
    woken(refused(view, revision).or_else(|| unchecked(view, revision)), alarm)
}

/// Holds the completion of a run whose instances are all where they should be: its last hooks, and the pause after the last batch.
pub(crate) fn completion(view: &View<'_>) -> Option<Hold> {
    let is_forward = !view.lineage.is_back() && view.memory.batch.is_some();
    if !is_forward {
        return None;
    }
    let is_in_use = view.slots.sets().is_none_or(Sets::is_switched);
    let in_use = END_IN_USE.iter().filter(|_| is_in_use);
    END.iter().chain(in_use).find_map(|gate| gate(view))
}

fn after_last_pause(view: &View<'_>) -> Option<Hold> {
    if view.lineage.is_first() { None } else { pause_timer(view).or_else(|| awaiting_approval(view)) }
}

/// Hooks that come before the very first Pods.
pub(crate) fn before_first(view: &View<'_>) -> Option<Hold> {
    let is_due = view.lineage.is_first() && view.memory.batch.is_some();
    if is_due { FIRST.iter().find_map(|gate| gate(view)) } else { None }
}

/// Hooks for which all old Pods have ended, and no new one is made yet.
pub(crate) fn waits_while_down(view: &View<'_>) -> Option<Hold> {
    let is_down = !view.snapshot.pods.iter().any(|pod| counts(view.snapshot, pod));
    hooks::while_down(view).filter(|_| is_down)
}

/// What a run in which all changes at once waits for before its first Pod.
pub(crate) fn due_at_once(view: &View<'_>) -> Option<Hold> {
    if view.lineage.is_back() { hooks::running(view).or_else(|| hooks::on_rollback(view)) } else { before_first(view) }
}

/// A hook has failed the run, and no Pod was made yet.
fn hooks_failed(view: &View<'_>) -> Option<Hold> {
    let is_by_hook = view.memory.failed.as_ref().is_some_and(|failed| failed.reason == HOOK_FAILED);
    failed(view).filter(|_| is_by_hook)
}

fn first(gates: &[Gate], view: &View<'_>, alarm: &mut Alarm) -> Option<Hold> {
    woken(gates.iter().find_map(|gate| gate(view)), alarm)
}

/// Looks again when it ends by itself.
pub(crate) fn woken(hold: Option<Hold>, alarm: &mut Alarm) -> Option<Hold> {
    if let Some(until) = hold.as_ref().and_then(|hold| hold.until) {
        alarm.passed(until);
    }
    hold
}
