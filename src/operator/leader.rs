//! The controller lock: a Lease of our own. Who may take it is decided by [`lease::decide`]; here are the calls.
//!
//! The holder renews every two seconds; the fence lets writes through only while the last renewal, counted from before it
//! was sent, outlives them. A candidate follows the renewals by a watch on the Lease and asks nothing while it hears them.
//! It looks when they are overdue, and at once when that watch, or one on the holder's Pod, tells something else: a release
//! or a proven death is answered within milliseconds.
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tracing::Instrument;

use super::clock::Clock;
use crate::{
    api::names,
    apply::{CallError, Fence},
    observe::watch::{Refresher, Selection, Settings as WatchSettings, Watch, Watchable},
    plan::lease::{self, Candidacy, Decision, HolderPod, Identity, LEASE_DURATION, Lock, RENEW_DEADLINE, RETRY_PERIOD},
    snapshot::{
        ends::ends_of,
        guard::DeserializeGuard,
        index::Event,
        wire::{LeaseView, PodView},
    },
};

/// Longest time for one call about the Lease: two of them fit into the time that a holder has to renew.
const CALL_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a lock that was heard of may stay silent before a candidate looks: one renewal is overdue by half a period.
const SILENCE: Duration = Duration::from_secs(3);
/// Name of the operator's container in its Pod, whose end proves a holder's death.
pub const CONTAINER: &str = "operator";

/// Where the lock is, and who asks for it.
#[derive(Clone)]
pub struct Candidate {
    /// A client that nothing else uses, so that no queue of ours delays a renewal.
    pub client: Client,
    /// Namespace of the Lease and of the operators' Pods.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Us.
    pub me: Identity,
    /// No other process of our Pod is alive (see [`lease::Candidacy::alone_in_pod`]).
    pub alone_in_pod: bool,
    /// The time of day, for what is written into the Lease.
    pub clock: Clock,
    /// How watches are kept.
    pub watches: WatchSettings,
    /// For jitter.
    pub rng: fastrand::Rng,
}

/// Takes part in the election.
pub struct Election {
    candidate: Candidate,
    /// When this process began to take part, by both clocks.
    began: (Timestamp, Instant),
    api: Api<Lease>,
    fence: Fence,
    /// The Lease as last read or written.
    lease: Option<Lease>,
    /// A write of ours was sent: the lock may be ours, also after an error.
    has_asked: bool,
    /// When the last successful write of ours was sent.
    renewed_at: Instant,
    /// The lock as last seen changed, and when that was.
    seen: Option<(Lock, Instant)>,
    /// The lock as the watch on the Lease tells of it.
    heard: watch::Sender<Option<Lock>>,
    /// Moves when the watch on the holder's Pod tells something.
    told: watch::Sender<()>,
    lease_watch: Option<Aborting>,
    holder: Option<HolderWatch>,
}

/// The watch on the Pod of the holder.
struct HolderWatch {
    pod: String,
    last: watch::Receiver<Option<HolderPod>>,
    _task: Aborting,
}

/// A task that ends with its handle.
struct Aborting(JoinHandle<()>);

impl Drop for Aborting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why the lock is not ours any more.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// Another holds it.
    #[error("the lock was taken by {0}")]
    Taken(String),
    /// The Lease was deleted.
    #[error("the Lease was deleted")]
    Deleted,
    /// It could not be renewed in time.
    #[error("the lock could not be renewed for {} s", RENEW_DEADLINE.as_secs())]
    NotRenewed,
}

impl Election {
    /// Nothing is asked before [`Self::win`].
    pub fn new(candidate: Candidate, fence: Fence) -> Self {
        let api = Api::namespaced(candidate.client.clone(), &candidate.namespace);
        Self {
            began: (candidate.clock.now(), Instant::now()),
            candidate,
            api,
            fence,
            lease: None,
            has_asked: false,
            seen: None,
            renewed_at: Instant::now(),
            heard: watch::Sender::default(),
            told: watch::Sender::default(),
            lease_watch: None,
            holder: None,
        }
    }

