//! The end of a run.
use crate::{
    plan::{
        change::{Change, RevisionMark},
        rollout::{
            run::{
                View,
                revisions::{ABORTED, failed_at, has_failed, is_aborted, stamp},
                slots::Done,
            },
            verdict::{gates, holds},
        },
    },
    snapshot::Revision,
};

/// What the end of a run writes down for good: completed, failed or aborted.
pub(crate) fn conclude(view: &View<'_>) -> Option<Change> {
    let update = view.lineage.update.filter(|_| !view.lineage.is_back() && view.memory.batch.is_some())?;
    let has_failed = has_failed(view.snapshot, update);
    if view.spec().abort.as_ref().is_some_and(|abort| abort.run == view.memory.run)
        && !view.lineage.is_first()
        && !(has_failed && is_aborted(update))
    {
        let at = failed_at(view.now(), update);
        return Some(Change::mark(update, RevisionMark::Failed { at, reason: abort_reason(view, update) }));
    }
    // Where no instance runs it, nothing has shown that it works.
    let is_seen = view.replicas() > 0 && holds::all_pinned(view).is_none();
    let all_done = view.slots.done() == Done::All && is_seen && gates::completion(view).is_none();
    let failed = view.memory.failed.as_ref().and_then(|failed| Some((failed, failed.at.as_ref()?.0)));
    // With nothing to go back to, a failed revision that comes up after all is simply up, as with a Deployment.
    if all_done && (view.lineage.is_first() || (!has_failed && failed.is_none())) {
        let marks = view.snapshot.revisions.iter().filter_map(|revision| revision.completed_at);
        let at = stamp(view.now(), marks.chain(update.failed_at));
        return Some(Change::mark(update, RevisionMark::Completed { at }));
    }
    let (failed, at) = failed.filter(|_| !has_failed)?;
    let at = failed_at(at, update);
    Some(Change::mark(update, RevisionMark::Failed { at, reason: format!("{}: {}", failed.reason, failed.message) }))
}

/// Who gave the run up and why; and what had failed before, because nothing else keeps that.
fn abort_reason(view: &View<'_>, update: &Revision) -> String {
    let request = view.snapshot.rollout.new_request();
    let by = request.and_then(|request| request.by.as_deref()).map(|by| format!(" by {by}")).unwrap_or_default();
    let why = request.and_then(|request| request.reason.as_deref()).map(|why| format!(": {why}")).unwrap_or_default();
    let failed = view.memory.failed.as_ref().filter(|failed| failed.at.is_some());
    let failed = failed.map(|failed| format!("; before, it had failed: {}: {}", failed.reason, failed.message));
    let noted = || {
        let noted = update.failed_reason.as_ref().filter(|_| has_failed(view.snapshot, update));
        noted.map(|noted| format!("; before, it had failed: {noted}"))
    };
    let failed = failed.or_else(noted).unwrap_or_default();
    format!("{ABORTED}: run {} was aborted{by}{why}{failed}", view.memory.run)
}
