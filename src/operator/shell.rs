//! What looks at objects of any kind share: what they write with, what is remembered between them, and how each ends.
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use kube::{Resource, ResourceExt, core::object::HasSpec};
use serde::Serialize;
use tokio::time::Instant;

use super::{
    clock::Clock,
    memory::{ObjectMemory, Own, RolloutMemory},
    metrics::Metrics,
    notify::Notifier,
    sets::memory::SetMemory,
};
use crate::{
    apply::{
        self, Calls,
        event::{Event, News, Regarding},
        status::StatusWrite,
    },
    observe::{Doubt, Observer, Subject},
    plan::Applied,
    snapshot::index::{Index, Kind, ObjectKey},
    status::{Notice, NoticeKind},
};

/// Longest time without a look at an object: heals what a watch lost.
const RESYNC: Duration = Duration::from_mins(5);
/// Shortest time to the next look that a look asks for.
pub const SOON: Duration = Duration::from_millis(10);
/// Changes made in one look; the rest is planned anew with the next. Keeps the answer to a new spec, and status, within
/// seconds also while thousands of objects are created.
pub const CHANGES_MAX: usize = 256;

/// What every reconcile shares.
pub struct Shell {
    /// What is known.
    pub observer: Arc<Observer>,
    /// How to write.
    pub calls: Calls,
    /// The time of day.
    pub clock: Clock,
    /// For jitter and names of Events.
    pub rng: Mutex<fastrand::Rng>,
    /// What is counted.
    pub metrics: Metrics,
    /// This process, for Events.
    pub identity: String,
    /// Where Events go.
    pub notifier: Notifier,
    /// Of Rollouts.
    pub rollouts: Memories<RolloutMemory>,
    /// Of ListenerSets.
    pub sets: Memories<SetMemory>,
}

/// Memories of one object.
pub type Shared<T> = Arc<tokio::sync::Mutex<ObjectMemory<T>>>;

/// Memories of the objects of one kind. The queue runs an object once at a time; the locks are for the compiler, and survive
/// a panic.
#[derive(Debug, Default)]
pub struct Memories<T>(Mutex<BTreeMap<ObjectKey, Shared<T>>>);

impl<T: Own> Memories<T> {
    /// Of this object.
    pub fn of(&self, key: &ObjectKey) -> Shared<T> {
        lock(&self.0).entry(key.clone()).or_default().clone()
    }

    /// The object is gone.
    pub fn forget(&self, key: &ObjectKey) {
        lock(&self.0).remove(key);
    }

    /// Number of objects.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        lock(&self.0).len()
    }
}

/// A kind of object that is looked at.
pub trait Managed: Resource<DynamicType = ()> + HasSpec<Spec: Serialize> + Sized + 'static {
    /// As API objects spell it.
    const KIND: &'static str;
    /// Label `controller` of metrics.
    const CONTROLLER: &'static str;
    /// The same, for the watches.
    const SUBJECT: Subject;
    /// The same, for the barrier.
    const WATCHED: Kind;
    /// What is remembered of one of it alone.
    type Own: Own + Send + 'static;

    /// One look at one object.
    fn reconcile(key: &ObjectKey, shell: &Shell) -> impl Future<Output = Looked> + Send;

    /// Where its memories are.
    fn memories(shell: &Shell) -> &Memories<Self::Own>;

    /// An object, as last told; None when it does not exist, or cannot be read.
    fn find<'a>(index: &'a Index, key: &ObjectKey) -> Option<&'a Self>;

    /// uid and generation of an object, readable or not.
    fn identity<'a>(index: &'a Index, key: &ObjectKey) -> Option<(&'a str, i64)>;

    /// Why an object cannot be read, when it exists and cannot.
    fn unreadable(index: &Index, key: &ObjectKey) -> Option<String>;
}

/// How a look ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Result {
    /// Everything planned was done.
    Success,
    /// Waits for our own writes to come back.
    Stale,
    /// Something went wrong and is tried again.
    Error,
    /// The object is gone, or cannot be read.
    Gone,
}

/// How a look ended, and when the next is due without an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looked {
    /// How.
    pub result: Result,
    /// When. None: only an event leads to another.
    pub again_at: Option<Instant>,
    /// What happens waits so long for the next.
    pub rest: Duration,
}

impl Looked {
    /// Ended before there was anything to compute.
    pub fn early(result: Result, again_at: Option<Instant>) -> Self {
        Self { result, again_at, rest: Duration::ZERO }
    }
}

/// Whether a look may begin.
pub enum Ready {
    /// It may: uid of the object.
    Yes(String),
    /// It has ended.
    No(Looked),
}

/// What is seen of an object.
pub enum Observed<T> {
    /// All that is needed.
    Snapshot(Box<T>),
    /// Our own writes have not come back yet.
    Stale,
    /// It is left alone.
    Unreadable {
        /// The object.
        regarding: Regarding,
        /// Why.
        error: String,
    },
}

/// What became of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    /// Written, or nothing to write.
    Done,
    /// To be written later, to spare the API server.
    Later(Instant),
    /// Decide anew.
    Stale,
    /// Not written.
    Failed,
}

