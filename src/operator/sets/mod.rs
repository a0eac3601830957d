//! One look at one ListenerSet: observe, plan, apply, report.
//!
//! As for a Rollout: a failure never ends a look half-way, and what is to be done again is planned anew. Here a step of a
//! hand-off waits for the next look, so that looks are close together; and status is a picture for people, save
//! `epochFloor`, so that it is written the less often the more it costs.
pub mod memory;
#[cfg(test)]
mod tests;

use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

pub use self::memory::SetMemory;
use super::{
    memory::ObjectMemory,
    shell::{CHANGES_MAX, Looked, Managed, Memories, Observed, Ready, Reported, Result, SOON, Shell},
};
use crate::{
    api::{ListenerSet, ListenerSetStatus},
    apply::{self, event::Regarding},
    observe::Subject,
    plan::{
        Outcome,
        listener_set::{
            self as planner, SetRecollection,
            change::{Origin, SetChange, SetPlan},
            course,
        },
    },
    snapshot::{
        index::{Index, Kind, Moment, ObjectKey},
        listener_set::SetSnapshot,
    },
    status,
};

/// Status of one set is written at most so often when what people wait for has changed,
const STATUS_SPACING: Duration = Duration::from_millis(500);
/// and otherwise at so much longer a distance for each listener in the spec: a write costs the API server in proportion to
/// the whole object, a quarter of a second of CPU for a thousand of them.
const STATUS_SPACING_PER_LISTENER: Duration = Duration::from_millis(10);
/// Looks at one set for the sake of its events compute for about one part in so many of the time, until that would take more
/// rest than [`REST_MAX`].
const LOOK_SHARE: u32 = 4;
/// No event waits longer for a look, once the one before has ended: it may be a step of a hand-off.
const REST_MAX: Duration = Duration::from_millis(100);
/// How soon it is looked again whether what an earlier set has left is gone.
const SWEEP_SPACING: Duration = Duration::from_secs(1);
/// How long a set waits for its ConfigMap to be looked for before it is said to be missing.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(5);

impl Managed for ListenerSet {
    const KIND: &'static str = "ListenerSet";
    const CONTROLLER: &'static str = "listenerset";
    const SUBJECT: Subject = Subject::ListenerSet;
    const WATCHED: Kind = Kind::ListenerSet;
    type Own = SetMemory;

    async fn reconcile(key: &ObjectKey, shell: &Shell) -> Looked {
        reconcile(key, shell).await
    }

    fn memories(shell: &Shell) -> &Memories<SetMemory> {
        &shell.sets
    }

    fn find<'a>(index: &'a Index, key: &ObjectKey) -> Option<&'a Self> {
        index.set(key)
    }

    fn identity<'a>(index: &'a Index, key: &ObjectKey) -> Option<(&'a str, i64)> {
        index.set_identity(key)
    }

    fn unreadable(index: &Index, key: &ObjectKey) -> Option<String> {
        index.set_unreadable(key).map(str::to_owned)
    }
}

