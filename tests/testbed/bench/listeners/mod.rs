//! One case: a fresh cluster, N listeners on M agents, rolled a few times, then left alone, then some are lost.
mod farm;
mod losses;
pub mod peer;
pub mod table;

use std::{
    fmt,
    str::FromStr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use baton::api::ListenerSet;
use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{task::JoinSet, time};

use self::{farm::Farm, losses::Losses};
use super::{
    arena::{CONTROLLERS, Place},
    processes,
    subject::{APP, NAMESPACE, Subject, Workload},
};
use crate::demo::{
    stage::Stage,
    writes::{self, Write},
};

/// Between two things that are measured.
const REST: Duration = Duration::from_secs(3);
/// How long what happens by itself is counted.
const STEADY: Duration = Duration::from_secs(30);
/// The whole of one step.
const PATIENCE: Duration = Duration::from_mins(5);
const POLL: Duration = Duration::from_millis(20);
const API_SERVER: &str = "kube-apiserver";

/// So many listeners on so many Pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    pub listeners: usize,
    pub pods: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.listeners, self.pods)
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('@').map(|(listeners, pods)| (listeners.parse(), pods.parse()));
        let Some((Ok(listeners), Ok(pods))) = numbers else {
            return Err(format!("{text:?} is not LISTENERS@PODS, like 12@4"));
        };
        Ok(Self { listeners, pods })
    }
}

/// What was measured. Times in milliseconds, sorted.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// From the end of a listener in one Pod to its start in another, of all rolls: what Baton adds to the application's own
    /// stop and start.
    pub gaps: Vec<f64>,
    /// From the change of the template until Rollout and ListenerSet say that they are done, of each roll.
    pub rolls: Vec<f64>,
    /// Writes to ownership Leases per listener and roll.
    pub ownership_writes: f64,
    /// Writes to session Leases per listener and roll: letters, reports, renewals.
    pub session_writes: f64,
    /// CPU of the operator per listener and roll.
    pub operator_cpu: f64,
    /// Writes a second while nothing happens.
    pub steady_writes: f64,
    /// Part of a core that the operator uses meanwhile.
    pub steady_cpu: f64,
    /// Milliseconds that the API server took for each renewal meanwhile.
    pub renewals: Vec<f64>,
    /// Part of a core that the API server used meanwhile.
    pub api_server_cpu: f64,
    /// The operator's resident memory, in MiB.
    pub resident_mib: f64,
    pub losses: Losses,
    /// Starts of what still ran. None is right.
    pub overlaps: usize,
}

impl Measured {
    /// A line for who waits.
    pub fn in_short(&self) -> String {
        let [half, most] = [0.5, 0.99].map(|part| percentile(&self.gaps, part));
        let rolls: Vec<String> = self.rolls.iter().map(|millis| format!("{:.1}", millis / 1_000.0)).collect();
        let moves = self.gaps.len();
        format!("{moves} moves, gap p50 {half:.1} ms, p99 {most:.1} ms, rolls of {} s", rolls.join(", "))
    }
}

/// The number that so great a part of all does not exceed; 0 of none. `sorted`: ascending.
pub fn percentile(sorted: &[f64], part: f64) -> f64 {
    let at = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(at.max(1) - 1).copied().unwrap_or_default()
}

/// Runs it once.
pub async fn run(place: &Place, case: Case, rolls: usize) -> Result<Measured> {
    // What Pods own is to go with them.
    let controllers = format!("--controllers={CONTROLLERS},garbage-collector-controller");
    let stage = place.open_with(Subject::Baton, &[&controllers]).await?;
    let mut tasks = JoinSet::new();
    let outcome = tokio::select! {
        outcome = measure(&stage, case, rolls, &mut tasks) => outcome,
        died = stage.watch() => Err(died),
    };
    tasks.shutdown().await;
    stage.clear().await?;
    outcome
}

