//! `cluster enter`: a command run inside, as if it had been started in place of this process.
use std::{
    env,
    ffi::OsString,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Child, Command, ExitCode, ExitStatus},
};

use anyhow::{Context, Result};
use nix::{
    sys::{
        prctl::set_pdeathsig,
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::Pid,
};

use super::{client, control::Request, namespaces::Namespaces};

const FORWARDED: [Signal; 6] =
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2];

/// No proxy can be reached from inside, and no Pod through one.
pub const PROXY_VARIABLES: [&str; 6] =
    ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// Runs `command` in the namespaces of the cluster in `dir`, with this process's folder and
/// environment (KUBECONFIG is added where it is not set), and returns its exit code.
pub fn run(dir: &Path, command: &[OsString]) -> Result<ExitCode> {
    let dir = dir.canonicalize().with_context(|| format!("no cluster in {}", dir.display()))?;
    let program = env::current_exe()?;
    let folder = env::current_dir()?;

    let cluster = client::connect(&dir)?;
    let namespaces = Namespaces::of(cluster.init_pid()?)?;
    cluster.ask(&Request::Status)?; // it lives still, so these were its namespaces
    namespaces.join()?;
    env::set_current_dir(&folder).with_context(|| format!("{} does not exist inside", folder.display()))?;

    // From here on signals are read, not delivered.
    let mut mask: SigSet = FORWARDED.into_iter().collect();
    mask.add(Signal::SIGCHLD);
    mask.thread_block()?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC)?;

    // A step between sets what this process cannot set for its child without unsafe code.
    let mut child = Command::new(program);
    child.args(["cluster", "exec", "--"]).args(command);
    if env::var_os("KUBECONFIG").is_none() {
        child.env("KUBECONFIG", dir.join("kubeconfig"));
    }
    for variable in PROXY_VARIABLES {
        child.env_remove(variable);
    }
    let child = child.spawn().context("cannot run a command inside")?;
    Ok(exit_code(attend(child, &signals)?))
}

/// Waits for the child, and hands on the signals that were meant for it.
fn attend(mut child: Child, signals: &SignalFd) -> Result<ExitStatus> {
    /// `si_code` of a signal that the terminal sent: the child, in the same group, has it already.
    const SI_KERNEL: i32 = 0x80;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        let Some(info) = signals.read_signal()? else { continue };
        let signal = Signal::try_from(info.ssi_signo as i32)?;
        if signal != Signal::SIGCHLD && info.ssi_code != SI_KERNEL {
            kill(Pid::from_raw(child.id() as i32), signal)?; // not reaped yet, so the pid is its own
        }
    }
}

/// As a shell reports it: 128 + N for a command that signal N ended.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(code as u8)
}

/// Becomes `command`, which then ends with the process that started this one.
pub fn exec(command: &[OsString]) -> Result<ExitCode> {
    set_pdeathsig(Signal::SIGKILL)?;
    SigSet::empty().thread_set_mask()?;
    let error = Command::new(&command[0]).args(&command[1..]).exec();
    eprintln!("{}: {error}", command[0].display());
    Ok(ExitCode::from(127))
}
