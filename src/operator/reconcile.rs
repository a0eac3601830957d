//! One look at one Rollout: observe, plan, apply, report.
//!
//! A failure never ends a look half-way: every change is attempted or skipped, and status is written also when changes
//! failed, so that errors become conditions. What is to be done again is planned anew with the next look.
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use jiff::Timestamp;
use kube::ResourceExt;
use tokio::time::Instant;

use super::{clock::Clock, memory::ObjectMemory, metrics::Metrics, notify::Notifier};
use crate::{
    api::{Rollout, RolloutStatus},
    apply::{
        self, Calls,
        event::{Event, News, Regarding},
        status::StatusWrite,
    },
    observe::{Doubt, Observer},
    plan::{self, Change, Memory, Plan},
    snapshot::{
        Snapshot,
        index::{Kind, ObjectKey},
    },
    status::{self, Notice, NoticeKind},
};

/// Status of one object is written at most so often, unless the planner must remember something; the less often the more
/// instances there are, because each of them changes it, and as little as the others.
const STATUS_SPACING: Duration = Duration::from_millis(500);
/// So many more instances add [`STATUS_SPACING`] once more,
const STATUS_SPACING_INSTANCES: u32 = 1_000;
/// up to this: people watch.
const STATUS_SPACING_MAX: Duration = Duration::from_secs(2);
/// Longest time without a look at an object: heals whatever a watch lost.
const RESYNC: Duration = Duration::from_mins(5);
/// Changes made in one look; the rest is planned anew with the next. Keeps the answer to a new spec, and status, within
/// seconds also while thousands of Pods are created.
const CHANGES_MAX: usize = 256;
/// Looks at one Rollout for the sake of its events compute for about one part in so many of the time, until that would take
/// more rest than [`REST_MAX`].
const LOOK_SHARE: u32 = 20;
/// No event waits longer for a look, once the one before has ended.
const REST_MAX: Duration = Duration::from_millis(500);
/// Shortest time to the next look that a look asks for.
const SOON: Duration = Duration::from_millis(10);

/// What every reconcile shares.
pub struct Shell {
    /// What is known.
    pub observer: Arc<Observer>,
    /// How to write.
    pub calls: Calls,
    /// The time of day.
    pub clock: Clock,
    /// For jitter and names of Events.
    pub rng: Mutex<fastrand::Rng>,
    /// What is counted.
    pub metrics: Metrics,
    /// This process, for Events.
    pub identity: String,
    /// Where Events go.
    pub notifier: Notifier,
    /// By object. The queue runs an object once at a time; the lock is for the compiler, and survives a panic.
    pub memories: Mutex<BTreeMap<ObjectKey, Arc<tokio::sync::Mutex<ObjectMemory>>>>,
}

/// How a look ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Result {
    /// Everything planned was done.
    Success,
    /// Waits for our own writes to come back.
    Stale,
    /// Something went wrong and is tried again.
    Error,
    /// The object is gone, or cannot be read.
    Gone,
}

/// How a look ended, and when the next is due without an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looked {
    /// How.
    pub result: Result,
    /// When. None: only an event leads to another.
    pub again_at: Option<Instant>,
    /// What happens waits so long for the next.
    pub rest: Duration,
}

impl Looked {
    /// Ended before there was anything to compute.
    fn early(result: Result, again_at: Option<Instant>) -> Self {
        Self { result, again_at, rest: Duration::ZERO }
    }
}

