//! `/healthz`, `/readyz` and `/metrics`. Ready means that the caches are filled; who leads is a metric, not readiness, so
//! that a standby counts as a replacement.
use std::sync::Arc;

use axum::{
    Router,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};

use super::metrics::Metrics;
use crate::observe::Observer;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The routes.
pub fn routes(observer: Arc<Observer>, metrics: Metrics) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(async move || readiness(&observer.unsynced())))
        .route("/metrics", get(async move || ([(header::CONTENT_TYPE, OPEN_METRICS)], metrics.text())))
}

fn readiness(unsynced: &[&str]) -> impl IntoResponse + use<> {
    if unsynced.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("not listed yet: {}\n", unsynced.join(", ")))
}