/// One look at one ListenerSet.
pub async fn reconcile(key: &ObjectKey, shell: &Shell) -> Looked {
    let memory = shell.sets.of(key);
    let mut memory = memory.lock().await;
    let uid = match shell.begin::<ListenerSet>(key, &mut memory).await {
        Ready::Yes(uid) => uid,
        Ready::No(looked) if looked.result == Result::Gone => {
            shell.metrics.forget_set(key);
            shell.calls.letters().forget(key);
            let again_at = sweep(key, "", shell).await;
            return Looked { again_at, ..looked };
        }
        Ready::No(looked) => return looked,
    };
    if memory.own.sweeps_at.is_none_or(|at| at <= Instant::now()) {
        memory.own.sweeps_at = sweep(key, &uid, shell).await;
    }
    memory.forget_taken();
    let began = Instant::now();
    let snapshot = match observe(key, &uid, shell, &mut memory) {
        Ok(snapshot) => snapshot,
        Err(looked) => return looked,
    };
    let looked_at = Instant::now();
    let (plan, recollection) = planner::plan(&snapshot, &memory.own.recollection);
    let computed = began.elapsed();
    let (changes, left) = plan.changes.split_at(plan.changes.len().min(CHANGES_MAX));
    let kills = changes.iter().any(|change| matches!(change, SetChange::KillPod { .. }));
    if kills && !shell.is_latest(&mut memory, &snapshot.set).await {
        let again_at = memory.paused_until().or(memory.barrier.overdue_at());
        return Looked { result: Result::Stale, again_at, rest: rest(began.elapsed(), computed) };
    }
    count_gaps(key, shell, &snapshot, &memory.own.recollection);
    memory.own.recollection = recollection;
    let outcomes = apply::apply_set(&shell.calls, &snapshot, changes).await;
    let taken = memory.own.beyond_watches.clone();
    let all_well = take_note(key, shell, &mut memory, &snapshot, &outcomes);
    // A taken name comes with no event, and the planner has not seen it yet.
    let has_learned = memory.own.beyond_watches != taken;
    let told = Instant::now();
    let status = status::listener_set::status(&snapshot, &plan, memory.own.recollection.gaps_of_last_moves());
    let computed = computed + told.elapsed();
    let reported = report(shell, &mut memory, &snapshot, &plan, status).await;
    if all_well && reported == Reported::Done {
        memory.succeed();
    }
    let wakes = [
        plan.wake_after.map(|after| looked_at + after.max(SOON)),
        (has_learned || !left.is_empty()).then(|| Instant::now() + SOON),
        memory.paused_until(),
        memory.barrier.overdue_at(),
        reported.again_at(),
        memory.own.taken_until,
        memory.own.sweeps_at,
        Some(shell.resync_at(looked_at)),
    ];
    let result = if memory.paused_until().is_some() { Result::Error } else { Result::Success };
    Looked { result, again_at: wakes.into_iter().flatten().min(), rest: rest(began.elapsed(), computed) }
}

/// Deletes what a deleted ListenerSet of this name has left behind. Its Leases have two owners, so that the garbage collector
/// lets them be while their Pods live; agents run nothing by a Lease that no set controls. Answers when to look whether
/// all is gone; None: there is nothing.
async fn sweep(key: &ObjectKey, uid: &str, shell: &Shell) -> Option<Instant> {
    let left = shell.observer.look(|index| index.left_behind(key));
    if left.is_empty() {
        return None;
    }
    // What is known may be old, and a set that is not known yet may have come.
    let latest = apply::version_of(&shell.calls, Kind::ListenerSet, &key.namespace, &key.name).await;
    if latest.is_ok_and(|found| found.map(|(uid, _)| uid).unwrap_or_default() == uid) {
        tracing::info!(leases = left.len(), "deleting what an earlier ListenerSet of this name has left");
        let deleted = left.iter().map(|(name, uid, resource_version)| {
            apply::delete_lease(&shell.calls, &key.namespace, name, (uid, resource_version))
        });
        join_all(deleted).await;
    }
    Some(Instant::now() + SWEEP_SPACING)
}

/// What is known of the set, its Pods as their Rollout plans; Err: the look has ended.
fn observe(
    key: &ObjectKey,
    uid: &str,
    shell: &Shell,
    memory: &mut ObjectMemory<SetMemory>,
) -> std::result::Result<SetSnapshot, Looked> {
    let waited_until = memory.own.unread_since.map(|since| since + UNREAD_TIMEOUT);
    let is_patient = waited_until.is_none_or(|until| Instant::now() < until);
    let moment = Moment { now: shell.clock.now(), uptime: shell.observer.uptime() };
    let observed = shell.observe::<ListenerSet, _>(key, uid, memory, |index, own| {
        let is_known = index.is_set_known(key) || (index.is_set_listed(key) && !is_patient);
        let (mut snapshot, rollout) =
            is_known.then(|| index.set_snapshot(key, &own.beyond_watches, moment)).flatten()?;
        let is_told = |version: &str| index.has_reached(Kind::Lease, &key.namespace, version);
        shell.calls.letters().show(key, &mut snapshot, is_told);
        Some((snapshot, rollout))
    });
    match observed {
        Observed::Snapshot(seen) => {
            let (mut snapshot, rollout) = *seen;
            // Once it was said to be missing, that stands until it has been read.
            if is_patient {
                memory.own.unread_since = None;
            }
            if let Some(rollout) = rollout {
                course::note(&mut snapshot, &rollout);
            }
            Ok(snapshot)
        }
        Observed::Stale => {
            let since = *memory.own.unread_since.get_or_insert_with(Instant::now);
            let again_at = [memory.barrier.overdue_at(), Some(since + UNREAD_TIMEOUT).filter(|_| is_patient)];
            Err(Looked::early(Result::Stale, again_at.into_iter().flatten().min()))
        }
        Observed::Unreadable { regarding, error } => {
            shell.tell_unreadable(memory, &regarding, &error);
            Err(Looked::early(Result::Gone, None))
        }
    }
}

