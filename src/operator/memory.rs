//! What the operator remembers of one object between looks: what it waits for, what it was refused, when it may try again.
//! All of it can be lost; it is dropped with the object.
use std::{
    cell::LazyCell,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::backoff::Backoff;
use crate::{
    observe::{Barrier, Doubt},
    plan::{self, Applied, Change, Outcome, PodAct, Question, RevisionAct, Seen},
    snapshot::{
        ChangeRefusal, CreateRefusal, RefusalReason, Snapshot,
        index::{Kind, Recollection},
    },
};

/// Pause after a write that the fence held back: by then the lock is renewed, or lost for good.
const AFTER_FENCE: Duration = Duration::from_secs(1);
/// Pause after a create whose name was taken and is free again.
const AFTER_VANISHED: Duration = Duration::from_millis(100);
/// Pause after a change in place that was refused: policies change.
const REFUSED_CHANGE: SignedDuration = SignedDuration::from_mins(1);
/// Names known to be taken; beyond it all are forgotten, at the cost of asking again.
const TAKEN_NAMES_MAX: usize = 1_000;

/// Memory of one object; `own` is what only its kind has to remember.
#[derive(Debug, Default)]
pub struct ObjectMemory<T> {
    /// uid of the object that the rest is about.
    uid: String,
    /// Of the spec that was looked at last.
    generation: i64,
    /// Own writes that must come back first.
    pub barrier: Barrier,
    /// Of its kind.
    pub own: T,
    /// When status was last written.
    pub status_written_at: Option<Instant>,
    /// resourceVersion at which it was told that the object cannot be read.
    pub told_unreadable: Option<String>,
    /// The API server, or the lock, asks for so long a pause.
    asked_until: Option<Instant>,
    /// After a failure, no try before this time, unless the spec changes: (time, generation).
    failed_until: Option<(Instant, i64)>,
    backoff: Backoff,
}

/// What is remembered of objects of one kind alone.
pub trait Own: Default {
    /// Longest pause after failures in a row.
    const PAUSE_MAX: Duration;
}

impl Own for RolloutMemory {
    const PAUSE_MAX: Duration = Duration::from_mins(1);
}

/// What is remembered of a Rollout alone.
#[derive(Debug, Default)]
pub struct RolloutMemory {
    /// What the planner is told.
    pub recollection: Recollection,
    create_backoff: Backoff,
    hook_backoff: Backoff,
    /// When the API server did not say what else the selector matches.
    pub overlap_failed_at: Option<Timestamp>,
    /// The run of which an Event has said why Pods are replaced where a change in place was asked for.
    pub not_in_place_run: Option<i64>,
}

impl<T: Own> ObjectMemory<T> {
    /// Forgets everything when the object is another one of the same name; what was written must still come back.
    pub fn be_about(&mut self, uid: &str, generation: i64) {
        if self.uid != uid {
            let barrier = std::mem::take(&mut self.barrier);
            *self = Self { uid: uid.to_owned(), barrier, ..Self::default() };
        }
        self.generation = generation;
    }
}

impl<T: Own> ObjectMemory<T> {
    /// After a look in which everything went well.
    pub fn succeed(&mut self) {
        self.backoff.succeed();
        (self.asked_until, self.failed_until) = (None, None);
    }

    /// After a failure that concerns the whole look; returns the pause. What a person does ends it: it may be the remedy.
    pub fn fail(&mut self, rng: &mut fastrand::Rng) -> Duration {
        let pause = self.backoff.fail(rng).min(T::PAUSE_MAX);
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

    /// Takes note of what became of one write.
    pub fn note_write(&mut self, write: &Written<'_>, result: &Applied, notes: &mut Notes) {
        let Written { kind, name, version } = *write;
        match result {
            Applied::Done { .. } | Applied::Stale if version.is_some() => {
                let (uid, resource_version) = version.unwrap_or_default();
                self.barrier.await_successor(kind, name, uid, resource_version);
            }
            Applied::Done { resource_version } => self.barrier.await_version(kind, resource_version),
            Applied::Stale => notes.pause(AFTER_VANISHED),
            Applied::Unknown { retry_after: Some(pause), .. } => notes.pause(pause.unsigned_abs()),
            Applied::Unknown { retry_after: None, .. } => {
                self.doubt(kind, name, version);
                notes.backs_off = true;
            }
            Applied::Refused { .. } => notes.backs_off = true,
            Applied::Fenced => notes.pause(AFTER_FENCE),
            Applied::NameTaken | Applied::Checked(_) => {}
        }
    }

    /// Takes note of what the writes of one look add up to. False when something went wrong and a pause was set.
    pub fn note_all(&mut self, notes: &Notes, rng: &mut fastrand::Rng) -> bool {
        if let Some(pause) = notes.pause {
            self.asked_until = self.asked_until.max(Some(Instant::now() + pause));
        }
        if notes.backs_off {
            self.fail(rng);
        }
        notes.pause.is_none() && !notes.backs_off
    }
}

/// Notes a name that is taken by an object that is not ours.
pub fn note_taken(names: &mut BTreeSet<String>, name: &str) {
    if names.len() >= TAKEN_NAMES_MAX {
        names.clear();
    }
    names.insert(name.to_owned());
}

impl ObjectMemory<RolloutMemory> {
    /// Takes note of what became of the changes. False when something went wrong and a pause was set.
    pub fn note(&mut self, snapshot: &Snapshot, outcomes: &[Outcome], rng: &mut fastrand::Rng, now: Timestamp) -> bool {
        let mut notes = Notes::default();
        for outcome in outcomes {
            self.note_one(outcome, &mut notes, now);
        }
        self.note_creates(outcomes, rng, now);
        self.note_hooks(snapshot, outcomes, rng, now);
        let named = snapshot.rollout.spec.strategy.blue_green.as_ref();
        let is_named = |name: &String| named.is_some_and(|named| named.names().any(|named| named == name));
        // What was named before counts until it is let go: an old view of it may be without the key.
        let is_left = |name: &String| snapshot.services.former.contains_key(name);
        self.own.recollection.services.retain(|name, _| is_named(name) || is_left(name));
        let known: BTreeSet<&str> = snapshot.revisions.iter().map(|revision| revision.name.as_str()).collect();
        // Most looks ask about no Pod, and then thousands of them are not gone through.
        let revision_of = LazyCell::new(|| -> BTreeMap<&str, &str> {
            snapshot.pods.iter().map(|pod| (pod.uid.as_str(), pod.revision.as_str())).collect()
        });
        self.own.recollection.template_checks.retain(|about, _| match about.split_once('/') {
            Some((to, uid)) => revision_of.get(uid).is_some_and(|now| *now != to),
            None => known.contains(about.as_str()),
        });
        self.own.recollection.change_refusals.retain(|_, refusal| refusal.retry_at > now);
        self.note_all(&notes, rng)
    }

    fn note_one(&mut self, outcome: &Outcome, notes: &mut Notes, now: Timestamp) {
        let (change, recollection) = (&outcome.change, &mut self.own.recollection);
        match &outcome.result {
            Applied::NameTaken => note_taken(&mut recollection.taken_names, change.name()),
            Applied::Checked(check) => {
                let about = refusal_key(change).unwrap_or_else(|| change.name().to_owned());
                recollection.template_checks.insert(about, check.clone());
            }
            // Creates of Pods have their own pause, so that all else goes on.
            Applied::Refused { .. } if matches!(change, Change::CreatePod { .. } | Change::CreateHook { .. }) => {}
            Applied::Refused { message, .. } if let Some(about) = refusal_key(change) => {
                let retry_at = now.saturating_add(REFUSED_CHANGE).unwrap_or(now);
                recollection.template_checks.remove(&about);
                recollection.change_refusals.insert(about, ChangeRefusal { message: message.clone(), retry_at });
            }
            result => match (change, written(change)) {
                (Change::Service { seen: Seen { name, .. }, .. }, _) => note_switch(recollection, name, result, notes),
                (_, Some(write)) => self.note_write(&write, result, notes),
                (_, None) => {}
            },
        }
    }

    /// The refusal that holds creates of Pods, until one succeeds.
    fn note_creates(&mut self, outcomes: &[Outcome], rng: &mut fastrand::Rng, now: Timestamp) {
        let creates = || outcomes.iter().filter(|outcome| matches!(outcome.change, Change::CreatePod { .. }));
        if creates().any(|outcome| matches!(outcome.result, Applied::Done { .. })) {
            self.own.create_backoff.succeed();
            self.own.recollection.create_refusal = None;
        }
        let refusal = creates().find_map(|outcome| match &outcome.result {
            Applied::Refused { reason, message } => Some((*reason, message.clone())),
            _ => None,
        });
        if let Some((reason, message)) = refusal {
            self.refuse_creates(reason, message, rng, now);
        }
    }

    /// Which Job of a hook has been seen or made, and the refusal that holds the next one.
    fn note_hooks(&mut self, snapshot: &Snapshot, outcomes: &[Outcome], rng: &mut fastrand::Rng, now: Timestamp) {
        let current = snapshot.rollout.status.as_ref().and_then(|status| status.hooks.as_ref()?.current.as_ref());
        if let Some(job) = current.and_then(|current| snapshot.hooks.seen()?.job(&current.job)) {
            self.own.recollection.hook_seen = Some(job.name.clone());
        }
        for outcome in outcomes {
            let Change::CreateHook { name, .. } = &outcome.change else { continue };
            match &outcome.result {
                Applied::Done { .. } => {
                    self.own.hook_backoff.succeed();
                    self.own.recollection.hook_seen = Some(name.clone());
                    self.own.recollection.hook_refusal = None;
                }
                Applied::Refused { reason, message } => {
                    let pause = self.own.hook_backoff.fail(rng);
                    refuse(&mut self.own.recollection.hook_refusal, *reason, message.clone(), pause, now);
                }
                _ => {}
            }
        }
    }

    fn refuse_creates(&mut self, reason: RefusalReason, message: String, rng: &mut fastrand::Rng, now: Timestamp) {
        let pause = self.own.create_backoff.fail(rng);
        refuse(&mut self.own.recollection.create_refusal, reason, message, pause, now);
    }
}

/// Notes a refusal: it lasts since the first one, and the next try comes after this pause.
fn refuse(known: &mut Option<CreateRefusal>, reason: RefusalReason, message: String, pause: Duration, now: Timestamp) {
    let since = known.as_ref().map_or(now, |refusal| refusal.since);
    let pause = SignedDuration::try_from(pause).unwrap_or(SignedDuration::ZERO);
    let retry_at = now.saturating_add(pause).unwrap_or(now);
    *known = Some(CreateRefusal { reason, message, since, retry_at });
}

/// What a refusal of this change is about, as a key of [`Snapshot::change_refusals`]; None: it is none of those.
fn refusal_key(change: &Change) -> Option<String> {
    let of_pod = |seen: &Seen, revision: &str| Some(ChangeRefusal::key_of(revision, &seen.uid));
    match change {
        Change::Ask(Question::Resize { pod, revision }) => of_pod(pod, revision),
        Change::Pod { seen, act } => match act {
            PodAct::ChangeInPlace { revision, resizes: false, .. } => Some(revision.clone()),
            PodAct::ChangeInPlace { revision, .. } | PodAct::Resize { revision } => of_pod(seen, revision),
            PodAct::Keep { .. } => Some(plan::specimen::refusal_key(&seen.uid)),
            PodAct::Adopt => Some(plan::adoption::refusal_key(&seen.uid)),
            _ => None,
        },
        Change::Revision { seen, act: RevisionAct::Adopt } => Some(plan::adoption::refusal_key(&seen.uid)),
        _ => None,
    }
}

/// What the outcomes of one plan add up to.
#[derive(Debug, Default)]
pub struct Notes {
    pause: Option<Duration>,
    backs_off: bool,
}

impl Notes {
    fn pause(&mut self, pause: Duration) {
        self.pause = self.pause.max(Some(pause));
    }
}

/// What a change writes.
#[derive(Clone, Copy, Debug)]
pub struct Written<'a> {
    /// Kind of the object.
    pub kind: Kind,
    /// Its name.
    pub name: &'a str,
    /// The (uid, resourceVersion) that the write requires; None where it requires none, as a create.
    pub version: Option<(&'a str, &'a str)>,
}

/// A Service is no object of ours: what is older than our own last write to it does not count.
fn note_switch(recollection: &mut Recollection, name: &str, result: &Applied, notes: &mut Notes) {
    match result {
        Applied::Done { resource_version } => {
            recollection.services.insert(name.to_owned(), resource_version.clone());
        }
        Applied::Unknown { retry_after: Some(pause), .. } => notes.pause(pause.unsigned_abs()),
        Applied::Unknown { retry_after: None, .. } | Applied::Refused { .. } => notes.backs_off = true,
        Applied::Stale | Applied::NameTaken | Applied::Checked(_) => notes.pause(AFTER_VANISHED),
        Applied::Fenced => notes.pause(AFTER_FENCE),
    }
}

/// What the barrier waits for after it, if it does.
fn written(change: &Change) -> Option<Written<'_>> {
    let kind = match change {
        Change::Service { .. } | Change::TellApplication { .. } | Change::CallPod { .. } => return None,
        Change::CreateRevision { .. } | Change::Revision { .. } => Kind::Revision,
        Change::CreatePod { .. } | Change::Pod { .. } | Change::Ask(_) => Kind::Pod,
        Change::CreateHook { .. } | Change::DeleteHook { .. } => Kind::Job,
    };
    let version = change.seen().map(|seen| (seen.uid.as_str(), seen.resource_version.as_str()));
    Some(Written { kind, name: change.name(), version })
}
