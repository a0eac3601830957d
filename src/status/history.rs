//! `status.history`: an entry for each run, each restart, each change of pinned instances, each approval and each pause, newest
//! first.
use std::collections::{BTreeMap, BTreeSet};

use super::{
    look::Look,
    text::clip,
    verdict::{self, Kind, Verdict},
};
use crate::{
    api::{ConditionStatus, ConditionType, Time, bounds, rollout::Request, status::HistoryEntry},
    plan::rollout::{HOOK_FAILED, Slot},
    snapshot::{Pod, Ranges},
};

const DEPLOY: &str = "Deploy";
const ROLLBACK: &str = "Rollback";
pub(super) const INSTANCE_ROLLBACK: &str = "InstanceRollback";
pub(super) const UNPIN: &str = "Unpin";
pub(super) const RESTART: &str = "Restart";
const APPROVE: &str = "Approve";
pub(super) const PAUSE: &str = "Pause";
pub(super) const RESUME: &str = "Resume";
pub(super) const IN_PROGRESS: &str = "InProgress";
pub(super) const SUCCEEDED: &str = "Succeeded";
pub(super) const FAILED: &str = "Failed";
const ROLLED_BACK: &str = "RolledBack";
pub(super) const PARTLY_ROLLED_BACK: &str = "PartlyRolledBack";
const SUPERSEDED: &str = "Superseded";
pub(super) const ABORTED: &str = "Aborted";

/// The history with what is seen now.
pub(super) fn history(look: &Look<'_>, verdict: &Verdict) -> Vec<HistoryEntry> {
    let mut entries = look.before.history.clone();
    let run = look.memory().run;
    let known = entries.iter().any(|entry| is_run(entry) && entry.run == run);
    if run > 0 && !known && look.memory().effective.is_some() {
        let result = result_of_the_run_before(look);
        end(&mut entries, is_run, result, &look.now());
        entries.insert(0, begun(look));
    }
    conclude(look, verdict, &mut entries);
    restarts(look, verdict, &mut entries);
    pins(look, &mut entries);
    approved(look, &mut entries);
    paused(look, &mut entries);
    forget_notes(&mut entries);
    forget_the_oldest(&mut entries, run);
    shorten_the_oldest(&mut entries);
    entries
}

/// The others are of some instances, or of no revision of their own.
pub(super) fn is_run(entry: &HistoryEntry) -> bool {
    [DEPLOY, ROLLBACK].contains(&entry.kind.as_str())
}

/// What a person did that begins nothing of its own.
pub(super) fn is_note(entry: &HistoryEntry) -> bool {
    entry.kind == APPROVE || is_of_pauses(entry)
}

fn is_of_pauses(entry: &HistoryEntry) -> bool {
    [PAUSE, RESUME].contains(&entry.kind.as_str())
}

/// Down to their own bound. The newest approval stays, and the newest of pauses: by them is known what is noted already.
fn forget_notes(entries: &mut Vec<HistoryEntry>) {
    while entries.iter().filter(|entry| is_note(entry)).count() > bounds::HISTORY_NOTES_MAX {
        let oldest = (0..entries.len()).rev().find(|at| {
            let entry = &entries[*at];
            is_note(entry)
                && entries[..*at].iter().any(|newer| is_note(newer) && is_of_pauses(newer) == is_of_pauses(entry))
        });
        let Some(oldest) = oldest else { return };
        entries.remove(oldest);
    }
}

/// Down to the bound. The present run keeps its entry below any number of restarts: without it, it would seem to begin anew.
fn forget_the_oldest(entries: &mut Vec<HistoryEntry>, run: i64) {
    while entries.len() > bounds::HISTORY_MAX {
        let may_go = |entry: &HistoryEntry| !is_run(entry) || entry.run != run;
        let ended = entries.iter().rposition(|entry| may_go(entry) && entry.result != IN_PROGRESS);
        let oldest = ended.or_else(|| entries.iter().rposition(may_go));
        entries.remove(oldest.unwrap_or(entries.len() - 1));
    }
}

