//! `baton-testbed proxy`.
use std::process::ExitCode;

/// Arguments of `baton-testbed proxy`.
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
