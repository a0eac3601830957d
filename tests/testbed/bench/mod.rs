//! `baton-testbed bench`: what a roll costs, beside the built-in workloads; what a reconcile costs; how long a fail-over takes; how
//! long a listener that moves runs nowhere.
//!
//! ```text
//!   arena      a fresh cluster a run: etcd, API server, controller manager, one node of kwok
//!   subject    the same Pods under a Rollout, a Deployment, a StatefulSet
//!   census     a watch on the Pods of its own: who is available at any moment
//!   listeners  the same for what is held: agents in this process, on simulated Pods
//!   tenant     one namespace's noise, and what it costs another
//!   processes  CPU and memory, by /proc;  writes: by the API server's audit log
//!   table      medians, as Markdown in docs/performance.md
//! ```
use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Subcommand, ValueEnum};

mod arena;
mod census;
mod failover;
mod figures;
mod instructions;
mod listeners;
mod look;
mod page;
mod processes;
mod roll;
mod subject;
mod table;
mod tenant;

use arena::Place;
use figures::Case;
use subject::Subject;

/// Arguments of `baton-testbed bench`. It runs in the root of the repository.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Replace all Pods of a workload; compare with the built-in ones.
    Roll(RollArgs),
    /// Kill the controller with kill -9 in mid-roll.
    Failover(FailoverArgs),
    /// Move listeners from Pod to Pod; lose Pods that hold some. Compare with client-go's leader election.
    Listeners(ListenersArgs),
    /// Change one namespace's Rollout without and with noise in another namespace.
    Tenant(TenantArgs),
    /// Count the instructions of one look at a Rollout, by callgrind.
    Instructions(InstructionsArgs),
    /// Look at a Rollout that is not there, so that its cost can be counted.
    #[command(hide = true)]
    Look(LookArgs),
}

#[derive(clap::Args)]
struct InstructionsArgs {
    /// Folder for what callgrind writes.
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    #[command(flatten)]
    report: Report,
}

#[derive(clap::Args)]
struct LookArgs {
    #[arg(long)]
    pods: usize,
    #[arg(long, value_enum)]
    scene: look::Scene,
    #[arg(long)]
    looks: usize,
}

#[derive(clap::Args)]
struct FailoverArgs {
    #[command(flatten)]
    place: Place,
    #[arg(long, default_value_t = 1000)]
    pods: usize,
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [Subject::Baton, Subject::Deployment])]
    subjects: Vec<Subject>,
    /// Runs of each; the table has medians.
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    #[command(flatten)]
    report: Report,
}

#[derive(clap::Args)]
struct ListenersArgs {
    #[command(flatten)]
    place: Place,
    /// Listeners and Pods of each case: LISTENERS@PODS.
    #[arg(long, value_delimiter = ',', default_value = "12@4,1000@50,10000@50")]
    cases: Vec<listeners::Case>,
    /// Rolls of each case; the tables have the gaps of all their moves.
    #[arg(long, default_value_t = 3)]
    rolls: usize,
    /// The program of tests/peers/election; without it there is no peer.
    #[arg(long)]
    election: Option<PathBuf>,
    #[command(flatten)]
    report: Report,
}

#[derive(clap::Args)]
struct TenantArgs {
    #[command(flatten)]
    place: Place,
    /// What the noisy namespace has.
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = tenant::Noise::value_variants().iter().copied())]
    cases: Vec<tenant::Noise>,
    /// How many objects of it.
    #[arg(long, default_value_t = 500)]
    objects: usize,
    /// How often the neighbour is changed, without and with the noise.
    #[arg(long, default_value_t = 200)]
    changes: usize,
    #[command(flatten)]
    report: Report,
}

#[derive(clap::Args)]
struct RollArgs {
    #[command(flatten)]
    place: Place,
    /// Numbers of Pods.
    #[arg(long, value_delimiter = ',', default_value = "1000")]
    pods: Vec<usize>,
    /// Seconds until a new Pod is ready.
    #[arg(long, value_delimiter = ',', default_value = "0,2")]
    ready_after: Vec<u32>,
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Subject::value_variants().iter().copied())]
    subjects: Vec<Subject>,
    /// Runs of each; the table has medians.
    #[arg(long, default_value_t = 1)]
    repeat: usize,
    /// How long to count what the operator writes when there is nothing to do.
    #[arg(long, default_value_t = 30)]
    idle_seconds: u64,
    #[command(flatten)]
    report: Report,
}

/// Where the result goes.
#[derive(clap::Args)]
struct Report {
    /// Write the tables into this page, between its markers.
    #[arg(long)]
    page: Option<PathBuf>,
}

impl Report {
    /// Prints a section; writes it into the page if there is one.
    fn publish(&self, section: &str, text: &str) -> Result<()> {
        println!("\n{text}");
        self.page.as_ref().map_or(Ok(()), |page| page::write(page, section, text))
    }
}