impl Reported {
    /// When to report again.
    pub fn again_at(self) -> Option<Instant> {
        if let Self::Later(at) = self { Some(at) } else { None }
    }
}

impl Shell {
    /// Begins a look: the object is there, what became of earlier writes is known, and no pause is on.
    pub async fn begin<K: Managed>(&self, key: &ObjectKey, memory: &mut ObjectMemory<K::Own>) -> Ready {
        let owned = |(uid, generation): (&str, i64)| (uid.to_owned(), generation);
        let Some((uid, generation)) = self.observer.look(|index| K::identity(index, key).map(owned)) else {
            K::memories(self).forget(key);
            return Ready::No(Looked::early(Result::Gone, None));
        };
        memory.be_about(&uid, generation);
        if memory.paused_until().is_none() {
            self.settle(key, memory).await;
        }
        match memory.paused_until() {
            Some(until) => Ready::No(Looked::early(Result::Error, Some(until))),
            None => Ready::Yes(uid),
        }
    }

    /// Looks at what is known of an object once our own writes have come back. `look` answers None for what is not known
    /// yet.
    pub fn observe<K: Managed, T>(
        &self,
        key: &ObjectKey,
        uid: &str,
        memory: &mut ObjectMemory<K::Own>,
        look: impl FnOnce(&Index, &K::Own) -> Option<T>,
    ) -> Observed<T> {
        for kind in memory.barrier.hasten(Instant::now(), |kind| self.observer.request_list(kind)) {
            tracing::warn!(?kind, "own write has not come back on the watch; listing anew");
            self.metrics.echo_missed(kind);
        }
        let ObjectMemory { barrier, own, .. } = memory;
        let looked = self.observer.look_past(barrier, K::SUBJECT, key, |index| {
            if K::identity(index, key).is_none_or(|(of, _)| of != uid) {
                return Observed::Stale; // replaced or gone just now; that event leads to another look
            }
            if let (Some(error), Some((_, version))) = (K::unreadable(index, key), index.version(K::WATCHED, key)) {
                let (uid, resource_version) = (uid.to_owned(), version.to_owned());
                let regarding = Regarding { kind: K::KIND, key: key.clone(), uid, resource_version };
                return Observed::Unreadable { regarding, error };
            }
            look(index, own).map_or(Observed::Stale, |seen| Observed::Snapshot(Box::new(seen)))
        });
        looked.unwrap_or(Observed::Stale)
    }

    /// Reads what became of writes without an answer. Those that cannot be read now are left for the next look.
    async fn settle<T: Own>(&self, key: &ObjectKey, memory: &mut ObjectMemory<T>) {
        let doubts: Vec<(Doubt, bool)> =
            memory.barrier.doubts().map(|(doubt, may_come)| (doubt.clone(), may_come)).collect();
        let found =
            join_all(doubts.iter().map(|(doubt, may_come)| self.what_became(&key.namespace, doubt, *may_come))).await;
        let mut has_failed = false;
        for ((doubt, _), found) in doubts.iter().zip(found) {
            match found {
                Ok(found) => memory.barrier.settle(doubt, found),
                Err(error) => {
                    tracing::debug!(name = doubt.name, error, "cannot tell whether it was written");
                    has_failed = true;
                }
            }
        }
        if has_failed {
            self.with_rng(|rng| memory.fail(rng));
        }
    }

    /// (uid, resourceVersion) of the object, once the write can no longer be done. Of most kinds a late write does no harm; one
    /// to a Pod takes an instance.
    async fn what_became(
        &self,
        namespace: &str,
        doubt: &Doubt,
        may_come: bool,
    ) -> std::result::Result<Option<(String, String)>, String> {
        let Doubt { kind, name, version } = doubt;
        // No set waits longer for a Lease that nothing is heard of.
        let calls = if *kind == Kind::Lease { &self.calls.quick() } else { &self.calls };
        let found = apply::version_of(calls, *kind, namespace, name).await.map_err(|error| error.message())?;
        let Some((uid, seen)) = version.as_ref().filter(|seen| *kind == Kind::Pod && found.as_ref() == Some(*seen))
        else {
            return Ok(found);
        };
        match apply::overtake_pod(&self.calls, namespace, name, (uid, seen)).await {
            Applied::Done { resource_version } => Ok(Some((uid.clone(), resource_version))),
            Applied::Refused { .. } => Ok(found), // a policy keeps us from writing to Pods: a read must do
            // A webhook that is down, say. Nothing else may be held up by that for longer than the write can take.
            _ if !may_come => Ok(found),
            other => Err(format!("not overtaken: {other:?}")),
        }
    }

