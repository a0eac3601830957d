//! The step between a guard and its child: the same process as the child, before it becomes the listener's command.
//!
//! What is set here can be set neither by the guard (PDEATHSIG is not inherited) nor between fork and exec (safe Rust cannot
//! act there): so the guard starts this program once more, which sets it and then becomes the command.
use std::{
    ffi::OsString,
    fs,
    io::{self, Write},
    os::unix::process::{CommandExt, parent_id},
    process::{Command, ExitCode},
};

use anyhow::Context;
use nix::sys::{
    prctl::{set_no_new_privs, set_pdeathsig},
    signal::{SigSet, Signal},
};

/// What a shell says where a command cannot be found, or not be run.
const NOT_FOUND: u8 = 127;
const NOT_RUNNABLE: u8 = 126;

/// Where the child writes its lines.
const EVENTS: &str = "/proc/self/fd/3";

/// Arguments of the hidden subcommand.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Process id of the guard.
    #[arg(long)]
    guard: u32,
    /// What to become.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Becomes the command.
///
/// # Errors
/// The guard has ended already.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    // Without its guard the child ends, for any cause.
    set_pdeathsig(Signal::SIGKILL)?;
    anyhow::ensure!(parent_id() == args.guard, "the guard has ended");
    // Otherwise a setuid program would be out of reach of the guard's signals, and would clear the line above.
    set_no_new_privs().context("cannot give up gaining rights")?;
    SigSet::empty().thread_set_mask()?; // the guard's is inherited, and has everything in it
    let error = Command::new(&args.command[0]).args(&args.command[1..]).exec();
    let why = format!("{}: {error}", args.command[0].display());
    eprintln!("{why}");
    let is_missing = error.kind() == io::ErrorKind::NotFound;
    complain(if is_missing { "CommandNotFound" } else { "CannotExecute" }, &why);
    Ok(ExitCode::from(if is_missing { NOT_FOUND } else { NOT_RUNNABLE }))
}

/// Says as the child why it ends: its exit code alone could be the command's own. If that fails, no process can be told.
fn complain(reason: &str, why: &str) {
    let line = serde_json::json!({"failed": format!("{reason}: {why}")});
    if let Ok(mut events) = fs::File::options().write(true).open(EVENTS) {
        let _ = writeln!(events, "{line}");
    }
}
