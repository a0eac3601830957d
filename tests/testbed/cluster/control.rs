//! What can be asked of a running cluster, at `DIR/control.sock`.
use std::{
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use nix::{
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use tokio::{
    net::UnixListener,
    sync::{Notify, Semaphore, watch},
};

use super::{
    layout::Layout,
    machine::{self, Containerds},
    nodes::NodesSpec,
    processes::Processes,
};
use crate::control_socket;

const MAX_CONNECTIONS: usize = 64;

#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    Status,
    Start {
        name: String,
    },
    Stop {
        name: String,
        kill: bool,
    },
    Restart {
        name: String,
        kill: bool,
    },
    /// Make the images of an archive known to all machines.
    Import {
        archive: PathBuf,
    },
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
    pub images: PathBuf,
    pub processes: Vec<ProcessStatus>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ProcessStatus {
    pub name: String,
    /// As seen inside; nothing when it has ended.
    pub pid: Option<i32>,
}

/// A connection to the PID 1 of a running cluster.
pub struct Connection(UnixStream);

impl Connection {
    /// Nothing if no cluster runs in `dir`.
    pub fn open(dir: &Path) -> Option<Self> {
        control_socket::connect(dir).ok().map(Self)
    }

    /// The process id of the cluster's PID 1, as seen from here.
    pub fn init_pid(&self) -> Result<Pid> {
        let peer = getsockopt(&self.0, PeerCredentials).context("cannot tell who answers the control socket")?;
        Ok(Pid::from_raw(peer.pid()))
    }

    pub fn ask(self, request: &Request) -> Result<Response> {
        control_socket::ask(self.0, request).context("the cluster does not answer")
    }
}

/// What requests act on.
pub struct Control {
    pub processes: Arc<Processes>,
    pub nodes: NodesSpec,
    pub containerd: Containerds,
    pub layout: Layout,
    pub ready: watch::Receiver<bool>,
    pub shutdown: Arc<Notify>,
}

/// Serves requests until the task is dropped.
pub async fn serve(listener: UnixListener, control: Arc<Control>) -> Result<()> {
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
    let request: Request = control_socket::receive(&mut stream).await?;
    let response = control.answer(&request).await.unwrap_or_else(|error| Response::Failed(format!("{error:#}")));
    control_socket::answer(&mut stream, &response).await?;
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
                    nodes: self.nodes.to_string(),
                    images: self.layout.images.clone(),
                    processes: self.processes.status(),
                }));
            }
            Request::Start { name } => self.processes.start(name)?,
            Request::Stop { name, kill } => self.processes.stop(name, *kill).await?,
            Request::Restart { name, kill } => {
                self.processes.stop(name, *kill).await?;
                self.processes.start(name)?;
            }
            Request::Import { archive } => {
                for machine in self.nodes.machines() {
                    machine::import(&self.layout, &self.containerd, machine, archive, &self.processes).await?;
                }
            }
            Request::Shutdown => {}
        }
        Ok(Response::Done)
    }
}