pub fn run(args: Args) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            outcome = play(args.what) => outcome,
            interrupted = crate::demo::interrupted() => Err(interrupted),
        }
    })
}

async fn play(what: What) -> Result<ExitCode> {
    match what {
        What::Roll(args) => rolls(&args).await,
        What::Failover(args) => failovers(&args).await,
        What::Listeners(args) => moves(&args).await,
        What::Tenant(args) => tenants(&args).await,
        What::Instructions(args) => instructions(&args),
        What::Look(args) => {
            look::World::new(args.pods, args.scene)?.look_often(args.looks)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Every case `repeat` times, in turns: what disturbs the machine for a while disturbs all of them.
async fn rolls(args: &RollArgs) -> Result<ExitCode> {
    let (load, versions) = (page::load_average(), page::versions(&args.place.bin));
    let mut results = table::Results::new();
    let mut failed = 0;
    for round in 1..=args.repeat {
        for case in cases(args) {
            let Case { pods, ready_after_seconds, subject } = case;
            print!("{round}/{}: {subject}, {pods} Pods, ready after {ready_after_seconds} s: ", args.repeat);
            match roll::run(&args.place, &case, Duration::from_secs(args.idle_seconds)).await {
                Ok(run) => {
                    println!("{:.1} s (Pods {:.1} s), {} writes", run.seconds, run.pods_seconds, run.writes_total());
                    results.entry(case).or_default().push(run);
                }
                Err(error) => {
                    println!("failed: {error:#}");
                    failed += 1;
                }
            }
        }
    }
    let text = format!(
        "{} Runs of each: {}.\n\n{}\n\n{}",
        page::circumstances(&load, &versions),
        args.repeat,
        table::markdown(&results),
        table::remarks(&results)
    );
    args.report.publish("rolls", &text)?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn failovers(args: &FailoverArgs) -> Result<ExitCode> {
    let (load, versions) = (page::load_average(), page::versions(&args.place.bin));
    let mut results: Vec<_> = args.subjects.iter().map(|&subject| (subject, Vec::new())).collect();
    for round in 1..=args.repeat {
        for (subject, runs) in &mut results {
            let run = failover::run(&args.place, *subject, args.pods).await?;
            println!("{round}/{}: {subject}: {:.2} s from the kill to the next write", args.repeat, run.pause_seconds);
            runs.push(run);
        }
    }
    let circumstances = page::circumstances(&load, &versions);
    let table = failover::markdown(args.pods, &results);
    let text = format!("{circumstances} Runs of each: {}.\n\n{table}", args.repeat);
    args.report.publish("failover", &text)?;
    Ok(ExitCode::SUCCESS)
}

async fn moves(args: &ListenersArgs) -> Result<ExitCode> {
    let (load, versions) = (page::load_average(), page::versions(&args.place.bin));
    let mut results = Vec::new();
    for case in &args.cases {
        let measured = listeners::run(&args.place, *case, args.rolls).await?;
        println!("{case}: {}", measured.in_short());
        results.push((*case, measured));
    }
    let peer = match &args.election {
        Some(program) => Some(listeners::peer::run(&args.place, program).await?),
        None => None,
    };
    let circumstances = page::circumstances(&load, &versions);
    let tables = listeners::table::markdown(&results, peer.as_ref());
    args.report.publish("listeners", &format!("{circumstances} Rolls of each: {}.\n\n{tables}", args.rolls))?;
    Ok(ExitCode::SUCCESS)
}

async fn tenants(args: &TenantArgs) -> Result<ExitCode> {
    let (load, versions) = (page::load_average(), page::versions(&args.place.bin));
    let mut results = Vec::new();
    for &noise in &args.cases {
        let measured = tenant::run(&args.place, noise, args.objects, args.changes).await?;
        results.push((noise, args.objects, measured));
        println!("{}", tenant::markdown(&results));
    }
    let circumstances = page::circumstances(&load, &versions);
    let table = tenant::markdown(&results);
    args.report.publish("tenants", &format!("{circumstances} Changes of each: {}.\n\n{table}", args.changes))?;
    Ok(ExitCode::SUCCESS)
}

fn instructions(args: &InstructionsArgs) -> Result<ExitCode> {
    let Some(table) = instructions::measure(&args.dir)? else {
        println!("valgrind is not installed: instructions are not counted");
        return Ok(ExitCode::SUCCESS);
    };
    let circumstances = format!("Commit {}, {}.", page::commit(), page::output("valgrind", &["--version"]));
    args.report.publish("instructions", &format!("{circumstances}\n\n{table}"))?;
    Ok(ExitCode::SUCCESS)
}

fn cases(args: &RollArgs) -> Vec<Case> {
    let of_pods = |pods: usize| {
        args.ready_after.iter().flat_map(move |&ready_after_seconds| {
            args.subjects.iter().map(move |&subject| Case { pods, ready_after_seconds, subject })
        })
    };
    args.pods.iter().flat_map(|&pods| of_pods(pods)).collect()
}
