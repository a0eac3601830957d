//! `baton-testbed demo`: the main job on real input, in minutes, judged from outside.
//!
//! ```text
//!   stage     a cluster of its own, images, CRDs, the operator under its own ServiceAccount
//!   load      requests to the Service that never pause, as a proxy sends them
//!   scenes    1.0 → 1.1 in three batches; a broken version, which goes back; a process killed in mid-roll;
//!             one instance back alone; backup, self-test and drain; 8 → 12; a second set beside the first, and a switch
//!   listeners twelve websockets on four Pods: taken along by a roll, taken over after a kill, judged by the exchange
//!   old_way   three feeds of the same exchange shared by locks that expire, for comparison
//!   judge     a watch on the Pods of its own: lowest number available, most Pods at once
//!   summary   what was measured, and whether it is good enough
//! ```
//! It passes only if no request failed, none had to be tried twice except right after the kill, every bound held, and every
//! message of every feed was read once, by one listener at a time.
use std::{path::PathBuf, pin::pin, process::ExitCode, time::Duration};

use anyhow::{Result, anyhow, bail};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};

pub mod judge;
pub mod ledger;
mod listeners;
mod live;
mod load;
mod old_way;
pub mod programs;
mod rollout;
mod scenes;
pub mod stage;
mod summary;
#[cfg(test)]
mod summary_tests;
pub mod victim;
pub mod writes;

use stage::{Setup, Stage};
use summary::Summary;

/// A demo that takes longer hangs; it needs a fifth of this.
const PATIENCE: Duration = Duration::from_mins(15);

/// Arguments of `baton-testbed demo`. It runs in the root of the repository.
#[derive(clap::Args)]
pub struct Args {
    /// Folder for the cluster, its images, logs and reports.
    #[arg(long, default_value = "target/demo")]
    dir: PathBuf,
    /// Folder of the control plane's programs.
    #[arg(long, default_value = "target/control-plane/bin")]
    bin: PathBuf,
    /// Leave everything running, and say how to look around.
    #[arg(long)]
    keep: bool,
    /// Use the cluster of this kubeconfig instead of starting one. For one of `make cluster-up` nothing else is needed.
    /// Any other must run its Pods on this machine (their processes are seen, their addresses in 10.244.0.0/16 are
    /// reached), and have the images `example.local/web:1.0`, `1.1`, `1.2` (examples/web) and `1.2-broken` (its broken.sh).
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
}

/// Exit code 0 only when everything held.
pub fn run(args: Args) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut interrupted = pin!(interrupted());
        let stage = tokio::select! {
            stage = Stage::open(Setup::of(args)) => stage?,
            interrupted = &mut interrupted => return Err(interrupted),
        };
        let outcome = tokio::select! {
            outcome = scenes::play(&stage) => Some(outcome),
            () = sleep(PATIENCE) => Some(Err(anyhow!("it did not come to an end within {} s", PATIENCE.as_secs()))),
            died = stage.watch() => Some(Err(died)),
            _ = &mut interrupted => None,
        };
        let Some(outcome) = outcome else {
            stage.clear().await?;
            bail!("interrupted");
        };
        if !outcome.as_ref().is_ok_and(|summary| summary.problems().is_empty()) {
            stage.explain().await;
        }
        let passed = outcome.as_ref().is_ok_and(tell);
        let cleared = stage.clear().await;
        outcome?;
        cleared?;
        Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// Prints the summary and the verdict; answers whether it is good.
fn tell(summary: &Summary) -> bool {
    println!("\n{summary}");
    let problems = summary.problems();
    for problem in &problems {
        println!("✖ {problem}");
    }
    if problems.is_empty() {
        println!("✔ passed: no request failed, every bound held, no message was lost or read twice");
    }
    problems.is_empty()
}

/// Returns once somebody wants the demo to end.
pub async fn interrupted() -> anyhow::Error {
    let wait = async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::io::Result::Ok(())
    };
    match wait.await {
        Ok(()) => anyhow::anyhow!("interrupted"),
        Err(error) => error.into(),
    }
}
