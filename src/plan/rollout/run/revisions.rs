//! Revisions: which one the spec asks for, which one is stable, which one is worked towards.
use jiff::Timestamp;

use super::pins::Pins;
use crate::{
    api::{Time, status::Failed},
    plan::{
        change::Memory,
        revision,
        rollout::{
            policy::{GoesBack, Policy},
            time::{after, reached, seconds},
        },
    },
    snapshot::{Revision, Snapshot},
};

/// Reason under which an abort is noted on the revision it gave up.
pub(crate) const ABORTED: &str = "Aborted";

/// The revisions that matter now.
pub(crate) struct Lineage<'a> {
    /// Of the present spec; None until its ControllerRevision exists.
    pub update: Option<&'a Revision>,
    /// Newest that completed: where instances go back to. None until one has.
    pub stable: Option<&'a Revision>,
    /// Worked towards: `stable` when `update` failed or was aborted, else `update`.
    pub effective: Option<&'a Revision>,
    /// No revision has ever completed, as far as anything remembers.
    pub first: bool,
    /// Canonical data of the present spec.
    pub data: serde_json::Value,
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
pub(crate) fn trace<'a>(snapshot: &'a Snapshot, remembered: &Memory) -> Lineage<'a> {
    let data = revision::data(&snapshot.rollout.spec);
    let pins = Pins::of(snapshot);
    let usable = || snapshot.revisions.iter().filter(|revision| !revision.deleting);
    let named = |name: Option<&String>| usable().find(|revision| Some(&revision.name) == name);
    let highest = snapshot.revisions.iter().map(|revision| revision.number).max().unwrap_or(0);
    let update =
        usable().filter(|revision| revision.data == data).max_by_key(|revision| (revision.number, &revision.name));
    let completed = usable()
        .filter(|revision| revision.completed_at.is_some())
        .max_by_key(|revision| (revision.completed_at, revision.number, &revision.name));
    let stable = completed
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
pub(crate) fn has_failed(snapshot: &Snapshot, update: &Revision) -> bool {
    let retried_at = reached(snapshot.rollout.spec.retry_at.as_ref(), snapshot.now);
    update.failed_at.is_some_and(|failed| {
        update.completed_at.is_none_or(|completed| completed < failed) && retried_at.is_none_or(|retry| retry <= failed)
    })
}

fn given_up(snapshot: &Snapshot, update: &Revision) -> bool {
    has_failed(snapshot, update)
        && (is_aborted(update) || Policy::of(&snapshot.rollout.spec).goes_back == GoesBack::All)
}

pub(crate) fn is_aborted(update: &Revision) -> bool {
    update.failed_reason.as_deref().is_some_and(|reason| reason.starts_with(ABORTED))
}

/// `now` in whole seconds, or just after the latest of `earlier` where the clock has stepped back: which of two marks is
/// the newer one must not depend on the clock.
pub(crate) fn stamp(now: Timestamp, earlier: impl Iterator<Item = Timestamp>) -> Timestamp {
    let now = seconds(now).0;
    earlier.max().filter(|latest| *latest >= now).map_or(now, |latest| after(latest, 1))
}

/// When `update` failed, if it does so now: later than it last completed.
pub(crate) fn failed_at(now: Timestamp, update: &Revision) -> Timestamp {
    stamp(now, update.completed_at.into_iter())
}

/// What the revision's annotations know of its failure: all there is after an abort, or a loss of status.
pub(crate) fn noted_on(revision: &Revision, run: i64) -> Option<Failed> {
    let (reason, message) = revision.failed_reason.as_deref().unwrap_or("Failed: ").split_once(": ")?;
    Some(Failed {
        revision: revision.name.clone(),
        run,
        reason: reason.into(),
        message: message.into(),
        at: revision.failed_at.map(Time),
        ..Failed::default()
    })
}
