//! Listeners: a Rollout takes them along, and others take over what a killed Pod held. Judged by the exchange that they read.
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use baton::api::{ListenerSet, Rollout};
use jiff::Timestamp;
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};

use super::{
    old_way::{self, OldWay},
    stage::{NAMESPACE, Stage},
    victim,
};
use crate::feed::ledger::{FeedVerdict, Verdict};

const NAME: &str = "bots";
const FEEDS: i32 = 12;
/// On the feeds that store nothing.
const PLAIN: &str = "plain";
const PLAIN_FEEDS: i32 = 2;
const FIRST: &str = "1.0";
const SECOND: &str = "1.1";
/// As spec.handoff.checkpointSeconds of the plain ones, and some more.
const CHECKPOINTS: Duration = Duration::from_secs(7);
/// Patience for one step; a busy machine needs a tenth.
const PATIENCE: Duration = Duration::from_mins(3);

/// The exchange answers in milliseconds.
const ANSWER: Duration = Duration::from_secs(30);

/// What was seen.
#[derive(Clone, Debug)]
pub struct Listeners {
    /// Of every feed, by the exchange.
    pub verdict: Verdict,
    /// Milliseconds in which a listener ran nowhere while a Rollout moved it, its own stop and start included; sorted.
    pub gaps: Vec<f64>,
    /// How long nobody read the feeds of the killed Pod, the longest of them.
    pub takeover: Duration,
    /// Messages read again after it, of the feeds that store nothing.
    pub read_again: u64,
    /// How others do it.
    pub old_way: OldWay,
}

impl Listeners {
    /// What is not as it must be.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.verdict.0.len() != FEEDS as usize {
            problems.push(format!("{} feeds were read, not {FEEDS}", self.verdict.0.len()));
        }
        if self.gaps.len() != FEEDS as usize {
            problems.push(format!("{} planned moves, not one of each of {FEEDS} listeners", self.gaps.len()));
        }
        for (name, feed) in &self.verdict.0 {
            let FeedVerdict { overlaps, problems: others, .. } = feed;
            problems.extend(overlaps.iter().chain(others).map(|problem| format!("{name}: {problem}")));
        }
        problems
    }
}

/// Plays and measures.
pub async fn play(stage: &Stage, client: Client) -> Result<Listeners> {
    stage.make_bots(NAME, &[FIRST, SECOND])?;
    let mut exchange = stage.inside(stage.programs.this());
    exchange.args(["feed", "--listen", "127.0.0.1:9100", "--fence", "--forget", "plain-"]);
    stage.run("feed", exchange, false)?;
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = verdict(stage).await {
        ensure!(Instant::now() < deadline, "the exchange does not start: {error:#}");
        sleep(Duration::from_millis(100)).await;
    }
    let (ours, old_way) = tokio::try_join!(play_ours(stage, client), old_way::play(stage))?;
    Ok(Listeners { old_way, ..ours })
}

