//! What is started, and in which order it stops.
//!
//! Start: probes, watches (a standby's caches are warm), lock. Once the lock is ours every kind is listed anew, because the
//! predecessor's last writes may not have reached our caches yet; then the work begins.
//! Stop: no new looks; those going on end, or may not begin another write; then the lock is released, then the watches end. When the lock is lost the fence
//! closes at once and the process ends with an error: its next start is clean.
use std::{
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use futures::future::{OptionFuture, join};
use kube::{Client, Config, client::ClientBuilder};
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    clock::{Clock, time_since_boot},
    dispatch::dispatch,
    leader::{Candidate, Election, Lost},
    metrics::Metrics,
    notify::{self, Publisher},
    probes,
    queue::Queue,
    settings::{PodLock, Settings},
    shell::{Managed, Memories, Shell},
    unreadable,
};
use crate::{
    api::{ListenerSet, Rollout},
    apply::{
        Calls, Fence,
        applications::{OnAnswer, Post, by_http},
    },
    observe::{Observer, watch},
    plan::lease::Identity,
    served::{self, Bounds},
    snapshot::index::{Index, Scope, Touched},
};

/// Two looks at one Rollout are at least so far apart.
const LOOK_SPACING: Duration = Duration::from_millis(20);
/// Two looks at one ListenerSet are at least so far apart: steps of a hand-off wait for it.
const SET_LOOK_SPACING: Duration = Duration::from_millis(8);
/// How long Rollouts wait to know what their Pods hold. Where the operator may not look at Leases, or nothing serves them
/// (403, 404), they go on without; a list that fails otherwise is waited for.
const SETS_PATIENCE: Duration = Duration::from_secs(10);
/// No namespace has more than so many parts of the workers at once, however slowly its calls are answered; but two.
const SHARES: usize = 4;
/// Of `/healthz`, `/readyz` and `/metrics`: Pods of the whole cluster may reach them.
const PROBES: Bounds = Bounds { connections: 64, lasts: Some(Duration::from_secs(30)) };
/// How long looks that are going on may still write after the process was told to stop. With the longest call after it,
/// all ends well within a Pod's grace of 30 s.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Everything from outside: a simulation puts its own here.
pub struct Environment {
    /// For watches and writes.
    pub client: Client,
    /// For the lock alone.
    pub lease_client: Client,
    /// The time of day.
    pub clock: Clock,
    /// Sleep of the machine included (see [`time_since_boot`]).
    pub time_since_boot: fn() -> Duration,
    /// How applications in Pods are called.
    pub post: Post,
    /// All randomness.
    pub rng: fastrand::Rng,
    /// What is counted.
    pub metrics: Metrics,
}

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Namespaces to work in, or one entry without.
    pub scopes: Vec<Scope>,
    /// Rollouts worked on at the same time, and as many ListenerSets.
    pub concurrency: usize,
    /// Longest silence of a watch.
    pub watch_silence: Duration,
    /// Longest time for one call.
    pub call_timeout: Duration,
    /// Namespace and name of the Lease.
    pub lease: (String, String),
    /// Us.
    pub identity: Identity,
    /// No other process of our Pod is alive.
    pub alone_in_pod: bool,
    /// Of the agent, for Pods whose own image has none.
    pub agent_image: Option<String>,
    /// Where /healthz, /readyz and /metrics are. None: nowhere.
    pub bind: Option<SocketAddr>,
}

/// Why the operator ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The controller lock is another's.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The probes' address cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Bind(SocketAddr, #[source] std::io::Error),
    /// Something that never ends has ended.
    #[error("a part of the operator ended unexpectedly: {0}")]
    Ended(String),
}

/// Runs the operator from the command line until SIGTERM or SIGINT.
///
/// # Errors
/// Something keeps it from starting; and [`Error`].
pub async fn from_settings(settings: Settings) -> anyhow::Result<()> {
    Box::pin(run_settings(settings, stop_on_signals()?)).await
}

