//! Revisions: which one the spec asks for, which one is stable, which one is worked towards.
use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{View, after, failure::seconds, gates, pins::Pins, reached, slots::Done};
use crate::{
    api::rollout::{OnFailure, Request},
    plan::{
        change::{Change, Memory, RevisionMark},
        revision,
    },
    snapshot::{Revision, Service, Snapshot},
};

/// Reason under which an abort is noted on the revision it gave up.
pub(super) const ABORTED: &str = "Aborted";

/// The revisions that matter now.
pub(super) struct Lineage<'a> {
    /// Of the present spec; None until its ControllerRevision exists.
    pub update: Option<&'a Revision>,
    /// Newest that completed: where instances go back to. None until one has.
    pub stable: Option<&'a Revision>,
    /// Worked towards: `stable` when `update` failed or was aborted, else `update`.
    pub effective: Option<&'a Revision>,
    /// No revision has ever completed, as far as anything remembers.
    first: bool,
    /// Canonical data of the present spec.
    data: serde_json::Value,
    /// Slots that are to run a revision of their own.
    pub pins: Pins<'a>,
}

impl Lineage<'_> {
    /// The stable revision is what is worked towards: nothing new is tried.
    pub fn is_back(&self) -> bool {
        self.effective.is_some() && self.effective.map(|r| &r.name) == self.stable.map(|r| &r.name)
    }

    /// No revision has completed yet: there is nothing to protect, so all slots are assigned the wanted one at once.
    pub fn is_first(&self) -> bool {
        self.first
    }

    /// It is the stable revision that is called so.
    pub fn is_stable(&self, name: &str) -> bool {
        self.stable.is_some_and(|stable| stable.name == name)
    }

    /// The spec itself asks for the stable revision.
    pub fn is_revert(&self) -> bool {
        self.is_back() && self.update.map(|r| &r.name) == self.stable.map(|r| &r.name)
    }
}

/// Finds them among what exists.
pub(super) fn trace<'a>(snapshot: &'a Snapshot, remembered: &Memory) -> Lineage<'a> {
    let data = revision::data(&snapshot.rollout.spec);
    let pins = Pins::of(snapshot);
    let usable = || snapshot.revisions.iter().filter(|revision| !revision.deleting);
    let named = |name: Option<&String>| usable().find(|revision| Some(&revision.name) == name);
    let highest = snapshot.revisions.iter().map(|revision| revision.number).max().unwrap_or(0);
    let update =
        usable().filter(|revision| revision.data == data).max_by_key(|revision| (revision.number, &revision.name));
    let obeyed = named(remembered.stable.as_ref()).filter(|_| mutant!(StatusObeyed));
    let completed = usable()
        .filter(|revision| revision.completed_at.is_some())
        .max_by_key(|revision| (revision.completed_at, revision.number, &revision.name));
    let stable = obeyed
        .or(completed)
        .or_else(|| named(remembered.stable.as_ref()))
        .or_else(|| if remembered.run == 0 { most_live(snapshot, &pins, update) } else { None });
    let effective = match (update, stable) {
        // Until it is marked as the wanted one again, its marks are about an earlier time.
        (Some(update), Some(stable)) if update.number == highest && given_up(snapshot, update) => Some(stable),
        (Some(update), _) => Some(update),
        (None, _) => named(remembered.effective.as_ref()).or(stable),
    };
    let first = stable.is_none() && remembered.stable.is_none();
    Lineage { update, stable, effective, first, data, pins }
}

/// With an empty status and nothing completed: of the revisions that work the one that most live Pods run, when that is not
/// the wanted one. With nothing ready there is nothing to go back to.
fn most_live<'a>(snapshot: &'a Snapshot, pins: &Pins<'_>, update: Option<&Revision>) -> Option<&'a Revision> {
    let pods = || snapshot.pods.iter().filter(|pod| pins.get(pod.slot).is_none());
    let live = |revision: &Revision| pods().filter(|pod| pod.is_live() && pod.revision == revision.name).count();
    let works = |revision: &Revision| pods().any(|pod| pod.is_ready() && pod.revision == revision.name);
    let working = snapshot.revisions.iter().filter(|revision| !revision.deleting && works(revision));
    working
        .max_by_key(|revision| (live(revision), revision.number, &revision.name))
        .filter(|most| Some(&most.name) != update.map(|u| &u.name))
}

/// It failed or was aborted since it last became the wanted one, completed or was retried.
pub(super) fn has_failed(snapshot: &Snapshot, update: &Revision) -> bool {
    let retried_at = reached(snapshot.rollout.spec.retry_at.as_ref(), snapshot.now);
    update.failed_at.is_some_and(|failed| {
        update.completed_at.is_none_or(|completed| completed < failed) && retried_at.is_none_or(|retry| retry <= failed)
    })
}

fn given_up(snapshot: &Snapshot, update: &Revision) -> bool {
    has_failed(snapshot, update)
        && (is_aborted(update) || snapshot.rollout.spec.strategy.on_failure == OnFailure::Rollback)
}

pub(super) fn is_aborted(update: &Revision) -> bool {
    update.failed_reason.as_deref().is_some_and(|reason| reason.starts_with(ABORTED))
}

/// `now` in whole seconds, or just after the latest of `earlier` where the clock has stepped back: which of two marks is
/// the newer one must not depend on the clock.
fn stamp(now: Timestamp, earlier: impl Iterator<Item = Timestamp>) -> Timestamp {
    let now = seconds(now).0;
    earlier.max().filter(|latest| *latest >= now).map_or(now, |latest| after(latest, 1))
}

