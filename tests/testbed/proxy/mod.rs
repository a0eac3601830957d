//! `baton-testbed proxy`: forwards bytes, and stops doing so when told, for tests of what a broken network does.
//!
//! ```text
//! client ──> --listen ══> --upstream       TLS passes through untouched
//!                 ^
//!                 └── --control PATH (Unix socket): one word a line, each answered by a line
//! ```
//! | word | what happens |
//! |---|---|
//! | `pass` | bytes pass |
//! | `silent` | bytes are swallowed both ways, connections stay open: a peer that has vanished |
//! | `silent-down` | bytes from the server are swallowed, those of the client pass: a watch that goes silent |
//! | `late` | bytes from the server arrive 2.2 s later: a server that is slow, and not away |
//! | `freeze` | the connections that are open now are silent from here on; the mode stays as it is, so new ones pass |
//! | `cut` | every connection is reset; the mode stays as it is |
//! | `status` | nothing |
//!
//! The answer is `MODE CONNECTIONS`. A connection that has lost bytes stays silent in that direction until it is cut,
//! also after `pass`: TCP never delivers what comes after a gap. Only new connections pass then.
use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use tokio::net::TcpListener;

mod control;
mod forward;
pub mod requests;
#[cfg(test)]
mod tests;

use forward::{Forwarder, Mode};

/// Arguments of `baton-testbed proxy`.
#[derive(clap::Args)]
pub struct Args {
    /// Address to accept connections at; loopback only.
    #[arg(long, required_unless_present = "tell")]
    listen: Option<SocketAddr>,
    /// Where they lead to, HOST:PORT.
    #[arg(long, required_unless_present = "tell")]
    upstream: Option<String>,
    /// Unix socket that takes the switches.
    #[arg(long)]
    control: PathBuf,
    /// Tell the proxy behind the control socket this word, instead of being one.
    #[arg(long, conflicts_with_all = ["listen", "upstream"])]
    tell: Option<String>,
}

/// Prints `listening on ADDRESS` once connections are taken, and runs until it is killed.
pub fn run(args: Args) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match args {
            Args { tell: Some(word), control, .. } => {
                println!("{}", control::tell(&control, &word).await?);
                Ok(ExitCode::SUCCESS)
            }
            Args { listen: Some(listen), upstream: Some(upstream), control, .. } => {
                serve(listen, upstream, &control).await
            }
            _ => bail!("--listen and --upstream are required"),
        }
    })
}

async fn serve(listen: SocketAddr, upstream: String, control: &std::path::Path) -> Result<ExitCode> {
    if !listen.ip().is_loopback() {
        bail!("--listen {listen}: a proxy with faults listens on loopback only");
    }
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let forwarder = Forwarder::new(upstream, Mode::Pass);
    let control = control::listen(control)?;
    println!("listening on {}", listener.local_addr()?);
    tokio::select! {
        ended = forwarder.serve(listener) => ended?,
        ended = control::serve(control, &forwarder) => ended?,
    }
    Ok(ExitCode::SUCCESS)
}
