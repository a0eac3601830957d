//! A program in a machine: it is in the machine's PID namespace already, and goes under its mounts.
use std::{
    ffi::OsString,
    fs::File,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitCode},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};

use super::boot::BOOTED;

/// A machine has its mounts in milliseconds; on a busy one it may take a moment.
const BOOT_TIMEOUT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);

/// Arguments of `baton-testbed cluster inside`.
#[derive(clap::Args)]
pub struct Args {
    /// Process id of the machine's PID 1, as the cluster numbers it.
    #[arg(long)]
    machine: u32,
    #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// Becomes the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let process = Path::new("/proc").join(args.machine.to_string());
    let booted = process.join("root").join(&BOOTED[1..]);
    let deadline = Instant::now() + BOOT_TIMEOUT;
    while !booted.exists() {
        ensure!(Instant::now() < deadline && process.exists(), "the machine does not start: see its log");
        sleep(POLL);
    }
    let mounts = File::open(process.join("ns/mnt")).context("the machine does not run")?;
    setns(mounts, CloneFlags::CLONE_NEWNS).context("cannot go under the machine's mounts")?;
    std::env::set_current_dir("/")?;
    let error = Command::new(&args.command[0]).args(&args.command[1..]).exec();
    eprintln!("{}: {error}", args.command[0].display());
    Ok(ExitCode::from(127))
}
