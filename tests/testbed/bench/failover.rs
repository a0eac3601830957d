//! The controller is killed in mid-roll: how long until somebody goes on, and does anything happen twice?
//!
//! The operator runs as installed, two replicas as Pods of the process node; the built-in workloads' controller with its
//! leader election as shipped, restarted by the supervisor the moment it is dead.
use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use kube::Api;
use tokio::{process::Command, task::JoinSet, time};

use super::{
    arena::{self, Place},
    census::{Census, Extremes},
    figures::{Case, Spread},
    roll::until_settled,
    subject::{NAMESPACE, Subject, Workload},
    table,
};
use crate::demo::{programs::output_of, stage::Stage, victim, writes};

const SYSTEM: &str = "baton-system";
const PATIENCE: Duration = Duration::from_mins(4);
/// What the dead one had sent may arrive so long after its death.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// Of one roll with a kill.
pub struct Failover {
    /// From the kill to the next write.
    pub pause_seconds: f64,
    /// The whole roll, pause included.
    pub seconds: f64,
    /// Pods created beyond one for each.
    pub created_twice: i64,
    pub extremes: Extremes,
}

/// Runs it once.
pub async fn run(place: &Place, subject: Subject, pods: usize) -> Result<Failover> {
    let stage = if subject.is_baton() { installed(place).await? } else { elected(place, subject).await? };
    let mut tasks = JoinSet::new();
    let outcome = measure(&stage, subject, pods, &mut tasks).await;
    tasks.shutdown().await;
    stage.clear().await?;
    outcome
}

/// A cluster with the operator in it as its users install it.
async fn installed(place: &Place) -> Result<Stage> {
    let stage = place.stage(["--nodes", "process,kwok:1"].map(str::to_owned).into()).await?;
    let folder: PathBuf = stage.dir.join("images/baton-operator").join(env!("CARGO_PKG_VERSION"));
    fs::create_dir_all(&folder)?;
    let image = folder.join("baton-operator");
    let _ = fs::remove_file(&image); // of an earlier run
    fs::copy(stage.programs.built("baton-operator"), image)?;
    stage.kubectl(&["apply", "-k", "config/default"]).await?;
    stage.kubectl(&["-n", SYSTEM, "rollout", "status", "deployment/baton-operator", "--timeout=120s"]).await?;
    arena::prepare(&stage).await?;
    Ok(stage)
}

/// A cluster whose controller manager is one of several, as in production.
async fn elected(place: &Place, subject: Subject) -> Result<Stage> {
    place.open_with(subject, &["--leader-elect=true"]).await
}

async fn measure(stage: &Stage, subject: Subject, pods: usize, tasks: &mut JoinSet<()>) -> Result<Failover> {
    let client = stage.client().await?;
    let census = Census::start(Api::namespaced(client.clone(), NAMESPACE), tasks).await?;
    census.begin(1);
    let workload = Workload::create(&client, subject, pods, 0).await?;
    until_settled(&census, &workload, pods, PATIENCE).await.context("the Pods were not created")?;

    census.begin(2);
    let (began, began_at) = (time::Instant::now(), Timestamp::now());
    workload.change(2, 0).await?;
    census.until(PATIENCE, |counts| counts.updated >= pods / 3).await?;
    let killed_at = Timestamp::now();
    kill(stage, subject).await?;
    until_settled(&census, &workload, pods, PATIENCE).await.context("nobody went on")?;
    let seconds = began.elapsed().as_secs_f64();

    let log = stage.audit_log.as_ref().context("the cluster keeps no audit log")?;
    let all = writes::all(log, subject.users())?;
    // The operator's Lease is in the log: whoever goes on has taken it first. The controller manager's is not.
    let after = |from: Timestamp, is_lease: bool| {
        all.iter().filter(move |it| it.is_lease == is_lease && it.at > from).map(|it| it.at).min()
    };
    let taken = if subject.is_baton() { after(killed_at, true) } else { Some(killed_at + LAST_WORDS) };
    let next = taken.and_then(|taken| after(taken, false));
    let created = all.iter().filter(|it| it.at >= began_at && it.what == "create pods").count();
    let extremes = census.extremes();
    ensure!(!extremes.interrupted, "the watch on Pods has missed states; run it again");
    Ok(Failover {
        pause_seconds: next.context("nobody wrote after the kill")?.duration_since(killed_at).as_secs_f64(),
        seconds,
        created_twice: created as i64 - pods as i64,
        extremes,
    })
}

/// kill -9, and whoever restarts it does.
async fn kill(stage: &Stage, subject: Subject) -> Result<()> {
    if subject.is_baton() {
        let path = "jsonpath={.spec.holderIdentity}";
        let holder = stage.kubectl(&["-n", SYSTEM, "get", "lease", "baton-operator", "-o", path]).await?;
        let pod = holder.split('/').next().unwrap_or_default();
        victim::kill_process_of(&format!("POD_NAME={pod}"), "baton-operator")?;
    } else {
        let mut restart = Command::new(stage.programs.this());
        restart.args(["cluster", "restart", "--kill", "--dir"]).arg(&stage.dir).arg(subject.program());
        output_of(&mut restart).await?;
    }
    Ok(())
}

/// A table of several runs of each.
pub fn markdown(pods: usize, results: &[(Subject, Vec<Failover>)]) -> String {
    let fewest = Case { pods, ready_after_seconds: 0, subject: Subject::Baton }.fewest_allowed();
    let head = [
        "kill to the next write, s",
        "the whole roll, s",
        "Pods created twice",
        "fewest available",
        "most Pods",
        "with terminating ones",
    ];
    let row = |(subject, runs): &(Subject, Vec<Failover>)| {
        let text = |decimals: usize, value: fn(&Failover) -> f64| {
            Spread::of(runs.iter().map(value)).map_or("?".into(), |spread| spread.text(decimals))
        };
        let cells = vec![
            text(2, |it| it.pause_seconds),
            text(1, |it| it.seconds),
            text(0, |it| it.created_twice as f64),
            text(0, |it| it.extremes.fewest_available as f64),
            text(0, |it| it.extremes.most_live as f64),
            text(0, |it| it.extremes.most_with_terminating as f64),
        ];
        (subject.to_string(), cells)
    };
    format!(
        "**{pods} Pods, killed at a third** (allowed: at least {fewest} available, at most {pods} Pods)\n\n{}",
        table::rows("", &head, results.iter().map(row))
    )
}
