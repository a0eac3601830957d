//! One look at one Rollout: observe, plan, apply, report.
//!
//! A failure never ends a look half-way: every change is attempted or skipped, and status is written also when changes
//! failed, so that errors become conditions. What is to be done again is planned anew with the next look.
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

pub use super::shell::{Looked, Managed, Result, Shell};
use super::{
    memory::{ObjectMemory, RolloutMemory},
    shell::{CHANGES_MAX, Memories, Observed, Ready, Reported, SOON},
};
use crate::{
    api::{Rollout, RolloutStatus},
    apply::{self, CallError, event::Regarding},
    observe::Subject,
    plan::{self, Change, Memory, Plan},
    snapshot::{
        Service, Snapshot,
        index::{Index, Kind, ObjectKey},
    },
    status,
};

/// Status of one object is written at most so often, unless the planner must remember something; the less often the more
/// instances there are, because each of them changes it, and as little as the others.
const STATUS_SPACING: Duration = Duration::from_millis(500);
/// So many more instances add [`STATUS_SPACING`] once more,
const STATUS_SPACING_INSTANCES: u32 = 1_000;
/// up to this: people watch.
const STATUS_SPACING_MAX: Duration = Duration::from_secs(2);
/// Looks at one Rollout for the sake of its events compute for about one part in so many of the time, until that would take
/// more rest than [`REST_MAX`].
const LOOK_SHARE: u32 = 20;
/// No event waits longer for a look, once the one before has ended.
const REST_MAX: Duration = Duration::from_millis(500);

impl Managed for Rollout {
    const KIND: &'static str = "Rollout";
    const CONTROLLER: &'static str = "rollout";
    const SUBJECT: Subject = Subject::Rollout;
    const WATCHED: Kind = Kind::Rollout;
    type Own = RolloutMemory;

    async fn reconcile(key: &ObjectKey, shell: &Shell) -> Looked {
        reconcile(key, shell).await
    }

    fn memories(shell: &Shell) -> &Memories<RolloutMemory> {
        &shell.rollouts
    }

    fn find<'a>(index: &'a Index, key: &ObjectKey) -> Option<&'a Self> {
        index.rollout(key)
    }

    fn identity<'a>(index: &'a Index, key: &ObjectKey) -> Option<(&'a str, i64)> {
        index.identity(key)
    }

    fn unreadable(index: &Index, key: &ObjectKey) -> Option<String> {
        index.unreadable(key)
    }
}

/// One look at one Rollout.
pub async fn reconcile(key: &ObjectKey, shell: &Shell) -> Looked {
    let memory = shell.rollouts.of(key);
    let mut memory = memory.lock().await;
    let uid = match shell.begin::<Rollout>(key, &mut memory).await {
        Ready::Yes(uid) => uid,
        Ready::No(looked) => {
            if looked.result == Result::Gone {
                shell.metrics.forget(key);
                shell.calls.applications().forget(key);
            }
            return looked;
        }
    };
    let began = Instant::now();
    let now = shell.clock.now();
    let observed =
        shell.observe::<Rollout, _>(key, &uid, &mut memory, |index, own| index.snapshot(key, &own.recollection, now));
    let mut snapshot = match observed {
        Observed::Snapshot(snapshot) => snapshot,
        Observed::Stale => return Looked::early(Result::Stale, memory.barrier.overdue_at()),
        Observed::Unreadable { regarding, error } => {
            shell.tell_unreadable(&mut memory, &regarding, &error);
            return Looked::early(Result::Gone, None);
        }
    };
    let looked_at = Instant::now();
    snapshot.tellings = shell.calls.applications().told(key, &snapshot.pods);
    snapshot.calls = shell.calls.applications().asked(key, &snapshot);
    let plan = plan::rollout::plan(&snapshot);
    let computed = began.elapsed();
    if let Some(leaving) = &plan.leaving {
        shell.observer.note_leaving(key, leaving);
    }
    let (changes, left) = plan.changes.split_at(plan.changes.len().min(CHANGES_MAX));
    let is_for_good = changes.iter().any(Change::is_for_good);
    if (is_for_good && !is_latest(shell, &mut memory, &snapshot).await)
        || !are_overtaken(shell, &mut memory, &snapshot, &plan.memory).await
    {
        let again_at = memory.paused_until().or(memory.barrier.overdue_at());
        return Looked { result: Result::Stale, again_at, rest: rest(began.elapsed(), computed) };
    }
    let outcomes = apply::apply(&shell.calls, &snapshot, changes).await;
    if changes.is_empty() && plan.memory == Memory::of(snapshot.rollout.status.as_ref()) {
        look_around(shell, &mut memory, &mut snapshot).await;
    }
    let before = memory.own.recollection.clone();
    let all_well = take_note(shell, &mut memory, &snapshot, &outcomes);
    // A verdict, a taken name or a refusal comes with no event, and the planner has not seen it yet.
    let has_learned = memory.own.recollection != before;
    let told = Instant::now();
    let status = status::rollout::status(&snapshot, &plan, &outcomes);
    let computed = computed + told.elapsed();
    let reported = report(shell, &mut memory, &snapshot, &plan, status).await;
    tell_not_in_place(shell, &mut memory, &snapshot, &plan);
    tell_drained_late(shell, &snapshot, &plan, &outcomes);
    if all_well && reported == Reported::Done {
        memory.succeed();
    }
    let resync = shell.resync_at(looked_at);
    let wakes = [
        plan.wake_at.map(|at| looked_at + until(at, snapshot.now).max(SOON)),
        (has_learned || !left.is_empty()).then(|| Instant::now() + SOON),
        memory.paused_until(),
        memory.barrier.overdue_at(),
        reported.again_at(),
        Some(resync),
    ];
    let result = if memory.paused_until().is_some() { Result::Error } else { Result::Success };
    Looked { result, again_at: wakes.into_iter().flatten().min(), rest: rest(began.elapsed(), computed) }
}