async fn run_settings(settings: Settings, stop: CancellationToken) -> anyhow::Result<()> {
    let _pod_lock = match &settings.state_dir {
        Some(folder) => tokio::select! {
            lock = PodLock::acquire(folder) => Some(lock?),
            () = stop.cancelled() => return Ok(()),
        },
        None => None,
    };
    let config = settings.config().await?;
    let namespace = settings.lease_namespace.clone().or_else(|| settings.pod.pod_namespace.clone());
    let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
    let metrics = Metrics::default();
    let mut rng = fastrand::Rng::new();
    let options = Options {
        scopes: settings.scopes(),
        concurrency: usize::from(settings.concurrency),
        watch_silence: settings.watch_silence(),
        call_timeout: settings.call_timeout(),
        lease: (namespace, settings.lease_name.clone()),
        identity: settings.identity(rng.u64(..)),
        alone_in_pod: settings.state_dir.is_some(),
        agent_image: settings.agent_image.clone(),
        bind: Some(settings.bind()),
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        server = %config.cluster_url,
        identity = %options.identity,
        namespaces = settings.namespaces.join(","),
        "starting"
    );
    let environment = Environment {
        client: client(config.clone(), &metrics)?,
        lease_client: client(config, &metrics)?,
        clock: Clock::system(),
        time_since_boot,
        post: by_http(),
        rng,
        metrics,
    };
    Ok(run(environment, options, stop).await?)
}

fn client(config: Config, metrics: &Metrics) -> anyhow::Result<Client> {
    let builder = ClientBuilder::try_from(config).context("cannot make a client")?;
    Ok(builder.with_layer(&metrics.requests()).build())
}

fn stop_on_signals() -> anyhow::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let on_signal = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        on_signal.cancel();
    });
    Ok(stop)
}

/// Runs the operator until `stop`.
///
/// # Errors
/// The lock was lost; the probes' address is taken; a part ended that never should.
pub async fn run(environment: Environment, options: Options, stop: CancellationToken) -> Result<(), Error> {
    let Environment { client, lease_client, clock, time_since_boot, post, mut rng, metrics } = environment;
    let queues = Queues::new((options.concurrency / SHARES).max(2));
    let mut parts = JoinSet::new();
    let watches = watch::Settings {
        silence: options.watch_silence,
        begin_timeout: options.call_timeout,
        ends: metrics.watch_ends(),
        ..Default::default()
    };
    let due = queues.clone();
    let trigger: crate::observe::Trigger = Arc::new(move |touched| due.add(touched));
    let observer = Arc::new(Observer::start(&client, &options.scopes, &watches, &mut rng, &trigger, &mut parts));
    metrics.show(&observer, &queues.by_controller());
    if let Some(address) = options.bind {
        let listener = TcpListener::bind(address).await.map_err(|error| Error::Bind(address, error))?;
        let routes = probes::routes(observer.clone(), metrics.clone());
        parts.spawn(async move { match served::serve(listener, PROBES, routes).await {} });
    }
    let fence = Fence::with_clock(time_since_boot);
    let (lease_namespace, lease_name) = options.lease.clone();
    let candidate = Candidate {
        client: lease_client,
        namespace: lease_namespace,
        name: lease_name.clone(),
        me: options.identity.clone(),
        alone_in_pod: options.alone_in_pod,
        clock: clock.clone(),
        watches,
        rng: rng.fork(),
    };
    let mut election = Election::new(candidate, fence.clone());
    metrics.leads(&lease_name, false);
    let ended = tokio::select! {
        () = election.win() => None,
        () = stop.cancelled() => Some(Ok(())),
        ended = a_part_ends(&mut parts) => Some(Err(ended)),
    };
    if let Some(outcome) = ended {
        election.release().await;
        return outcome;
    }
    metrics.leads(&lease_name, true);
    let (notifier, publisher) = notify::channel();
    let due = queues.rollouts.clone();
    let on_answer: OnAnswer = Arc::new(move |key| due.add([key]));
    let due = queues.sets.clone();
    let on_letters: OnAnswer = Arc::new(move |key| due.add([key]));
    let calls = Calls::new(client, fence, options.call_timeout).with_letters(on_letters);
    let shell = Arc::new(Shell {
        observer: observer.clone(),
        calls: calls.with_agent_image(options.agent_image.as_deref()).with_applications(post, on_answer),
        clock,
        rng: rng.into(),
        metrics: metrics.clone(),
        identity: options.identity.to_string(),
        notifier,
        rollouts: Memories::default(),
        sets: Memories::default(),
    });
    let work = work(shell, publisher, queues, options.concurrency, stop);
    let outcome = tokio::select! {
        () = work => Ok(()),
        lost = election.keep() => Err(Error::Lost(lost)),
        ended = a_part_ends(&mut parts) => Err(ended),
    };
    metrics.leads(&lease_name, false);
    // Also after a part has ended: nothing writes any more, so a standby need not wait. A lock that was lost is not ours.
    if !matches!(outcome, Err(Error::Lost(_))) {
        election.release().await;
    }
    outcome
}

/// What is due, by kind. Nothing takes from a standby's queues: they would fill, and keep what is gone.
#[derive(Clone)]
struct Queues {
    rollouts: Arc<Queue>,
    sets: Arc<Queue>,
    rollouts_are_wanted: Arc<AtomicBool>,
    sets_are_wanted: Arc<AtomicBool>,
}