/// Newest first, each takes what it needs of the room that all have together. What is in progress stays as it is: its instances
/// say when it is over, and by its reason it is known again.
pub(super) fn shorten_the_oldest(entries: &mut [HistoryEntry]) {
    /// Of each.
    const BYTES_MIN: usize = 80;
    /// Of one character.
    const BYTES_MAX: usize = 4;
    let mut left = bounds::HISTORY_WORDS_BYTES_MAX;
    for entry in entries {
        let is_over = entry.result != IN_PROGRESS;
        if let Some(reason) = &mut entry.reason {
            let room = left.max(BYTES_MIN);
            if is_over && reason.len() > room {
                *reason = clip(reason, room / BYTES_MAX);
            }
            left = left.saturating_sub(reason.len());
        }
        let room = left.max(BYTES_MIN);
        if is_over && entry.instances.len() > room {
            entry.instances = Ranges::parse(&entry.instances).within(room);
        }
        left = left.saturating_sub(entry.instances.len());
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
    let request = asked(look.snapshot.rollout.new_request());
    let was_elsewhere = look.before.target_revision.is_some() && look.before.target_revision != memory.effective;
    let automatic = look.is_given_up() && !verdict::is_aborted(look);
    let asked_for = || request.reason.clone().or_else(|| look.snapshot.rollout.annotated_cause());
    let reason = if look.is_given_up() { Some(verdict::cause(look)) } else { asked_for() };
    HistoryEntry {
        id: request.id.filter(|_| !automatic),
        kind: if look.is_back() && (look.is_given_up() || was_elsewhere) { ROLLBACK } else { DEPLOY }.into(),
        run: memory.run,
        revision: clip(memory.effective.as_deref().unwrap_or_default(), 63),
        version: look.version(memory.effective.as_ref()),
        from_version: versions(
            look,
            look.slots.all().flat_map(Slot::all_live).filter(|pod| Some(&pod.revision) != memory.effective.as_ref()),
        ),
        instances: String::new(),
        batch: None,
        by: request.by.filter(|_| !automatic),
        reason: reason.map(|reason| clip(&reason, bounds::MESSAGE_CHARS_MAX)),
        started_at: Some(look.now()),
        completed_at: None,
        result: IN_PROGRESS.into(),
    }
}

/// Who asks for something and why, within the bounds of an entry.
fn asked(request: Option<&Request>) -> Request {
    let clipped = |text: &Option<String>, chars_max| text.as_deref().map(|text| clip(text, chars_max));
    request.map_or_else(Request::default, |request| Request {
        id: clipped(&request.id, 128),
        by: clipped(&request.by, 128),
        reason: clipped(&request.reason, bounds::MESSAGE_CHARS_MAX),
    })
}

/// The present run's entry follows the verdict, until it has succeeded.
fn conclude(look: &Look<'_>, verdict: &Verdict, entries: &mut [HistoryEntry]) {
    let run = look.memory().run;
    let Some(entry) = entries.iter_mut().find(|entry| is_run(entry) && entry.run == run) else { return };
    let arrived = verdict.is_complete() || ["RolledBack", "Aborted", HOOK_FAILED].contains(&verdict.reason);
    let result = match (entry.result.as_str(), verdict.kind) {
        (IN_PROGRESS | FAILED | PARTLY_ROLLED_BACK, _) if arrived => SUCCEEDED,
        (IN_PROGRESS | FAILED, _) if verdict.reason == PARTLY_ROLLED_BACK => PARTLY_ROLLED_BACK,
        (IN_PROGRESS, Kind::Failed) if verdict.reason != "InvalidSpec" => FAILED,
        // What had stopped it was lifted: a larger threshold, an instance that came back.
        (FAILED | PARTLY_ROLLED_BACK, Kind::InProgress | Kind::Current)
            if look.memory().batch.is_some() && look.is_recorded =>
        {
            IN_PROGRESS
        }
        _ => return,
    };
    entry.result = result.into();
    entry.completed_at = (result != IN_PROGRESS).then(|| look.now());
}

/// A restart has an entry from when it is due and a Pod is older, until none is.
fn restarts(look: &Look<'_>, verdict: &Verdict, entries: &mut Vec<HistoryEntry>) {
    let due = look.spec().restart_at.as_ref().filter(|at| at.0 <= look.snapshot.now);
    // A time comes back from the API server in whole seconds; users write milliseconds too.
    let second = |at: Option<&Time>| at.map(|at| at.0.as_second());
    let of_this = |entry: &HistoryEntry| entry.kind == RESTART && second(entry.started_at.as_ref()) == second(due);
    let now = look.now();
    end(entries, |entry| entry.kind == RESTART && !of_this(entry), SUPERSEDED, &now);
    let Some(at) = due else { return };
    let older = look.slots.wanted().flat_map(|slot| &slot.live).any(|pod| pod.precedes(at.0));
    if !older {
        if look.is_run_settled() && verdict.kind != Kind::InProgress {
            end(entries, of_this, SUCCEEDED, &now);
        }
        return;
    }
    if entries.iter().any(of_this) {
        return;
    }
    let memory = look.memory();
    let request = asked(look.snapshot.rollout.new_request());
    let entry = HistoryEntry {
        kind: RESTART.into(),
        run: memory.run,
        revision: clip(memory.effective.as_deref().unwrap_or_default(), 63),
        version: look.version(memory.effective.as_ref()),
        from_version: String::new(),
        instances: String::new(),
        batch: None,
        started_at: Some(at.clone()),
        by: request.by,
        id: request.id,
        reason: request.reason,
        completed_at: None,
        result: IN_PROGRESS.into(),
    };
    entries.insert(0, entry);
}

/// Instances that are pinned to another revision than they run, or that run what they are not pinned to any more, have an
/// entry until they run what they should: one for each revision that they go to.
fn pins(look: &Look<'_>, entries: &mut Vec<HistoryEntry>) {
    let now = look.now();
    for entry in entries.iter_mut().filter(|entry| entry.result == IN_PROGRESS) {
        let is_pin = entry.kind == INSTANCE_ROLLBACK;
        if !is_pin && entry.kind != UNPIN {
            continue;
        }
        let named = Ranges::parse(&entry.instances);
        let slots = look.slots.wanted().filter(|slot| named.0.contains(&slot.index));
        let is_meant = |slot: &&Slot<'_>| goal(look, slot) == Some(&entry.revision) && slot.pin.is_some() == is_pin;
        let meant: Vec<_> = slots.filter(is_meant).collect();
        if meant.iter().all(|slot| look.slots.is_done(slot) && !slot.joins_later) {
            entry.result = if meant.is_empty() { SUPERSEDED } else { SUCCEEDED }.into();
            entry.completed_at = Some(now.clone());
        }
    }
    for (kind, to, request, slots) in changing(look) {
        let (request, slots) = if kind == UNPIN {
            (unpinned_by(look, entries), not_told_of(entries, to, slots))
        } else {
            (request, slots)
        };
        if slots.is_empty() {
            continue;
        }
        let Request { id, by, reason } = asked(request);
        let is_it = |e: &&mut HistoryEntry| {
            (e.result.as_str(), e.kind.as_str(), e.revision.as_str()) == (IN_PROGRESS, kind, to)
                && (&e.id, &e.by, &e.reason) == (&id, &by, &reason)
        };
        if let Some(entry) = entries.iter_mut().find(is_it) {
            let mut named = Ranges::parse(&entry.instances);
            named.0.extend(slots.0);
            entry.instances = named.within(bounds::INSTANCES_CHARS_MAX);
            continue;
        }
        let in_progress = entries.iter().filter(|entry| entry.result == IN_PROGRESS).count();
        if in_progress + 2 > bounds::HISTORY_MAX {
            continue; // it would push out another one, and that this one in turn
        }
        let changed = look.slots.wanted().filter(|slot| slots.0.contains(&slot.index));
        let pods = changed.flat_map(|slot| slot.live.iter().chain(&slot.terminating)).copied();
        let entry = HistoryEntry {
            kind: kind.into(),
            run: look.memory().run,
            revision: clip(to, 63),
            version: look.version(Some(&to.to_owned())),
            from_version: versions(look, pods.filter(|pod| pod.revision != to)),
            instances: slots.within(bounds::INSTANCES_CHARS_MAX),
            batch: None,
            id,
            by,
            reason,
            started_at: Some(now.clone()),
            completed_at: None,
            result: IN_PROGRESS.into(),
        };
        entries.insert(0, entry);
    }
}

/// Who asks for the present spec, where the id tells that this is about the unpinning: what has none may be about an earlier
/// change.
fn unpinned_by<'l>(look: &'l Look<'_>, entries: &[HistoryEntry]) -> Option<&'l Request> {
    let request = look.snapshot.rollout.spec.request.as_ref().filter(|request| request.id.is_some())?;
    let is_of_unpin = entries.iter().any(|entry| entry.kind == UNPIN && entry.id == request.id);
    (is_of_unpin || (look.is_recorded && look.snapshot.rollout.new_request().is_some())).then_some(request)
}

/// Those of these instances that no entry says to be on their way to this revision, unpinned.
fn not_told_of(entries: &[HistoryEntry], to: &str, slots: Ranges) -> Ranges {
    let is_it = |entry: &&HistoryEntry| (entry.result.as_str(), entry.kind.as_str()) == (IN_PROGRESS, UNPIN);
    let told = entries.iter().filter(is_it).filter(|entry| entry.revision == to);
    let told: BTreeSet<i32> = told.flat_map(|entry| Ranges::parse(&entry.instances).0).collect();
    slots.0.into_iter().filter(|slot| !told.contains(slot)).collect()
}

/// An approval of the run that is on has an entry, once for each batch.
fn approved(look: &Look<'_>, entries: &mut Vec<HistoryEntry>) {
    let is_on = look.memory().batch.is_some() || look.before.batch.is_some();
    let Some(approve) = look.spec().approve.as_ref().filter(|it| is_on && it.run == look.memory().run) else { return };
    let is_it = |entry: &HistoryEntry| (entry.kind.as_str(), entry.run) == (APPROVE, approve.run);
    if entries.iter().any(|entry| is_it(entry) && entry.batch == Some(approve.batch)) {
        return;
    }
    let request = Request { id: None, by: approve.by.clone(), reason: approve.reason.clone() };
    let entry = note(look, APPROVE, asked(Some(&request)));
    entries.insert(0, HistoryEntry { batch: Some(approve.batch), ..entry });
}

/// That it was paused or resumed has an entry.
fn paused(look: &Look<'_>, entries: &mut Vec<HistoryEntry>) {
    // An operator of before this entry existed left only the condition.
    let was_said = || {
        let mut conditions = look.before.conditions.iter();
        conditions.any(|known| known.type_ == ConditionType::Paused && known.status == ConditionStatus::True)
    };
    let last = entries.iter().find(|entry| is_of_pauses(entry));
    let was_paused = last.map_or_else(was_said, |entry| entry.kind == PAUSE);
    // A request that comes with a new template is that of its run too: both are told at once.
    if look.spec().paused == was_paused || !look.is_recorded {
        return;
    }
    let kind = if was_paused { RESUME } else { PAUSE };
    let request = look.snapshot.rollout.new_request().filter(|request| request.id.is_some());
    entries.insert(0, note(look, kind, asked(request)));
}

fn note(look: &Look<'_>, kind: &str, request: Request) -> HistoryEntry {
    let memory = look.memory();
    HistoryEntry {
        kind: kind.into(),
        run: memory.run,
        revision: clip(memory.effective.as_deref().unwrap_or_default(), 63),
        version: look.version(memory.effective.as_ref()),
        id: request.id,
        by: request.by,
        reason: request.reason,
        started_at: Some(look.now()),
        completed_at: Some(look.now()),
        result: SUCCEEDED.into(),
        ..HistoryEntry::default()
    }
}

/// Instances that are on their way to or from what they are pinned to: kind of entry, revision that they go to, who asked.
fn changing<'l>(look: &'l Look<'_>) -> Vec<(&'static str, &'l str, Option<&'l Request>, Ranges)> {
    let outside_a_run = look.is_back() && look.memory().batch.is_none();
    let mut groups: Vec<(&str, &str, Option<&Request>, Ranges)> = Vec::new();
    let pinned = pinned_in_run(look);
    // In mid-run it runs what it is not pinned to any more: since before the run, or since a moment ago.
    let was_pinned = |slot: &Slot<'_>| {
        let is_at = |to: &str| slot.live.iter().any(|pod| pod.revision == to);
        let mut of_it = pinned.iter().filter(|(_, slots)| slot.opened && slots.0.contains(&slot.index));
        slot.joins_later || of_it.any(|(to, _)| is_at(to))
    };
    let concerns = |slot: &&Slot<'_>| slot.pin.is_some() || outside_a_run || was_pinned(slot);
    for slot in look.slots.wanted().filter(concerns) {
        let Some(to) = goal(look, slot) else { continue };
        // Status is not written at each look: it may be far on its way by then.
        let is_other = |pod: &&Pod| pod.revision != to;
        let last = || slot.terminating.iter().chain(&slot.finished).max_by_key(|pod| pod.created);
        let leaves = || slot.live.is_empty() && last().is_some_and(is_other);
        // What stands beside one that has arrived was left by a strategy before, or is on its way out.
        let has_arrived = || slot.fresh && slot.live.first().is_some_and(|pod| look.slots.has_all(pod));
        let may_be_beside = slot.pin.is_none() && outside_a_run;
        let is_changing = (slot.live.iter().any(is_other) && !(may_be_beside && has_arrived())) || leaves();
        if !is_changing || look.revision(Some(&to.to_owned())).is_none() {
            continue;
        }
        let kind = if slot.pin.is_some() { INSTANCE_ROLLBACK } else { UNPIN };
        let request = slot.pin.and_then(|pin| pin.request.as_ref());
        match groups.iter_mut().find(|group| (group.0, group.1, group.2) == (kind, to, request)) {
            Some((.., slots)) => drop(slots.0.insert(slot.index)),
            None => groups.push((kind, to, request, [slot.index].into_iter().collect())),
        }
    }
    groups
}

