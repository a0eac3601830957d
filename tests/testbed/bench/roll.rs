//! One run: a fresh cluster, N Pods at version 1, then version 2, measured.
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use kube::Api;
use tokio::{task::JoinSet, time};

use super::{
    arena::Place,
    census::Census,
    figures::{Case, Figures},
    processes::{self, Usage},
    subject::{NAMESPACE, Workload},
};
use crate::demo::{stage::Stage, writes};

/// After everything was created, and before it is changed.
const REST: Duration = Duration::from_secs(3);
/// How long writes that follow the end still count: of status, and Events.
const TRAIL: Duration = Duration::from_secs(3);
/// Everyone's shipped limits replace ten Pods a second; a multiple of that is a failure.
const PATIENCE_PER_POD: Duration = Duration::from_millis(400);
const PATIENCE_LEAST: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(20);

/// Runs it once. `idle`: how long to count what the operator writes when there is nothing to do.
pub async fn run(place: &Place, case: &Case, idle: Duration) -> Result<Figures> {
    let stage = place.open(case.subject).await?;
    let mut tasks = JoinSet::new();
    let outcome = tokio::select! {
        outcome = measure(&stage, case, idle, &mut tasks) => outcome,
        died = stage.watch() => Err(died),
    };
    tasks.shutdown().await;
    stage.clear().await?;
    outcome
}

async fn measure(stage: &Stage, case: &Case, idle: Duration, tasks: &mut JoinSet<()>) -> Result<Figures> {
    let client = stage.client().await?;
    let census = Census::start(Api::namespaced(client.clone(), NAMESPACE), tasks).await?;
    let patience = PATIENCE_LEAST.max(PATIENCE_PER_POD * u32::try_from(case.pods)?);
    census.begin(1);
    let workload = Workload::create(&client, case.subject, case.pods, case.ready_after_seconds).await?;
    until_settled(&census, &workload, case.pods, patience).await.context("the Pods were not created")?;
    time::sleep(REST).await;

    census.begin(2);
    let (before, machine_before) = (processes::usage()?, processes::machine_cpu()?);
    let (began, began_at) = (Instant::now(), Timestamp::now());
    workload.change(2, case.ready_after_seconds).await?;
    let pods_at = until_settled(&census, &workload, case.pods, patience).await.context("the Pods were not replaced")?;
    let took = began.elapsed();
    let (after, machine_after) = (processes::usage()?, processes::machine_cpu()?);
    time::sleep(TRAIL).await;
    let ended_at = Timestamp::now();
    let extremes = census.extremes();
    ensure!(!extremes.interrupted, "the watch on Pods has missed states; run it again");

    let idle_writes = if case.subject.is_baton() { Some(idle_writes(stage, case, idle).await?) } else { None };
    let log = stage.audit_log.as_ref().context("the cluster keeps no audit log")?;
    let program = case.subject.program();
    let resident = processes::usage()?.get(program).copied().unwrap_or_default();
    let cpu = |name: &str| milliseconds(used(&before, &after, name));
    let own: Duration = after.keys().map(|name| used(&before, &after, name)).sum();
    let foreign = machine_after.saturating_sub(machine_before).saturating_sub(own);
    Ok(Figures {
        seconds: took.as_secs_f64(),
        pods_seconds: pods_at.saturating_duration_since(began).as_secs_f64(),
        writes: writes::of(log, case.subject.users(), began_at, ended_at)?,
        controller_cpu_milliseconds: cpu(program),
        apiserver_cpu_milliseconds: cpu("kube-apiserver"),
        etcd_cpu_milliseconds: cpu("etcd"),
        peak_mib: mib(resident.peak_kib),
        resident_mib: mib(resident.resident_kib),
        extremes,
        idle_writes,
        foreign_cores: foreign.as_secs_f64() / took.as_secs_f64(),
    })
}

/// Waits until the Pods are as they should be and the workload says so; answers when the former was.
pub async fn until_settled(census: &Census, workload: &Workload, pods: usize, patience: Duration) -> Result<Instant> {
    let pods_at = census.until_settled(pods, patience).await?;
    let says_so = async {
        while !workload.is_settled().await? {
            time::sleep(POLL).await;
        }
        anyhow::Ok(())
    };
    time::timeout(patience, says_so).await.context("the workload does not say that it is done")??;
    Ok(pods_at)
}

/// Writes of the operator per minute while nothing happens: (of Leases, others).
async fn idle_writes(stage: &Stage, case: &Case, length: Duration) -> Result<(f64, f64)> {
    let from = Timestamp::now();
    time::sleep(length).await;
    let to = Timestamp::now();
    let log = stage.audit_log.as_ref().context("the cluster keeps no audit log")?;
    let all = writes::all(log, case.subject.users())?;
    let (leases, others): (Vec<_>, Vec<_>) =
        all.into_iter().filter(|it| (from..=to).contains(&it.at)).partition(|it| it.is_lease);
    let per_minute = |count: usize| count as f64 * 60.0 / length.as_secs_f64();
    Ok((per_minute(leases.len()), per_minute(others.len())))
}

fn used(before: &BTreeMap<String, Usage>, after: &BTreeMap<String, Usage>, name: &str) -> Duration {
    let cpu = |all: &BTreeMap<String, Usage>| all.get(name).map(|usage| usage.cpu).unwrap_or_default();
    cpu(after).saturating_sub(cpu(before))
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1_024.0
}
