//! `DIR/control.sock`: one request and one answer a connection, each a line of JSON.
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::fd::AsRawFd,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt},
    sync::{Notify, Semaphore, watch},
};

use super::processes::Processes;

const MAX_REQUEST_BYTES: u64 = 64 * 1024;
const MAX_CONNECTIONS: usize = 64;
/// Longer than any request takes: a stop waits 20 s before it kills.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);

#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    Status,
    Start { name: String },
    Stop { name: String, kill: bool },
    Restart { name: String, kill: bool },
    Shutdown,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Response {
    Status(Status),
    Done,
    Failed(String),
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    pub ready: bool,
    /// As `--nodes` takes it.
    pub nodes: String,
    pub processes: Vec<ProcessStatus>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ProcessStatus {
    pub name: String,
    /// As seen inside; nothing when it has ended.
    pub pid: Option<i32>,
}

pub fn socket(dir: &Path) -> PathBuf {
    dir.join("control.sock")
}

/// The folder held open, and the socket's path through it: a socket address has room for about
/// 100 bytes, and folders of tests are longer than that.
fn short_path(dir: &Path) -> Result<(File, PathBuf)> {
    let folder = File::open(dir).with_context(|| format!("cannot open {}", dir.display()))?;
    let path = socket(Path::new(&format!("/proc/self/fd/{}", folder.as_raw_fd())));
    Ok((folder, path))
}

/// Waits for requests at the socket of the cluster in `dir`.
pub fn listen(dir: &Path) -> Result<UnixListener> {
    let (_folder, path) = short_path(dir)?;
    let _ = fs::remove_file(&path); // of a cluster that was killed; usually there is none
    let listener = UnixListener::bind(&path).context("cannot open the control socket")?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A connection to the PID 1 of a running cluster.
pub struct Connection(UnixStream);

impl Connection {
    /// Nothing if no cluster runs in `dir`.
    pub fn open(dir: &Path) -> Option<Self> {
        let (_folder, path) = short_path(dir).ok()?;
        let stream = UnixStream::connect(path).ok()?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).ok()?;
        Some(Self(stream))
    }

    /// The process id of the cluster's PID 1, as seen from here.
    pub fn init_pid(&self) -> Result<Pid> {
        let peer = getsockopt(&self.0, PeerCredentials).context("cannot tell who answers the control socket")?;
        Ok(Pid::from_raw(peer.pid()))
    }

    pub fn ask(mut self, request: &Request) -> Result<Response> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.0.write_all(&line).context("the cluster does not take requests")?;
        let mut answer = String::new();
        BufReader::new(&self.0).read_line(&mut answer).context("the cluster does not answer")?;
        serde_json::from_str(&answer).context("the cluster ended before it answered")
    }
}

/// What requests act on.
pub struct Control {
    pub processes: Arc<Processes>,
    pub nodes: String,
    pub ready: watch::Receiver<bool>,
    pub shutdown: Arc<Notify>,
}

/// Serves requests until the task is dropped.
pub async fn serve(listener: UnixListener, control: Arc<Control>) -> Result<()> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await?;
        let (stream, _) = listener.accept().await?;
        let control = Arc::clone(&control);
        tokio::spawn(async move {
            // A client that left early misses its answer; nobody else is concerned.
            let _ = converse(stream, &control).await;
            drop(place);
        });
    }
}

async fn converse(mut stream: tokio::net::UnixStream, control: &Control) -> Result<()> {
    let (read, mut write) = stream.split();
    let mut line = String::new();
    tokio::io::BufReader::new(read.take(MAX_REQUEST_BYTES)).read_line(&mut line).await?;
    let request: Request = serde_json::from_str(&line)?;
    let response = control.answer(&request).await.unwrap_or_else(|error| Response::Failed(format!("{error:#}")));
    let mut line = serde_json::to_vec(&response)?;
    line.push(b'\n');
    write.write_all(&line).await?;
    if matches!(request, Request::Shutdown) {
        control.shutdown.notify_one();
    }
    Ok(())
}

impl Control {
    async fn answer(&self, request: &Request) -> Result<Response> {
        match request {
            Request::Status => {
                return Ok(Response::Status(Status {
                    ready: *self.ready.borrow(),
                    nodes: self.nodes.clone(),
                    processes: self.processes.status(),
                }));
            }
            Request::Start { name } => self.processes.start(name)?,
            Request::Stop { name, kill } => self.processes.stop(name, *kill).await?,
            Request::Restart { name, kill } => {
                self.processes.stop(name, *kill).await?;
                self.processes.start(name)?;
            }
            Request::Shutdown => {}
        }
        Ok(Response::Done)
    }
}
