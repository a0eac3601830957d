//! The agent in each Pod of a ListenerSet.
use std::process::ExitCode;

use baton::agent::exec::{guard, shim};
use clap::{Parser, Subcommand};

/// Runs the listeners of its Pod.
#[derive(Parser)]
#[command(name = "baton-agent", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watch one child, on behalf of the agent that started this.
    #[command(hide = true)]
    Guard(guard::Args),
    /// Become a child, on behalf of the guard that started this.
    #[command(hide = true)]
    GuardChild(shim::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Guard(args) => guard::run(&args),
        Command::GuardChild(args) => shim::run(&args),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
