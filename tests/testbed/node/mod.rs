//! `baton-testbed node`: a node that runs its Pods as processes of this machine. See README.md.
//!
//! ```text
//! watch ──News──> pods ──Order──> pod_worker (one a Pod) ──Message──> tell ──> API server
//!                                   │  lifecycle: what next (pure)   status: what to tell (pure)
//!                                   ├─> container ──> process ──> shim ──> the container's command
//!                                   ├─> probe, hooks ──> exec, http
//!                                   └─> stop
//! ```
use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch as channel},
};

mod addresses;
mod backoff;
mod container;
pub mod control;
mod downward;
mod environment;
mod events;
pub mod exec;
mod gate;
mod hooks;
mod host;
mod http;
mod image;
mod kubelet_api;
mod lifecycle;
mod log;
mod log_reader;
mod model;
mod pod_worker;
mod pods;
mod probe;
mod process;
mod publish;
mod register;
mod resize;
mod rootfs;
pub mod shim;
mod sources;
mod status;
mod stop;
mod store;
mod tell;
mod token;
mod unsupported;
mod volume_keeper;
mod volumes;
mod watch;

/// The kubelet's usual port.
const KUBELET_PORT: u16 = 10250;
/// As many Pods as anybody has tried.
const MAX_PODS: u32 = 500;
const NEWS_QUEUE: usize = 64;
const WORKER_THREADS: usize = 2;

/// Arguments of `baton-testbed node`.
#[derive(clap::Args)]
pub struct Args {
    /// The node's name.
    #[arg(long)]
    name: String,
    /// Identity `system:node:NAME` of group `system:nodes`.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// Folder of images: `example.local/NAME:TAG` is its folder NAME/TAG.
    #[arg(long)]
    images: PathBuf,
    /// Folder for what must outlive the node process.
    #[arg(long)]
    state: PathBuf,
    /// Range of the Pods' addresses.
    #[arg(long)]
    pod_cidr: addresses::PodCidr,
    /// The node's own address, with the port of the kubelet API if that is not 10250.
    #[arg(long, value_parser = parse_address)]
    address: SocketAddr,
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let with_port = text.parse().ok();
    let address = with_port.or_else(|| Some(SocketAddr::new(text.parse().ok()?, KUBELET_PORT)));
    address.ok_or_else(|| format!("{text:?} is not an IP address with or without port"))
}

/// Runs until SIGTERM or SIGINT; the Pods go on.
pub fn run(args: Args) -> Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKER_THREADS).enable_all().build()?;
    runtime.block_on(serve(args))?;
    // Calls under way are of no interest any more.
    runtime.shutdown_timeout(Duration::ZERO);
    Ok(ExitCode::SUCCESS)
}

async fn serve(args: Args) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let pods = args.pod_cidr.size().min(MAX_PODS);
    let (events, queue) = events::queue();
    let host = Arc::new(host(args, events).await?);
    let control = control::serve(Arc::clone(&host));
    let node = async {
        let uid = register::register(&host, pods).await;
        tracing::info!("node {} is registered", host.name);
        tokio::spawn(register::keep_lease(Arc::clone(&host), uid));
        tokio::spawn(register::keep_ready(Arc::clone(&host)));
        tokio::spawn(kubelet_api::serve(Arc::clone(&host)));
        tokio::spawn(events::write(Arc::clone(&host), queue));
        let (sender, news) = mpsc::channel(NEWS_QUEUE);
        tokio::spawn(watch::pods(Arc::clone(&host), sender));
        pods::Pods::new(Arc::clone(&host)).run(news).await
    };
    tokio::select! {
        outcome = node => outcome,
        outcome = control => outcome,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

async fn host(args: Args, events: events::Events) -> Result<host::Host> {
    for folder in [&args.images, &args.state] {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let kubeconfig = Kubeconfig::read_from(&args.kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let state = args.state.canonicalize()?;
    Ok(host::Host {
        client: Client::try_from(config)?,
        images: image::Images::new(args.images.canonicalize()?),
        addresses: addresses::Addresses::new(args.pod_cidr, &store::pods(&state)?),
        events,
        listen: args.address,
        state,
        keep_force_deleted: channel::Sender::default(),
        gate: gate::Gate::default(),
        name: args.name,
    })
}
