//! `baton-testbed crash`: the operator dies at every write, and the world ends up the same each time.
//!
//! ```text
//!   stage      one cluster with real processes as Pods; a namespace, an operator and a proxy for each run
//!   scenario   six instances at 1, which completes; 2 exits at its start and is rolled back; 3 completes; each with a backup
//!              before it and a test after each batch, and a restore before 2 is taken back
//!   golden     a few runs without a fault: N writes, and the end that every run must come to
//!   points     for each write from 1 to N: killed before it is sent, with its answer withheld, right after its answer
//!   judge      a watch on the Pods of its own: lowest number available, most Pods at once
//! ```
//! Each killed operator is started again at once, as a kubelet does with a container. Further faults, of the network
//! instead of the operator, are tried at every k-th write.
use std::{path::PathBuf, process::ExitCode};

use anyhow::{Result, ensure};
use futures::{StreamExt, stream};

mod end;
mod operator;
mod points;
mod report;
mod run;
mod stage;

use crate::proxy::requests::Point;
use points::Choice;
use report::Report;
use run::Outcome;
use stage::Stage;

/// Arguments of `baton-testbed crash`. It runs in the root of the repository.
#[derive(clap::Args)]
pub struct Args {
    /// Only this point, like 17:committed; may be repeated. Words: before, committed, after (the operator is killed);
    /// lost, reset, busy, cut, silent (the network is at fault).
    #[arg(long)]
    point: Vec<Point>,
    /// Only so many points, chosen by the seed.
    #[arg(long, conflicts_with = "point")]
    sample: Option<usize>,
    /// Otherwise one is chosen, and printed.
    #[arg(long, requires = "sample")]
    seed: Option<u64>,
    /// Runs at a time.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u8).range(1..=32))]
    parallel: u8,
    /// Folder for the cluster and the logs of each run.
    #[arg(long, default_value = "target/crash")]
    dir: PathBuf,
    /// Folder of the control plane's programs.
    #[arg(long, default_value = "target/control-plane/bin")]
    bin: PathBuf,
}

/// Exit code 0 only when every run came to the same end and kept every bound.
#[allow(clippy::needless_pass_by_value)] // as the other subcommands
pub fn run(args: Args) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let stage = Stage::open(&args.dir, &args.bin).await?;
        let outcome = tokio::select! {
            outcome = all(&stage, &args) => outcome,
            interrupted = crate::demo::interrupted() => Err(interrupted),
        };
        stage.close().await?;
        Ok(if outcome? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// Runs what was asked for; answers whether all of it held.
async fn all(stage: &Stage, args: &Args) -> Result<bool> {
    let parallel = usize::from(args.parallel);
    let golden: Vec<Outcome> = runs(stage, parallel, (0..parallel).map(|_| None)).await;
    let mut report = Report::golden(&golden)?;
    println!("{report}");

    let choice = Choice { only: &args.point, sample: args.sample, seed: args.seed };
    let points = choice.among(report.writes_max());
    ensure!(!points.is_empty(), "no points to run");
    let mut outcomes =
        stream::iter(points.iter().map(|point| run::run(stage, Some(*point)))).buffer_unordered(parallel);
    while let Some(outcome) = outcomes.next().await {
        report.take(&outcome);
    }
    println!("\n{}", report.summary());
    Ok(report.held())
}

async fn runs(stage: &Stage, parallel: usize, points: impl Iterator<Item = Option<Point>>) -> Vec<Outcome> {
    stream::iter(points.map(|point| run::run(stage, point))).buffer_unordered(parallel).collect().await
}
