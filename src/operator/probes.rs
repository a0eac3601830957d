//! `/healthz`, `/readyz` and `/metrics`. Ready means that the caches are filled; who leads is a metric, not readiness, so
//! that a standby counts as a replacement.
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};

use tokio::time::Instant;

use super::metrics::Metrics;
use crate::observe::Observer;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Metrics are worked out at most so often, however many ask: that takes the lock of what all looks need.
const METRICS_FRESH: Duration = Duration::from_secs(1);

/// A text that is made anew at most every [`METRICS_FRESH`].
#[derive(Default)]
struct Kept(Mutex<Option<(Instant, String)>>);

impl Kept {
    fn text(&self, make: impl Fn() -> String) -> String {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, text)) = kept.as_ref().filter(|(at, _)| at.elapsed() < METRICS_FRESH) {
            return text.clone();
        }
        let text = make();
        *kept = Some((Instant::now(), text.clone()));
        text
    }
}

/// The routes.
pub fn routes(observer: Arc<Observer>, metrics: Metrics) -> Router {
    let kept = Arc::new(Kept::default());
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(async move || readiness(&observer.unsynced())))
        .route("/metrics", get(async move || ([(header::CONTENT_TYPE, OPEN_METRICS)], kept.text(|| metrics.text()))))
}

fn readiness(unsynced: &[&str]) -> impl IntoResponse + use<> {
    if unsynced.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("not listed yet: {}\n", unsynced.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// F6: a thousand scrapes a second are one.
    #[tokio::test(start_paused = true)]
    async fn metrics_are_worked_out_once_a_second() {
        let (kept, made) = (Kept::default(), Cell::new(0));
        let text = || {
            kept.text(|| {
                made.set(made.get() + 1);
                made.get().to_string()
            })
        };
        assert_eq!([text(), text()], ["1", "1"]);
        tokio::time::advance(METRICS_FRESH).await;
        assert_eq!([text(), text()], ["2", "2"]);
    }
}