    /// Whether the object is still the one that was looked at. Its watch may lag behind the one on Pods, and what a Pod's
    /// end rests on (replicas, paused, abort) must be what its user asks for now: no precondition of the delete covers that.
    pub async fn is_latest<K: Managed>(&self, memory: &mut ObjectMemory<K::Own>, object: &K) -> bool {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let seen = (object.uid().unwrap_or_default(), object.resource_version().unwrap_or_default());
        match apply::version_of(&self.calls, K::WATCHED, &namespace, &name).await {
            Ok(Some(latest)) if latest == seen => return true,
            Ok(_) => memory.barrier.await_successor(K::WATCHED, &name, &seen.0, &seen.1),
            Err(error) => {
                tracing::warn!(error = error.message(), "cannot read the {}; no Pod is deleted", K::KIND);
                self.with_rng(|rng| memory.fail(rng));
            }
        }
        false
    }

    /// Writes status, and notes what became of that.
    pub async fn write_status<K: Managed>(
        &self,
        memory: &mut ObjectMemory<K::Own>,
        object: &K,
        status: &impl Serialize,
    ) -> Reported {
        memory.status_written_at = Some(Instant::now());
        let (name, uid) = (object.name_any(), object.uid().unwrap_or_default());
        let seen = object.resource_version().unwrap_or_default();
        match apply::status::write(&self.calls, object, status).await {
            StatusWrite::Done { resource_version } => {
                // Unless the API server found nothing to change.
                if resource_version != seen {
                    memory.barrier.await_successor(K::WATCHED, &name, &uid, &seen);
                }
                Reported::Done
            }
            StatusWrite::Stale => {
                memory.barrier.await_successor(K::WATCHED, &name, &uid, &seen);
                Reported::Stale
            }
            StatusWrite::Failed(error) => {
                if !matches!(error, apply::CallError::Fenced) {
                    tracing::warn!(error = error.message(), "status was not written");
                }
                if error.is_doubtful() {
                    memory.doubt(K::WATCHED, &name, Some((&uid, &seen)));
                }
                self.with_rng(|rng| memory.fail(rng));
                Reported::Failed
            }
        }
    }

    /// Once for each version: it has no status that could say so.
    pub fn tell_unreadable<T: Own>(&self, memory: &mut ObjectMemory<T>, regarding: &Regarding, error: &str) {
        if memory.told_unreadable.as_ref() == Some(&regarding.resource_version) {
            return;
        }
        memory.told_unreadable = Some(regarding.resource_version.clone());
        let kind = regarding.kind;
        tracing::error!(error, "cannot read this {kind}; it is left alone");
        let note = format!("this {kind} cannot be read, and is left alone with its Pods: {error}");
        self.publish(regarding, &News { is_warning: true, reason: "Unreadable", action: "Reconcile", note: &note });
    }

    /// One line in the log and one Event for each.
    pub fn tell(&self, regarding: &Regarding, notices: Vec<Notice>) {
        for Notice { kind, reason, action, note } in notices {
            let is_warning = kind == NoticeKind::Warning;
            if is_warning {
                tracing::warn!(reason, "{note}");
            } else {
                tracing::info!(reason, "{note}");
            }
            self.publish(regarding, &News { is_warning, reason, action, note: &note });
        }
    }

    /// Notes a change in log and metrics. Not the change itself: a template may hold what does not belong into a log.
    pub fn tried(&self, name: &str, verb: &'static str, reason: &'static str, result: &Applied) {
        tracing::debug!(name, reason, ?result, "{verb}");
        self.metrics.changed(verb, reason, result);
    }

    /// Eight hex digits that the log lines of one look share.
    pub fn reconcile_id(&self) -> String {
        format!("{:08x}", self.with_rng(|rng| rng.u32(..)))
    }

    /// When an object is looked at even if nothing has happened.
    pub fn resync_at(&self, looked_at: Instant) -> Instant {
        looked_at + self.with_rng(|rng| RESYNC.mul_f64(0.8 + 0.2 * rng.f64()))
    }

    /// Some randomness.
    pub fn with_rng<T>(&self, f: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        f(&mut lock(&self.rng))
    }

    /// Publishes an Event about an object, soon.
    pub fn publish(&self, regarding: &Regarding, news: &News<'_>) {
        let suffix = self.with_rng(|rng| rng.u64(..));
        self.notifier.notify(Event::new(regarding, news, &self.identity, self.clock.now(), suffix));
    }

    /// After a panic: the object is left alone for a while, and told so. Others go on.
    pub async fn panicked<K: Managed>(&self, key: &ObjectKey, message: &str) -> Looked {
        let memory = K::memories(self).of(key);
        let mut rng = self.with_rng(fastrand::Rng::fork);
        let pause = memory.lock().await.fail(&mut rng);
        let kind = K::KIND;
        tracing::error!(object = %key, panic = message, pause_seconds = pause.as_secs(), "a look at this {kind} panicked");
        let regarding = self.observer.look(|index| K::find(index, key).map(|found| Regarding::object(kind, found)));
        if let Some(regarding) = regarding {
            let note =
                format!("the operator failed on this {kind} and tries again in {} s: {message}", pause.as_secs());
            self.publish(
                &regarding,
                &News { is_warning: true, reason: "InternalError", action: "Reconcile", note: &note },
            );
        }
        Looked::early(Result::Error, Some(Instant::now() + pause))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
