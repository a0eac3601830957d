//! Lifecycle hooks: what runs right after the start and right before the end of a container.
use std::{net::IpAddr, time::Duration};

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::LifecycleHandler;

use super::{exec, http, store::AttemptDir};

/// A hook of a container that runs.
pub struct Hook {
    pub handler: LifecycleHandler,
    pub dir: AttemptDir,
    pub pod_ip: IpAddr,
    /// The container's named ports.
    pub ports: Vec<(String, u16)>,
}

impl Hook {
    /// Runs to the end of the hook, at most for `limit`.
    pub async fn run(&self, limit: Duration) -> Result<()> {
        let LifecycleHandler { exec, http_get, sleep, .. } = &self.handler;
        if let Some(action) = exec {
            let command = action.command.clone().unwrap_or_default();
            let output = exec::run(&self.dir, &command, limit).await?;
            ensure!(
                output.exit_code == 0,
                "command {command:?} exited with {}: {}",
                output.exit_code,
                output.text.trim()
            );
        } else if let Some(action) = http_get {
            let target = http::Target::of(action, self.pod_ip, &self.ports)?;
            let answer = tokio::time::timeout(limit, target.get()).await??;
            ensure!(answer.successful(), "{answer}");
        } else if let Some(action) = sleep {
            tokio::time::sleep(Duration::from_secs(action.seconds.max(0) as u64).min(limit)).await;
        }
        Ok(())
    }
}
