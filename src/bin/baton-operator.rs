//! The operator.
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Runs Rollouts.
#[derive(Parser)]
#[command(name = "baton-operator", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Write the manifests into a clone of the repository.
    #[command(hide = true)]
    Generate(baton::operator::manifests::Generate),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Some(Command::Generate(generate)) => generate.run(),
        None => Err(anyhow::anyhow!("not built yet")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
