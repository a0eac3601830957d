//! What the agent answers within its Pod: whether it works, and the request to let go of everything.
use std::{net::SocketAddr, time::Duration};

use axum::{
    Router,
    extract::Query,
    http::StatusCode,
    routing::{get, post},
};
use serde::Deserialize;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};

use super::units::{Health, Notice};
use crate::agent::boottime::Boottime;

/// A loop that has not turned for so long hangs.
const HANGS: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct Drain {
    #[serde(default)]
    wait: bool,
}

/// `/healthz` and `/readyz`: for everyone.
pub fn probes(health: watch::Receiver<Health>) -> Router {
    let live = health.clone();
    Router::new()
        .route("/healthz", get(async move || healthy(&live.borrow())))
        .route("/readyz", get(async move || ready(&health.borrow())))
}

/// `POST /drain`. With `?wait=true` it answers when nothing is held any more.
pub fn drain(drained: watch::Receiver<Health>, notices: mpsc::Sender<Notice>) -> Router {
    Router::new().route(
        "/drain",
        post(async move |Query(drain): Query<Drain>| {
            let mut drained = drained.clone();
            if notices.send(Notice::Drain).await.is_err() {
                return (StatusCode::SERVICE_UNAVAILABLE, "the agent ends\n");
            }
            // An error: the agent has ended, and holds nothing any more.
            if drain.wait {
                let _ = drained.wait_for(|health| health.is_drained).await;
            }
            (StatusCode::OK, "ok\n")
        }),
    )
}

/// Listens, before anything is served.
///
/// # Errors
/// The address cannot be listened on.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| anyhow::anyhow!("cannot listen on {address}: {error}; use --port or --probes"))
}

fn healthy(health: &Health) -> (StatusCode, &'static str) {
    if Boottime::now().since(health.turned_at) < HANGS {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the agent hangs\n")
    }
}

fn ready(health: &Health) -> (StatusCode, &'static str) {
    match health.lacks {
        Some(what) => (StatusCode::SERVICE_UNAVAILABLE, what),
        None if Boottime::now() < health.ready_until => (StatusCode::OK, "ok\n"),
        None => (StatusCode::SERVICE_UNAVAILABLE, "the session is not renewed: no listener may run\n"),
    }
}