/// One look at one Rollout.
pub async fn reconcile(key: &ObjectKey, shell: &Shell) -> Looked {
    let memory = shell.memory(key);
    let mut memory = memory.lock().await;
    let identity =
        shell.observer.look(|index| index.identity(key).map(|(uid, generation)| (uid.to_owned(), generation)));
    let Some((uid, generation)) = identity else {
        shell.forget(key);
        return Looked::early(Result::Gone, None);
    };
    memory.be_about(&uid, generation);
    if memory.paused_until().is_none() {
        settle(key, shell, &mut memory).await;
    }
    if let Some(until) = memory.paused_until() {
        return Looked::early(Result::Error, Some(until));
    }
    let began = Instant::now();
    let snapshot = match observe(key, &uid, shell, &mut memory) {
        Observed::Snapshot(snapshot) => snapshot,
        Observed::Stale => return Looked::early(Result::Stale, memory.barrier.overdue_at()),
        Observed::Unreadable { regarding, error } => {
            tell_unreadable(shell, &mut memory, &regarding, &error);
            return Looked::early(Result::Gone, None);
        }
    };
    let looked_at = Instant::now();
    let plan = plan::rollout::plan(&snapshot);
    let computed = began.elapsed();
    let (changes, left) = plan.changes.split_at(plan.changes.len().min(CHANGES_MAX));
    let destroys = changes.iter().any(|change| matches!(change, Change::DeletePod { .. }));
    if destroys && !is_latest(shell, &mut memory, &snapshot).await {
        let again_at = memory.paused_until().or(memory.barrier.overdue_at());
        return Looked { result: Result::Stale, again_at, rest: rest(began.elapsed(), computed) };
    }
    let outcomes = apply::apply(&shell.calls, &snapshot, changes).await;
    let before = memory.recollection.clone();
    let all_well = shell.take_note(&mut memory, &snapshot, &outcomes);
    // A verdict, a taken name or a refusal comes with no event, and the planner has not seen it yet.
    let has_learned = memory.recollection != before;
    let told = Instant::now();
    let status = status::rollout::status(&snapshot, &plan, &outcomes);
    let computed = computed + told.elapsed();
    let reported = report(shell, &mut memory, &snapshot, &plan, status).await;
    if all_well && reported == Reported::Done {
        memory.succeed();
    }
    let resync = looked_at + shell.with_rng(|rng| RESYNC.mul_f64(0.8 + 0.2 * rng.f64()));
    let wakes = [
        plan.wake_at.map(|at| looked_at + until(at, snapshot.now).max(SOON)),
        (has_learned || !left.is_empty()).then(|| Instant::now() + SOON),
        memory.paused_until(),
        memory.barrier.overdue_at(),
        reported.again_at(),
        Some(resync).filter(|_| !mutant!(LostDelete)),
    ];
    let result = if memory.paused_until().is_some() { Result::Error } else { Result::Success };
    Looked { result, again_at: wakes.into_iter().flatten().min(), rest: rest(began.elapsed(), computed) }
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

enum Observed {
    Snapshot(Box<Snapshot>),
    /// Our own writes have not come back yet.
    Stale,
    Unreadable {
        regarding: Regarding,
        error: String,
    },
}

fn observe(key: &ObjectKey, uid: &str, shell: &Shell, memory: &mut ObjectMemory) -> Observed {
    let observer = &shell.observer;
    for kind in memory.barrier.hasten(Instant::now(), |kind| observer.request_list(kind)) {
        tracing::warn!(?kind, "own write has not come back on the watch; listing anew");
        shell.metrics.echo_missed(kind);
    }
    let ObjectMemory { barrier, recollection, .. } = memory;
    let looked = observer.look_past(barrier, key, |index| {
        if index.identity(key).is_none_or(|(of, _)| of != uid) {
            return Observed::Stale; // replaced or gone just now; that event leads to another look
        }
        if let (Some(error), Some((_, version))) = (index.unreadable(key), index.version(Kind::Rollout, key)) {
            let regarding = Regarding { key: key.clone(), uid: uid.to_owned(), resource_version: version.to_owned() };
            return Observed::Unreadable { regarding, error: error.to_owned() };
        }
        let snapshot = index.snapshot(key, recollection, shell.clock.now());
        snapshot.map_or(Observed::Stale, |snapshot| Observed::Snapshot(Box::new(snapshot)))
    });
    looked.unwrap_or(Observed::Stale)
}

/// Reads what became of writes without an answer. Those that cannot be read now are left for the next look.
async fn settle(key: &ObjectKey, shell: &Shell, memory: &mut ObjectMemory) {
    let doubts: Vec<Doubt> = memory.barrier.doubts().cloned().collect();
    let reads = doubts.iter().map(|of| apply::version_of(&shell.calls, of.kind, &key.namespace, &of.name));
    let reads = join_all(reads).await;
    let mut has_failed = false;
    for (doubt, read) in doubts.iter().zip(reads) {
        match read {
            Ok(found) => memory.barrier.settle(doubt, found),
            Err(error) => {
                tracing::debug!(name = doubt.name, error = error.message(), "cannot tell whether it was written");
                has_failed = true;
            }
        }
    }
    if has_failed {
        shell.with_rng(|rng| memory.fail(rng));
    }
}

/// Whether the Rollout is still the one that was looked at. Its watch may lag behind the one on Pods, and what a Pod's end
/// rests on (replicas, paused, abort) must be what its user asks for now: no precondition of the delete covers that.
async fn is_latest(shell: &Shell, memory: &mut ObjectMemory, snapshot: &Snapshot) -> bool {
    let rollout = &snapshot.rollout;
    let (namespace, name) = (rollout.namespace().unwrap_or_default(), rollout.name_any());
    let seen = (rollout.uid().unwrap_or_default(), rollout.resource_version().unwrap_or_default());
    match apply::version_of(&shell.calls, Kind::Rollout, &namespace, &name).await {
        Ok(Some(latest)) if latest == seen => return true,
        Ok(_) => memory.barrier.await_successor(Kind::Rollout, &name, &seen.0, &seen.1),
        Err(error) => {
            tracing::warn!(error = error.message(), "cannot read the Rollout; no Pod is deleted");
            shell.with_rng(|rng| memory.fail(rng));
        }
    }
    false
}

/// What became of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reported {
    /// Written, or nothing to write.
    Done,
    /// To be written later, to spare the API server.
    Later(Instant),
    /// Decide anew.
    Stale,
    /// Not written.
    Failed,
}

