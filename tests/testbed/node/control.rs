//! `STATE/control.sock`: switches for tests, and `baton-testbed node-ctl`, which turns them.
use std::{fs, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use tokio::{net::UnixStream, task::spawn_blocking, time::timeout};

use super::{
    host::{CALL_TIMEOUT, Host},
    model,
    store::{self, PodDir},
};
use crate::control_socket;

/// A freeze waits for calls under way, which may take [`CALL_TIMEOUT`].
const CONVERSATION_TIMEOUT: Duration = Duration::from_secs(5 + CALL_TIMEOUT.as_secs());

/// Arguments of `baton-testbed node-ctl`.
#[derive(clap::Args)]
pub struct Args {
    /// The node's state folder: DIR/node/NAME of a cluster in DIR.
    #[arg(long)]
    state: PathBuf,
    #[command(subcommand)]
    request: Request,
}

/// What can be asked of a node that runs.
#[derive(Clone, Debug, clap::Subcommand, Serialize, Deserialize)]
pub enum Request {
    /// Write nothing to the API server any more: no status, no lease, no delete. Pods go on.
    Freeze,
    /// Write again, and catch up.
    Thaw,
    /// Let the processes of Pods that are deleted by force from now on go on for so long.
    KeepForceDeleted { seconds: f64 },
    /// Stop all processes of a Pod (SIGSTOP).
    Pause { namespace: String, pod: String },
    /// Let them go on (SIGCONT).
    Resume { namespace: String, pod: String },
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    problem: Option<String>,
}

/// `baton-testbed node-ctl`.
pub fn ask(args: &Args) -> Result<ExitCode> {
    let stream = control_socket::connect(&args.state).context("no node runs with this state folder")?;
    let Answer { problem } = control_socket::ask(stream, &args.request)?;
    match problem {
        None => Ok(ExitCode::SUCCESS),
        Some(problem) => bail!(problem),
    }
}

/// Takes requests for ever.
pub async fn serve(host: Arc<Host>) -> Result<()> {
    let listener = control_socket::listen(&host.state)?;
    loop {
        let (stream, _) = listener.accept().await?;
        // A client that left early misses its answer; nobody else is concerned.
        let _ = timeout(CONVERSATION_TIMEOUT, converse(stream, &host)).await;
    }
}

async fn converse(mut stream: UnixStream, host: &Arc<Host>) -> Result<()> {
    let request = control_socket::receive(&mut stream).await?;
    let problem = obey(host, request).await.err().map(|error| format!("{error:#}"));
    control_socket::answer(&mut stream, &Answer { problem }).await
}

async fn obey(host: &Arc<Host>, request: Request) -> Result<()> {
    tracing::info!("asked for: {request:?}");
    match request {
        Request::Freeze => host.gate.close().await,
        Request::Thaw => host.gate.open(),
        Request::KeepForceDeleted { seconds } => {
            let keep = Duration::try_from_secs_f64(seconds)?;
            host.keep_force_deleted.send_replace(keep);
        }
        Request::Pause { namespace, pod } => signal_later(host, namespace, pod, Signal::SIGSTOP).await?,
        Request::Resume { namespace, pod } => signal_later(host, namespace, pod, Signal::SIGCONT).await?,
    }
    Ok(())
}

async fn signal_later(host: &Arc<Host>, namespace: String, pod: String, signal: Signal) -> Result<()> {
    let host = Arc::clone(host);
    spawn_blocking(move || signal_all(&host, &namespace, &pod, signal)).await?
}

/// Signals every process of a Pod's containers.
fn signal_all(host: &Host, namespace: &str, pod: &str, signal: Signal) -> Result<()> {
    let (found, dir) =
        store::find(&host.state, namespace, pod)?.with_context(|| format!("no Pod {namespace}/{pod} is here"))?;
    let namespaces: Vec<PathBuf> =
        model::specs(&found).filter_map(|(spec, _)| pid_namespace(&dir, &spec.name)).collect();
    ensure!(!namespaces.is_empty(), "no container of {namespace}/{pod} runs");
    // A process may start another one while they are stopped: the second round finds it.
    for _ in 0..2 {
        for pid in pids()? {
            if store::pid_namespace(pid).is_some_and(|theirs| namespaces.contains(&theirs)) {
                match kill(Pid::from_raw(pid), signal) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(error) => return Err(error).with_context(|| format!("cannot signal process {pid}")),
                }
            }
        }
    }
    Ok(())
}

/// The PID namespace of a container that runs.
fn pid_namespace(dir: &PodDir, container: &str) -> Option<PathBuf> {
    let attempt = dir.attempt(container, *dir.attempts(container).last()?);
    let started = attempt.started().filter(|_| attempt.exit().is_none())?;
    store::pid_namespace(started.pid)
}

fn pids() -> Result<Vec<i32>> {
    let entries = fs::read_dir("/proc")?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}
