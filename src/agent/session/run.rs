//! What `baton-agent exec` starts, and in which order.
use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use axum::Router;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, Config};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
};
use tracing_subscriber::{EnvFilter, fmt};

use super::{
    api::{Connect, Leases},
    hands::Options,
    local,
    renewal::{Claimant, Outbox},
    settings::Exec,
    units::{Health, Notice, Sources, Units},
};
use crate::{
    agent::{
        alone::{self, Alone},
        boottime::Boottime,
        exec::{Children, Guards},
    },
    api::names,
    observe::watch::{Refresher, Selection, Settings as WatchSettings, Watch},
    snapshot::{index::Event, lease::Holder, report::AgentInfo},
};

/// A watch that tells nothing for so long is dead.
const WATCH_SILENCE: Duration = Duration::from_secs(30);
/// Longest time for a watch to begin.
const WATCH_BEGIN: Duration = Duration::from_secs(5);
/// Notices not yet taken.
const NOTICES_MAX: usize = 16;

/// Runs the agent until its Pod ends.
///
/// # Errors
/// Whatever keeps it from starting; the session was lost. Nothing runs then.
pub async fn run(settings: Exec) -> anyhow::Result<()> {
    start_log(&settings)?;
    // Before anything else: a second agent must not get anywhere.
    let _alone = Alone::claim(&settings.state_dir)?;
    let (notices, mut incoming) = mpsc::channel(NOTICES_MAX);
    let mut tasks = JoinSet::new();
    pass_on_signals(notices.clone(), &mut tasks)?;
    let health = watch::Sender::new(Health::default());
    serve(settings.local(), local::routes(health.subscribe(), notices.clone()), &mut tasks).await?;
    if let Some(address) = settings.probes {
        serve(address, local::probes(health.subscribe()), &mut tasks).await?;
    }

    let connect = connector(settings.config().await?);
    let first =
        Outbox { info: AgentInfo { revision: settings.pod.revision.clone(), draining: false }, ..Outbox::default() };
    let mut drains = false;
    let starting = async {
        let lock = alone::outlive_guards(&settings.state_dir).await?;
        let client = connect()?;
        let name = names::session_lease_name(&settings.pod.pod_name)
            .context("BATON_POD_NAME is too long: a Pod with a session has a name of at most 245 characters")?;
        let mut events = watch_leases(&client, &settings, Selection::name(&name), &mut tasks);
        let claimant = Claimant {
            connect: connect.clone(),
            namespace: settings.pod.pod_namespace.clone(),
            name: Holder {
                pod: settings.pod.pod_name.clone(),
                uid: settings.pod.pod_uid.clone(),
                boot: 1,
                random: format!("{:08x}", fastrand::u32(..)),
            },
            first: first.clone(),
        };
        let renewals = claimant.claim(&mut events).await?;
        anyhow::Ok((lock, client, events, renewals))
    };
    let (lock, client, session_events, renewals) = tokio::select! {
        started = starting => started?,
        () = idle(&mut incoming, &health, &mut drains) => return Ok(()), // nothing is held yet
    };

    let me = renewals.me().clone();
    let mine = format!("{}={}", names::LABEL_HOLDER, names::holder_label(&me.to_string()));
    let events = watch_leases(&client, &settings, Selection::labels(&mine), &mut tasks);
    let told = renewals.subscribe();
    let outbox = watch::Sender::new(first);
    let said = outbox.subscribe();
    tasks.spawn(async move {
        match renewals.keep(session_events, said).await {
            // Its end was told; what runs has yet to stop.
            Ok(()) => std::future::pending().await,
            Err(error) => tracing::error!(error = format!("{error:#}"), "the session cannot be renewed"),
        }
    });
    if drains {
        let _ = notices.try_send(Notice::Drain); // or one is in there already
    }
    let options = Options {
        ready_on_tick: settings.ready_on_tick,
        drain_timeout: settings.drain_timeout(),
        revision: settings.pod.revision.clone(),
    };
    let leases = Leases::new(client, &settings.pod.pod_namespace);
    let children = Children::new(Guards::start()?.keeping(lock), settings.command.clone());
    let units = Units::new(me, options, leases, children, outbox, health);
    tokio::select! {
        outcome = units.run(Sources { events, told, notices: incoming }) => outcome,
        ended = tasks.join_next() => Err(anyhow::anyhow!("a part of the agent ended unexpectedly: {ended:?}")),
    }
}

fn start_log(settings: &Exec) -> anyhow::Result<()> {
    // The client logs each failed request as an error; whether it is one, the caller knows, and says so.
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::try_new(format!("kube_client=off,{}", settings.log_level)))
        .context("--log-level")?;
    let log = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).with_ansi(false);
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

async fn serve(address: SocketAddr, routes: Router, tasks: &mut JoinSet<()>) -> anyhow::Result<()> {
    let server = local::serve(address, routes).await?;
    tasks.spawn(async move {
        let outcome = server.await;
        tracing::error!(?outcome, "a local server has ended");
    });
    Ok(())
}

fn watch_leases(
    client: &Client,
    settings: &Exec,
    selection: Selection,
    tasks: &mut JoinSet<()>,
) -> mpsc::UnboundedReceiver<Event<Lease>> {
    // Bounded by what the API server tells; taken at once.
    let (sender, events) = mpsc::unbounded_channel();
    let watch = Watch {
        api: Api::namespaced(client.clone(), &settings.pod.pod_namespace),
        name: "Lease",
        selection,
        settings: WatchSettings { silence: WATCH_SILENCE, begin_timeout: WATCH_BEGIN, ..WatchSettings::default() },
        refresh: Refresher::default().subscribe(),
        rng: fastrand::Rng::new(),
        required: true,
    };
    tasks.spawn(watch.run(move |event| {
        let _ = sender.send(event); // or nobody cares any more
    }));
    events
}

/// Answers probes until the agent is to end. `drains`: it was asked to let go of what it does not have yet.
async fn idle(incoming: &mut mpsc::Receiver<Notice>, health: &watch::Sender<Health>, drains: &mut bool) {
    loop {
        health.send_modify(|health| {
            health.turned_at = Boottime::now();
            health.is_drained = *drains;
        });
        match tokio::time::timeout(Duration::from_secs(1), incoming.recv()).await {
            Ok(Some(Notice::Terminate)) => return,
            Ok(Some(Notice::Drain)) => *drains = true,
            Ok(None) => std::future::pending().await, // cannot be: signals have a sender
            Err(_) => {}
        }
    }
}
