//! `status [rollout] NAME`: kubectl's words, kubectl's exit codes.
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use clap::Args;

use super::{
    Connection,
    cluster::Cluster,
    follow::{Follow, Seen},
    hints,
    target::RolloutTarget,
};
use crate::{
    api::Rollout,
    view::{
        progress::{Progress, progress},
        rollout::state,
    },
};

/// An operator that runs has seen the spec by then.
const UNSEEN_AFTER: Duration = Duration::from_secs(5);

/// `kubectl baton status web --timeout 5m`
#[derive(Args, Debug)]
pub(super) struct Status {
    #[command(flatten)]
    rollout: RolloutTarget,
    /// Give up after this time, such as 90s or 5m; 0 waits for ever.
    #[arg(long, default_value = "0s", value_parser = seconds, value_name = "DURATION")]
    timeout: Duration,
    /// Wait until it is done; `--watch=false` says how it stands and exits.
    #[arg(short, long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    watch: bool,
}

/// `90s`, `5m`, `1h30m`, or seconds alone, as kubectl takes them.
fn seconds(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let span: Result<jiff::SignedDuration, _> = text.parse();
    span.ok().and_then(|span| span.try_into().ok()).ok_or_else(|| "write a time such as 90s or 5m".to_owned())
}

impl Status {
    pub async fn run(&self, connection: &Connection) -> Result<()> {
        let name = self.rollout.name()?;
        let cluster = Cluster::connect(connection).await?;
        let rollout = cluster.rollout(&name).await?;
        let mut teller = Teller { connection, said: Vec::new(), waits_for: None, hinted: None };
        if teller.tell(&rollout)? || !self.watch {
            return Ok(());
        }
        let wait = teller.wait(Follow::rollout(&cluster, &name), &name);
        if self.timeout.is_zero() {
            return wait.await;
        }
        let waited = tokio::time::timeout(self.timeout, wait).await;
        waited.unwrap_or_else(|_| {
            let seconds = i64::try_from(self.timeout.as_secs()).unwrap_or(i64::MAX);
            let last = teller.waits_for.unwrap_or_default();
            Err(anyhow!("timed out after {} waiting for rollout \"{name}\": {last}", crate::view::age::age(seconds)))
        })
    }
}

/// Prints each line once.
struct Teller<'a> {
    connection: &'a Connection,
    said: Vec<String>,
    waits_for: Option<String>,
    /// What was said of where to look while no operator has seen it.
    hinted: Option<String>,
}

impl Teller<'_> {
    async fn wait(&mut self, mut follow: Follow, name: &str) -> Result<()> {
        loop {
            let seen = match tokio::time::timeout(UNSEEN_AFTER, follow.next()).await {
                Ok(seen) => seen?,
                Err(_) if !follow.is_complete() => continue,
                Err(_) => {
                    let seen = follow.now()?; // what was dropped may have known more
                    if let Seen::Now(snapshot) = &seen {
                        self.hint(&snapshot.rollout);
                    }
                    seen
                }
            };
            match seen {
                Seen::Now(snapshot) => {
                    if self.tell(&snapshot.rollout)? {
                        return Ok(());
                    }
                }
                Seen::Gone => bail!("rollout \"{name}\" was deleted"),
                Seen::Lost(why) => anstream::eprintln!("connection lost, trying again: {why}"),
            }
        }
    }

    /// Says once where to look while no operator has seen it as it is.
    fn hint(&mut self, rollout: &Rollout) {
        let unseen = hints::unseen_rollout(rollout);
        if let Some(hint) = unseen.as_ref().filter(|_| unseen != self.hinted) {
            anstream::eprintln!("{}", hints::addressed(hint, self.connection));
        }
        self.hinted = unseen;
    }

    /// True when it is done; an error when it will not be.
    fn tell(&mut self, rollout: &Rollout) -> Result<bool> {
        let status = rollout.status.clone().unwrap_or_default();
        self.waits_for = Some(state(&status, rollout.metadata.generation).2);
        let (lines, done) = match progress(rollout) {
            Progress::Going(line, waits) => ([Some(line), waits].into_iter().flatten().collect(), false),
            Progress::Done(line) => (vec![line], true),
            Progress::Stalled(why) => bail!("{why}"),
        };
        for line in lines.iter().filter(|line| !self.said.contains(line)) {
            anstream::println!("{line}");
        }
        self.said = lines;
        Ok(done)
    }
}
