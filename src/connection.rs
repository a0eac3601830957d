//! How the operator and the agent reach the API server.
use std::path::Path;

use anyhow::Context;
use hyper::header::{HeaderValue, USER_AGENT};
use kube::{
    Config,
    config::{KubeConfigOptions, Kubeconfig},
};

/// By this kubeconfig, else by the Pod's service account, else by the usual kubeconfig; as `program`, in the API server's
/// audit log. No request is repeated: a repeated POST creates twice, fifteen tries outlive every lock, and a repeated
/// renewal would count from the wrong time. What is to be done again is decided anew.
///
/// # Errors
/// A kubeconfig that cannot be read or used; none and no Pod either.
pub async fn config(kubeconfig: Option<&Path>, program: &'static str) -> anyhow::Result<Config> {
    let mut config = match kubeconfig {
        Some(path) => from_file(path).await?,
        None if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() => {
            Config::incluster().context("cannot use the Pod's service account")?
        }
        None => Config::from_kubeconfig(&KubeConfigOptions::default())
            .await
            .context("neither in a Pod nor with a kubeconfig: use --kubeconfig or KUBECONFIG")?,
    };
    config.default_retry = false;
    config.headers.push((USER_AGENT, HeaderValue::from_static(program)));
    Ok(config)
}

async fn from_file(path: &Path) -> anyhow::Result<Config> {
    let file = Kubeconfig::read_from(path).with_context(|| format!("cannot read kubeconfig {}", path.display()))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    config.with_context(|| format!("cannot use kubeconfig {}", path.display()))
}
