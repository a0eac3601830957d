//! What status must remember of hooks: one ordered cursor, written before the Job that it names.
//!
//! ```text
//!  due point ─begin─> current (no Job yet) ─create─> current (its Job runs) ─end─┬─> done, next hook of the point
//!                        ^                                                       ├─> passed, when none is left
//!                        └──────────── retry, after a pause ─────────────────────┴─> failed
//! ```
//! A hook has ended well if, and only if, its Job has the condition Complete. A Job that was deleted has failed.
use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::{
    api::{
        bounds::{HOOK_LOG_MAX, HOOK_MESSAGE_CHARS_MAX},
        hooks::{Backup, CurrentHook, Hook, HookFailure, HookPoint, HookRecord, HooksStatus, OnAbort, Point, Restore},
        status::Failed,
    },
    plan::{
        hook::{job_name, key},
        rollout::{
            run::{View, revisions, revisions::Lineage},
            time::{Alarm, after, seconds},
            verdict::{
                holds::HOOK_FAILED,
                hooks::{LATE_END_SECONDS, NO_POD_SECONDS, next, of_point},
            },
        },
    },
    snapshot::{HookJob, HookPod, Revision, SeenHooks, Snapshot, on_one_line},
};

/// Why a hook is ended whose container does not start.
const CANNOT_START: &str = "HookCannotStart";
/// A container that cannot start is given up after so long.
const CANNOT_START_SECONDS: i64 = 60;
/// Attempts that are lost with a node and not counted.
const DISRUPTIONS_MAX: i32 = 3;
/// Pauses before a further attempt: this, doubled with each, and the longest.
const RETRY_SECONDS: i64 = 10;
const RETRY_SECONDS_MAX: i64 = 300;
/// Reason of a Job that has not ended within activeDeadlineSeconds: it ends its Pods itself.
const TIMED_OUT: &str = "DeadlineExceeded";
/// How often it is looked whether the watch on Pods has come as far as that on Jobs: a bookmark is no event.
const LAST_WORDS_SECONDS: i64 = 5;

/// What the hooks have come to: status.hooks, and status.failed if one has failed the run.
pub(crate) struct Observed {
    pub hooks: HooksStatus,
    pub failed: Option<Failed>,
}