impl Reported {
    fn again_at(self) -> Option<Instant> {
        if let Self::Later(at) = self { Some(at) } else { None }
    }
}

/// Writes status if it differs, and tells what has happened.
async fn report(
    shell: &Shell,
    memory: &mut ObjectMemory,
    snapshot: &Snapshot,
    plan: &Plan,
    status: RolloutStatus,
) -> Reported {
    let rollout = &snapshot.rollout;
    let before = rollout.status.as_ref();
    if before == Some(&status) {
        return Reported::Done;
    }
    let must_remember = Memory::of(before) != plan.memory;
    let spacing = status_spacing(rollout.spec.replicas);
    if let Some(at) = memory.status_written_at.map(|at| at + spacing)
        && at > Instant::now()
        && !must_remember
    {
        return Reported::Later(at);
    }
    memory.status_written_at = Some(Instant::now());
    let (name, uid) = (rollout.name_any(), rollout.uid().unwrap_or_default());
    let seen = rollout.resource_version().unwrap_or_default();
    let outcome = apply::status::write(&shell.calls, rollout, &status).await;
    match outcome {
        StatusWrite::Done { resource_version } => {
            // Unless the API server found nothing to change.
            if resource_version != seen {
                memory.barrier.await_successor(Kind::Rollout, &name, &uid, &seen);
            }
            tell(shell, rollout, before.unwrap_or(&RolloutStatus::default()), &status);
            Reported::Done
        }
        StatusWrite::Stale => {
            memory.barrier.await_successor(Kind::Rollout, &name, &uid, &seen);
            Reported::Stale
        }
        StatusWrite::Failed(error) => {
            if !matches!(error, apply::CallError::Fenced) {
                tracing::warn!(error = error.message(), "status was not written");
            }
            if error.is_doubtful() {
                memory.doubt(Kind::Rollout, &name, Some((&uid, &seen)));
            }
            shell.with_rng(|rng| memory.fail(rng));
            Reported::Failed
        }
    }
}