/// The revision that an instance is to run in the end, as far as is known now.
fn goal<'l>(look: &'l Look<'_>, slot: &Slot<'l>) -> Option<&'l str> {
    if slot.joins_later { look.memory().effective.as_deref() } else { slot.assigned }
}

/// What instances were pinned to in the present run, as far as its history tells.
fn pinned_in_run<'l>(look: &'l Look<'_>) -> Vec<(&'l str, Ranges)> {
    let is_of_run = |entry: &&HistoryEntry| (entry.kind.as_str(), entry.run) == (INSTANCE_ROLLBACK, look.memory().run);
    let entries = look.before.history.iter().filter(is_of_run);
    entries.map(|entry| (entry.revision.as_str(), Ranges::parse(&entry.instances))).collect()
}

/// Versions of these Pods, the most common first.
fn versions<'p>(look: &Look<'_>, pods: impl Iterator<Item = &'p Pod>) -> String {
    let mut counted: BTreeMap<String, usize> = BTreeMap::new();
    for pod in pods {
        *counted.entry(look.slots.called_of(pod)).or_default() += 1;
    }
    let mut versions: Vec<_> = counted.into_iter().collect();
    versions.sort_by(|(a, of_a), (b, of_b)| of_b.cmp(of_a).then_with(|| a.cmp(b)));
    clip(&versions.into_iter().map(|(version, _)| version).collect::<Vec<_>>().join(", "), 128)
}
