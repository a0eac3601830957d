//! The agent in each Pod of a ListenerSet.
use std::{
    io::{self, Write},
    process::ExitCode,
};

use baton::agent::{
    exec::{guard, shim},
    fetch::Fetch,
    install::Install,
    session::{run, settings},
};
use clap::{Parser, Subcommand};

/// The agent of Baton: runs the listeners that the operator assigns to its Pod.
#[derive(Parser)]
#[command(name = "baton-agent", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Exec(Box<settings::Exec>),
    Serve(Box<settings::Serve>),
    Drain(settings::Drain),
    Install(Install),
    Fetch(Box<Fetch>),
    /// Watch one child, on behalf of the agent that started this.
    #[command(hide = true)]
    Guard(guard::Args),
    /// Become a child, on behalf of the guard that started this.
    #[command(hide = true)]
    GuardChild(shim::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Exec(settings) => wait_for(run::exec(*settings)),
        Command::Serve(settings) => wait_for(run::serve(*settings)),
        Command::Drain(drain) => wait_for(async move { drain.run().await }),
        Command::Install(install) => install.run().map(|()| ExitCode::SUCCESS),
        Command::Fetch(fetch) => wait_for(fetch.run()),
        Command::Guard(args) => guard::run(&args),
        Command::GuardChild(args) => shim::run(&args),
    };
    outcome.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "error: {error:#}"); // there may be no reader any more
        ExitCode::FAILURE
    })
}

/// On this thread alone: guards hear of the end of the thread that has started them.
fn wait_for(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(work)?;
    Ok(ExitCode::SUCCESS)
}
