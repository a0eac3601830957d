//! `status.history`: an entry for each run and each restart, newest first.
use super::{
    look::Look,
    text::clip,
    verdict::{self, Kind, Verdict},
};
use crate::api::{Time, bounds, status::HistoryEntry};

const DEPLOY: &str = "Deploy";
const ROLLBACK: &str = "Rollback";
pub(super) const RESTART: &str = "Restart";
pub(super) const IN_PROGRESS: &str = "InProgress";
pub(super) const SUCCEEDED: &str = "Succeeded";
pub(super) const FAILED: &str = "Failed";
const ROLLED_BACK: &str = "RolledBack";
const SUPERSEDED: &str = "Superseded";
pub(super) const ABORTED: &str = "Aborted";

/// The history with what is seen now.
pub(super) fn history(look: &Look<'_>, verdict: &Verdict) -> Vec<HistoryEntry> {
    let mut entries = look.before.history.clone();
    let run = look.memory().run;
    let known = entries.iter().any(|entry| entry.kind != RESTART && entry.run == run);
    if run > 0 && !known && look.memory().effective.is_some() {
        let result = result_of_the_run_before(look);
        end(&mut entries, |entry| entry.kind != RESTART, result, &look.now());
        entries.insert(0, begun(look));
    }
    conclude(look, verdict, &mut entries);
    restarts(look, verdict, &mut entries);
    forget_the_oldest(&mut entries, run);
    entries
}

/// Down to the bound. The present run keeps its entry below any number of restarts: without it, it would seem to begin anew.
fn forget_the_oldest(entries: &mut Vec<HistoryEntry>, run: i64) {
    while entries.len() > bounds::HISTORY_MAX {
        let oldest = entries.iter().rposition(|entry| entry.kind == RESTART || entry.run != run);
        entries.remove(oldest.unwrap_or(entries.len() - 1));
    }
}

/// Ends the entries in progress that `which` names.
fn end(entries: &mut [HistoryEntry], which: impl Fn(&HistoryEntry) -> bool, result: &str, now: &Time) {
    for entry in entries.iter_mut().filter(|entry| entry.result == IN_PROGRESS && which(entry)) {
        entry.result = result.into();
        entry.completed_at = Some(now.clone());
    }
}

/// A new run has begun: what became of the one before it.
fn result_of_the_run_before(look: &Look<'_>) -> &'static str {
    if !look.is_given_up() {
        return SUPERSEDED;
    }
    if verdict::is_aborted(look) { ABORTED } else { ROLLED_BACK }
}

fn begun(look: &Look<'_>) -> HistoryEntry {
    let memory = look.memory();
    let request = look.spec().request.clone().unwrap_or_default();
    let was_elsewhere = look.before.effective_revision.is_some() && look.before.effective_revision != memory.effective;
    let automatic = look.is_given_up() && !verdict::is_aborted(look);
    let reason = if look.is_given_up() { Some(verdict::cause(look)) } else { request.reason };
    HistoryEntry {
        id: request.id.filter(|_| !automatic).map(|id| clip(&id, 128)),
        kind: if look.is_back() && (look.is_given_up() || was_elsewhere) { ROLLBACK } else { DEPLOY }.into(),
        run: memory.run,
        revision: clip(memory.effective.as_deref().unwrap_or_default(), 63),
        version: look.version(memory.effective.as_ref()),
        by: request.by.filter(|_| !automatic).map(|by| clip(&by, 128)),
        reason: reason.map(|reason| clip(&reason, bounds::MESSAGE_CHARS_MAX)),
        started_at: Some(look.now()),
        completed_at: None,
        result: IN_PROGRESS.into(),
    }
}

/// The present run's entry follows the verdict, until it has succeeded.
fn conclude(look: &Look<'_>, verdict: &Verdict, entries: &mut [HistoryEntry]) {
    let run = look.memory().run;
    let Some(entry) = entries.iter_mut().find(|entry| entry.kind != RESTART && entry.run == run) else { return };
    let arrived = verdict.kind == Kind::Current || ["RolledBack", "Aborted"].contains(&verdict.reason);
    let result = match (entry.result.as_str(), verdict.kind) {
        (IN_PROGRESS | FAILED, _) if arrived => SUCCEEDED,
        (IN_PROGRESS, Kind::Failed) if verdict.reason != "InvalidSpec" => FAILED,
        // What had stopped it was lifted: a larger threshold, an instance that came back.
        (FAILED, Kind::InProgress) if look.memory().batch.is_some() && look.is_recorded() => IN_PROGRESS,
        _ => return,
    };
    entry.result = result.into();
    entry.completed_at = (result != IN_PROGRESS).then(|| look.now());
}

/// A restart has an entry from when it is due and a Pod is older, until none is.
fn restarts(look: &Look<'_>, verdict: &Verdict, entries: &mut Vec<HistoryEntry>) {
    let due = look.spec().restart_at.as_ref().filter(|at| at.0 <= look.snapshot.now);
    // A time comes back from the API server in whole seconds, whatever was written; users write milliseconds too.
    let second = |at: Option<&Time>| at.map(|at| at.0.as_second());
    let of_this = |entry: &HistoryEntry| entry.kind == RESTART && second(entry.started_at.as_ref()) == second(due);
    let now = look.now();
    end(entries, |entry| entry.kind == RESTART && !of_this(entry), SUPERSEDED, &now);
    let Some(at) = due else { return };
    let older = look.slots.wanted().flat_map(|slot| &slot.live).any(|pod| pod.precedes(at.0));
    if !older {
        if look.is_settled() && verdict.kind != Kind::InProgress {
            end(entries, of_this, SUCCEEDED, &now);
        }
        return;
    }
    if entries.iter().any(of_this) {
        return;
    }
    let memory = look.memory();
    let request = look.spec().request.clone().unwrap_or_default();
    let entry = HistoryEntry {
        kind: RESTART.into(),
        run: memory.run,
        revision: clip(memory.effective.as_deref().unwrap_or_default(), 63),
        version: look.version(memory.effective.as_ref()),
        started_at: Some(at.clone()),
        by: request.by.map(|by| clip(&by, 128)),
        id: request.id.map(|id| clip(&id, 128)),
        reason: request.reason.map(|reason| clip(&reason, bounds::MESSAGE_CHARS_MAX)),
        completed_at: None,
        result: IN_PROGRESS.into(),
    };
    entries.insert(0, entry);
}