/// Whether the Rollout, and the Service that clients use, are still what was seen: its watch may lag.
async fn is_latest(shell: &Shell, memory: &mut ObjectMemory<RolloutMemory>, snapshot: &Snapshot) -> bool {
    if !shell.is_latest(memory, &snapshot.rollout).await {
        return false;
    }
    let Some(service) = snapshot.services.active.seen() else { return true };
    is_so(shell, memory, service, apply::is_latest_service(&shell.calls, namespace(snapshot), service).await)
}

/// A list that the API server has not answered is not asked for again before.
const LOOK_AROUND_AGAIN: SignedDuration = SignedDuration::from_mins(1);

/// Learns now and then what else the selector matches; while there is nothing to do.
async fn look_around(shell: &Shell, memory: &mut ObjectMemory<RolloutMemory>, snapshot: &mut Snapshot) {
    let is_ending = snapshot.rollout.metadata.deletion_timestamp.is_some();
    if is_ending || snapshot.overlap.as_ref().is_some_and(|overlap| overlap.is_recent(&snapshot.rollout, snapshot.now))
    {
        return;
    }
    let failed = memory.own.overlap_failed_at.map(|at| snapshot.now.duration_since(at));
    if failed.is_some_and(|ago| ago < LOOK_AROUND_AGAIN) {
        return;
    }
    match apply::overlap::list(&shell.calls, snapshot).await {
        Ok(overlap) => {
            memory.own.recollection.overlap = Some(overlap.clone());
            snapshot.overlap = Some(overlap);
        }
        Err(error) => {
            memory.own.overlap_failed_at = Some(snapshot.now);
            tracing::debug!(error = error.message(), "cannot list what else the selector matches");
        }
    }
}

/// Whether Services that will be remembered no more, because they have no key, can be given one no more either, by what this
/// leader or one before has sent and is still on its way.
async fn are_overtaken(
    shell: &Shell,
    memory: &mut ObjectMemory<RolloutMemory>,
    snapshot: &Snapshot,
    planned: &Memory,
) -> bool {
    let known = snapshot.rollout.status.iter().flat_map(|status| &status.services);
    let forgotten = known.filter(|name| !planned.services.contains(name));
    for service in forgotten.filter_map(|name| snapshot.services.former.get(name)?.seen()) {
        let answer = apply::overtake_service(&shell.calls, namespace(snapshot), service).await;
        if !is_so(shell, memory, service, answer) {
            return false;
        }
    }
    true
}

/// A Service is still what was seen, by this answer. Else nothing that rests on it is done.
fn is_so(
    shell: &Shell,
    memory: &mut ObjectMemory<RolloutMemory>,
    service: &Service,
    answer: std::result::Result<bool, CallError>,
) -> bool {
    match answer {
        Ok(true) => return true,
        Ok(false) => tracing::debug!(service = service.name, "has changed since; its watch will tell"),
        Err(error) => {
            let error = error.message();
            tracing::warn!(error, service = service.name, "no answer; nothing that rests on it is done");
        }
    }
    shell.with_rng(|rng| memory.fail(rng));
    false
}

