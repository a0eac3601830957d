//! Programs of the demo: where they are, how they are run, how they end.
use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    process::{Child, ChildStdout, Command},
    time,
};

/// Lines of a log shown when something fails.
const TAIL_LINES: usize = 25;
/// How long a program may take to end when asked to.
const PATIENCE: Duration = Duration::from_secs(20);

/// Built programs.
#[derive(Clone, Debug)]
pub struct Programs {
    /// With baton-operator, kubectl-baton and this program.
    pub built: PathBuf,
    /// With kubectl.
    pub control_plane: PathBuf,
}

impl Programs {
    /// Finds what Cargo has built beside this program; says what to run where something of that is missing.
    pub fn find(control_plane: &Path, needs: &[&str]) -> Result<Self> {
        let this = env::current_exe()?;
        let built = this.parent().context("this program lies nowhere")?.to_owned();
        let programs = Self { built, control_plane: std::path::absolute(control_plane)? };
        let built = needs.iter().map(|name| (programs.built(name), "cargo build --all-features --bins --examples"));
        let kubectl = (programs.control_plane.join("kubectl"), "make control-plane");
        for (path, remedy) in built.chain([kubectl]) {
            ensure!(path.is_file(), "no {}: `{remedy}` builds it (`make demo` does all of that)", path.display());
        }
        Ok(programs)
    }

    pub fn built(&self, name: &str) -> PathBuf {
        self.built.join(name)
    }

    pub fn this(&self) -> PathBuf {
        self.built("baton-testbed")
    }

    /// With the programs first in its PATH, so that kubectl finds its plugin.
    pub fn path(&self) -> Result<OsString> {
        let rest = env::var_os("PATH").unwrap_or_default();
        let all = [self.built.clone(), self.control_plane.clone()].into_iter().chain(env::split_paths(&rest));
        Ok(env::join_paths(all)?)
    }
}

/// A program that runs beside the demo, in a process group of its own: Ctrl-C is for the demo to handle.
pub struct Background {
    pub name: &'static str,
    child: Child,
    pub log: PathBuf,
}

impl Background {
    /// Starts `command` with its errors, and its output unless `piped`, in `log`.
    /// `outlive`: it goes on when the demo ends.
    pub fn start(name: &'static str, mut command: Command, log: PathBuf, piped: bool, outlive: bool) -> Result<Self> {
        if let Some(folder) = log.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let output = if piped { Stdio::piped() } else { file.try_clone()?.into() };
        command.stdin(Stdio::null()).stdout(output).stderr(file).process_group(0).kill_on_drop(!outlive);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name, child, log })
    }

    /// Its standard output, when piped; once.
    pub fn output(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Its process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Fails once it has ended, which nobody asked for.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} has ended ({status})", self.name),
            None => Ok(()),
        }
    }

    /// SIGTERM, and SIGKILL for one that does not heed it. Answers how it ended.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        end(&mut self.child, Signal::SIGTERM).await
    }

    /// The end of its log.
    pub fn tail(&self) -> String {
        tail(&self.log)
    }
}

/// Sends a signal, waits, and kills what has not ended then.
pub async fn end(child: &mut Child, signal: Signal) -> Result<ExitStatus> {
    if let Some(pid) = child.id() {
        // An error means that it has just ended.
        let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
    }
    if let Ok(status) = time::timeout(PATIENCE, child.wait()).await {
        return Ok(status?);
    }
    child.kill().await?;
    Ok(child.wait().await?)
}

/// The end of a log, for people.
pub fn tail(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    format!("--- the end of {}\n{}", log.display(), last.join("\n"))
}

/// What a command prints on standard output; a failure is an error with what it printed as well.
pub async fn output_of(command: &mut Command) -> Result<String> {
    let words: Vec<_> = [command.as_std().get_program()].into_iter().chain(command.as_std().get_args()).collect();
    let words = words.join(OsStr::new(" ")).to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().await.with_context(|| format!("cannot run {words}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if !output.status.success() {
        bail!("{words}: {}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
    }
    Ok(text(&output.stdout))
}
