//! The switches: a Unix socket that takes one word a line.
use std::{fs, io, path::Path};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
};

use super::forward::Forwarder;

/// More is no switch.
const LINES_BYTES_MAX: u64 = 4 << 10;

/// Opens the socket; one that was left behind is replaced.
pub fn listen(path: &Path) -> Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    UnixListener::bind(path).with_context(|| format!("cannot open the control socket {}", path.display()))
}

/// Takes switches, one client at a time.
pub async fn serve(listener: UnixListener, forwarder: &Forwarder) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        // A client that leaves early has nothing to be told.
        let _ = converse(stream, forwarder).await;
    }
}

async fn converse(mut stream: UnixStream, forwarder: &Forwarder) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read.take(LINES_BYTES_MAX)).lines();
    while let Some(line) = lines.next_line().await? {
        let answer = obey(line.trim(), forwarder);
        write.write_all(format!("{answer}\n").as_bytes()).await?;
    }
    Ok(())
}

fn obey(word: &str, forwarder: &Forwarder) -> String {
    match word {
        "cut" => forwarder.cut(),
        "freeze" => forwarder.freeze(),
        "status" => {}
        mode => match mode.parse() {
            Ok(mode) => forwarder.switch(mode),
            Err(error) => return error,
        },
    }
    format!("{} {}", forwarder.mode(), forwarder.connections())
}

/// Tells the proxy behind `path` one word and returns its answer.
pub async fn tell(path: &Path, word: &str) -> Result<String> {
    let mut stream =
        UnixStream::connect(path).await.with_context(|| format!("no proxy listens at {}", path.display()))?;
    stream.write_all(format!("{word}\n").as_bytes()).await?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).await?;
    let answer = answer.trim_end().to_owned();
    if answer.is_empty() || answer.starts_with("error") {
        bail!("the proxy refuses: {}", answer.trim_start_matches("error: "));
    }
    Ok(answer)
}
