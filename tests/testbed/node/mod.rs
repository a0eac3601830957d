//! `baton-testbed node`.
use std::process::ExitCode;

/// Arguments of `baton-testbed node`.
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