    /// Returns once the lock is ours. Who drops it calls [`Self::release`]: what was asked for may still be granted.
    pub async fn win(&mut self) {
        let (mut heard, mut told) = (self.heard.subscribe(), self.told.subscribe());
        loop {
            heard.mark_unchanged();
            told.mark_unchanged();
            let pause = match self.try_once().await {
                Ok(None) => break,
                Ok(Some(pause)) => pause,
                Err(error) => {
                    tracing::warn!(lease = self.candidate.name, error = error.message(), "cannot ask for the lock");
                    RETRY_PERIOD
                }
            };
            self.follow_lease();
            tokio::select! {
                () = self.silence(pause, &mut heard) => {}
                _ = told.changed() => {}
            }
        }
        self.lease_watch = None;
        self.holder = None;
    }

    /// Returns when the lock has not been heard of for as long as `pause`, later [`SILENCE`], or when it is heard to have
    /// changed hands; and at the latest after [`LEASE_DURATION`], also if a watch goes on to show renewals.
    async fn silence(&mut self, pause: Duration, heard: &mut watch::Receiver<Option<Lock>>) {
        let jitter = 1.0 + 0.1 * self.candidate.rng.f64();
        let latest = Instant::now() + LEASE_DURATION;
        let mut until = Instant::now() + pause.mul_f64(jitter);
        while let Ok(Ok(())) = tokio::time::timeout_at(until.min(latest), heard.changed()).await {
            let lock = heard.borrow_and_update().clone();
            let (Some(lock), Some((seen, _))) = (lock, &self.seen) else { return };
            if (&lock.holder, lock.transitions) != (&seen.holder, seen.transitions) {
                return;
            }
            // A watch that lags tells of renewals that we have seen: they are no life.
            if lock.renewed_at > seen.renewed_at {
                self.seen = Some((lock, Instant::now()));
                until = Instant::now() + SILENCE.mul_f64(jitter);
            }
        }
    }

    /// Reads the lock and acts on it. None: it is ours now; otherwise when to look again.
    async fn try_once(&mut self) -> Result<Option<Duration>, CallError> {
        self.lease = in_time(self.api.get_opt(&self.candidate.name)).await?;
        let now = Instant::now();
        let lock = self.lease.as_ref().map(lock_of);
        if let Some(lock) = &lock {
            let is_alive = self.seen.as_ref().is_none_or(|(seen, _)| seen.shows_life(lock));
            if is_alive {
                self.seen = Some((lock.clone(), now));
            }
        }
        self.follow_holder(lock.as_ref());
        let holder_pod = self.holder.as_ref().and_then(|holder| holder.last.borrow().clone());
        let decision = lease::decide(&Candidacy {
            lock: lock.as_ref(),
            me: &self.candidate.me,
            unchanged_for: self
                .seen
                .as_ref()
                .map_or(Duration::ZERO, |(_, since)| now.saturating_duration_since(*since)),
            alone_in_pod: self.candidate.alone_in_pod,
            holder_pod: holder_pod.as_ref(),
        });
        let was = lock.as_ref().and_then(|lock| lock.holder.clone()).unwrap_or_default();
        let taken = match decision {
            Decision::Wait(pause) => return Ok(Some(pause)),
            Decision::Create => self.write(None, 0, true).await,
            Decision::Take(_) => {
                self.write(self.lease.clone(), lock.map_or(0, |lock| lock.transitions + 1), true).await
            }
            Decision::Ours => self.write(self.lease.clone(), lock.map_or(0, |lock| lock.transitions), false).await,
        };
        match taken {
            Ok(()) => {
                let why = if let Decision::Take(why) = decision { why.as_str() } else { "new" };
                tracing::info!(lease = self.candidate.name, identity = %self.candidate.me, was, why, "took the lock");
                Ok(None)
            }
            // Another was faster: look again at once.
            Err(error) if error.code() == 409 => Ok(Some(Duration::ZERO)),
            Err(error) => Err(error),
        }
    }