/// When `update` failed, if it does so now: later than it last completed.
pub(super) fn failed_at(now: Timestamp, update: &Revision) -> Timestamp {
    stamp(now, update.completed_at.into_iter())
}

impl Lineage<'_> {
    /// Writes that make the ControllerRevisions say what the spec asks for, and clear away old ones.
    pub fn changes(&self, snapshot: &Snapshot, memory: &Memory) -> Vec<Change> {
        let highest = snapshot.revisions.iter().map(|revision| revision.number).max().unwrap_or(0);
        let change_cause = snapshot.rollout.new_request().and_then(change_cause);
        let change_cause = change_cause.or_else(|| snapshot.rollout.annotated_cause());
        match self.update {
            None => vec![create(snapshot, &self.data, highest + 1, change_cause)],
            Some(update) if update.number < highest => {
                vec![mark(update, RevisionMark::Wanted { number: highest + 1, change_cause })]
            }
            Some(_) => {
                let cause = |request: &Option<Request>| request.as_ref().and_then(self::change_cause);
                let of_pins = self.pins.due().map(|(pin, data)| create(snapshot, data, 0, cause(&pin.request)));
                of_pins.chain(self.clean_up(snapshot, memory)).collect()
            }
        }
    }

    /// Oldest first, all beyond the limit that nothing needs: not wanted, not stable, named by no pin, run by no Pod.
    fn clean_up(&self, snapshot: &Snapshot, memory: &Memory) -> Vec<Change> {
        let limit = usize::try_from(snapshot.rollout.spec.revision_history_limit).unwrap_or(0);
        let mut needed: BTreeSet<&str> = snapshot.pods.iter().map(|pod| pod.revision.as_str()).collect();
        needed.extend([self.update, self.stable, self.effective].into_iter().flatten().map(|r| r.name.as_str()));
        needed.extend(self.pins.revisions());
        needed.extend(snapshot.services.active.seen().and_then(Service::revision));
        needed.extend([&memory.update, &memory.stable, &memory.effective].into_iter().flatten().map(String::as_str));
        let mut spare: Vec<&Revision> =
            snapshot.revisions.iter().filter(|r| !r.deleting && !needed.contains(r.name.as_str())).collect();
        spare.sort_by_key(|revision| (revision.number, &revision.name));
        let beyond = spare.len().saturating_sub(limit);
        let delete = |r: &&Revision| Change::DeleteRevision {
            name: r.name.clone(),
            uid: r.uid.clone(),
            resource_version: r.resource_version.clone(),
        };
        spare.iter().take(beyond).map(delete).collect()
    }

    /// What the end of a run writes down for good: completed, failed or aborted.
    pub fn conclude(&self, view: &View<'_>) -> Option<Change> {
        let update = self.update.filter(|_| !self.is_back() && view.memory.batch.is_some())?;
        let has_failed = has_failed(view.snapshot, update);
        if view.spec().abort.as_ref().is_some_and(|abort| abort.run == view.memory.run)
            && !self.is_first()
            && !(has_failed && is_aborted(update))
        {
            let at = failed_at(view.now(), update);
            return Some(mark(update, RevisionMark::Failed { at, reason: abort_reason(view, update) }));
        }
        // Where no instance runs it, nothing has shown that it works.
        let is_seen = (mutant!(CompletesUnseen) || view.replicas() > 0) && gates::all_pinned(view).is_none();
        let all_done = view.slots.done() == Done::All && is_seen && gates::completion(view).is_none();
        let failed = view.memory.failed.as_ref().and_then(|failed| Some((failed, failed.at.as_ref()?.0)));
        // With nothing to go back to, a failed revision that comes up after all is simply up, as with a Deployment.
        if all_done && (self.is_first() || (!has_failed && failed.is_none())) {
            let marks = view.snapshot.revisions.iter().filter_map(|revision| revision.completed_at);
            let at = stamp(view.now(), marks.chain(update.failed_at));
            return Some(mark(update, RevisionMark::Completed { at }));
        }
        let (failed, at) = failed.filter(|_| !has_failed)?;
        let at = failed_at(at, update);
        Some(mark(update, RevisionMark::Failed { at, reason: format!("{}: {}", failed.reason, failed.message) }))
    }
}

fn create(snapshot: &Snapshot, data: &serde_json::Value, number: i64, change_cause: Option<String>) -> Change {
    let hash = revision::hash(data);
    let rollout = snapshot.rollout.metadata.name.as_deref().unwrap_or_default();
    let base = format!("{rollout}-{hash}");
    let taken = |name: &str| snapshot.taken_names.contains(name) || snapshot.revisions.iter().any(|r| r.name == name);
    let name =
        std::iter::once(base.clone()).chain((1..1_000).map(|n: u32| format!("{base}-{n}"))).find(|name| !taken(name));
    Change::CreateRevision { name: name.unwrap_or(base), hash, number, data: data.clone(), change_cause }
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

pub(super) fn mark(revision: &Revision, mark: RevisionMark) -> Change {
    Change::MarkRevision {
        name: revision.name.clone(),
        uid: revision.uid.clone(),
        resource_version: revision.resource_version.clone(),
        mark,
    }
}

/// `deploy-1 by alice: new prices`.
fn change_cause(request: &Request) -> Option<String> {
    let mut words = String::new();
    if let Some(id) = &request.id {
        words.push_str(id);
    }
    if let Some(by) = &request.by {
        words.push_str(if words.is_empty() { "by " } else { " by " });
        words.push_str(by);
    }
    if let Some(reason) = &request.reason {
        words.push_str(if words.is_empty() { "" } else { ": " });
        words.push_str(reason);
    }
    (!words.is_empty()).then_some(words)
}
