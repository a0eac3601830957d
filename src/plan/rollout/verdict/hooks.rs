//! Points of a run at which hooks are due. A gate holds while its point has hooks that have not ended; what begins the next hook
//! looks at the hold that comes out of a chain, so that the order of gates is the only order there is.
use crate::{
    api::hooks::{CurrentHook, Hook, HookPoint, HooksStatus, OnAbort, Point},
    plan::{
        change::{Hold, HoldReason},
        rollout::{
            run::View,
            time::{after, seconds},
        },
    },
    snapshot::{HookJobs, Ranges},
};

/// The hooks of a point, in their order.
pub(crate) fn of_point(hooks: &[Hook], point: Point) -> impl Iterator<Item = &Hook> {
    let is_of_batch = move |hook: &&Hook| {
        hook.batches.as_deref().is_none_or(|batches| Ranges::parse(batches).0.contains(&point.batch))
    };
    hooks.iter().filter(move |hook| hook.when == point.on).filter(is_of_batch)
}

/// The next hook of a point that has not ended. None: the point is passed.
pub(crate) fn next<'h>(hooks: &'h [Hook], memory: &HooksStatus, run: i64, point: Point) -> Option<&'h Hook> {
    if memory.run == run && memory.passed.parse::<Point>().is_ok_and(|passed| passed >= point) {
        return None;
    }
    let is_at = memory.run == run && memory.point.parse() == Ok(point);
    of_point(hooks, point).find(|hook| !is_at || !memory.done.contains(&hook.name))
}

/// Holds until the hooks of this point have ended.
fn at(view: &View<'_>, point: Point) -> Option<Hold> {
    let hook = next(&view.spec().hooks, &view.memory.hooks, view.memory.run, point)?;
    Some(Hold { reason: HoldReason::RunningHook(Some(point)), ..told(view, hook, point) })
}

/// The same hold in words of now, if it is about a point.
pub(crate) fn told_anew(view: &View<'_>, hold: Hold) -> Hold {
    hold.reason.due_point().and_then(|point| at(view, point)).unwrap_or(hold)
}

/// Before the first Pod changes.
pub(crate) fn before_rollout(view: &View<'_>) -> Option<Hold> {
    let is_untouched = view.slots.opened() == 0 || view.lineage.is_first();
    if !is_untouched || view.lineage.is_back() {
        return None;
    }
    at(view, Point::of_run(HookPoint::BeforeRollout))
}

/// Before the batch that is opened next.
pub(crate) fn before_batch(view: &View<'_>) -> Option<Hold> {
    let batch = view.memory.batch.as_ref()?;
    let next = if is_filled(view) && !view.lineage.is_first() { batch.index + 1 } else { batch.index };
    at(view, Point::of_batch(HookPoint::BeforeBatch, next.max(1)))
}

/// After the batch in work, whose instances are all available.
pub(crate) fn after_batch(view: &View<'_>) -> Option<Hold> {
    let batch = view.memory.batch.as_ref().filter(|batch| batch.opened > 0 && is_filled(view))?;
    at(view, Point::of_batch(HookPoint::AfterBatch, batch.index))
}

/// With strategy Recreate: all old Pods have ended.
pub(crate) fn while_down(view: &View<'_>) -> Option<Hold> {
    let is_forward = !view.lineage.is_back() && !view.lineage.is_first() && view.memory.batch.is_some();
    let is_down = view.policy.is_one_at_a_time() && is_forward;
    if is_down { at(view, Point::of_batch(HookPoint::WhileDown, 1)) } else { None }
}

/// The end of the run.
pub(crate) fn after_rollout(view: &View<'_>) -> Option<Hold> {
    at(view, Point::of_run(HookPoint::AfterRollout))
}

/// Before the first Pod goes back.
pub(crate) fn on_rollback(view: &View<'_>) -> Option<Hold> {
    let is_due = view.lineage.is_back() && view.memory.hooks.run == view.memory.run;
    view.memory.hooks.restore.as_ref().filter(|_| is_due)?;
    at(view, Point::of_run(HookPoint::OnRollback))
}

/// OnRollback hooks have yet to end: the way back is not over, even if no instance is to be moved.
pub(crate) fn is_restoring(hooks: &[Hook], memory: &HooksStatus, run: i64) -> bool {
    let point = Point::of_run(HookPoint::OnRollback);
    memory.run == run && memory.restore.is_some() && next(hooks, memory, run, point).is_some()
}

