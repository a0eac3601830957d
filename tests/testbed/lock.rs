//! `baton-testbed lock`: what is built by hand where there is no Baton, in small: a server of locks that expire, and
//! instances which ask for them and work while they hold them. An imitation, to be measured beside Baton on the same feeds,
//! with the times that such systems have: a lock expires after 30 s, is renewed every 15 s, and asked for every 5 s.
use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::SocketAddr,
    process::{ExitCode, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use axum::{
    Router,
    extract::{Path, Query, State},
    http::StatusCode,
    routing::put,
};
use http_body_util::Empty;
use hyper::{Method, Request, body::Bytes};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::Deserialize;
use tokio::{
    net::TcpListener,
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

const EXPIRES_AFTER: Duration = Duration::from_secs(30);
const RENEWED_EVERY: Duration = Duration::from_secs(15);
const ASKED_EVERY: Duration = Duration::from_secs(5);

/// Arguments of `baton-testbed lock`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Keep locks.
    Serve {
        /// Where to listen.
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Ask for the lock of each of these feeds, and run a command for each that is held.
    Hold {
        /// The server of locks.
        #[arg(long)]
        server: SocketAddr,
        /// Who asks.
        #[arg(long)]
        owner: String,
        #[arg(long, value_delimiter = ',')]
        feeds: Vec<String>,
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

/// Runs until it is asked to end.
pub fn run(args: Args) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match args.what {
            What::Serve { listen } => serve(listen).await?,
            What::Hold { server, owner, feeds, command } => hold_all(server, &owner, feeds, &command).await?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Owner of each lock, and until when.
type Locks = Arc<Mutex<BTreeMap<String, (String, Instant)>>>;

#[derive(Deserialize)]
struct Asked {
    owner: String,
}

async fn serve(address: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let routes = Router::new().route("/locks/{name}", put(take).delete(release)).with_state(Locks::default());
    axum::serve(listener, routes).await?;
    Ok(())
}

/// Takes a lock that is free, or renews it.
async fn take(State(locks): State<Locks>, Path(name): Path<String>, Query(asked): Query<Asked>) -> StatusCode {
    let mut locks = locks.lock().unwrap_or_else(PoisonError::into_inner);
    match locks.get(&name) {
        Some((owner, until)) if *owner != asked.owner && *until > Instant::now() => StatusCode::CONFLICT,
        _ => {
            locks.insert(name, (asked.owner, Instant::now() + EXPIRES_AFTER));
            StatusCode::OK
        }
    }
}

async fn release(State(locks): State<Locks>, Path(name): Path<String>, Query(asked): Query<Asked>) -> StatusCode {
    let mut locks = locks.lock().unwrap_or_else(PoisonError::into_inner);
    if locks.get(&name).is_some_and(|(owner, _)| *owner == asked.owner) {
        locks.remove(&name);
    }
    StatusCode::OK
}

async fn hold_all(server: SocketAddr, owner: &str, feeds: Vec<String>, command: &[OsString]) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let (stop, stopped) = watch::channel(false);
    let mut instances = JoinSet::new();
    for feed in feeds {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let url = format!("http://{server}/locks/{feed}?owner={owner}");
        let holder = Holder { client, url, owner: owner.to_owned(), feed, command: command.to_vec() };
        instances.spawn(holder.run(stopped.clone()));
    }
    terminate.recv().await;
    stop.send_replace(true);
    while let Some(ended) = instances.join_next().await {
        ended??;
    }
    Ok(())
}

struct Holder {
    client: Client<HttpConnector, Empty<Bytes>>,
    url: String,
    owner: String,
    feed: String,
    command: Vec<OsString>,
}

impl Holder {
    async fn run(self, mut stopped: watch::Receiver<bool>) -> Result<()> {
        while !*stopped.borrow() {
            if !self.ask(Method::PUT).await {
                tokio::select! {
                    () = sleep(ASKED_EVERY) => {}
                    _ = stopped.changed() => {}
                }
                continue;
            }
            let mut child = self.start()?;
            loop {
                tokio::select! {
                    _ = child.wait() => break,
                    () = sleep(RENEWED_EVERY) => {
                        if !self.ask(Method::PUT).await {
                            child.kill().await?;
                            break;
                        }
                    }
                    _ = stopped.changed() => {
                        if let Some(pid) = child.id() {
                            kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM)?;
                        }
                        child.wait().await?;
                        self.ask(Method::DELETE).await;
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn start(&self) -> Result<Child> {
        let (program, arguments) = self.command.split_first().context("no command")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        command.env("BATON_LISTENER", &self.feed).env("BATON_POD_NAME", &self.owner);
        command.spawn().with_context(|| format!("cannot run {}", program.display()))
    }

    /// True for yes.
    async fn ask(&self, method: Method) -> bool {
        let Ok(request) = Request::builder().method(method).uri(&self.url).body(Empty::new()) else { return false };
        self.client.request(request).await.is_ok_and(|answer| answer.status().is_success())
    }
}
