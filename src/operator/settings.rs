//! The command line, and what becomes of it.
use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use kube::Config;
use nix::fcntl::{Flock, FlockArg};

use super::telemetry::LogFormat;
use crate::{connection, plan::lease::Identity, snapshot::index::Scope};

/// Arguments of `baton-operator`. Everything that names the Pod comes from the environment (`POD_NAME`, `POD_UID`,
/// `POD_NAMESPACE`, `POD_IP`), as the manifests set it.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// Namespaces in which the operator works. May be repeated, or separated by commas. Default: all namespaces.
    #[arg(long = "namespace", value_delimiter = ',')]
    pub namespaces: Vec<String>,

    /// Path of a kubeconfig. Default: the Pod's service account; outside a Pod $KUBECONFIG or ~/.kube/config.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,

    /// Address and port of /healthz, /readyz and /metrics. Default: port 8080 of the Pod's IP address; outside a Pod,
    /// of all addresses.
    #[arg(long)]
    pub bind: Option<SocketAddr>,

    /// How many Rollouts and ListenerSets are reconciled at the same time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,

    /// Format of the log.
    #[arg(long, value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// What is logged, in the syntax of RUST_LOG. The environment variable RUST_LOG goes first, if it is set.
    #[arg(long, default_value = "info")]
    pub log_level: String,

    /// Name of the Lease for leader election: only its holder works.
    #[arg(long, default_value = "baton-operator")]
    pub lease_name: String,

    /// Namespace of this Lease. Default: the namespace of the Pod; outside a Pod, that of the kubeconfig's context.
    #[arg(long)]
    pub lease_namespace: Option<String>,

    /// Folder that survives a restart of the container: an emptyDir. A lock in it proves that an earlier process of
    /// this Pod is dead, so that the operator need not wait for the earlier process's Lease to expire.
    #[arg(long)]
    pub state_dir: Option<PathBuf>,

    /// Image of baton-agent, for Pods whose template has the annotation `baton.dev/agent: install` or `sidecar`.
    /// Running Pods keep the image that they have.
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub agent_image: Option<String>,

    /// After how many seconds without an event a watch counts as broken and begins anew.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(2..=3600))]
    pub watch_silence_seconds: u64,

    /// How many seconds one call to the API server may take.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10))]
    pub call_timeout_seconds: u64,

    /// The Pod, as the environment tells it.
    #[command(flatten)]
    pub pod: PodEnvironment,
}

/// The operator's own Pod.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct PodEnvironment {
    /// metadata.name.
    #[arg(long, env = "POD_NAME", hide = true)]
    pub pod_name: Option<String>,
    /// metadata.uid.
    #[arg(long, env = "POD_UID", hide = true)]
    pub pod_uid: Option<String>,
    /// metadata.namespace.
    #[arg(long, env = "POD_NAMESPACE", hide = true)]
    pub pod_namespace: Option<String>,
    /// status.podIP.
    #[arg(long, env = "POD_IP", hide = true)]
    pub pod_ip: Option<IpAddr>,
}

impl Settings {
    /// One entry without a namespace, or the namespaces.
    pub fn scopes(&self) -> Vec<Scope> {
        let mut named: Vec<Scope> = self.namespaces.iter().filter(|name| !name.is_empty()).cloned().map(Some).collect();
        named.sort();
        named.dedup();
        if named.is_empty() { vec![None] } else { named }
    }

    /// Address of the probes.
    pub fn bind(&self) -> SocketAddr {
        let address = self.pod.pod_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        self.bind.unwrap_or_else(|| SocketAddr::new(address, 8080))
    }

    /// Longest silence of a watch.
    pub fn watch_silence(&self) -> Duration {
        Duration::from_secs(self.watch_silence_seconds)
    }

    /// Longest time for one call.
    pub fn call_timeout(&self) -> Duration {
        Duration::from_secs(self.call_timeout_seconds)
    }

    /// Who we are, `boot` being new at each start.
    pub fn identity(&self, boot: u64) -> Identity {
        let machine = || nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        Identity {
            pod: self.pod.pod_name.clone().or_else(machine).unwrap_or_else(|| "unknown".to_owned()),
            uid: self.pod.pod_uid.clone().unwrap_or_default(),
            boot: format!("{boot:016x}"),
        }
    }

    /// How to reach the API server.
    ///
    /// # Errors
    /// See [`connection::config`].
    pub async fn config(&self) -> anyhow::Result<Config> {
        connection::config(self.kubeconfig.as_deref(), concat!("baton-operator/", env!("CARGO_PKG_VERSION"))).await
    }
}

/// The exclusive lock on the Pod's state folder; ends with the process, however that ends.
#[derive(Debug)]
pub struct PodLock {
    _file: Flock<File>,
}

impl PodLock {
    /// Waits until no other process of this Pod holds it. Cancel-safe.
    ///
    /// # Errors
    /// A folder that cannot be written to.
    pub async fn acquire(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("lock");
        let mut told = false;
        loop {
            let open = File::options().create(true).truncate(false).write(true).open(&path);
            let file = open.with_context(|| format!("cannot write to --state-dir: {}", path.display()))?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => return Ok(Self { _file: file }),
                Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::info!(path = %path.display(), "waiting for an earlier process of this Pod to end");
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err((_, error)) => return Err(error).with_context(|| format!("cannot lock {}", path.display())),
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        settings: Settings,
    }

    pub(in crate::operator) fn settings(args: &[&str]) -> Settings {
        Cli::try_parse_from([&["operator"], args].concat()).unwrap().settings
    }

    #[test]
    fn namespaces_may_be_repeated_or_listed() {
        let named = |name: &str| Some(name.to_owned());
        assert_eq!(settings(&[]).scopes(), [None]);
        assert_eq!(settings(&["--namespace", "b,a", "--namespace", "a"]).scopes(), [named("a"), named("b")]);
    }

    #[test]
    fn probes_are_at_the_pods_own_address() {
        assert_eq!(settings(&["--pod-ip", "10.0.0.7"]).bind().to_string(), "10.0.0.7:8080");
        assert_eq!(settings(&["--pod-ip", "fd00::7"]).bind().to_string(), "[fd00::7]:8080");
        assert_eq!(settings(&["--bind", "127.0.0.1:9"]).bind().to_string(), "127.0.0.1:9");
    }

    #[tokio::test]
    async fn one_process_of_a_pod_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = PodLock::acquire(folder.path()).await.unwrap();
        let second = tokio::time::timeout(Duration::from_millis(300), PodLock::acquire(folder.path()));
        assert!(second.await.is_err(), "two at once");
        drop(first);
        PodLock::acquire(folder.path()).await.unwrap();
    }
}
