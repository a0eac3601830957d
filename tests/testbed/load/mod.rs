//! `baton-testbed load`: what a proxy in front of a Service does, with everything counted.
//!
//! It follows the Service's EndpointSlices, keeps connections to the ready endpoints, and sends idempotent GETs at a
//! fixed rate, each counted from the time it was due. A request whose connection breaks before a response is tried once
//! more on another endpoint, as proxies do; that is counted by cause and time, and so is what fails for good.
//!
//! ```text
//! EndpointSlices ─watch─> endpoints ─> worker × connections ─> tally ─> report file
//!                                              └───────────> stream (stdout)
//! ```
use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use kube::Api;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
    time,
};

pub mod endpoints;
mod histogram;
pub mod stream;
pub mod tally;
#[cfg(test)]
mod tests;
mod worker;

use endpoints::{Endpoint, Endpoints};
use stream::Stream;
use tally::{Report, Tally};
use worker::{Plan, Worker};

/// Arguments of `baton-testbed load`.
#[derive(clap::Args, Clone)]
pub struct Args {
    /// Service whose ready endpoints get the requests.
    #[arg(long, required_unless_present = "endpoint", conflicts_with = "endpoint")]
    service: Option<String>,
    /// Namespace of the Service.
    #[arg(long, short, default_value = "default")]
    namespace: String,
    /// Fixed endpoints, ADDRESS:PORT, instead of a Service's.
    #[arg(long, value_delimiter = ',')]
    endpoint: Vec<SocketAddr>,
    /// Requests a second, in all.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Requests in work at the same time, at most; each of these workers keeps a connection to every endpoint.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    connections: u32,
    /// Path of the requests.
    #[arg(long, default_value = "/")]
    path: String,
    /// Patience for a connection, and for a response.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeout_milliseconds: u64,
    /// How long to wait for the first ready endpoint.
    #[arg(long, default_value_t = 60)]
    wait_seconds: u64,
    /// End after this time; otherwise at SIGTERM or Ctrl-C.
    #[arg(long, visible_alias = "duration")]
    duration_seconds: Option<u64>,
    /// Write the report (JSON) here at the end; otherwise to standard error.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Print a line of JSON per second, per break and per change of endpoints on standard output.
    #[arg(long)]
    stream: bool,
}

/// Runs until told to end. The exit code says whether the load ran, not whether requests failed: the report does.
#[allow(clippy::needless_pass_by_value)] // as the other subcommands
pub fn run(args: Args) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let report = send(&args).await?;
        let text = serde_json::to_string_pretty(&report)?;
        match &args.report {
            Some(path) => fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?,
            None => eprintln!("{text}"),
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Sends until the time is over or a signal comes, and counts.
async fn send(args: &Args) -> Result<Report> {
    let mut terminate = signal(SignalKind::terminate())?;
    let (publish, mut endpoints) = watch::channel(Endpoints::default());
    let mut follower = JoinSet::new();
    follow(args, publish, &mut follower).await?;

    let patience = Duration::from_secs(args.wait_seconds);
    tokio::select! {
        some = time::timeout(patience, endpoints.wait_for(|endpoints| !endpoints.is_empty())) => {
            let Ok(Ok(_)) = some else { bail!("no ready endpoint within {} s", args.wait_seconds) };
        }
        ended = follower.join_next() => return Err(failure_of(ended)),
    }

    let stream = Stream::new(args.stream);
    let tally = Arc::new(Tally::new(Timestamp::now()));
    let (stop, stopped) = watch::channel(false);
    let mut workers = start_workers(args, &endpoints, &tally, stream, &stopped);
    let end = async {
        match args.duration_seconds {
            Some(seconds) => time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    let outcome = tokio::select! {
        () = end => Ok(()),
        _ = terminate.recv() => Ok(()),
        interrupt = tokio::signal::ctrl_c() => interrupt.map_err(Into::into),
        ended = follower.join_next() => Err(failure_of(ended)),
        () = tell(stream, &tally, endpoints.clone()) => Ok(()),
    };
    stop.send_replace(true);
    while workers.join_next().await.is_some() {}
    outcome?;
    Ok(tally.report(Timestamp::now()))
}

/// Fills `publish` with the fixed endpoints, or starts to follow those of the Service.
async fn follow(args: &Args, publish: watch::Sender<Endpoints>, follower: &mut JoinSet<Result<()>>) -> Result<()> {
    let Some(service) = args.service.clone() else {
        args.endpoint.iter().try_for_each(|address| endpoints::check(*address))?;
        let fixed = args.endpoint.iter().map(|address| Endpoint { address: *address, pod: String::new() }).collect();
        publish.send_replace(fixed);
        follower.spawn(async move {
            publish.closed().await;
            Ok(())
        });
        return Ok(());
    };
    let client = kube::Client::try_default().await.context("cannot reach a cluster: is KUBECONFIG set?")?;
    let api = Api::namespaced(client, &args.namespace);
    follower.spawn(async move { endpoints::follow(api, &service, publish).await });
    Ok(())
}

/// One task a connection; their first requests are spread over one period.
fn start_workers(
    args: &Args,
    endpoints: &watch::Receiver<Endpoints>,
    tally: &Arc<Tally>,
    stream: Stream,
    stop: &watch::Receiver<bool>,
) -> JoinSet<()> {
    let plan = Plan {
        path: args.path.clone(),
        period: Duration::from_secs_f64(f64::from(args.connections) / f64::from(args.rate)),
        timeout: Duration::from_millis(args.timeout_milliseconds),
    };
    let begin = Instant::now();
    (0..args.connections)
        .map(|number| {
            let first = begin + plan.period * number / args.connections;
            let worker = Worker::new(plan.clone(), endpoints.clone(), number as usize, tally.clone(), stream);
            worker.run(first, stop.clone())
        })
        .collect()
}

/// Tells each second that has passed and each change of endpoints; never ends.
async fn tell(stream: Stream, tally: &Tally, mut endpoints: watch::Receiver<Endpoints>) {
    let mut tick = time::interval(Duration::from_secs(1));
    let mut told = Timestamp::now().as_second() - 1;
    endpoints.mark_changed();
    loop {
        tokio::select! {
            _ = tick.tick() => {
                // Not the last one: a worker may be just about to count in it.
                let passed = Timestamp::now().as_second() - 2;
                tally.seconds(told + 1..=passed).into_iter().for_each(|second| stream.second(second));
                told = told.max(passed);
            }
            Ok(()) = endpoints.changed() => {
                let endpoints = endpoints.borrow_and_update().clone();
                stream.endpoints(Timestamp::now(), &endpoints);
            }
        }
    }
}

fn failure_of(ended: Option<std::result::Result<Result<()>, tokio::task::JoinError>>) -> anyhow::Error {
    match ended {
        Some(Ok(Err(error))) => error,
        Some(Err(error)) => error.into(),
        Some(Ok(Ok(()))) | None => anyhow::anyhow!("nothing follows the endpoints any more"),
    }
}