impl Queues {
    /// Empty ones; `share`: looks at objects of one namespace at once.
    fn new(share: usize) -> Self {
        Self {
            rollouts: Arc::new(Queue::new(LOOK_SPACING, share)),
            sets: Arc::new(Queue::new(SET_LOOK_SPACING, share)),
            rollouts_are_wanted: Arc::default(),
            sets_are_wanted: Arc::default(),
        }
    }

    fn add(&self, touched: Touched) {
        if self.rollouts_are_wanted.load(Ordering::Acquire) && !touched.rollouts.is_empty() {
            self.rollouts.add(touched.rollouts);
        }
        if self.sets_are_wanted.load(Ordering::Acquire) && !touched.sets.is_empty() {
            self.sets.add(touched.sets);
        }
    }

    fn by_controller(&self) -> [(&'static str, &Arc<Queue>); 2] {
        [(Rollout::CONTROLLER, &self.rollouts), (ListenerSet::CONTROLLER, &self.sets)]
    }
}

/// The leader's work, until `stop`; then what is going on ends.
async fn work(shell: Arc<Shell>, publisher: Publisher, queues: Queues, concurrency: usize, stop: CancellationToken) {
    // A Rollout that does not know yet what its Pods hold would take a batch for done, and its Pods for free to go.
    let observer = shell.observer.clone();
    let mut sets = pin!(observer.refresh_sets());
    let are_sets_known = tokio::select! {
        ((), known) = join(observer.refresh(), known_or_refused(&observer, &mut sets)) => known,
        () = stop.cancelled() => return,
    };
    let sets = OptionFuture::from((!are_sets_known).then_some(sets));
    // Before the look at what is known, so that nothing falls between the two.
    queues.rollouts_are_wanted.store(true, Ordering::Release);
    let known = shell.observer.look(Index::keys);
    tracing::info!(rollouts = known.len(), "working");
    queues.rollouts.add(known);
    let fence = shell.calls.fence().clone();
    let no_more_events = CancellationToken::new();
    let publish = publisher.run(shell.calls.clone(), no_more_events.clone());
    let unreadable = unreadable::tell(shell.clone(), stop.clone());
    let looks = async {
        let rollouts = dispatch::<Rollout>(shell.clone(), queues.rollouts.clone(), concurrency, stop.clone());
        let sets = work_on_sets(shell, &queues, sets, concurrency, stop.clone());
        futures::join!(rollouts, sets, unreadable);
        no_more_events.cancel();
    };
    let seal = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN_TIMEOUT).await;
        tracing::info!("looks take long to end; they write nothing more");
        fence.seal();
        std::future::pending::<()>().await;
    };
    // Every call ends by its time-out, and without writes nothing else takes time: this ends.
    tokio::select! {
        ((), ()) = join(looks, publish) => {}
        () = seal => {}
    }
}

/// True once what only ListenerSets look at is known; false once [`SETS_PATIENCE`] is over and it may not be listed. A list that
/// merely fails will come: to go on without it is to take what Pods hold for nothing.
async fn known_or_refused(observer: &Observer, mut known: impl Future<Output = ()> + Unpin) -> bool {
    while timeout(SETS_PATIENCE, &mut known).await.is_err() {
        if observer.are_sets_refused() {
            return false;
        }
        tracing::warn!(
            "ListenerSets, their Pods or their Leases are not listed yet; nothing is worked on until they are"
        );
    }
    true
}

/// The same for ListenerSets, once they are `known`. Where they are not served, or the operator may not look at Leases, this
/// waits, and Rollouts go on.
async fn work_on_sets<T>(
    shell: Arc<Shell>,
    queues: &Queues,
    known: impl Future<Output = T>,
    concurrency: usize,
    stop: CancellationToken,
) {
    tokio::select! {
        _ = known => {}
        () = stop.cancelled() => return,
    }
    queues.sets_are_wanted.store(true, Ordering::Release);
    let known = shell.observer.look(Index::set_keys);
    tracing::info!(listener_sets = known.len(), "working");
    queues.sets.add(known);
    dispatch::<ListenerSet>(shell, queues.sets.clone(), concurrency, stop).await;
}

/// Watches and probes never end; a panic would.
async fn a_part_ends(parts: &mut JoinSet<()>) -> Error {
    match parts.join_next().await {
        Some(Err(error)) => Error::Ended(error.to_string()),
        Some(Ok(())) => Error::Ended("it returned".to_owned()),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
