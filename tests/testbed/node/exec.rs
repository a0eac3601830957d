//! Running a command inside a container, for hooks and probes.
use std::{
    fs::File,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    sched::{CloneFlags, setns},
    sys::{prctl::set_pdeathsig, signal::Signal},
};
use tokio::{io::AsyncReadExt, time::timeout};

use super::{
    shim::{self, Spec, THIS_PROGRAM},
    store::{self, AttemptDir},
};

/// What a shell reports for a command that it cannot run.
const CANNOT_RUN: u8 = 126;
/// More than this of a command's output is not kept.
const MAX_OUTPUT_BYTES: u64 = 10 << 10;

/// How long to wait for output that a command that has ended may have left in the pipe.
const LAST_OUTPUT: Duration = Duration::from_millis(100);

/// How a command ended.
pub struct Output {
    pub exit_code: i32,
    /// Standard output and error.
    pub text: String,
}

/// Runs a command in a container; kills it when the time is up.
pub async fn run(dir: &AttemptDir, command: &[String], limit: Duration) -> Result<Output> {
    let (reader, writer) = std::io::pipe()?;
    let mut child = tokio::process::Command::new(THIS_PROGRAM)
        .arg("node-exec")
        .arg(dir.path())
        .arg("--")
        .args(command)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .kill_on_drop(true)
        .spawn()
        .context("cannot start a process")?;
    let finish = async {
        let mut text = Vec::new();
        let mut pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(reader.into())?;
        let status = {
            let mut read = std::pin::pin!(async {
                (&mut pipe).take(MAX_OUTPUT_BYTES).read_to_end(&mut text).await?;
                tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await
            });
            tokio::select! {
                read = &mut read => {
                    read?;
                    child.wait().await?
                }
                // A process that the command has left behind may keep the pipe open.
                status = child.wait() => {
                    let _ = timeout(LAST_OUTPUT, read).await;
                    status?
                }
            }
        };
        let exit_code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        Ok(Output { exit_code, text: String::from_utf8_lossy(&text).into_owned() })
    };
    match timeout(limit, finish).await {
        Ok(outcome) => outcome,
        Err(_) => bail!("command {command:?} timed out after {} s", limit.as_secs_f32()),
    }
}

/// Arguments of the hidden subcommands.
#[derive(clap::Args)]
pub struct Args {
    dir: PathBuf,
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Enters the container's namespaces, runs the command there and ends as it does.
pub fn enter(args: Args) -> Result<ExitCode> {
    let dir = AttemptDir::at(&args.dir);
    let spec: Spec = store::read(&dir.spec())?;
    let pid = dir.started().context("the container has not started")?.pid;
    let open = |kind: &str| File::open(format!("/proc/{pid}/ns/{kind}")).context("the container has ended");
    let (processes, mounts, names) = (open("pid")?, open("mnt")?, open("uts")?);
    setns(names, CloneFlags::CLONE_NEWUTS).context("cannot enter the container")?;
    setns(processes, CloneFlags::CLONE_NEWPID).context("cannot enter the container")?;
    setns(mounts, CloneFlags::CLONE_NEWNS).context("cannot enter the container")?;
    let inside = serde_json::to_string(&Spec { command: args.command, ..spec })?;
    // Only a child is in the other PID namespace.
    let status = Command::new(THIS_PROGRAM).arg("node-exec-inside").arg(inside).status()?;
    Ok(ExitCode::from(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()) as u8))
}

/// Arguments of the hidden subcommand: a [`Spec`].
#[derive(clap::Args)]
pub struct InsideArgs {
    spec: String,
}

/// Becomes the command, which ends when the process outside does.
pub fn inside(args: &InsideArgs) -> Result<ExitCode> {
    set_pdeathsig(Signal::SIGKILL)?;
    let spec: Spec = serde_json::from_str(&args.spec)?;
    let mut command = shim::command_in(&spec)?;
    let error = command.exec();
    eprintln!("exec: {}: {error}", command.get_program().display());
    Ok(ExitCode::from(CANNOT_RUN))
}