fn namespace(snapshot: &Snapshot) -> &str {
    snapshot.rollout.metadata.namespace.as_deref().unwrap_or_default()
}
/// A look at thousands of Pods computes for milliseconds, and each of their events asks for one: with this rest after it,
/// looks at one Rollout take a [`LOOK_SHARE`]th of a core, and each does the more. Waiting for answers is rest as well.
fn rest(elapsed: Duration, computed: Duration) -> Duration {
    (computed * LOOK_SHARE).saturating_sub(elapsed).min(REST_MAX)
}

/// Time from `now` until `at`; zero when that has passed.
fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or_default()
}

/// Writes status if it differs, and tells what has happened.
async fn report(
    shell: &Shell,
    memory: &mut ObjectMemory<RolloutMemory>,
    snapshot: &Snapshot,
    plan: &Plan,
    status: RolloutStatus,
) -> Reported {
    let rollout = &snapshot.rollout;
    let before = rollout.status.as_ref();
    if before == Some(&status) {
        return Reported::Done;
    }
    // What history is to tell of may be over by the next write.
    let newest_before = before.and_then(|before| before.history.first());
    let has_begun = status.history.first().is_some_and(|new| newest_before.is_none_or(|known| !new.is_same(known)));
    let none = RolloutStatus::default();
    let is_brief = status::are_resources_newly_held(before.unwrap_or(&none), &status);
    let must_remember = Memory::of(before) != plan.memory || has_begun || is_brief;
    let spacing = status_spacing(rollout.spec.replicas);
    if let Some(at) = memory.status_written_at.map(|at| at + spacing)
        && at > Instant::now()
        && !must_remember
    {
        return Reported::Later(at);
    }
    let reported = shell.write_status(memory, rollout, &status).await;
    if reported == Reported::Done {
        tell(shell, rollout, before.unwrap_or(&none), &status);
    }
    reported
}

fn status_spacing(replicas: i32) -> Duration {
    let more = STATUS_SPACING * u32::try_from(replicas).unwrap_or(0) / STATUS_SPACING_INSTANCES;
    (STATUS_SPACING + more).min(STATUS_SPACING_MAX)
}

/// One line in the log and one Event for each transition.
fn tell(shell: &Shell, rollout: &Rollout, before: &RolloutStatus, after: &RolloutStatus) {
    shell.metrics.transition(rollout, before, after);
    let regarding = Regarding::object(Rollout::KIND, rollout);
    let mut notices = status::notices(&regarding.key.name, before, after);
    notices.extend(status::strategy_warning(&rollout.spec, before, after));
    shell.tell(&regarding, notices);
}

/// One Event for each run in which Pods are replaced though a change in place was asked for. The operator remembers that by itself: the
/// next one may say it again.
fn tell_not_in_place(shell: &Shell, memory: &mut ObjectMemory<RolloutMemory>, snapshot: &Snapshot, plan: &Plan) {
    let run = Some(plan.memory.run);
    let Some(found) = plan.not_in_place.as_ref().filter(|_| memory.own.not_in_place_run != run) else { return };
    memory.own.not_in_place_run = run;
    let regarding = Regarding::object(Rollout::KIND, &snapshot.rollout);
    let notice = status::not_in_place(&regarding.key.name, found);
    shell.tell(&regarding, vec![notice]);
}

/// One Event for each Pod that is deleted although it has not said that it is drained.
fn tell_drained_late(shell: &Shell, snapshot: &Snapshot, plan: &Plan, outcomes: &[plan::Outcome]) {
    let seconds = snapshot.rollout.spec.drain.as_ref().map_or(0, |drain| drain.timeout_seconds);
    let is_done = |outcome: &&plan::Outcome| matches!(outcome.result, plan::Applied::Done { .. });
    let late = outcomes.iter().filter(is_done).map(|outcome| outcome.change.name());
    let notices: Vec<_> = late
        .filter(|name| plan.drained_late.contains(*name))
        .map(|name| status::drain_timed_out(name, seconds))
        .collect();
    if !notices.is_empty() {
        shell.tell(&Regarding::object(Rollout::KIND, &snapshot.rollout), notices);
    }
}

/// Notes what became of the changes in memory, log and metrics. False when something went wrong.
fn take_note(
    shell: &Shell,
    memory: &mut ObjectMemory<RolloutMemory>,
    snapshot: &Snapshot,
    outcomes: &[plan::Outcome],
) -> bool {
    for plan::Outcome { change, result } in outcomes {
        shell.tried(change.name(), change.verb(), change.reason(), result);
    }
    let now = shell.clock.now();
    shell.with_rng(|rng| memory.note(snapshot, outcomes, rng, now))
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "latest_tests.rs"]
mod latest_tests;
#[cfg(test)]
#[path = "reload_tests.rs"]
mod reload_tests;
