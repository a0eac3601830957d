//! The operator.
use std::process::ExitCode;

use baton::operator::{run, settings::Settings, telemetry};
use clap::{Parser, Subcommand};

/// The operator of Baton: reconciles the Rollouts and ListenerSets of a cluster.
#[derive(Parser)]
#[command(name = "baton-operator", version)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    settings: Settings,
}

#[derive(Subcommand)]
enum Command {
    /// Write the manifests into a clone of the repository.
    #[command(hide = true)]
    Generate(baton::operator::manifests::Generate),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Some(Command::Generate(generate)) => generate.run(),
        None => operate(cli.settings),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn operate(settings: Settings) -> anyhow::Result<()> {
    telemetry::start(settings.log_format, &settings.log_level)?;
    // One thread: the work is little, and a second one costs more than it brings (a fifth more CPU and memory, measured in a
    // roll of 1,000 Pods).
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run::from_settings(settings))
}
