//! What the operator remembers of one Rollout between looks: what it waits for, what it was refused, when it may try again.
//! All of it can be lost; it is dropped with the object.
use std::{collections::BTreeSet, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::backoff::Backoff;
use crate::{
    observe::{Barrier, Observer},
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
    /// Own writes that must come back first.
    pub barrier: Barrier,
    /// What the planner is told.
    pub recollection: Recollection,
    /// When status was last written.
    pub status_written_at: Option<Instant>,
    /// No try before this time, whatever happens.
    pub pause_until: Option<Instant>,
    backoff: Backoff,
    create_backoff: Backoff,
}

impl ObjectMemory {
    /// Forgets everything when the object is another one of the same name; what was written must still come back.
    pub fn be_about(&mut self, uid: &str) {
        if self.uid != uid {
            let barrier = std::mem::take(&mut self.barrier);
            *self = Self { uid: uid.to_owned(), barrier, ..Self::default() };
        }
    }

    /// After a look in which everything went well.
    pub fn succeed(&mut self) {
        self.backoff.succeed();
        self.pause_until = None;
    }

    /// After a failure that concerns the whole look; returns the pause.
    pub fn fail(&mut self, rng: &mut fastrand::Rng) -> Duration {
        let pause = self.backoff.fail(rng);
        self.pause(pause);
        pause
    }

    /// No try for so long.
    pub fn pause(&mut self, pause: Duration) {
        let until = Instant::now() + pause;
        self.pause_until = Some(self.pause_until.map_or(until, |at| at.max(until)));
    }

    /// Takes note of what became of the changes. False when something went wrong and a pause was set.
    pub fn note(
        &mut self,
        snapshot: &Snapshot,
        outcomes: &[Outcome],
        observer: &Observer,
        rng: &mut fastrand::Rng,
        now: Timestamp,
    ) -> bool {
        let mut notes = Notes { doubtful: BTreeSet::new(), pause: None, backs_off: false };
        for outcome in outcomes {
            self.note_one(outcome, &mut notes);
        }
        self.note_creates(outcomes, rng, now);
        // After all writes were answered, so that the list shows what became of each.
        for kind in notes.doubtful {
            self.barrier.await_list(kind, observer.request_list(kind));
        }
        let known: BTreeSet<&str> = snapshot.revisions.iter().map(|revision| revision.name.as_str()).collect();
        self.recollection.template_checks.retain(|revision, _| known.contains(revision.as_str()));
        if let Some(pause) = notes.pause {
            self.pause(pause);
        }
        if notes.backs_off {
            self.fail(rng);
        }
        notes.pause.is_none() && !notes.backs_off
    }

    fn note_one(&mut self, outcome: &Outcome, notes: &mut Notes) {
        let (kind, name, version) = subject(&outcome.change);
        match &outcome.result {
            Applied::Done { .. } | Applied::Stale if version.is_some() => {
                let (uid, resource_version) = version.unwrap_or_default();
                self.barrier.await_successor(kind, name, uid, resource_version);
            }
            Applied::Done { resource_version } => self.barrier.await_version(kind, resource_version),
            Applied::AlreadyDone => self.barrier.await_presence(kind, name),
            Applied::Stale => notes.pause(AFTER_VANISHED),
            Applied::NameTaken => {
                if self.recollection.taken_names.len() >= TAKEN_NAMES_MAX {
                    self.recollection.taken_names.clear();
                }
                self.recollection.taken_names.insert(name.to_owned());
            }
            Applied::Checked(check) => drop(self.recollection.template_checks.insert(name.to_owned(), check.clone())),
            Applied::Unknown { retry_after: Some(pause), .. } => notes.pause(pause.unsigned_abs()),
            Applied::Unknown { retry_after: None, .. } => {
                notes.doubtful.insert(kind);
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
        if creates().any(|outcome| matches!(outcome.result, Applied::Done { .. } | Applied::AlreadyDone)) {
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
struct Notes {
    /// Kinds of which a write may or may not have happened.
    doubtful: BTreeSet<Kind>,
    pause: Option<Duration>,
    backs_off: bool,
}

impl Notes {
    fn pause(&mut self, pause: Duration) {
        self.pause = Some(self.pause.map_or(pause, |longer| longer.max(pause)));
    }
}

/// Kind and name of what a change writes (for a check: the revision checked), and, when it exists, (uid, resourceVersion).
fn subject(change: &Change) -> (Kind, &str, Option<(&str, &str)>) {
    match change {
        Change::CreateRevision { name, .. } => (Kind::Revision, name, None),
        Change::MarkRevision { name, uid, resource_version, .. }
        | Change::DeleteRevision { name, uid, resource_version } => {
            (Kind::Revision, name, Some((uid, resource_version)))
        }
        Change::CheckTemplate { revision } => (Kind::Pod, revision, None),
        Change::CreatePod { name, .. } => (Kind::Pod, name, None),
        Change::DeletePod { name, uid, resource_version, .. } => (Kind::Pod, name, Some((uid, resource_version))),
    }
}
