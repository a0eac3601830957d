//! Jobs of hooks to create, to end, and to clear away.
use std::collections::BTreeMap;

use jiff::SignedDuration;

use crate::{
    api::hooks::{Backup, CurrentHook, HookPoint, Point},
    plan::{
        change::{Change, HookEnd, RevisionMark},
        hook::{JobRecipe, job},
        rollout::{run::View, time::Alarm},
    },
    snapshot::{HookJob, SeenHooks},
};

/// A Job is not cleared away sooner after its end: a create that the network has held back must find its name taken.
const CLEARED_AFTER: SignedDuration = SignedDuration::from_hours(1);
/// What is kept of hooks that the spec has no more: as if it said nothing.
const KEEP: (usize, i64) = (10, 30);

/// What is written about Jobs now.
pub(crate) fn changes(view: &View<'_>, alarm: &mut Alarm) -> Vec<Change> {
    let Some(seen) = view.snapshot.hooks.seen() else { return Vec::new() };
    let current = view.memory.hooks.current.as_ref();
    let work = current.and_then(|current| match seen.job(&current.job) {
        None => create(view, current, alarm),
        Some(job) => {
            let is_due = !current.stopping.is_empty() && job.end.is_none() && !job.is_deleting;
            is_due.then(|| Change::DeleteHook { seen: job.into(), reason: HookEnd::Stopped })
        }
    });
    work.into_iter().chain(note_backup(view)).chain(clear(view, seen)).collect()
}

/// The backup of this run, or of the one that is taken back, is written on the revision that it protects.
fn note_backup(view: &View<'_>) -> Option<Change> {
    let memory = &view.memory.hooks;
    let (backup, run) = match (&memory.backup, &memory.restore) {
        (Some(backup), _) if !view.lineage.is_back() => (backup.clone(), memory.run),
        (None, Some(restore)) => {
            let record = memory.log.iter().find(|it| it.run == restore.run && it.message == restore.backup)?;
            (Backup { id: restore.backup.clone(), hook: record.name.clone() }, restore.run)
        }
        _ => return None,
    };
    let stable = view.lineage.stable.filter(|stable| !stable.deleting)?;
    let known = stable.backup.as_deref().and_then(Backup::run_of);
    let is_news = !backup.id.is_empty() && known.is_none_or(|known| known < run);
    is_news.then(|| Change::mark(stable, RevisionMark::Backup { backup, run }))
}

/// The Job of the hook that is to run.
fn create(view: &View<'_>, current: &CurrentHook, alarm: &mut Alarm) -> Option<Change> {
    let snapshot = view.snapshot;
    let was_there = snapshot.hook_seen.as_deref() == Some(current.job.as_str());
    let is_held = snapshot.hook_refusal.as_ref().is_some_and(|refusal| !alarm.passed(refusal.retry_at));
    let is_early = current.not_before.as_ref().is_some_and(|at| !alarm.passed(at.0));
    if current.run != view.memory.run || !current.stopping.is_empty() || was_there || is_held || is_early {
        return None;
    }
    let hook = view.spec().hook(&current.name)?;
    let point: Point = current.point.parse().ok()?;
    let target = view.lineage.effective?;
    let is_back = point.on == HookPoint::OnRollback;
    let from = if is_back { view.lineage.update } else { view.lineage.stable };
    let from = from.filter(|from| from.name != target.name);
    let memory = &view.memory.hooks;
    let backup = match (&memory.restore, &memory.backup) {
        (Some(restore), _) if is_back => restore.backup.as_str(),
        (_, Some(backup)) if !is_back => backup.id.as_str(),
        _ => "",
    };
    let cause = view.memory.failed.as_ref().filter(|_| is_back);
    let cause = cause.map(|failed| format!("{}: {}", failed.reason, failed.message)).unwrap_or_default();
    let metadata = &snapshot.rollout.metadata;
    let recipe = JobRecipe {
        rollout: metadata.name.as_deref().unwrap_or_default(),
        namespace: metadata.namespace.as_deref().unwrap_or_default(),
        uid: metadata.uid.as_deref().unwrap_or_default(),
        hook,
        point,
        run: current.run,
        attempt: current.attempt,
        from: from.map(|from| (from.name.as_str(), &from.data)),
        to: (&target.name, &target.data),
        target: &target.name,
        backup,
        cause: &cause,
    };
    let job = job(&recipe, &current.job);
    Some(Change::CreateHook { name: current.job.clone(), hook: hook.name.clone(), job })
}

/// Jobs of earlier runs that are beyond what is kept by number and by age.
fn clear<'a>(view: &'a View<'_>, seen: &'a SeenHooks) -> impl Iterator<Item = Change> + 'a {
    let mut of_hook: BTreeMap<&str, Vec<&HookJob>> = BTreeMap::new();
    let earlier = |job: &&HookJob| job.run < view.memory.run && job.end.is_some() && !job.is_deleting;
    for job in seen.jobs.iter().filter(earlier) {
        of_hook.entry(&job.hook).or_default().push(job);
    }
    let beyond = of_hook.into_iter().flat_map(move |(name, jobs)| {
        let settings = view.spec().hook(name);
        let kept = settings.map(|hook| (usize::try_from(hook.keep).unwrap_or(0), i64::from(hook.keep_days)));
        let (keep, days) = kept.unwrap_or(KEEP);
        let age = SignedDuration::from_hours(days * 24).max(CLEARED_AFTER);
        let is_old = move |job: &&HookJob| job.end.as_ref().is_some_and(|end| view.now().duration_since(end.at) > age);
        let beyond = jobs.len().saturating_sub(keep);
        jobs.into_iter().take(beyond).filter(is_old)
    });
    beyond.map(|job| Change::DeleteHook { seen: job.into(), reason: HookEnd::Cleared })
}
