//! `FOLDER/control.sock`: one request and one answer a connection, each a line of JSON.
use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    os::fd::AsRawFd,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

const MAX_REQUEST_BYTES: u64 = 64 * 1024;
/// Longer than any request takes: the stop of a process waits 20 s before it kills.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);

pub fn path(folder: &Path) -> PathBuf {
    folder.join("control.sock")
}

/// The folder held open, and the socket's path through it: a socket address has room for about
/// 100 bytes, and folders of tests are longer than that.
fn short_path(folder: &Path) -> io::Result<(File, PathBuf)> {
    let folder = File::open(folder)?;
    let path = path(Path::new(&format!("/proc/self/fd/{}", folder.as_raw_fd())));
    Ok((folder, path))
}

/// Waits for requests at the folder's socket.
pub fn listen(folder: &Path) -> Result<tokio::net::UnixListener> {
    let (_folder, path) = short_path(folder).with_context(|| format!("cannot open {}", folder.display()))?;
    let _ = fs::remove_file(&path); // of one that was killed; usually there is none
    let listener = UnixListener::bind(&path).context("cannot open the control socket")?;
    listener.set_nonblocking(true)?;
    Ok(tokio::net::UnixListener::from_std(listener)?)
}

/// Fails if nobody listens there.
pub fn connect(folder: &Path) -> io::Result<UnixStream> {
    let (_folder, path) = short_path(folder)?;
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    Ok(stream)
}

/// Sends a request and waits for its answer.
pub fn ask<A: DeserializeOwned>(mut stream: UnixStream, request: &impl Serialize) -> Result<A> {
    stream.write_all(&line(request)?).context("no requests are taken")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).context("there is no answer")?;
    serde_json::from_str(&answer).context("the end came before the answer")
}

/// The request of a client.
pub async fn receive<R: DeserializeOwned>(stream: &mut tokio::net::UnixStream) -> Result<R> {
    let mut line = String::new();
    tokio::io::BufReader::new(stream.take(MAX_REQUEST_BYTES)).read_line(&mut line).await?;
    Ok(serde_json::from_str(&line)?)
}

/// Answers a client.
pub async fn answer(stream: &mut tokio::net::UnixStream, answer: &impl Serialize) -> Result<()> {
    Ok(stream.write_all(&line(answer)?).await?)
}

fn line(message: &impl Serialize) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}
