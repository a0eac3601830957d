//! `approve`, `abort`, `retry`, `restart`, `pause`, `resume`: what becomes of a run, each by one write to the spec.
use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::{Connection, change::Editor, target::RolloutTarget};
use crate::{
    api::Rollout,
    command::{Edited, set, steer},
};

/// `kubectl baton approve web`
#[derive(Args, Debug)]
pub(super) struct Approve {
    #[command(flatten)]
    rollout: RolloutTarget,
    /// Approve all pauses of this rollout, including later ones.
    #[arg(long, visible_alias = "full")]
    to_end: bool,
    /// Reason; recorded in the history.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// `kubectl baton abort web --reason "orders are late"`
#[derive(Args, Debug)]
pub(super) struct Ask {
    #[command(flatten)]
    rollout: RolloutTarget,
    /// Reason; recorded in the history.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl Approve {
    pub async fn run(&self, connection: &Connection) -> Result<()> {
        let editor = Editor::connect(connection, &self.rollout).await?;
        let request = editor.request("approve", self.reason.clone()).await;
        Box::pin(editor.answer(|rollout| steer::approve(rollout, self.to_end, &request))).await
    }
}

/// What [`Ask`] asks for.
pub(super) struct Act {
    verb: &'static str,
    make: fn(&Rollout, Timestamp) -> Edited,
    /// It is written before an operator has begun with the change that it is about.
    is_at_once: bool,
}

pub(super) const ABORT: Act = Act { verb: "abort", make: steer::abort, is_at_once: false };
pub(super) const RETRY: Act = Act { verb: "retry", make: steer::retry, is_at_once: false };
pub(super) const RESTART: Act = Act { verb: "restart", make: steer::restart, is_at_once: false };
pub(super) const PAUSE: Act = Act { verb: "pause", make: steer::pause, is_at_once: true };
pub(super) const RESUME: Act = Act { verb: "resume", make: steer::resume, is_at_once: false };

impl Ask {
    /// `act`, with who asks and why.
    pub async fn run(&self, connection: &Connection, act: &Act) -> Result<()> {
        let editor = Editor::connect(connection, &self.rollout).await?;
        let request = json!(editor.request(act.verb, self.reason.clone()).await);
        let make = |rollout: &Rollout| {
            let mut edit = (act.make)(rollout, Timestamp::now())?;
            edit.patch.push(set("/spec/request", &request));
            Ok(edit)
        };
        if act.is_at_once { Box::pin(editor.change(make)).await } else { Box::pin(editor.answer(make)).await }
    }
}