async fn measure(stage: &Stage, case: Case, rolls: usize, tasks: &mut JoinSet<()>) -> Result<Measured> {
    let client = stage.client().await?;
    let farm = Farm::start(stage.config().await?, client.clone(), tasks);
    let scene = Scene::create(&client, case).await?;
    scene.until_settled().await.context("the listeners were not started")?;
    // Once all run they are evened out.
    let all_run = async {
        while farm.running().len() < case.listeners {
            time::sleep(REST).await;
        }
        time::sleep(REST).await;
    };
    let running = || format!("{} of {} run", farm.running().len(), case.listeners);
    time::timeout(PATIENCE, all_run).await.with_context(running)?;
    farm.take_gaps(); // those of the beginning

    let mut measured = Measured::default();
    let (before, began_at) = (operator()?, Timestamp::now());
    for version in 2..2 + rolls {
        let began = Instant::now();
        scene.roll(version).await?;
        scene.until_settled().await.context("the listeners were not moved")?;
        measured.rolls.push(began.elapsed().as_secs_f64() * 1_000.0);
    }
    time::sleep(REST).await;
    let of_all = (case.listeners * rolls) as f64;
    measured.operator_cpu = operator()?.cpu.saturating_sub(before.cpu).as_secs_f64() * 1_000.0 / of_all;
    let written = leases(stage, began_at)?;
    let ownerships = written.iter().filter(|it| is_ownership(it)).count();
    measured.ownership_writes = ownerships as f64 / of_all;
    measured.session_writes = (written.len() - ownerships) as f64 / of_all;
    (measured.gaps, measured.overlaps) = farm.take_gaps();

    let (before, api_server_before, began_at) = (operator()?, usage_of(API_SERVER)?, Timestamp::now());
    time::sleep(STEADY).await;
    let (after, api_server_after) = (operator()?, usage_of(API_SERVER)?);
    let written = leases(stage, began_at)?;
    measured.steady_writes = written.len() as f64 / STEADY.as_secs_f64();
    let renewals = written.iter().filter(|write| is_session(&write.name));
    measured.renewals = renewals.filter_map(|write| write.took).map(|millis| millis as f64).collect();
    measured.renewals.sort_by(f64::total_cmp);
    let part = |before: processes::Usage, after: processes::Usage| {
        after.cpu.saturating_sub(before.cpu).as_secs_f64() / STEADY.as_secs_f64()
    };
    measured.steady_cpu = part(before, after);
    measured.api_server_cpu = part(api_server_before, api_server_after);
    measured.resident_mib = after.resident_kib as f64 / 1_024.0;

    measured.losses = Box::pin(losses::measure(&client, &scene, &farm)).await?; // a large future
    Ok(measured)
}

/// What the operator has used.
fn operator() -> Result<processes::Usage> {
    usage_of("baton-operator")
}

fn usage_of(program: &str) -> Result<processes::Usage> {
    processes::usage()?.remove(program).with_context(|| format!("{program} does not run"))
}

/// Writes of Leases since then, save those of the operator's own lock.
fn leases(stage: &Stage, since: Timestamp) -> Result<Vec<Write>> {
    let log = stage.audit_log.as_ref().context("the cluster keeps no audit log")?;
    let is_theirs =
        |write: &Write| write.is_lease && (write.name.is_empty() || is_ownership(write) || is_session(&write.name));
    Ok(writes::everybodys(log)?.into_iter().filter(|write| write.at >= since && is_theirs(write)).collect())
}

fn is_ownership(write: &Write) -> bool {
    write.name.starts_with("listener.")
}

/// Whether a Lease of this name is a Pod's.
fn is_session(lease: &str) -> bool {
    lease.starts_with("session.")
}

/// Rollout and ListenerSet.
struct Scene {
    case: Case,
    rollout: Workload,
    set: Api<ListenerSet>,
}

impl Scene {
    async fn create(client: &Client, case: Case) -> Result<Self> {
        let mut manifest = Subject::Baton.manifest(case.pods, 0);
        manifest["spec"]["strategy"] = json!({"maxSurge": "25%", "maxUnavailable": 0});
        manifest["spec"]["template"]["metadata"]["annotations"] = json!({"baton.dev/agent": "own"});
        let rollout = Workload::create_as(client, Subject::Baton, case.pods, manifest).await?;
        let set: Api<ListenerSet> = Api::namespaced(client.clone(), NAMESPACE);
        let object = json!({
            "metadata": {"name": APP},
            "spec": {"rolloutRef": {"name": APP}, "count": {"count": case.listeners, "namePrefix": "feed-"}},
        });
        set.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        Ok(Self { case, rollout, set })
    }

    async fn roll(&self, version: usize) -> Result<()> {
        let template = json!({"metadata": {"labels": {super::subject::VERSION_LABEL: version.to_string()}}});
        self.rollout.patch(json!({"spec": {"template": template}})).await
    }

    async fn choose_fast(&self) -> Result<()> {
        let patch = Patch::Merge(json!({"spec": {"session": {"profile": "Fast"}}}));
        self.set.patch(APP, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    async fn until_settled(&self) -> Result<()> {
        let wait = async {
            while !(self.rollout.is_settled().await? && self.all_run().await?) {
                time::sleep(POLL).await;
            }
            anyhow::Ok(())
        };
        time::timeout(PATIENCE, wait).await.with_context(|| format!("not within {} s", PATIENCE.as_secs()))?
    }

    async fn all_run(&self) -> Result<bool> {
        let set = self.set.get(APP).await?;
        let status = set.status.unwrap_or_default();
        let is_complete = status.conditions.iter().any(|condition| condition.reason == "Complete");
        Ok(is_complete && usize::try_from(status.running) == Ok(self.case.listeners))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_numbers() {
        let numbers: Vec<f64> = (1..=100).map(f64::from).collect();
        let text = |sorted: &[f64], part: f64| format!("{:.0}", percentile(sorted, part));
        assert_eq!([0.5, 0.99, 1.0].map(|part| text(&numbers, part)), ["50", "99", "100"]);
        assert_eq!([text(&[7.0], 0.01), text(&[], 0.5)], ["7", "0"]);
    }

    #[test]
    fn a_case_is_read_as_it_is_printed() {
        let case = Case { listeners: 12, pods: 4 };
        assert_eq!(case.to_string().parse(), Ok(case));
        assert!("12".parse::<Case>().unwrap_err().contains("LISTENERS@PODS"));
    }
}
