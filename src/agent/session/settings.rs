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

/// Runs one child process for each listener that is assigned to this Pod, until the Pod ends.
///
/// The agent starts the command once for each listener, with these environment variables: BATON_LISTENER (name of the
/// listener), BATON_LISTENER_CONFIG (JSON), BATON_FENCE_TOKEN (store it with everything that the child writes to other
/// systems), BATON_RESUME (JSON, empty if there is nothing to resume), BATON_CONNECT_TIMEOUT_SECONDS, USE_PROXY. The
/// child may write lines of JSON to file descriptor 3: {"resume": ANY} is the position at which a successor continues
/// (the last line counts), {"tick": true} reports that the listener works, {"failed": "Reason: why"} reports why the
/// child is about to exit. SIGTERM asks the child to end. The child and all of its processes are killed after the
/// listener's stopTimeoutSeconds.
///
/// The Pod must mount an emptyDir at --state-dir. It must set BATON_POD_NAME, BATON_POD_UID and BATON_POD_NAMESPACE
/// through the downward API; the Pods of a Rollout do.
#[derive(Clone, Debug, clap::Args)]
pub struct Exec {
    /// Settings of every agent.
    #[command(flatten)]
    pub agent: Agent,

    /// A listener counts as running only after its child has written {"tick": true} or {"resume": …}. If that takes
    /// longer than startTimeoutSeconds, the start has failed. Without this flag a listener counts as running as soon as
    /// its child has started.
    #[arg(long)]
    pub ready_on_tick: bool,

    /// Start the child before its listener is handed over, so that it can connect but not consume yet. Once connected,
    /// the child writes {"prepared": true} to file descriptor 3. It begins to consume when it reads the line {"start":
    /// {"resume": ANY, "token": "…"}} from standard input. Every child gets this line, in place of BATON_RESUME and
    /// BATON_FENCE_TOKEN. If standard input ends without this line, or SIGTERM comes, the listener is not handed over.
    #[arg(long)]
    pub warm: bool,

    /// Program and arguments to run for each listener.
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

/// Lets the application in another container of this Pod run the listeners that are assigned to the Pod.
///
/// The agent runs as a native sidecar: an init container named baton-agent with restartPolicy: Always. The application
/// opens one stream of events: POST http://127.0.0.1:9464/v1/listeners with {"instance": "RANDOM", "stream": 1,
/// "running": []}. The events are newline-delimited JSON, or server-sent events if the application accepts those. The
/// application does what each event says and answers with POST /v1/listeners/SET/LISTENER/started, tick, resume, failed
/// or stopped. Each request needs the header Baton-Token with the content of the file agent.token in --state-dir. Each
/// event that lets a listener run has a deadline by which the listener must have stopped; each renewal of the Pod's
/// session moves the deadline. The whole protocol is in docs/listeners/sidecar.md; for Rust there is an SDK.
///
/// The agent cannot kill processes in another container. Unlike `baton-agent exec`, it relies on the application to
/// keep the deadlines.
///
/// The Pod must mount an emptyDir at --state-dir in both containers. It must set BATON_POD_NAME, BATON_POD_UID and
/// BATON_POD_NAMESPACE for the agent through the downward API.
#[derive(Clone, Debug, clap::Args)]
pub struct Serve {
    /// Settings of every agent.
    #[command(flatten)]
    pub agent: Agent,
}

/// Settings of every agent.
#[derive(Clone, Debug, clap::Args)]
pub struct Agent {
    /// Folder that all containers of the Pod share and that survives a restart of a container: an emptyDir.
    #[arg(long, env = "BATON_STATE_DIR", default_value = STATE_DIR)]
    pub state_dir: PathBuf,

    /// Port on 127.0.0.1 for /healthz, /readyz, /drain and, with `serve`, /v1/listeners.
    #[arg(long, env = "BATON_PORT", default_value_t = PORT)]
    pub port: u16,

    /// Also serve /healthz and /readyz at this address, such as 0.0.0.0:9465, for httpGet probes.
    #[arg(long, env = "BATON_PROBES", value_name = "ADDRESS")]
    pub probes: Option<SocketAddr>,

    /// How many seconds the agent waits for other Pods to take its listeners when the Pod is deleted. After that it
    /// stops and releases the remaining listeners. Must be shorter than the Pod's terminationGracePeriodSeconds by the
    /// time that listeners take to stop.
    #[arg(long, env = "BATON_DRAIN_TIMEOUT", default_value_t = 25, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub drain_timeout: u64,

    /// Path of a kubeconfig. Default: the Pod's service account; outside a Pod $KUBECONFIG or ~/.kube/config.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,

    /// Write the log as JSON.
    #[arg(long)]
    pub log_json: bool,

    /// What is logged, in the syntax of RUST_LOG. The environment variable RUST_LOG goes first, if it is set.
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

/// Asks the agent of this Pod to hand its listeners over to other Pods. For a preStop hook.
#[derive(Clone, Debug, clap::Args)]
pub struct Drain {
    /// Return only when the agent holds no listener any more.
    #[arg(long)]
    wait: bool,

    /// Port of the agent on 127.0.0.1.
    #[arg(long, env = "BATON_PORT", default_value_t = PORT)]
    port: u16,

    /// The --state-dir of the agent, with the token that each request needs.
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
