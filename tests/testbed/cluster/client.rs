//! The verbs that talk to a running cluster.
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::ExitCode,
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::signal::{Signal, kill},
};

use super::{
    control::{Connection, Request, Response},
    layout::{clear, retire},
    machine::cgroups,
};

/// How long the end of a cluster is waited for before it is forced.
const END_TIMEOUT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(50);

/// The lock that a supervisor holds for as long as its cluster lives; nothing if another does, or if its cluster has
/// not ended yet.
pub fn lock(dir: &Path) -> Result<Option<Flock<File>>> {
    let Some(lock) = try_lock(&dir.join("lock"))? else { return Ok(None) };
    Ok(lock_inside(dir)?.map(|_| lock))
}

/// The lock that PID 1 of a cluster holds: it may outlive its supervisor by a moment.
pub fn lock_inside(dir: &Path) -> Result<Option<Flock<File>>> {
    try_lock(&dir.join("lock.inside"))
}

fn try_lock(path: &Path) -> Result<Option<Flock<File>>> {
    let file = File::options().create(true).append(true).open(path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// Ends the cluster and returns when it is gone; none running is fine.
pub fn down(dir: &Path, purge: bool) -> Result<ExitCode> {
    let Some(connection) = Connection::open(dir) else {
        if dir.exists() {
            let lock = lock(dir)?;
            ensure!(lock.is_some(), "the cluster in {} is just starting or ending: try again", dir.display());
            retire(dir); // one that was killed as a whole could not do it
            cgroups::remove(&dir.canonicalize()?)?; // nor this
            clear(dir, purge)?;
        }
        println!("No cluster is running in {}.", dir.display());
        return Ok(ExitCode::SUCCESS);
    };
    let init = connection.init_pid()?;
    // An answer that does not come is what the deadline below is for.
    let _ = connection.ask(&Request::Shutdown);
    if !ends_within(dir, END_TIMEOUT)? {
        kill(init, Signal::SIGKILL).context("cannot kill the cluster")?;
        ensure!(ends_within(dir, END_TIMEOUT)?, "the cluster does not end, although it was killed");
    }
    let _lock = lock(dir)?.context("another cluster has just started there: nothing is removed")?;
    cgroups::remove(&dir.canonicalize()?)?;
    clear(dir, purge)?;
    let rest = if purge { "" } else { " Its images and logs stay: `make cluster-down PURGE=1` removes them." };
    println!("The cluster in {} is gone.{rest}", dir.display());
    Ok(ExitCode::SUCCESS)
}

fn ends_within(dir: &Path, limit: Duration) -> Result<bool> {
    for _ in 0..limit.as_millis() / POLL.as_millis() {
        if lock(dir)?.is_some() {
            return Ok(true);
        }
        sleep(POLL);
    }
    Ok(false)
}

/// Lists the components, one a line: name, process id inside, state.
pub fn status(dir: &Path) -> Result<ExitCode> {
    let Response::Status(status) = request(dir, &Request::Status)? else { bail!("unexpected answer") };
    println!("cluster with nodes {}: {}", status.nodes, if status.ready { "ready" } else { "starting" });
    for process in status.processes {
        match process.pid {
            Some(pid) => println!("{:24} {pid:>7} running", process.name),
            None => println!("{:24} {:>7} ended", process.name, "-"),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Has the cluster do something.
pub fn ask(dir: &Path, what: &Request) -> Result<ExitCode> {
    request(dir, what)?;
    Ok(ExitCode::SUCCESS)
}

/// Has every machine know the images of some archives.
pub fn import(dir: &Path, archives: &[PathBuf]) -> Result<ExitCode> {
    for archive in archives {
        let archive = archive.canonicalize().with_context(|| format!("no archive {}", archive.display()))?;
        request(dir, &Request::Import { archive })?;
    }
    Ok(ExitCode::SUCCESS)
}

fn request(dir: &Path, request: &Request) -> Result<Response> {
    match connect(dir)?.ask(request)? {
        Response::Failed(message) => bail!(message),
        response => Ok(response),
    }
}

/// A connection to the cluster in `dir`, or an error that says there is none.
pub fn connect(dir: &Path) -> Result<Connection> {
    Connection::open(dir)
        .with_context(|| format!("no cluster is running in {}: `make cluster-up` starts one", dir.display()))
}
