//! The kubectl plugin: `kubectl baton …` wherever this file is in PATH.
use std::process::ExitCode;

use clap::Parser;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    baton::cli::run(baton::cli::Cli::parse()).await
}