/// Takes note of what has become of the hook that runs.
pub(crate) fn observe(view: &View<'_>, alarm: &mut Alarm) -> Observed {
    let mut observed = Observed { hooks: of_run(view), failed: view.memory.failed.clone() };
    let hooks = &mut observed.hooks;
    let Some(current) = hooks.current.clone() else { return observed };
    let Some(seen) = view.snapshot.hooks.seen() else { return observed };
    let settings = view.spec().hook(&current.name);
    let is_superseded = current.run != view.memory.run;
    let must_stop = is_superseded && settings.is_some_and(|hook| hook.on_abort == OnAbort::Stop);
    let end = match look(view, &current, seen, alarm) {
        Look::Started => {
            hooks.current = Some(CurrentHook { stopping: String::new(), ..current });
            return observed;
        }
        Look::Waits if must_stop && current.stopping.is_empty() && seen.job(&current.job).is_some() => {
            hooks.current = Some(CurrentHook { stopping: STOPPED.into(), ..current });
            return observed;
        }
        Look::Waits => return observed,
        Look::CannotStart(why) => {
            hooks.current = Some(CurrentHook { stopping: clipped(&why), ..current });
            return observed;
        }
        // Of another run, or removed from the spec: it is not going to be made.
        Look::NotMade if is_superseded || settings.is_none() => {
            hooks.current = None;
            return observed;
        }
        Look::NotMade => {
            current.not_before.as_ref().map(|at| alarm.passed(at.0));
            return observed;
        }
        Look::Ended(end) => end,
    };
    let point = current.point.parse::<Point>().ok();
    let (result, message) = match &end {
        End::Succeeded { backup } => ("Succeeded", backup.clone().unwrap_or_default()),
        End::Failed(why) if *why == STOPPED => ("Stopped", String::new()),
        End::Failed(why) => ("Failed", clipped(why)),
        End::Disrupted(why) => ("Disrupted", clipped(why)),
    };
    let record = HookRecord {
        name: current.name.clone(),
        point: current.point.clone(),
        run: current.run,
        attempt: current.attempt,
        result: result.into(),
        message: message.clone(),
        job: current.job.clone(),
        started_at: current.started_at.clone(),
        completed_at: Some(seconds(view.now())),
    };
    hooks.log.insert(0, record);
    hooks.log.truncate(HOOK_LOG_MAX);
    hooks.current = None;
    if let (true, End::Succeeded { backup }, Some(point)) = (is_superseded, &end, point) {
        taken_back_too(view, hooks, &current, point, backup.as_deref());
    }
    let (Some(point), false) = (point, is_superseded) else { return observed };
    let Some(settings) = settings else {
        // It was removed from the spec while it ran: the run does without it, and what it has done it has done.
        hooks.begun |= is_before(point);
        pass(hooks, &view.spec().hooks, point, &current.name);
        return observed;
    };
    match end {
        End::Succeeded { backup } => {
            let is_before = is_before(point);
            match backup.filter(|_| point.on == HookPoint::BeforeRollout) {
                // One that is made after data may have changed does not replace the one from before.
                Some(_) if hooks.begun && hooks.backup.is_some() => {}
                Some(id) => hooks.backup = Some(Backup { id, hook: current.name.clone() }),
                None => hooks.begun |= is_before,
            }
            pass(hooks, &view.spec().hooks, point, &current.name);
        }
        End::Disrupted(_) => hooks.current = Some(again(view, &current, settings, point, current.disruptions + 1)),
        End::Failed(_) if current.attempt - current.disruptions <= settings.retries => {
            hooks.current = Some(again(view, &current, settings, point, current.disruptions));
        }
        End::Failed(_) => {
            if point.on == HookPoint::OnRollback
                && let Some(restore) = hooks.restore.as_mut().filter(|restore| restore.failure.is_empty())
            {
                restore.failure = clipped(&format!("{}: {message}", current.name));
            }
            let is_fatal = settings.on_failure == HookFailure::Abort
                && !matches!(point.on, HookPoint::OnRollback | HookPoint::AfterRollout);
            if is_fatal {
                observed.failed = Some(failure(view, observed.failed.take(), &current.name, &message));
            } else {
                pass(hooks, &view.spec().hooks, point, &current.name);
            }
        }
    }
    observed
}

/// A hook of the run that is taken back has ended well after that: what it has done is taken back too.
fn taken_back_too(view: &View<'_>, hooks: &mut HooksStatus, current: &CurrentHook, point: Point, backup: Option<&str>) {
    let is_way_back = view.lineage.is_back() && !view.lineage.is_revert();
    let backup = backup.filter(|_| point.on == HookPoint::BeforeRollout).unwrap_or_default().to_owned();
    if is_before(point) && !view.lineage.is_back() {
        hooks.begun |= backup.is_empty();
    }
    if is_way_back && is_before(point) && hooks.restore.is_none() {
        hooks.restore = Some(Restore { run: current.run, backup, failure: String::new() });
    }
}

/// In `stopping` and in the log, of a hook whose run has ended.
const STOPPED: &str = "its run has ended";

/// Hooks of these points come before instances run the new version, and may change data.
fn is_before(point: Point) -> bool {
    matches!(point.on, HookPoint::BeforeRollout | HookPoint::BeforeBatch | HookPoint::WhileDown)
}

/// One hook of a point has ended, so that the run may go on.
fn pass(hooks: &mut HooksStatus, all: &[Hook], point: Point, name: &str) {
    hooks.done.push(name.to_owned());
    if of_point(all, point).all(|hook| hooks.done.contains(&hook.name)) {
        hooks.passed = point.to_string();
        hooks.point.clear();
        hooks.done.clear();
    }
}

/// The next attempt, after a pause.
fn again(view: &View<'_>, current: &CurrentHook, hook: &Hook, point: Point, disruptions: i32) -> CurrentHook {
    let doubled = RETRY_SECONDS << (current.attempt - 1).clamp(0, 8);
    let not_before = after(view.now(), doubled.min(RETRY_SECONDS_MAX));
    let next = current_of(view, hook, point, current.attempt + 1);
    CurrentHook { disruptions, not_before: Some(seconds(not_before)), started_at: Some(seconds(not_before)), ..next }
}

