//! The processes `baton-agent exec` and `baton-agent serve`: log, locks, signals, local servers, and what runs listeners.
use std::{net::SocketAddr, sync::Arc};

use anyhow::Context;
use axum::Router;
use kube::{Client, Config};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
};
use tracing_subscriber::{EnvFilter, fmt};

use super::{
    api::Connect,
    boot::Boot,
    gate::Gate,
    hands::Options,
    local,
    runner::Runner,
    settings::{Agent, Exec, Serve},
    units::{Health, Notice},
};
use crate::{
    agent::{
        alone::{self, Alone},
        clocks::Clocks,
        exec::{Children, Guards},
        sidecar::{application::Application, routes},
    },
    sdk::{orphan, wire::PORT_FILE},
    served::{self, Bounds},
};

/// Notices not yet taken.
const NOTICES_MAX: usize = 16;

/// Connections to one of the local servers.
const CONNECTIONS_MAX: usize = 64;

/// Runs the agent with children of its own until its Pod ends.
///
/// # Errors
/// Something keeps it from starting; the session was lost. Nothing runs then.
pub async fn exec(settings: Exec) -> anyhow::Result<()> {
    let mut process = Process::start(&settings.agent)?;
    if std::process::id() != 1 {
        tracing::warn!(
            "this agent is not PID 1 of its container: what a listener has started may outlive the deaths of agent and guard \
             at once; make it the container's command, without a shell before it"
        );
    }
    process.listen(&settings.agent, Router::new(), process.health.subscribe()).await?;
    let boot = process.boot(&settings.agent, settings.ready_on_tick).await?;
    let children = async {
        let lock = alone::outlive_guards(&settings.agent.state_dir).await?;
        let guards = Guards::start()?.keeping(lock.file);
        Ok(Children::new(guards, settings.command.clone()).warm(settings.warm).without_record(lock.is_new))
    };
    process.live(boot, children).await
}

/// Runs the agent beside an application until its Pod ends.
///
/// # Errors
/// The same.
pub async fn serve(settings: Serve) -> anyhow::Result<()> {
    let mut process = Process::start(&settings.agent)?;
    let application = Application::new(&settings.agent.state_dir)?;
    let health = watch::Sender::new(Health::default());
    let seen = health.subscribe();
    process.tasks.spawn(look_after(application.clone(), process.health.subscribe(), health));
    let port =
        process.listen(&settings.agent, routes::routes(application.clone(), process.notices.clone()), seen).await?;
    let file = settings.agent.state_dir.join(PORT_FILE);
    std::fs::write(&file, port.to_string()).with_context(|| format!("cannot write {}", file.display()))?;
    // It works once the application says so: only that can know.
    let boot = process.boot(&settings.agent, true).await?;
    process.live(boot, application.outlive_earlier()).await
}

/// Tells of the agent's health, and whether there is an application.
async fn look_after(application: Arc<Application>, mut own: watch::Receiver<Health>, to: watch::Sender<Health>) {
    let mut applications = application.changes();
    loop {
        let lacks = (!application.is_connected()).then_some("no application is connected: no listener can run\n");
        let health = Health { lacks, ..own.borrow_and_update().clone() };
        to.send_replace(health);
        let is_over = tokio::select! {
            changed = own.changed() => changed.is_err(),
            changed = applications.changed() => changed.is_err(),
        };
        if is_over {
            return std::future::pending().await;
        }
    }
}

/// What every agent is, with any way to run listeners.
struct Process {
    _alone: Alone,
    notices: mpsc::Sender<Notice>,
    incoming: Option<mpsc::Receiver<Notice>>,
    health: watch::Sender<Health>,
    tasks: JoinSet<()>,
}

impl Process {
    fn start(settings: &Agent) -> anyhow::Result<Self> {
        start_log(settings)?;
        // Before anything else: a second agent must not get anywhere.
        let alone = Alone::claim(&settings.state_dir)?;
        let (notices, incoming) = mpsc::channel(NOTICES_MAX);
        let mut tasks = JoinSet::new();
        pass_on_signals(notices.clone(), &mut tasks)?;
        let health = watch::Sender::new(Health::default());
        Ok(Self { _alone: alone, notices, incoming: Some(incoming), health, tasks })
    }

    /// Serves probes; `/drain` and more behind a [`Gate`]; the port on 127.0.0.1.
    async fn listen(&mut self, settings: &Agent, more: Router, health: watch::Receiver<Health>) -> anyhow::Result<u16> {
        let gate = Gate::new(&settings.state_dir)?;
        let guarded = gate.before(local::drain(health.clone(), self.notices.clone()).merge(more));
        let port = self.serve(settings.local(), local::probes(health.clone()).merge(guarded)).await?;
        if let Some(address) = settings.probes {
            self.serve(address, local::probes(health)).await?;
        }
        Ok(port)
    }

    async fn serve(&mut self, address: SocketAddr, routes: Router) -> anyhow::Result<u16> {
        let listener = local::bind(address).await?;
        let port = listener.local_addr()?.port();
        let bounds = Bounds { connections: CONNECTIONS_MAX, lasts: None };
        self.tasks.spawn(async move { match served::serve(listener, bounds, routes).await {} });
        Ok(port)
    }

    async fn boot(&mut self, settings: &Agent, ready_on_tick: bool) -> anyhow::Result<Boot> {
        Ok(Boot {
            connect: connector(settings.config().await?),
            clocks: Clocks::system(),
            rng: fastrand::Rng::new(),
            pod: settings.pod.clone(),
            options: Options {
                ready_on_tick,
                drain_timeout: settings.drain_timeout(),
                revision: settings.pod.revision.clone(),
                is_orphan: orphan::is_orphan,
            },
            notices: self.incoming.take().context("an agent starts once")?,
            health: self.health.clone(),
        })
    }

    async fn live<R: Runner>(
        mut self,
        boot: Boot,
        runner: impl Future<Output = anyhow::Result<R>>,
    ) -> anyhow::Result<()> {
        tokio::select! {
            outcome = boot.live(runner) => outcome,
            ended = self.tasks.join_next() => {
                Err(anyhow::anyhow!("a part of the agent ended unexpectedly: {ended:?}"))
            }
        }
    }
}

fn start_log(settings: &Agent) -> anyhow::Result<()> {
    // The client logs each failed request as an error; whether it is one, the caller knows, and says so.
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::try_new(format!("kube_client=off,{}", settings.log_level)))
        .context("--log-level")?;
    let log = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).with_ansi(false);
    // Told on standard error too, where a panic would take all listeners along: children write there as well, and may have
    // made it one that refuses what it has no room for.
    let log = log.log_internal_errors(false);
    let started = if settings.log_json { log.json().flatten_event(true).try_init() } else { log.try_init() };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}

/// Makes clients, each with connections of its own.
fn connector(config: Config) -> Connect {
    Arc::new(move || Client::try_from(config.clone()).context("cannot make a client"))
}

fn pass_on_signals(notices: mpsc::Sender<Notice>, tasks: &mut JoinSet<()>) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tasks.spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            let _ = notices.send(Notice::Terminate).await; // or the agent has ended
        }
    });
    Ok(())
}
