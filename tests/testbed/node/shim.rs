//! The two processes between the node and a container's own, both of one thread and without a runtime:
//! ```text
//! node ─> shim (own session; outlives the node)       writes the log and exit.json, holds `alive` open
//!          └─> init (PID 1 of a new PID namespace)     makes the root, then becomes the container's command
//! ```
//! They are this program again, with hidden subcommands: a step between fork and exec is the one
//! thing that safe Rust cannot take.
use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::PathBuf,
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use nix::{
    fcntl::OFlag,
    sched::{CloneFlags, unshare},
    sys::{
        prctl::set_pdeathsig,
        signal::Signal,
        stat::{Mode, umask},
    },
    unistd::{chdir, pipe2, sethostname, setsid},
};
use serde::{Deserialize, Serialize};

use super::{
    log::Log,
    model::End,
    rootfs::{self, Root},
    store::{self, AttemptDir, Started},
};

/// What `runc` and its like exit with when a command cannot be started.
const START_ERROR_CODE: i32 = 128;
/// This very program, also where its file has been replaced or cannot be seen.
pub const THIS_PROGRAM: &str = "/proc/self/exe";
/// What a shim says when the container's process exists.
pub const STARTED: &str = "started\n";

/// Arguments of the hidden subcommands: the folder of one start of a container.
#[derive(clap::Args)]
pub struct Args {
    dir: PathBuf,
}

/// What a container is made from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Program and arguments; the program is searched in the PATH of `environment`.
    pub command: Vec<String>,
    pub environment: Vec<(String, String)>,
    pub working_dir: String,
    pub hostname: String,
    pub root: Root,
    pub log: PathBuf,
    /// Its processes live on where the shim is killed.
    pub outlives_shim: bool,
}

/// Runs one container to its end.
pub fn run(args: &Args) -> Result<ExitCode> {
    let dir = AttemptDir::at(&args.dir);
    setsid().context("cannot leave the node's session")?;
    // Opened for both, as a FIFO without a reader cannot be opened for writing alone.
    let _alive = File::options().read(true).write(true).open(dir.alive())?;
    let end = match attend(&dir) {
        Ok(end) => end,
        Err(error) => End {
            exit_code: START_ERROR_CODE,
            signal: None,
            reason: "StartError".into(),
            message: Some(format!("{error:#}")),
            finished_at: Timestamp::now(),
        },
    };
    dir.write_exit(&end)?;
    Ok(ExitCode::SUCCESS)
}

fn attend(dir: &AttemptDir) -> Result<End> {
    let spec: Spec = store::read(&dir.spec())?;
    let log = Log::create(&spec.log)?;
    unshare(CloneFlags::CLONE_NEWPID).context("cannot make a PID namespace")?;
    let (mut child, output, errors) = start_init(dir)?;
    let pid = child.id() as i32;
    let namespace = store::pid_namespace(pid).unwrap_or_default(); // it may have ended
    dir.write_started(&Started { pid, at: Timestamp::now(), namespace })?;
    // Nobody listens any more if the node has died meanwhile; the container runs all the same.
    let _ = std::io::stdout().write_all(STARTED.as_bytes()).and_then(|()| std::io::stdout().flush());
    let nowhere = File::options().write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(&nowhere)?;
    log.follow(output, errors)?;
    let status = child.wait()?;
    Ok(end_of(status))
}

/// Starts PID 1 and returns once it has become the container's command.
fn start_init(dir: &AttemptDir) -> Result<(Child, OwnedFd, OwnedFd)> {
    let (report, reporter) = pipe2(OFlag::O_CLOEXEC)?;
    let (output, output_writer) = pipe2(OFlag::O_CLOEXEC)?;
    let (errors, errors_writer) = pipe2(OFlag::O_CLOEXEC)?;
    let mut child = Command::new(THIS_PROGRAM)
        .arg("node-init")
        .arg(dir.path())
        .stdin(Stdio::from(reporter)) // not input: what goes wrong is written there
        .stdout(Stdio::from(output_writer))
        .stderr(Stdio::from(errors_writer))
        .spawn()
        .context("cannot start a process")?;
    let mut problem = String::new();
    File::from(report).read_to_string(&mut problem)?;
    if problem.is_empty() {
        return Ok((child, output, errors));
    }
    child.wait()?;
    bail!(problem)
}

fn end_of(status: ExitStatus) -> End {
    let signal = status.signal();
    let exit_code = status.code().unwrap_or_else(|| 128 + signal.unwrap_or_default());
    End {
        exit_code,
        signal,
        reason: if exit_code == 0 { "Completed" } else { "Error" }.into(),
        message: None, // the node adds it
        finished_at: Timestamp::now(),
    }
}

/// PID 1 of a container until it becomes the container's command.
pub fn init(args: &Args) -> Result<ExitCode> {
    let reporter = std::io::stdin().as_fd().try_clone_to_owned()?; // closes when the command takes over
    let error = become_command(&AttemptDir::at(&args.dir));
    File::from(reporter).write_all(format!("{error:#}").as_bytes())?;
    Ok(ExitCode::from(START_ERROR_CODE as u8))
}

/// Returns only what prevented it.
fn become_command(dir: &AttemptDir) -> anyhow::Error {
    let prepare = || -> Result<Command> {
        let spec: Spec = store::read(&dir.spec())?;
        if !spec.outlives_shim {
            set_pdeathsig(Signal::SIGKILL)?;
        }
        setsid()?;
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS).context("cannot make namespaces")?;
        sethostname(&spec.hostname)?;
        umask(Mode::from_bits_truncate(0o022));
        rootfs::enter(&dir.root(), &spec.root)?;
        command_in(&spec)
    };
    match prepare() {
        Ok(mut command) => {
            let program = command.get_program().to_owned();
            let error = command.stdin(Stdio::null()).exec();
            anyhow::Error::new(error).context(format!("exec: {}", program.display()))
        }
        Err(error) => error,
    }
}

/// The command of a container, for a process that is in its namespaces.
pub fn command_in(spec: &Spec) -> Result<Command> {
    let Some((program, arguments)) = spec.command.split_first() else { bail!("no command specified") };
    if !std::path::Path::new(&spec.working_dir).exists() {
        std::fs::create_dir_all(&spec.working_dir)?; // as other runtimes do
    }
    chdir(spec.working_dir.as_str()).with_context(|| format!("no folder {}", spec.working_dir))?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(spec.environment.iter().cloned());
    Ok(command)
}
