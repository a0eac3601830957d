//! What the operator remembers of one Rollout between looks: what it waits for, what it was refused, when it may try again.
//! All of it can be lost; it is dropped with the object.
use std::{collections::BTreeSet, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::backoff::Backoff;
use crate::{
    observe::{Barrier, Doubt},
    plan::{Applied, Change, Outcome},
    snapshot::{
        CreateRefusal, RefusalReason, Snapshot,
        index::{Kind, Recollection},
    },
};

/// Pause after a write that the fence held back: by then the lock is renewed, or lost for good.
const AFTER_FENCE: Duration = Duration::from_secs(1);
/// Pause after a create whose name was taken and is free again.
const AFTER_VANISHED: Duration = Duration::from_millis(100);
/// Names known to be taken; beyond it all are forgotten, at the cost of asking again.
const TAKEN_NAMES_MAX: usize = 1_000;

/// Memory of one Rollout.
#[derive(Debug, Default)]
pub struct ObjectMemory {
    /// uid of the object that the rest is about.
    uid: String,
    /// Of the spec that was looked at last.
    generation: i64,
    /// Own writes that must come back first.
    pub barrier: Barrier,
    /// What the planner is told.
    pub recollection: Recollection,
    /// When status was last written.
    pub status_written_at: Option<Instant>,
    /// resourceVersion at which it was told that the object cannot be read.
    pub told_unreadable: Option<String>,
    /// The API server, or the lock, asks for so long a pause.
    asked_until: Option<Instant>,
    /// After a failure, no try before this time, unless the spec changes: (time, generation).
    failed_until: Option<(Instant, i64)>,
    backoff: Backoff,
    create_backoff: Backoff,
}

impl ObjectMemory {
    /// Forgets everything when the object is another one of the same name; what was written must still come back.
    pub fn be_about(&mut self, uid: &str, generation: i64) {
        if self.uid != uid {
            let barrier = std::mem::take(&mut self.barrier);
            *self = Self { uid: uid.to_owned(), barrier, ..Self::default() };
        }
        self.generation = generation;
    }

    /// After a look in which everything went well.
    pub fn succeed(&mut self) {
        self.backoff.succeed();
        (self.asked_until, self.failed_until) = (None, None);
    }

    /// After a failure that concerns the whole look; returns the pause. What a person does ends it: it may be the remedy.
    pub fn fail(&mut self, rng: &mut fastrand::Rng) -> Duration {
        let pause = self.backoff.fail(rng);
        self.failed_until = Some((Instant::now() + pause, self.generation));
        pause
    }

    /// No try before this time.
    pub fn paused_until(&self) -> Option<Instant> {
        let failed_until = self.failed_until.filter(|(_, generation)| *generation == self.generation);
        self.asked_until.max(failed_until.map(|(until, _)| until)).filter(|until| Instant::now() < *until)
    }

    /// A write may or may not have happened.
    pub fn doubt(&mut self, kind: Kind, name: &str, version: Option<(&str, &str)>) {
        let version = version.map(|(uid, resource_version)| (uid.to_owned(), resource_version.to_owned()));
        self.barrier.doubt(Doubt { kind, name: name.to_owned(), version });
    }

    /// Takes note of what became of the changes. False when something went wrong and a pause was set.
    pub fn note(&mut self, snapshot: &Snapshot, outcomes: &[Outcome], rng: &mut fastrand::Rng, now: Timestamp) -> bool {
        let mut notes = Notes::default();
        for outcome in outcomes {
            self.note_one(outcome, &mut notes);
        }
        self.note_creates(outcomes, rng, now);
        let known: BTreeSet<&str> = snapshot.revisions.iter().map(|revision| revision.name.as_str()).collect();
        self.recollection.template_checks.retain(|revision, _| known.contains(revision.as_str()));
        if let Some(pause) = notes.pause {
            self.asked_until = self.asked_until.max(Some(Instant::now() + pause));
        }
        if notes.backs_off {
            self.fail(rng);
        }
        notes.pause.is_none() && !notes.backs_off
    }

    fn note_one(&mut self, outcome: &Outcome, notes: &mut Notes) {
        let (kind, version) = subject(&outcome.change);
        let name = outcome.change.name();
        match &outcome.result {
            Applied::Done { .. } | Applied::Stale if version.is_some() => {
                let (uid, resource_version) = version.unwrap_or_default();
                self.barrier.await_successor(kind, name, uid, resource_version);
            }
            Applied::Done { resource_version } => self.barrier.await_version(kind, resource_version),
            Applied::Stale => notes.pause(AFTER_VANISHED),
            Applied::NameTaken => {
                if self.recollection.taken_names.len() >= TAKEN_NAMES_MAX {
                    self.recollection.taken_names.clear();
                }
                self.recollection.taken_names.insert(name.to_owned());
            }
            Applied::Checked(check) => drop(self.recollection.template_checks.insert(name.to_owned(), check.clone())),
            Applied::Unknown { retry_after: Some(pause), .. } => notes.pause(pause.unsigned_abs()),
            Applied::Unknown { .. } if mutant!(LostDelete) && matches!(outcome.change, Change::DeletePod { .. }) => {}
            Applied::Unknown { retry_after: None, .. } => {
                self.doubt(kind, name, version);
                notes.backs_off = true;
            }
            // Creates of Pods have their own pause, so that all else goes on.
            Applied::Refused { .. } if matches!(outcome.change, Change::CreatePod { .. }) => {}
            Applied::Refused { .. } => notes.backs_off = true,
            Applied::Fenced => notes.pause(AFTER_FENCE),
        }
    }

    /// The refusal that holds creates of Pods, until one succeeds.
    fn note_creates(&mut self, outcomes: &[Outcome], rng: &mut fastrand::Rng, now: Timestamp) {
        let creates = || outcomes.iter().filter(|outcome| matches!(outcome.change, Change::CreatePod { .. }));
        if creates().any(|outcome| matches!(outcome.result, Applied::Done { .. })) {
            self.create_backoff.succeed();
            self.recollection.create_refusal = None;
        }
        let refusal = creates().find_map(|outcome| match &outcome.result {
            Applied::Refused { reason, message } => Some((*reason, message.clone())),
            _ => None,
        });
        if let Some((reason, message)) = refusal {
            self.refuse_creates(reason, message, rng, now);
        }
    }

    fn refuse_creates(&mut self, reason: RefusalReason, message: String, rng: &mut fastrand::Rng, now: Timestamp) {
        let pause = SignedDuration::try_from(self.create_backoff.fail(rng)).unwrap_or(SignedDuration::ZERO);
        let since = self.recollection.create_refusal.as_ref().map_or(now, |refusal| refusal.since);
        let retry_at = now.saturating_add(pause).unwrap_or(now);
        self.recollection.create_refusal = Some(CreateRefusal { reason, message, since, retry_at });
    }
}

/// What the outcomes of one plan add up to.
#[derive(Default)]
struct Notes {
    pause: Option<Duration>,
    backs_off: bool,
}

impl Notes {
    fn pause(&mut self, pause: Duration) {
        self.pause = self.pause.max(Some(pause));
    }
}

/// Kind of what a change writes and, when it exists, the (uid, resourceVersion) that the write requires.
fn subject(change: &Change) -> (Kind, Option<(&str, &str)>) {
    match change {
        Change::CreateRevision { .. } => (Kind::Revision, None),
        Change::MarkRevision { uid, resource_version, .. } | Change::DeleteRevision { uid, resource_version, .. } => {
            (Kind::Revision, Some((uid, resource_version)))
        }
        Change::CheckTemplate { .. } | Change::CreatePod { .. } => (Kind::Pod, None),
        Change::DeletePod { uid, resource_version, .. } | Change::SetInService { uid, resource_version, .. } => {
            (Kind::Pod, Some((uid, resource_version)))
        }
    }
}
