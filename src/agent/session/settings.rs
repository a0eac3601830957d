//! The command line of `baton-agent exec`, `baton-agent serve` and `baton-agent drain`.
use std::{
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context;
use kube::{Client, Config};

use crate::{
    connection,
    sdk::wire::{PORT, STATE_DIR, TOKEN_FILE, TOKEN_HEADER},
};

/// Runs one child for each listener that this Pod is given, until the Pod ends.
///
/// The command is started once for each listener, with these variables: BATON_LISTENER (its name), BATON_LISTENER_CONFIG
/// (JSON), BATON_FENCE_TOKEN (to be stored with what it writes elsewhere), BATON_RESUME (JSON, empty when there is none),
/// BATON_CONNECT_TIMEOUT_SECONDS, USE_PROXY. It may write lines of JSON to file descriptor 3: {"resume": ANY} is where a
/// successor goes on (the last one counts), {"tick": true} says that it works, {"failed": "Reason: why"} what is wrong.
/// SIGTERM asks it to end; what it has started is killed after the listener's stop time-out.
///
/// The Pod must mount an emptyDir at --state-dir, and tell BATON_POD_NAME, BATON_POD_UID and
/// BATON_POD_NAMESPACE by the downward API, as the Pods of a Rollout do.
#[derive(Clone, Debug, clap::Args)]
pub struct Exec {
    /// What every agent is told.
    #[command(flatten)]
    pub agent: Agent,

    /// A listener works once it has written {"tick": true} or {"resume": …}, and has failed to start if that takes longer
    /// than its startTimeoutSeconds. Without this it works once it was started.
    #[arg(long)]
    pub ready_on_tick: bool,

    /// Start a child as soon as its listener is to come, so that it can connect before its turn: it must not consume. It then
    /// writes {"prepared": true} to file descriptor 3, and begins with {"start": {"resume": ANY, "token": "…"}} on its standard
    /// input, which takes the place of BATON_RESUME and BATON_FENCE_TOKEN; every child is told so. An input that ends
    /// without this line, and SIGTERM, mean that it will not come.
    #[arg(long)]
    pub warm: bool,

    /// What to run for each listener.
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

/// Has the application in another container of this Pod run the listeners that the Pod is given.
///
/// For a native sidecar: an init container, called baton-agent, with restartPolicy: Always. The application opens one
/// stream of events, POST http://127.0.0.1:9464/v1/listeners with {"instance": "RANDOM", "stream": 1, "running": []}
/// (newline-delimited JSON, or server-sent events where it accepts those), does what they say, and answers with POST
/// /v1/listeners/SET/LISTENER/started, tick, resume, failed or stopped. Each request has the header Baton-Token, with what the
/// file agent.token in --state-dir has. Each event that lets something run has a deadline, by
/// which it must have stopped; each renewal of the Pod's session moves it. docs/listeners/sidecar.md has all of it; for Rust
/// there is an SDK.
///
/// The agent cannot kill what runs in another container: it trusts the application with its deadlines, as `baton-agent exec`
/// need not.
///
/// The Pod must mount an emptyDir at --state-dir in both containers, and tell the agent BATON_POD_NAME, BATON_POD_UID and
/// BATON_POD_NAMESPACE by the downward API.
#[derive(Clone, Debug, clap::Args)]
pub struct Serve {
    /// What every agent is told.
    #[command(flatten)]
    pub agent: Agent,
}

/// What every agent is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Agent {
    /// Folder that all containers of the Pod share and that outlives a restart of one: an emptyDir.
    #[arg(long, env = "BATON_STATE_DIR", default_value = STATE_DIR)]
    pub state_dir: PathBuf,

    /// Port on 127.0.0.1 of /healthz, /readyz, /drain and, of a sidecar, /v1/listeners.
    #[arg(long, env = "BATON_PORT", default_value_t = PORT)]
    pub port: u16,

    /// Also serve /healthz and /readyz at this address, such as 0.0.0.0:9465, for httpGet probes.
    #[arg(long, env = "BATON_PROBES", value_name = "ADDRESS")]
    pub probes: Option<SocketAddr>,

    /// How long to wait, once the Pod is to end, for others to take the listeners. Then they are stopped and given back.
    /// Shorter than the Pod's terminationGracePeriodSeconds by the time that the listeners take to stop.
    #[arg(long, env = "BATON_DRAIN_TIMEOUT", default_value_t = 25, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub drain_timeout: u64,

    /// Default: the Pod's service account, else the usual kubeconfig.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,

    /// Write the log as JSON.
    #[arg(long)]
    pub log_json: bool,

    /// What is logged, as in RUST_LOG, which goes before it.
    #[arg(long, default_value = "info")]
    pub log_level: String,

    /// The Pod, as the environment tells it.
    #[command(flatten)]
    pub pod: Pod,
}

/// The agent's own Pod.
#[derive(Clone, Debug, clap::Args)]
pub struct Pod {
    /// metadata.name.
    #[arg(long, env = "BATON_POD_NAME", hide = true)]
    pub pod_name: String,
    /// metadata.uid.
    #[arg(long, env = "BATON_POD_UID", hide = true)]
    pub pod_uid: String,
    /// metadata.namespace.
    #[arg(long, env = "BATON_POD_NAMESPACE", hide = true)]
    pub pod_namespace: String,
    /// Its revision, in a Rollout.
    #[arg(long, env = "BATON_REVISION", hide = true, default_value = "")]
    pub revision: String,
}

/// Asks the agent of this Pod to let others take its listeners: for a preStop hook.
#[derive(Clone, Debug, clap::Args)]
pub struct Drain {
    /// Return when nothing is held any more.
    #[arg(long)]
    wait: bool,

    /// The agent's port on 127.0.0.1.
    #[arg(long, env = "BATON_PORT", default_value_t = PORT)]
    port: u16,

    /// The agent's --state-dir, which has the token that it asks for.
    #[arg(long, env = "BATON_STATE_DIR", default_value = STATE_DIR)]
    state_dir: PathBuf,
}

impl Agent {
    /// How long others have to take the listeners.
    pub fn drain_timeout(&self) -> Duration {
        Duration::from_secs(self.drain_timeout)
    }

    /// For this Pod alone.
    pub fn local(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// How to reach the API server.
    ///
    /// # Errors
    /// See [`connection::config`].
    pub async fn config(&self) -> anyhow::Result<Config> {
        connection::config(self.kubeconfig.as_deref(), concat!("baton-agent/", env!("CARGO_PKG_VERSION"))).await
    }
}

impl Drain {
    /// Asks.
    ///
    /// # Errors
    /// No agent answers, or it refuses the token.
    pub async fn run(&self) -> anyhow::Result<()> {
        let url = format!("http://{}", SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)));
        let client = Client::try_from(Config::new(url.parse()?))?;
        let path = self.state_dir.join(TOKEN_FILE);
        let token = std::fs::read_to_string(&path);
        let token = token.with_context(|| format!("cannot read {}; see --state-dir", path.display()))?;
        let request = hyper::Request::post(format!("/drain?wait={}", self.wait));
        let request = request.header(TOKEN_HEADER, token).body(Vec::new())?;
        let answer = client.request_text(request).await;
        answer.with_context(|| format!("the agent at {url} does not do it; see --port and --state-dir"))?;
        Ok(())
    }
}