async fn play_ours(stage: &Stage, client: Client) -> Result<Listeners> {
    stage.show(&["apply", "-n", NAMESPACE, "-f", "tests/testbed/demo/listeners.yaml"]).await?;
    let sets: Api<ListenerSet> = Api::namespaced(client.clone(), NAMESPACE);
    until_all_run(&sets).await?;
    sleep(CHECKPOINTS).await; // something was written down
    stage.show(&["get", "listenersets.baton.dev", "-n", NAMESPACE]).await?;

    let patch = format!(
        r#"[{{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "example.local/bots:{SECOND}"}}]"#
    );
    stage.show(&["patch", "rollouts.baton.dev", NAME, "-n", NAMESPACE, "--type=json", "-p", &patch]).await?;
    let rollouts: Api<Rollout> = Api::namespaced(client, NAMESPACE);
    let deadline = Instant::now() + PATIENCE;
    while !is_complete(&rollouts.get(NAME).await?) {
        ensure!(Instant::now() < deadline, "the Rollout of the listeners does not come to an end");
        sleep(Duration::from_millis(100)).await;
    }
    until_all_run(&sets).await?;
    let before = verdict(stage).await?;
    let mut gaps: Vec<f64> =
        of_set(&before, NAME).0.values().flat_map(|feed| &feed.gaps).map(|micros| *micros as f64 / 1_000.0).collect();
    gaps.sort_by(f64::total_cmp);
    stage.show(&["get", "listenersets.baton.dev", "-n", NAMESPACE]).await?;

    let holds = |feed: &FeedVerdict| feed.connections.last().map(|last| last.opening.pod.clone());
    // Of one that reads a feed of each kind.
    let pod = of_set(&before, PLAIN).0.values().find_map(holds).context("nobody reads a feed")?;
    let killed_at = Timestamp::now();
    let pid = victim::kill_process_of(&format!("BATON_POD_NAME={pod}"), NAME)?;
    println!("  ✂ SIGKILL to process {pid}, the agent of {pod}");
    let killed_at = u64::try_from(killed_at.as_microsecond()).unwrap_or(0);
    let deadline = Instant::now() + PATIENCE;
    let takeover = loop {
        let now = verdict(stage).await?;
        // Who read a feed when it was killed, not a moment before: a listener may have just moved.
        let read_by_it = |feed: &&FeedVerdict| {
            let last = feed.connections.iter().rfind(|it| it.opening.began <= killed_at);
            last.is_some_and(|last| last.opening.pod == pod)
        };
        let since = |feed: &FeedVerdict| feed.connections.iter().map(|it| it.opening.began).find(|at| *at > killed_at);
        if let Some(back) = now.0.values().filter(read_by_it).map(since).collect::<Option<Vec<u64>>>() {
            break Duration::from_micros(back.into_iter().max().unwrap_or(killed_at) - killed_at);
        }
        ensure!(Instant::now() < deadline, "nobody takes over what {pod} held");
        sleep(Duration::from_millis(100)).await;
    };
    until_all_run(&sets).await?;
    let verdict = verdict(stage).await?;
    let read_again = of_set(&verdict, PLAIN).0.values().map(|feed| feed.duplicates).sum();
    Ok(Listeners { verdict: of_set(&verdict, NAME), gaps, takeover, read_again, old_way: OldWay::default() })
}

/// The feeds of a set.
fn of_set(verdict: &Verdict, set: &str) -> Verdict {
    let prefix = if set == PLAIN { "plain-" } else { "feed-" };
    Verdict(
        verdict.0.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(n, f)| (n.clone(), f.clone())).collect(),
    )
}

/// Waits until the sets say so of their present spec.
async fn until_all_run(sets: &Api<ListenerSet>) -> Result<()> {
    until_run(sets, NAME, FEEDS).await?;
    until_run(sets, PLAIN, PLAIN_FEEDS).await
}

async fn until_run(sets: &Api<ListenerSet>, name: &str, feeds: i32) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let set = sets.get(name).await?;
        let status = set.status.unwrap_or_default();
        let is_present = status.observed_generation == set.metadata.generation;
        if is_present && status.running == feeds && status.conditions.iter().any(|it| it.reason == "Complete") {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{} of {feeds} listeners of {name} run", status.running);
        sleep(Duration::from_millis(100)).await;
    }
}

fn is_complete(rollout: &Rollout) -> bool {
    let Some(status) = &rollout.status else { return false };
    status.observed_generation == rollout.metadata.generation && super::rollout::readiness(rollout).1 == "Complete"
}

/// What the exchange has seen so far.
pub async fn verdict(stage: &Stage) -> Result<Verdict> {
    let ask = r"exec 3<>/dev/tcp/127.0.0.1/9100 || exit; printf 'GET /verdict HTTP/1.0\r\n\r\n' >&3; cat <&3";
    let mut command = stage.inside("bash");
    let asked = super::programs::output_of(command.args(["-c", ask]).kill_on_drop(true));
    let answer = timeout(ANSWER, asked).await.context("the exchange does not answer")??;
    let (_, body) = answer.split_once("\r\n\r\n").context("the exchange says nothing")?;
    Ok(serde_json::from_str(body)?)
}
