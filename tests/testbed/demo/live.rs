//! What a person sees meanwhile: the output of `kubectl baton get rollout web -w`.
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;
use tokio::{process::Child, time};

use super::{
    programs::end,
    stage::{NAMESPACE, Stage},
};

/// For people's eyes: nothing depends on what they see.
const LAST_LOOK: Duration = Duration::from_millis(500);

/// The plugin, running; it draws on the demo's own output.
pub struct Live {
    child: Child,
}

impl Live {
    pub fn start(stage: &Stage) -> Result<Self> {
        let mut command = stage.kubectl_command(&["baton", "get", "rollout", "web", "-w", "-n", NAMESPACE])?;
        command.process_group(0).kill_on_drop(true).stdin(std::process::Stdio::null());
        Ok(Self { child: command.spawn()? })
    }

    /// Ends it as Ctrl-C would, so that it leaves the terminal as it was; not before the last change was drawn.
    pub async fn stop(mut self) -> Result<()> {
        time::sleep(LAST_LOOK).await;
        end(&mut self.child, Signal::SIGINT).await.map(drop)
    }
}