/// What has failed the run, if nothing has before.
fn failure(view: &View<'_>, before: Option<Failed>, hook: &str, message: &str) -> Failed {
    if let Some(before) = before.clone().filter(|before| before.at.is_some() && before.run == view.memory.run) {
        return before;
    }
    let slots = before.filter(|before| before.run == view.memory.run).map(|before| before.slots).unwrap_or_default();
    let at = view.lineage.effective.map_or(view.now(), |effective| revisions::failed_at(view.now(), effective));
    Failed {
        revision: view.memory.effective.clone().unwrap_or_default(),
        run: view.memory.run,
        slots,
        reason: HOOK_FAILED.into(),
        message: format!("{hook}: {message}"),
        at: Some(crate::api::Time(at)),
        ..Failed::default()
    }
}

/// Begins the next hook of a point that is due.
pub(crate) fn begin(view: &View<'_>, point: Point) -> HooksStatus {
    let mut hooks = view.memory.hooks.clone();
    let has_stray = view.snapshot.hooks.seen().is_none_or(|seen| seen.jobs.iter().any(|job| job.end.is_none()));
    if hooks.current.is_some() || has_stray {
        return hooks;
    }
    let Some(hook) = next(&view.spec().hooks, &hooks, view.memory.run, point) else { return hooks };
    hooks.run = view.memory.run;
    if hooks.point.parse() != Ok(point) {
        hooks.point = point.to_string();
        hooks.done.clear();
    }
    // What the first hook of a run leaves behind when it fails is its own affair: it may be the backup that is missing.
    hooks.begun |= is_before(point) && (!hooks.done.is_empty() || !hooks.passed.is_empty());
    hooks.current = Some(current_of(view, hook, point, 1));
    hooks
}

fn current_of(view: &View<'_>, hook: &Hook, point: Point, attempt: i32) -> CurrentHook {
    let metadata = &view.snapshot.rollout.metadata;
    let uid = metadata.uid.as_deref().unwrap_or_default();
    let rollout = metadata.name.as_deref().unwrap_or_default();
    let key = key(uid, view.memory.run, point, &hook.name);
    CurrentHook {
        name: hook.name.clone(),
        point: point.to_string(),
        run: view.memory.run,
        attempt,
        disruptions: 0,
        job: job_name(rollout, &key, attempt, |name| view.snapshot.taken_names.contains(name)),
        started_at: Some(seconds(view.now())),
        not_before: None,
        stopping: String::new(),
    }
}

/// status.hooks of the present run: with a new run all begins anew, but the hook that still runs and the log.
fn of_run(view: &View<'_>) -> HooksStatus {
    let old = &view.memory.hooks;
    let has_nothing = view.spec().hooks.is_empty() && old.current.is_none();
    if old.run == view.memory.run || (has_nothing && old.run == 0) {
        return with_free_name(view, old.clone());
    }
    let is_way_back = view.lineage.is_back() && !view.lineage.is_revert();
    let restore = is_way_back && (old.begun || old.backup.is_some());
    // Of a run that has neither completed nor been taken back what it has changed is still there.
    let status = view.snapshot.rollout.status.as_ref();
    let was_forward = status
        .is_some_and(|status| status.current_revision.is_some() && status.target_revision != status.current_revision);
    let is_carried = old.begun && was_forward && !view.lineage.is_back();
    HooksStatus {
        run: view.memory.run,
        begun: is_carried,
        backup: old.backup.clone().filter(|_| is_carried),
        current: old.current.clone(),
        log: old.log.clone(),
        restore: restore.then(|| Restore {
            run: old.run,
            backup: old.backup.as_ref().map(|backup| backup.id.clone()).unwrap_or_default(),
            failure: String::new(),
        }),
        ..HooksStatus::default()
    }
}

/// A Job whose name belongs to something else gets another one.
fn with_free_name(view: &View<'_>, mut hooks: HooksStatus) -> HooksStatus {
    let metadata = &view.snapshot.rollout.metadata;
    if let Some(current) = hooks.current.as_mut().filter(|it| view.snapshot.taken_names.contains(&it.job))
        && let Ok(point) = current.point.parse()
    {
        let key = key(metadata.uid.as_deref().unwrap_or_default(), current.run, point, &current.name);
        let rollout = metadata.name.as_deref().unwrap_or_default();
        current.job = job_name(rollout, &key, current.attempt, |name| view.snapshot.taken_names.contains(name));
    }
    hooks
}

