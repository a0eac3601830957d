//! The peer: client-go's leader election (tests/peers/election), in a cluster of its own.
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use tokio::process::Command;

use super::super::{arena::Place, subject::Subject};
use crate::demo::programs::output_of;

/// How long nobody led, in milliseconds, sorted.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Peer {
    /// The leader ended well, and released its Lease.
    pub released: Vec<f64>,
    /// It ended without a word.
    pub crashed: Vec<f64>,
}

/// Runs it once.
pub async fn run(place: &Place, program: &Path) -> Result<Peer> {
    let stage = place.open(Subject::Deployment).await?;
    let told = output_of(Command::new(program).env("KUBECONFIG", &stage.kubeconfig)).await;
    stage.clear().await?;
    let mut peer: Peer = serde_json::from_str(&told?).context("the peer tells something else than JSON")?;
    peer.released.sort_by(f64::total_cmp);
    peer.crashed.sort_by(f64::total_cmp);
    Ok(peer)
}
