//! Beside Baton, on the same exchange: two instances of what is built by hand (`baton-testbed lock`, an imitation). One is
//! replaced, then the other one is killed.
use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use super::{listeners::verdict, programs::Background, stage::Stage, victim};
use crate::feed::ledger::FeedVerdict;

/// Their names at the exchange begin so.
pub const PREFIX: &str = "old-";
const FEEDS: [&str; 3] = ["old-0", "old-1", "old-2"];
const LOCKS: &str = "127.0.0.1:9101";
/// A lock expires within 30 s.
const PATIENCE: Duration = Duration::from_mins(2);

/// For how long each feed had no reader, in milliseconds, sorted.
#[derive(Clone, Debug, Default)]
pub struct OldWay {
    /// Its reader was asked to end.
    pub replaced: Vec<f64>,
    /// It was killed.
    pub killed: Vec<f64>,
}

/// Plays and measures.
pub async fn play(stage: &Stage) -> Result<OldWay> {
    let mut locks = stage.inside(stage.programs.this());
    locks.args(["lock", "serve", "--listen", LOCKS]);
    stage.run("lock", locks, false)?;
    let mut first = start(stage, "a")?;
    until_read_by(stage, "a").await?;
    let mut second = start(stage, "b")?;
    sleep(Duration::from_secs(1)).await; // it has asked in vain

    let replaced_at = micros();
    ensure!(first.stop().await?.success(), "an instance with a lock has not ended well");
    let replaced = gaps(&until_read_by(stage, "b").await?, replaced_at);
    let mut first = start(stage, "a")?;
    sleep(Duration::from_secs(1)).await;

    let killed_at = micros();
    // And what it has started: it would be one process.
    for command in ["baton-testbed", "listener", "listener", "listener"] {
        victim::kill_process_of("OLD_WAY=b", command)?;
    }
    let killed = gaps(&until_read_by(stage, "a").await?, killed_at);
    first.stop().await?;
    let _ = second.stop().await; // it was killed
    Ok(OldWay { replaced, killed })
}

fn start(stage: &Stage, owner: &'static str) -> Result<Background> {
    // Not in the environment of the program that leads inside.
    let mut command = stage.inside("env");
    command.arg(format!("OLD_WAY={owner}")).arg(stage.programs.this());
    command.args(["lock", "hold", "--server", LOCKS, "--owner", owner, "--feeds", &FEEDS.join(","), "--"]);
    command.arg(stage.programs.built("examples/listener"));
    command.env("FEED_URL", "ws://127.0.0.1:9100");
    Background::start("lock-holder", command, stage.dir.join(format!("logs/lock-holder-{owner}.log")), false, false)
}

/// Waits until all are read by this instance.
async fn until_read_by(stage: &Stage, owner: &str) -> Result<Vec<FeedVerdict>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = verdict(stage).await?;
        let feeds: Vec<FeedVerdict> = FEEDS.iter().filter_map(|feed| seen.0.get(*feed).cloned()).collect();
        let is_read =
            |feed: &FeedVerdict| feed.connections.last().is_some_and(|it| it.opening.pod == owner && it.done > 0);
        if feeds.len() == FEEDS.len() && feeds.iter().all(is_read) {
            return Ok(feeds);
        }
        ensure!(Instant::now() < deadline, "nobody reads {PREFIX}* as {owner}");
        sleep(Duration::from_millis(200)).await;
    }
}

/// From the last thing that the reader before did to the first of the present one, which came after `since`.
fn gaps(feeds: &[FeedVerdict], since: u64) -> Vec<f64> {
    let gap = |feed: &FeedVerdict| {
        let next = feed.connections.iter().find(|it| it.opening.began > since)?;
        let before = feed.connections.iter().filter(|it| it.opening.began < since).map(|it| it.last).max()?;
        Some(next.opening.began.saturating_sub(before) as f64 / 1_000.0)
    };
    let mut gaps: Vec<f64> = feeds.iter().filter_map(gap).collect();
    gaps.sort_by(f64::total_cmp);
    gaps
}

fn micros() -> u64 {
    u64::try_from(Timestamp::now().as_microsecond()).unwrap_or(0)
}