    /// Renews the lock until it is lost. The fence is closed then.
    pub async fn keep(&mut self) -> Lost {
        let mut next = self.renewed_at + RETRY_PERIOD;
        loop {
            tokio::time::sleep_until(next).await;
            next = Instant::now() + RETRY_PERIOD;
            match self.renew().await {
                Ok(None) => {}
                Ok(Some(lost)) => return self.lose(lost),
                Err(error) => {
                    tracing::warn!(lease = self.candidate.name, error = error.message(), "could not renew the lock");
                    next = Instant::now() + RETRY_PERIOD / 4;
                }
            }
            if self.renewed_at.elapsed() >= RENEW_DEADLINE {
                return self.lose(Lost::NotRenewed);
            }
        }
    }

    /// One renewal; twice when an answer of ours was lost in between. Some: the lock is another's.
    async fn renew(&mut self) -> Result<Option<Lost>, CallError> {
        for _ in 0..2 {
            let transitions = self.lease.as_ref().map_or(0, |lease| lock_of(lease).transitions);
            match self.write(self.lease.clone(), transitions, false).await {
                Ok(()) => return Ok(None),
                Err(error) if matches!(error.code(), 404 | 409) => {
                    self.lease = in_time(self.api.get_opt(&self.candidate.name)).await?;
                    let Some(lease) = &self.lease else { return Ok(Some(Lost::Deleted)) };
                    let holder = lock_of(lease).holder.unwrap_or_default();
                    if holder != self.candidate.me.to_string() {
                        return Ok(Some(Lost::Taken(holder)));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn lose(&self, lost: Lost) -> Lost {
        self.fence.close();
        lost
    }

    /// Gives the lock back if it is ours, so that no candidate waits for it. Call it when nothing writes any more.
    pub async fn release(&mut self) {
        self.fence.close();
        if !self.has_asked {
            return;
        }
        match self.try_release().await {
            Ok(true) => tracing::info!(lease = self.candidate.name, "released the lock"),
            Ok(false) => tracing::info!(lease = self.candidate.name, "the lock is not ours to release"),
            Err(error) => {
                tracing::warn!(lease = self.candidate.name, error = error.message(), "could not release the lock");
            }
        }
    }

    /// False when it is not ours.
    async fn try_release(&mut self) -> Result<bool, CallError> {
        if let Some(lease) = self.lease.take().filter(|lease| self.is_ours(lease)) {
            match self.give_back(lease).await {
                // The end may have cut off a renewal whose answer we have not seen.
                Err(error) if error.code() == 409 => {}
                done => return done.map(|()| true),
            }
        }
        match in_time(self.api.get_opt(&self.candidate.name)).await?.filter(|lease| self.is_ours(lease)) {
            Some(lease) => self.give_back(lease).await.map(|()| true),
            None => Ok(false),
        }
    }

    async fn give_back(&self, mut lease: Lease) -> Result<(), CallError> {
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = None;
        spec.renew_time = Some(MicroTime(self.candidate.clock.now()));
        in_time(self.api.replace(&self.candidate.name, &post_params(), &lease)).await.map(drop)
    }

    fn is_ours(&self, lease: &Lease) -> bool {
        lock_of(lease).holder == Some(self.candidate.me.to_string())
    }

    /// Writes us as holder by compare-and-swap, and opens the fence for as long as that certainly holds.
    async fn write(&mut self, lease: Option<Lease>, transitions: i32, is_new: bool) -> Result<(), CallError> {
        let now = MicroTime(self.candidate.clock.now());
        let exists = lease.is_some();
        let mut lease = lease.unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(self.candidate.name.clone()), ..ObjectMeta::default() },
            spec: None,
        });
        let acquired = lease.spec.as_ref().and_then(|spec| spec.acquire_time.clone()).filter(|_| !is_new);
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.candidate.me.to_string()),
            acquire_time: Some(acquired.unwrap_or_else(|| MicroTime(self.acquired_at()))),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            ..LeaseSpec::default()
        });
        let params = post_params();
        let (sent_at, lock_began) = (Instant::now(), self.fence.now());
        self.has_asked = true;
        let written = if exists {
            in_time(self.api.replace(&self.candidate.name, &params, &lease)).await?
        } else {
            in_time(self.api.create(&params, &lease)).await?
        };
        self.lease = Some(written);
        self.renewed_at = sent_at;
        self.fence.extend(lock_began + LEASE_DURATION);
        Ok(())
    }

    /// Now, by the time of day as this process has found it. If that is set back, an earlier container's end would
    /// else be later than what this one writes, and seem to be ours (see [`lease::covers`]).
    fn acquired_at(&self) -> Timestamp {
        let (time, since) = self.began;
        SignedDuration::try_from(since.elapsed()).map_or(time, |elapsed| time + elapsed)
    }

    /// Watches the Lease, to hear of its renewals and its release. Where that is not allowed, looking every two seconds
    /// must do.
    fn follow_lease(&mut self) {
        if self.lease_watch.is_none() {
            let heard = self.heard.clone();
            let task = self.watch::<LeaseView>("Lease", &self.candidate.name.clone(), move |event| {
                // One that cannot be read says nothing.
                let Some(event) = event.readable().map(|event| event.map(Lease::from)) else { return };
                let lock = match event {
                    Event::Applied(lease) => Some(lock_of(&lease)),
                    Event::Listed { objects, .. } => objects.first().map(lock_of),
                    Event::Deleted(_) => None,
                    Event::Progressed(_) => return,
                };
                heard.send_replace(lock);
            });
            self.lease_watch = Some(task);
        }
    }

    /// Watches the Pod that the holder names, to see its container's end.
    fn follow_holder(&mut self, lock: Option<&Lock>) {
        let holder = lock.and_then(|lock| Identity::parse(lock.holder.as_deref()?));
        let Some(holder) = holder.filter(|holder| !holder.uid.is_empty() && holder.uid != self.candidate.me.uid) else {
            self.holder = None;
            return;
        };
        if self.holder.as_ref().is_some_and(|watched| watched.pod == holder.pod) {
            return;
        }
        let (last, seen) = watch::channel(None);
        let told = self.told.clone();
        let task = self.watch::<PodView>("Pod of the lock's holder", &holder.pod, move |event| {
            // The last state counts also when the Pod is gone: it may be the one that tells of the end.
            let pod = match event.map(PodView::from) {
                Event::Listed { mut objects, .. } => objects.pop(),
                Event::Applied(pod) | Event::Deleted(pod) => Some(pod),
                Event::Progressed(_) => None,
            };
            if let Some(pod) = pod {
                last.send_replace(Some(holder_pod(&pod)));
                told.send_replace(());
            }
        });
        self.holder = Some(HolderWatch { pod: holder.pod, last: seen, _task: task });
    }

    fn watch<K>(
        &mut self,
        kind: &'static str,
        name: &str,
        sink: impl FnMut(Event<DeserializeGuard<K>>) + Send + 'static,
    ) -> Aborting
    where
        K: Watchable + kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        let watch = Watch::<K> {
            api: Api::namespaced(self.candidate.client.clone(), &self.candidate.namespace),
            name: kind,
            selection: Selection::name(name),
            settings: self.candidate.watches.clone(),
            refresh: Refresher::default().subscribe(),
            rng: self.candidate.rng.fork(),
            required: false,
        };
        Aborting(tokio::spawn(watch.run(sink).in_current_span()))
    }
}

fn post_params() -> PostParams {
    PostParams { dry_run: false, field_manager: Some(names::FIELD_MANAGER.to_owned()) }
}

async fn in_time<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(CallError::TimedOut(CALL_TIMEOUT)),
    }
}

fn lock_of(lease: &Lease) -> Lock {
    let spec = lease.spec.clone().unwrap_or_default();
    let time = |time: Option<MicroTime>| -> Option<Timestamp> { time.map(|time| time.0) };
    Lock {
        holder: spec.holder_identity,
        acquired_at: time(spec.acquire_time),
        renewed_at: time(spec.renew_time),
        transitions: spec.lease_transitions.unwrap_or_default(),
        duration_seconds: spec.lease_duration_seconds,
    }
}

fn holder_pod(pod: &PodView) -> HolderPod {
    let containers = pod.status.container_statuses.iter().filter(|container| container.name == CONTAINER);
    HolderPod { uid: pod.metadata.uid.clone().unwrap_or_default(), ends: containers.flat_map(ends_of).collect() }
}

#[cfg(test)]
#[path = "leader_tests.rs"]
mod tests;
