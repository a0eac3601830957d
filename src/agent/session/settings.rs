//! The command line of `baton-agent exec` and `baton-agent drain`.
use std::{
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use hyper::header::{HeaderValue, USER_AGENT};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

/// Where a Pod finds its agent, unless told otherwise.
const PORT: u16 = 9464;

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
    /// Folder that all containers of the Pod share and that outlives a restart of one: an emptyDir.
    #[arg(long, env = "BATON_STATE_DIR", default_value = "/baton")]
    pub state_dir: PathBuf,

    /// Port on 127.0.0.1 of /healthz, /readyz and /drain.
    #[arg(long, env = "BATON_PORT", default_value_t = PORT)]
    pub port: u16,

    /// Also serve /healthz and /readyz at this address, such as 0.0.0.0:9465, for httpGet probes.
    #[arg(long, env = "BATON_PROBES", value_name = "ADDRESS")]
    pub probes: Option<SocketAddr>,

    /// How long to wait, once the Pod is to end, for others to take the listeners. Then they are stopped and given back.
    /// Shorter than the Pod's terminationGracePeriodSeconds by the time that the listeners take to stop.
    #[arg(long, env = "BATON_DRAIN_TIMEOUT", default_value_t = 25, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub drain_timeout: u64,

    /// A listener works once it has written {"tick": true} or {"resume": …}, and has failed to start if that takes longer
    /// than its startTimeoutSeconds. Without this it works once it was started.
    #[arg(long)]
    pub ready_on_tick: bool,

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

    /// What to run for each listener.
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
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
}

impl Exec {
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
    /// A kubeconfig that cannot be read or used; none and no Pod either.
    pub async fn config(&self) -> anyhow::Result<Config> {
        let mut config = match &self.kubeconfig {
            Some(path) => from_file(path).await?,
            None if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() => {
                Config::incluster().context("cannot use the Pod's service account")?
            }
            None => Config::from_kubeconfig(&KubeConfigOptions::default())
                .await
                .context("neither in a Pod nor with a kubeconfig: use --kubeconfig or KUBECONFIG")?,
        };
        // A repeated renewal would count from the wrong time, and what is to be done again is decided anew.
        config.default_retry = false;
        let agent = concat!("baton-agent/", env!("CARGO_PKG_VERSION"));
        config.headers.push((USER_AGENT, HeaderValue::from_static(agent)));
        Ok(config)
    }
}

async fn from_file(path: &Path) -> anyhow::Result<Config> {
    let file = Kubeconfig::read_from(path).with_context(|| format!("cannot read kubeconfig {}", path.display()))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    config.with_context(|| format!("cannot use kubeconfig {}", path.display()))
}

impl Drain {
    /// Asks.
    ///
    /// # Errors
    /// No agent answers.
    pub async fn run(&self) -> anyhow::Result<()> {
        let url = format!("http://{}", SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)));
        let client = Client::try_from(Config::new(url.parse()?))?;
        let request = hyper::Request::post(format!("/drain?wait={}", self.wait)).body(Vec::new())?;
        let answer = client.request_text(request).await;
        answer.with_context(|| format!("no agent answers at {url}; see --port"))?;
        Ok(())
    }
}
