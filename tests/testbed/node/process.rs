//! A container's process as the node sees it: started through a shim, signalled by its pid, watched
//! by the FIFO that the shim holds open. It need not be a child of this process: after a restart of
//! the node it is not.
use std::{
    fs::File,
    io::{ErrorKind, Read},
    os::unix::fs::OpenOptionsExt,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::signal::{Signal, kill},
    unistd::{Pid, mkfifo},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::unix::pipe,
    process::Command,
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    model::{Attempt, End},
    shim::{STARTED, Spec, THIS_PROGRAM},
    store::{self, AttemptDir},
};

/// Making a root and running a program takes milliseconds; a machine may be busy, though.
const START_TIMEOUT: Duration = Duration::from_mins(1);
/// How often to look for the report of a shim that another run of the node has started.
const ADOPTION_POLL: Duration = Duration::from_millis(100);
/// After so many looks in a row without a living shim there is none.
const ADOPTION_NOBODY_POLLS: u32 = 10;

/// What became of a container's process.
#[derive(Clone, Debug)]
pub struct Process {
    pid: Pid,
    ended: watch::Receiver<Option<End>>,
}

impl Process {
    /// Starts what `spec` says. A command that cannot be started is a process that has ended.
    pub async fn start(dir: &AttemptDir, spec: &Spec) -> Result<Result<(Self, Timestamp), End>> {
        store::write(&dir.spec(), spec)?;
        mkfifo(&dir.alive(), nix::sys::stat::Mode::from_bits_truncate(0o600))?;
        let mut shim = Command::new(THIS_PROGRAM)
            .arg("node-shim")
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a shim")?;
        let report = shim.stdout.take().context("no pipe")?;
        tokio::spawn(async move { shim.wait().await }); // or it would stay as a zombie
        let mut line = String::new();
        timeout(START_TIMEOUT, BufReader::new(report).read_line(&mut line)).await.context("the shim hangs")??;
        if line != STARTED {
            return dir.exit().map(Err).context("the shim ended without a report");
        }
        Self::watch(dir).map(Ok)
    }

    /// Finds the process of an earlier run of the node.
    pub async fn adopt(dir: &AttemptDir) -> Result<Result<(Self, Timestamp), End>> {
        let deadline = tokio::time::Instant::now() + START_TIMEOUT;
        let mut nobody_polls = 0;
        loop {
            if let Some(end) = dir.exit() {
                return Ok(Err(end));
            }
            if dir.started().is_some() {
                return Self::watch(dir).map(Ok);
            }
            // A shim that was started at the last moment may not be so far yet.
            let nobody = hold_of_the_living(dir).is_ok_and(|alive| alive.is_none());
            nobody_polls = if nobody { nobody_polls + 1 } else { 0 };
            if nobody_polls > ADOPTION_NOBODY_POLLS {
                return Ok(Err(dir.exit().unwrap_or_else(unknown_end)));
            }
            if tokio::time::Instant::now() > deadline {
                bail!("the shim hangs");
            }
            sleep(ADOPTION_POLL).await;
        }
    }

    fn watch(dir: &AttemptDir) -> Result<(Self, Timestamp)> {
        let started = dir.started().context("the shim's report is missing")?;
        let alive = hold_of_the_living(dir)?;
        let (sender, ended) = watch::channel(None);
        let dir = dir.clone();
        tokio::spawn(async move {
            if let Some(mut alive) = alive {
                let _ = alive.read_u8().await; // nothing is ever written: this returns when the shim has ended
            }
            sender.send_replace(Some(dir.exit().unwrap_or_else(|| without_shim(&dir))));
        });
        Ok((Self { pid: Pid::from_raw(started.pid), ended }, started.at))
    }

    pub fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// Returns when the process has ended.
    pub async fn end(&self) -> End {
        let mut ended = self.ended.clone();
        let end = ended.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        end.unwrap_or_else(unknown_end)
    }

    /// Signals PID 1 of the container. From outside its namespace only SIGKILL and SIGSTOP are sure to
    /// have an effect; others need a handler, as in any container.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if self.has_ended() {
            return Ok(());
        }
        match kill(self.pid, signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot signal process {}", self.pid)),
        }
    }
}

/// The reading end of the FIFO that a living shim holds open; nothing when no shim does.
///
/// Not left to readiness alone: it tells that the last writer has gone only if there was one when the FIFO was opened,
/// so the end of a command that is quicker than this would never be noticed.
fn hold_of_the_living(dir: &AttemptDir) -> Result<Option<pipe::Receiver>> {
    let mut fifo = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(dir.alive())?;
    match fifo.read(&mut [0]) {
        Ok(_) => Ok(None),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Some(pipe::Receiver::from_file(fifo)?)),
        Err(error) => Err(error.into()),
    }
}

/// The end of a container whose shim is gone, as containerd reports it where it does not know better. Noted, so that it stays the same.
fn without_shim(dir: &AttemptDir) -> End {
    let reason = "Error".into();
    let end = End { exit_code: 255, signal: None, reason, message: None, finished_at: Timestamp::now() };
    if let Err(error) = dir.write_exit(&end) {
        tracing::error!("{error:#}");
    }
    end
}

/// The end of a container that nobody saw, in the kubelet's words.
pub fn unknown_end() -> End {
    End {
        exit_code: 137,
        signal: None,
        reason: "ContainerStatusUnknown".into(),
        message: Some("The container could not be located when the pod was terminated".into()),
        finished_at: Timestamp::now(),
    }
}

/// A new container id.
pub fn new_id() -> String {
    let bytes: Vec<u8> = (0..32).map(|_| fastrand::u8(..)).collect();
    format!("process://{}", super::image::hex(&bytes))
}

/// The record of a start that is about to be tried.
pub fn new_attempt(number: u32, image: &str, image_id: &str) -> Attempt {
    Attempt {
        number,
        id: new_id(),
        image: image.to_owned(),
        image_id: image_id.to_owned(),
        started_at: Timestamp::UNIX_EPOCH,
        end: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::store::Started;

    fn attempt() -> (tempfile::TempDir, AttemptDir) {
        let folder = tempfile::tempdir().unwrap();
        let dir = AttemptDir::at(folder.path());
        mkfifo(&dir.alive(), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        dir.write_started(&Started { pid: 1, at: Timestamp::now(), namespace: std::path::PathBuf::default() }).unwrap();
        (folder, dir)
    }

    #[tokio::test]
    async fn an_end_before_the_node_looks_is_noticed() {
        let (_folder, dir) = attempt();
        drop(File::options().read(true).write(true).open(dir.alive()).unwrap());
        let (process, _) = Process::watch(&dir).unwrap();
        let end = timeout(Duration::from_secs(3), process.end()).await.unwrap();
        assert_eq!((end.exit_code, end.reason.as_str(), dir.exit()), (255, "Error", Some(end.clone())));
    }

    #[tokio::test]
    async fn an_end_after_that_is_noticed_and_none_before_it() {
        let (_folder, dir) = attempt();
        let shim = File::options().read(true).write(true).open(dir.alive()).unwrap();
        let (process, _) = Process::watch(&dir).unwrap();
        assert!(timeout(Duration::from_millis(50), process.end()).await.is_err());
        drop(shim);
        timeout(Duration::from_secs(3), process.end()).await.unwrap();
    }
}