/// What is seen of the hook that runs.
enum Look {
    /// Nothing to note.
    Waits,
    /// There is no Job of it yet.
    NotMade,
    /// It was to be ended because its container did not start; now it has.
    Started,
    /// Its container does not start, and is not going to.
    CannotStart(String),
    /// It has ended.
    Ended(End),
}

enum End {
    Succeeded {
        backup: Option<String>,
    },
    /// Why.
    Failed(String),
    /// It was lost with its node, evicted or preempted: no fault of the hook.
    Disrupted(String),
}

/// Total: every Job, or its absence, has a meaning.
fn look(view: &View<'_>, current: &CurrentHook, seen: &SeenHooks, alarm: &mut Alarm) -> Look {
    let pods: Vec<&HookPod> = seen.pods_of(&current.job).collect();
    let Some(job) = seen.job(&current.job) else {
        let was_there = view.snapshot.hook_seen.as_deref() == Some(current.job.as_str());
        if seen.untold.contains(&current.job) {
            alarm.passed(after(view.now(), LAST_WORDS_SECONDS));
            return Look::Waits;
        }
        return if pods.iter().any(|pod| !pod.is_finished) {
            Look::Waits // it is being ended with its Job
        } else if !current.stopping.is_empty() {
            Look::Ended(End::Failed(current.stopping.clone()))
        } else if was_there || !pods.is_empty() {
            Look::Ended(End::Failed("JobDeleted: its Job was deleted before it ended".into()))
        } else {
            Look::NotMade
        };
    };
    if job.is_deleting && job.end.is_none() {
        return Look::Waits;
    }
    let timeout = view.spec().hook(&current.name).map(|hook| hook.timeout_seconds);
    if let Some(end) = &job.end {
        let mut own = pods.iter().rev().filter(|pod| pod.job_uid == job.uid);
        let pod = own.clone().find(|pod| pod.is_finished);
        // What it said last comes by another watch: the Pods of a Job that has ended have ended. One that is gone says nothing any
        // more. No clock is asked for that: the Job controller's is another one than ours.
        let is_to_come = own.next().is_some() || seen.untold.contains(&job.name);
        if pod.is_none() && end.failure.as_deref() != Some(TIMED_OUT) && is_to_come {
            alarm.passed(after(view.now(), LAST_WORDS_SECONDS));
            return Look::Waits;
        }
        return Look::Ended(ended(current, end.failure.as_deref(), pod.copied(), timeout));
    }
    if pods.is_empty() {
        alarm.passed(after(job.created, NO_POD_SECONDS));
    }
    if let Some(seconds) = timeout {
        alarm.passed(after(job.created, i64::from(seconds) + LATE_END_SECONDS));
    }
    if current.stopping.starts_with(CANNOT_START) && pods.iter().any(|pod| pod.has_started) {
        return Look::Started;
    }
    let stuck = pods.iter().find_map(|pod| {
        let why = pod.waiting.as_ref().filter(|_| !pod.has_started)?;
        alarm.passed(after(pod.created, CANNOT_START_SECONDS)).then_some(why)
    });
    match stuck.filter(|_| current.stopping.is_empty()) {
        Some(why) => Look::CannotStart(format!("{CANNOT_START}: {why}")),
        None => Look::Waits,
    }
}

fn ended(current: &CurrentHook, failure: Option<&str>, pod: Option<&HookPod>, timeout: Option<i32>) -> End {
    let Some(reason) = failure else {
        return End::Succeeded { backup: pod.and_then(|pod| pod.backup.clone()) };
    };
    if reason == TIMED_OUT {
        let seconds = timeout.map(|seconds| format!(" within {seconds} s")).unwrap_or_default();
        return End::Failed(format!("HookTimedOut: it has not ended{seconds}"));
    }
    if let Some(why) = pod.and_then(|pod| pod.disruption.as_ref())
        && current.disruptions < DISRUPTIONS_MAX
    {
        return End::Disrupted(why.clone());
    }
    End::Failed(match pod.and_then(|pod| pod.exit.as_ref()) {
        Some(exit) if exit.message.is_empty() => format!("exit code {}", exit.code),
        Some(exit) => format!("exit code {}: {}", exit.code, exit.message),
        None => format!("its Job failed ({reason}), and its Pod is gone"),
    })
}