/// A look at thousands of listeners computes for milliseconds; see the same of a Rollout.
fn rest(elapsed: Duration, computed: Duration) -> Duration {
    (computed * LOOK_SHARE).saturating_sub(elapsed).min(REST_MAX)
}

/// Counts the moves that agents have told of since the last look. Those of the first look are an earlier operator's.
fn count_gaps(key: &ObjectKey, shell: &Shell, snapshot: &SetSnapshot, before: &SetRecollection) {
    let Some(known) = &before.known_gaps else { return };
    let reports = snapshot.sessions.values().filter_map(|session| session.report.as_ref());
    for gap in reports.flat_map(|report| &report.gaps) {
        if !known.contains(&(gap.listener.clone(), gap.epoch)) {
            shell.metrics.moved(key, Duration::from_millis(u64::from(gap.millis)));
        }
    }
}

/// Notes what became of the changes in memory, log and metrics. False when something went wrong.
fn take_note(
    key: &ObjectKey,
    shell: &Shell,
    memory: &mut ObjectMemory<SetMemory>,
    snapshot: &SetSnapshot,
    outcomes: &[Outcome<SetChange>],
) -> bool {
    for Outcome { change, result } in outcomes {
        let reason = memory::reason(change);
        shell.tried(&memory::name(&key.name, change), change.verb(), reason, result);
        if let (SetChange::Assign { from: Origin::Dead(_, proof), .. }, crate::plan::Applied::Done { .. }) =
            (change, result)
        {
            shell.metrics.taken_over(key, proof.as_label());
        }
    }
    shell.with_rng(|rng| memory.note(snapshot, outcomes, rng))
}

/// Writes status if it differs, and tells what has happened.
async fn report(
    shell: &Shell,
    memory: &mut ObjectMemory<SetMemory>,
    snapshot: &SetSnapshot,
    plan: &SetPlan,
    status: ListenerSetStatus,
) -> Reported {
    let set = &snapshot.set;
    let none = ListenerSetStatus::default();
    let before = set.status.as_ref().unwrap_or(&none);
    if set.status.as_ref() == Some(&status) {
        return Reported::Done;
    }
    let must_remember = u32::try_from(before.epoch_floor).ok() != Some(plan.epoch_floor);
    let spacing = if is_awaited(before, &status) { STATUS_SPACING } else { spacing(set) };
    if let Some(at) = memory.status_written_at.map(|at| at + spacing)
        && at > Instant::now()
        && !must_remember
    {
        return Reported::Later(at);
    }
    let reported = shell.write_status(memory, set, &status).await;
    if reported == Reported::Done {
        let regarding = Regarding::object(ListenerSet::KIND, set);
        shell.tell(&regarding, status::listener_set::notices(before, &status));
    }
    reported
}

/// A person may wait for what has changed: an answer to the spec, or a condition.
fn is_awaited(before: &ListenerSetStatus, after: &ListenerSetStatus) -> bool {
    let conditions = |status: &ListenerSetStatus| -> Vec<_> {
        status.conditions.iter().map(|c| (c.type_, c.status, c.reason.clone())).collect()
    };
    before.observed_generation != after.observed_generation || conditions(before) != conditions(after)
}

fn spacing(set: &ListenerSet) -> Duration {
    let listeners = set.spec.listeners.as_ref().map_or(0, Vec::len);
    STATUS_SPACING + STATUS_SPACING_PER_LISTENER * u32::try_from(listeners).unwrap_or(u32::MAX)
}