/// A hook of an earlier run has not ended, or a Job of ours that nothing is remembered of.
pub(crate) fn running(view: &View<'_>) -> Option<Hold> {
    let hold = |message| Some(Hold { reason: HoldReason::RunningHook(None), message, until: None });
    let memory = &view.memory.hooks;
    if let Some(current) = memory.current.as_ref().filter(|current| current.run != view.memory.run) {
        let settings = view.spec().hook(&current.name);
        let is_stopped = settings.is_some_and(|hook| hook.on_abort == OnAbort::Stop);
        let what = if is_stopped { "is stopped" } else { "is awaited" };
        return hold(format!(
            "hook {} of run {} {what} before anything else is done ({})",
            current.name,
            current.run,
            logs(view, &current.job)
        ));
    }
    let current = memory.current.as_ref().map(|current| current.job.as_str());
    let jobs = view.snapshot.hooks.seen().map(|seen| seen.jobs.as_slice()).unwrap_or_default();
    let stray = jobs.iter().find(|job| job.end.is_none() && Some(job.name.as_str()) != current)?;
    hold(format!("Job {} of hook {} (run {}) has not ended; nothing else is begun", stray.name, stray.hook, stray.run))
}

fn is_filled(view: &View<'_>) -> bool {
    let Some(batch) = &view.memory.batch else { return false };
    if view.lineage.is_first() {
        return true; // all at once
    }
    let end = usize::try_from(batch.index).ok().and_then(|number| view.slots.batches().end(number));
    let end = end.unwrap_or(view.replicas());
    (batch.opened > 0 || batch.index == 0) && batch.opened == end
}

/// What people read while this hook is due.
fn told(view: &View<'_>, hook: &Hook, point: Point) -> Hold {
    let name = format!("{}{}", hook.name, place(&view.spec().hooks, hook, point));
    let is_it = |current: &&CurrentHook| {
        current.name == hook.name && current.run == view.memory.run && current.point.parse() == Ok(point)
    };
    let hold = |message, until| Hold { reason: HoldReason::RunningHook(None), message, until };
    let HookJobs::Seen(seen) = &view.snapshot.hooks else {
        return hold(format!("hook {name}: the operator has yet to see the Jobs of this namespace, or may not"), None);
    };
    let Some(current) = view.memory.hooks.current.as_ref().filter(is_it) else {
        return hold(format!("hook {name} is to begin"), None);
    };
    let attempts = hook.retries + 1 + current.disruptions;
    let attempt = if attempts > 1 { format!(", attempt {} of {attempts}", current.attempt) } else { String::new() };
    if let Some(at) = current.not_before.as_ref().filter(|at| at.0 > view.now()) {
        let last = view.memory.hooks.log.first().map(|record| record.message.as_str()).unwrap_or_default();
        return hold(format!("hook {name} failed ({last}); it is tried again at {}{attempt}", at.0), Some(at.0));
    }
    if !current.stopping.is_empty() {
        return hold(format!("hook {name} cannot go on ({}): its Job is being ended", current.stopping), None);
    }
    if let Some(refusal) = view.snapshot.hook_refusal.as_ref().filter(|_| seen.job(&current.job).is_none()) {
        let message = format!("hook {name}: its Job cannot be created: {}", refusal.message);
        return hold(message, Some(refusal.retry_at));
    }
    let began = current.started_at.as_ref().map_or(seconds(view.now()).0, |at| at.0);
    let until = after(began, i64::from(hook.timeout_seconds));
    let mut trouble = String::new();
    if let Some(job) = seen.job(&current.job) {
        let mut pods = seen.pods_of(&job.name);
        let is_late = after(job.created, NO_POD_SECONDS) <= view.now();
        match pods.next() {
            None if is_late => trouble = "; no Pod yet: kubectl describe job says why".into(),
            Some(pod) => trouble = pod.waiting.as_ref().map(|why| format!("; {why}")).unwrap_or_default(),
            None => {}
        }
        if job.end.is_none() && after(job.created, i64::from(hook.timeout_seconds) + LATE_END_SECONDS) <= view.now() {
            trouble = "; it is past its time and the Job controller of the cluster has not ended it".into();
        }
    }
    let logs = logs(view, &current.job);
    hold(format!("hook {name}{attempt} runs since {began} until at most {until}{trouble}: {logs}"), None)
}

/// A Pod of a Job that has none for so long is told to be missing.
pub(crate) const NO_POD_SECONDS: i64 = 60;
/// A Job that is so far past its time without an end is told to be.
pub(crate) const LATE_END_SECONDS: i64 = 60;

fn logs(view: &View<'_>, job: &str) -> String {
    let namespace = view.snapshot.rollout.metadata.namespace.as_deref().unwrap_or_default();
    format!("kubectl logs -n {namespace} job/{job}")
}

/// ` (2 of 2 before the rollout)`.
fn place(hooks: &[Hook], hook: &Hook, point: Point) -> String {
    let all: Vec<&Hook> = of_point(hooks, point).collect();
    let number = all.iter().position(|known| known.name == hook.name).map_or(0, |at| at + 1);
    let batch = point.batch;
    let place = match point.on {
        HookPoint::BeforeRollout => "before the rollout".into(),
        HookPoint::BeforeBatch => format!("before batch {batch}"),
        HookPoint::WhileDown => "while all is down".into(),
        HookPoint::AfterBatch => format!("after batch {batch}"),
        HookPoint::AfterRollout => "after the rollout".into(),
        HookPoint::OnRollback => "before going back".into(),
    };
    format!(" ({number} of {} {place})", all.len())
}
