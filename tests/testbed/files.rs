//! `baton-testbed files`: the files of a folder by HTTP, as a package server has them.
use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    routing::get,
};
use tokio::net::TcpListener;

/// Arguments of `baton-testbed files`.
#[derive(Clone, clap::Args)]
pub struct Args {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:9200")]
    listen: SocketAddr,
    /// What to serve: as it is at each request.
    #[arg(long)]
    dir: PathBuf,
    /// Whoever wants a file whose name begins with `private` must bear this.
    #[arg(long, default_value = "")]
    token: String,
}

/// Serves until it is killed.
pub fn run(args: Args) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener =
            TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
        println!("listening on {}", listener.local_addr()?);
        axum::serve(listener, Router::new().route("/{name}", get(file)).with_state(args)).await?;
        Ok(ExitCode::SUCCESS)
    })
}

async fn file(State(args): State<Args>, Path(name): Path<String>, headers: HeaderMap) -> Result<Vec<u8>, StatusCode> {
    let borne = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if name.starts_with("private") && borne != Some(&format!("Bearer {}", args.token)) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    tokio::fs::read(args.dir.join(name)).await.map_err(|_| StatusCode::NOT_FOUND)
}