fn status_spacing(replicas: i32) -> Duration {
    let more = STATUS_SPACING * u32::try_from(replicas).unwrap_or(0) / STATUS_SPACING_INSTANCES;
    (STATUS_SPACING + more).min(STATUS_SPACING_MAX)
}

/// Once for each version: it has no status that could say so.
fn tell_unreadable(shell: &Shell, memory: &mut ObjectMemory, regarding: &Regarding, error: &str) {
    if memory.told_unreadable.as_ref() == Some(&regarding.resource_version) {
        return;
    }
    memory.told_unreadable = Some(regarding.resource_version.clone());
    tracing::error!(error, "cannot read this Rollout; it is left alone");
    let note = format!("this Rollout cannot be read, and is left alone with its Pods: {error}");
    shell.publish(regarding, &News { is_warning: true, reason: "Unreadable", action: "Reconcile", note: &note });
}

/// One line in the log and one Event for each transition.
fn tell(shell: &Shell, rollout: &Rollout, before: &RolloutStatus, after: &RolloutStatus) {
    shell.metrics.transition(rollout, before, after);
    for Notice { kind, reason, action, note } in status::notices(&rollout.name_any(), before, after) {
        let is_warning = kind == NoticeKind::Warning;
        if is_warning {
            tracing::warn!(reason, "{note}");
        } else {
            tracing::info!(reason, "{note}");
        }
        shell.publish(&rollout.into(), &News { is_warning, reason, action, note: &note });
    }
}

impl Shell {
    fn memory(&self, key: &ObjectKey) -> Arc<tokio::sync::Mutex<ObjectMemory>> {
        lock(&self.memories).entry(key.clone()).or_default().clone()
    }

    /// Eight hex digits that the log lines of one look share.
    pub fn reconcile_id(&self) -> String {
        format!("{:08x}", self.with_rng(|rng| rng.u32(..)))
    }

    fn forget(&self, key: &ObjectKey) {
        lock(&self.memories).remove(key);
        self.metrics.forget(key);
    }

    fn with_rng<T>(&self, f: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        f(&mut lock(&self.rng))
    }

    /// Notes what became of the changes in memory, log and metrics. False when something went wrong.
    fn take_note(&self, memory: &mut ObjectMemory, snapshot: &Snapshot, outcomes: &[plan::Outcome]) -> bool {
        for outcome in outcomes {
            let change = &outcome.change;
            // Not the change itself: a template may hold what does not belong into a log.
            tracing::debug!(name = change.name(), reason = change.reason(), result = ?outcome.result, "{}", change.verb());
            self.metrics.changed(outcome);
        }
        let now = self.clock.now();
        self.with_rng(|rng| memory.note(snapshot, outcomes, rng, now))
    }

    /// Publishes an Event about a Rollout, soon.
    pub fn publish(&self, regarding: &Regarding, news: &News<'_>) {
        let suffix = self.with_rng(|rng| rng.u64(..));
        self.notifier.notify(Event::new(regarding, news, &self.identity, self.clock.now(), suffix));
    }

    /// After a panic: the object is left alone for a while, and told so. Others go on.
    pub async fn panicked(&self, key: &ObjectKey, message: &str) -> Looked {
        let memory = self.memory(key);
        let mut rng = self.with_rng(fastrand::Rng::fork);
        let pause = memory.lock().await.fail(&mut rng);
        tracing::error!(rollout = %key, panic = message, pause_seconds = pause.as_secs(), "a look at this Rollout panicked");
        let rollout = self.observer.look(|index| index.rollouts().find(|(of, _)| *of == key).map(|(_, r)| r.clone()));
        if let Some(rollout) = rollout {
            let note =
                format!("the operator failed on this Rollout and tries again in {} s: {message}", pause.as_secs());
            let news = News { is_warning: true, reason: "InternalError", action: "Reconcile", note: &note };
            self.publish(&(&rollout).into(), &news);
        }
        Looked::early(Result::Error, Some(Instant::now() + pause))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