fn clipped(text: &str) -> String {
    on_one_line(text).chars().take(HOOK_MESSAGE_CHARS_MAX).collect()
}

/// After a loss of status: the run that the Jobs tell of, and how far its hooks were. Runs are counted on from there, because the
/// Jobs of a run of the same number would be taken for those of the new one. None where no Job tells of any.
pub(crate) fn recover(snapshot: &Snapshot, lineage: &Lineage<'_>) -> Option<(i64, HooksStatus)> {
    let seen = snapshot.hooks.seen()?;
    let highest = seen.jobs.iter().map(|job| job.run).max()?;
    let of_highest: Vec<&HookJob> = seen.jobs.iter().filter(|job| job.run == highest).collect();
    let effective = lineage.effective?;
    let newest = of_highest.iter().map(|job| job.created).max().unwrap_or_default();
    let is_over = |at: Option<Timestamp>| at.is_some_and(|at| at >= seconds(newest).0);
    let is_of_target = of_highest.iter().all(|job| job.revision == effective.name);
    let is_way_back = lineage.is_back() && !lineage.is_revert();
    let has_gone_back = of_highest.iter().any(|job| job.point.is_some_and(|it| it.on == HookPoint::OnRollback));
    let goes_on = is_of_target
        && if is_way_back { has_gone_back } else { !is_over(effective.completed_at) && !is_over(effective.failed_at) };
    let run = if goes_on { highest } else { highest.saturating_add(1) };
    let mut hooks = if goes_on {
        told_by(seen, &snapshot.rollout.spec.hooks, run)
    } else {
        HooksStatus { run, ..HooksStatus::default() }
    };
    if is_way_back {
        hooks.restore = lineage.update.and_then(|update| failed_run(seen, snapshot, update, run));
    }
    Some((run, hooks))
}

/// What the run that failed at this revision has left to be taken back.
fn failed_run(seen: &SeenHooks, snapshot: &Snapshot, update: &Revision, before: i64) -> Option<Restore> {
    let jobs = seen.jobs.iter().filter(|job| job.run < before && job.revision == update.name);
    let run = jobs.map(|job| job.run).max()?;
    let told = told_by(seen, &snapshot.rollout.spec.hooks, run);
    let backup = told.backup.map(|backup| backup.id).unwrap_or_default();
    (told.begun || !backup.is_empty()).then_some(Restore { run, backup, failure: String::new() })
}

/// How far the hooks of a run are, by its Jobs.
fn told_by(seen: &SeenHooks, all: &[Hook], run: i64) -> HooksStatus {
    let mut hooks = HooksStatus { run, ..HooksStatus::default() };
    // The newest attempt of each, in the order in which they were made.
    let mut newest: BTreeMap<(Point, &str), &HookJob> = BTreeMap::new();
    let mut before = 0;
    for job in seen.jobs.iter().filter(|job| job.run == run) {
        let Some(point) = job.point else { continue };
        let known = newest.entry((point, job.hook.as_str())).or_insert(job);
        if job.attempt >= known.attempt {
            *known = job;
        }
    }
    let points: std::collections::BTreeSet<Point> = newest.keys().map(|(point, _)| *point).collect();
    for point in points {
        hooks.point = point.to_string();
        hooks.done.clear();
        for ((_, name), job) in newest.iter().filter(|((of, _), _)| *of == point) {
            before += i32::from(is_before(point));
            let is_complete = job.end.as_ref().is_some_and(|end| end.failure.is_none());
            if is_complete {
                let said = seen.pods_of(&job.name).filter_map(|pod| pod.backup.clone()).last();
                match said.filter(|_| point.on == HookPoint::BeforeRollout) {
                    Some(id) => hooks.backup = Some(Backup { id, hook: (*name).to_owned() }),
                    None => hooks.begun |= is_before(point),
                }
                pass(&mut hooks, all, point, name);
            } else {
                hooks.current = Some(CurrentHook {
                    name: (*name).to_owned(),
                    point: point.to_string(),
                    run,
                    attempt: job.attempt,
                    job: job.name.clone(),
                    started_at: Some(seconds(job.created)),
                    ..CurrentHook::default()
                });
            }
        }
    }
    hooks.begun |= before > 1;
    hooks
}
