//! Operators as processes: each start has a name of its own (`a.1`, `a.2`), its client, clocks and identity.
//!
//! A crash aborts all its tasks; from that moment the network delivers nothing more of it, except what was sent before.
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use baton::{
    apply::applications::Post,
    operator::{
        clock::Clock,
        metrics::Metrics,
        run::{Environment, Options, run},
    },
    plan::lease::Identity,
};
use jiff::{SignedDuration, Timestamp};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::trace::Trace;
use crate::fake_apiserver::ApiServer;

/// Namespace of the lock.
pub const SYSTEM: &str = "baton-system";
/// Name of the lock.
pub const LEASE: &str = "baton-operator";

/// How long a watch may be silent.
pub const WATCH_SILENCE: Duration = Duration::from_mins(1);

/// A machine's time of day: how far it is off, and how fast it goes.
#[derive(Clone, Copy, Debug)]
pub struct Skew {
    /// At the beginning; ahead of the world, when positive.
    pub offset_millis: i64,
    /// Gained in each second, in microseconds.
    pub drift_micros: i64,
}

impl Skew {
    /// Exact.
    pub const NONE: Self = Self { offset_millis: 0, drift_micros: 0 };

    /// The time of day by this clock, `elapsed` after `epoch`.
    pub fn clock(self, epoch: Timestamp, start: Instant) -> Clock {
        Clock::new(move || {
            let elapsed = SignedDuration::try_from(start.elapsed()).unwrap_or(SignedDuration::MAX);
            epoch + elapsed + self.ahead(elapsed)
        })
    }

    /// How far it is ahead, `elapsed` after the beginning.
    pub fn ahead(self, elapsed: SignedDuration) -> SignedDuration {
        let drift = elapsed.as_millis() * i128::from(self.drift_micros) / 1_000_000;
        SignedDuration::from_millis(self.offset_millis + drift as i64)
    }
}

/// What is done to a process.
#[derive(Clone, Copy, Debug)]
pub enum Blow {
    /// kill -9; started again after this time.
    Kill(Duration),
    /// SIGTERM; started again after this time.
    Terminate(Duration),
}

/// One operator, over all its starts.
pub struct Operator {
    /// `a`.
    pub name: String,
    pub server: ApiServer,
    pub trace: Trace,
    pub skew: Skew,
    pub epoch: Timestamp,
    pub rng: fastrand::Rng,
    /// How applications are called.
    pub post: Post,
    /// It restarts within its Pod, and knows that it is alone there; else each start is a Pod of its own.
    pub restarts_in_place: bool,
    /// Names of the processes that are alive.
    pub alive: Alive,
}

/// Names of the processes that are alive: what others send is lost.
#[derive(Clone, Default)]
pub struct Alive(Arc<Mutex<std::collections::BTreeSet<String>>>);

impl Alive {
    /// Whether `who` lives.
    pub fn has(&self, who: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(who)
    }

    /// From now on `who` is dead.
    pub fn bury(&self, who: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(who);
    }

    /// From now on `who` lives.
    pub fn bear(&self, who: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(who.to_owned());
    }
}

impl Operator {
    /// Runs it, again and again, until dropped.
    pub async fn keep_running(mut self, mut blows: mpsc::UnboundedReceiver<Blow>) {
        for boot in 1.. {
            let who = format!("{}.{boot}", self.name);
            let stop = CancellationToken::new();
            self.alive.bear(&who);
            self.trace.say(&who, format_args!("starts; its clock: {:?}", self.skew));
            let running = run(self.environment(&who), self.options(&who, boot), stop.clone());
            let mut process = tokio::spawn(running.instrument(tracing::info_span!("operator", who)));
            let pause = tokio::select! {
                biased;
                ended = &mut process => {
                    let why = ended.map_or_else(|error| error.to_string(), |ended| format!("{ended:?}"));
                    self.trace.say(&who, format_args!("ends: {why}"));
                    Duration::from_millis(self.rng.u64(100..5_000))
                }
                blow = blows.recv() => match blow {
                    Some(Blow::Kill(pause)) => pause,
                    Some(Blow::Terminate(pause)) => {
                        stop.cancel();
                        let ended = tokio::time::timeout(Duration::from_secs(30), &mut process).await;
                        self.trace.say(&who, format_args!("was asked to end: {}", if ended.is_ok() { "done" } else { "killed" }));
                        pause
                    }
                    None => std::future::pending().await,
                },
            };
            self.alive.bury(&who);
            process.abort();
            self.trace.say(&who, format_args!("is dead for {} ms", pause.as_millis()));
            tokio::time::sleep(pause).await;
        }
    }

    fn environment(&mut self, who: &str) -> Environment {
        Environment {
            client: self.server.client(who),
            lease_client: self.server.client(who),
            clock: self.skew.clock(self.epoch, self.trace.start()),
            // A machine that sleeps is beyond a simulation whose processes share one clock for durations.
            time_since_boot: || Duration::ZERO,
            post: self.post.clone(),
            rng: self.rng.fork(),
            metrics: Metrics::default(),
        }
    }

    fn options(&self, who: &str, boot: u32) -> Options {
        let pod = if self.restarts_in_place { format!("uid-{}", self.name) } else { format!("uid-{who}") };
        Options {
            scopes: vec![None],
            concurrency: 4,
            watch_silence: WATCH_SILENCE,
            call_timeout: Duration::from_secs(10),
            lease: (SYSTEM.into(), LEASE.into()),
            identity: Identity { pod: self.name.clone(), uid: pod, boot: boot.to_string() },
            alone_in_pod: self.restarts_in_place,
            agent_image: None,
            bind: None,
        }
    }
}

/// The process that an identity in the lock is of.
pub fn process_of(identity: &str) -> Option<String> {
    Identity::parse(identity).map(|identity| format!("{}.{}", identity.pod, identity.boot))
}
