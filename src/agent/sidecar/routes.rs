//! The local HTTP API of `baton-agent serve`.
use std::{convert::Infallible, sync::Arc};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures::stream;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::{
    application::{Application, Stream},
    refusal::Refusal,
};
use crate::{
    agent::session::units::Notice,
    sdk::wire::{Answer, Event, INSTANCE_BYTES_MAX, Name, Open, SILENCE_MAX, Word},
};

/// Longest body that opens a stream: 10,000 listeners with long names.
const OPEN_BYTES_MAX: usize = 4 << 20;
/// Longest other body: a resume value, a reason, and JSON's escapes.
const ANSWER_BYTES_MAX: usize = 16 << 10;

const EVENT_STREAM: &str = "text/event-stream";

/// What requests are answered from.
#[derive(Clone)]
struct Beside {
    application: Arc<Application>,
    notices: mpsc::Sender<Notice>,
}

/// What is served besides probes and `/drain`.
pub fn routes(application: Arc<Application>, notices: mpsc::Sender<Notice>) -> Router {
    Router::new()
        .route("/v1/listeners", post(open).layer(DefaultBodyLimit::max(OPEN_BYTES_MAX)))
        .route("/v1/listeners/{set}/{listener}/fence", get(fence))
        .route("/v1/listeners/{set}/{listener}/{word}", post(answer).layer(DefaultBodyLimit::max(ANSWER_BYTES_MAX)))
        .with_state(Beside { application, notices })
}

/// Nothing of what is said is guessed or skipped: what is not named in `running` counts as ended.
async fn open(State(beside): State<Beside>, headers: HeaderMap, body: Bytes) -> Result<Response, Refusal> {
    let open: Open = read(&body)?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let instance = &open.instance;
    if instance.is_empty() || instance.len() > INSTANCE_BYTES_MAX || !instance.chars().all(is_plain) {
        let message = format!(
            "must be 1 to {INSTANCE_BYTES_MAX} letters, digits, '-', '_', '.', chosen at random by each process at its start"
        );
        return Err(Refusal::bad("instance", message));
    }
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let is_sse = accepted.contains(EVENT_STREAM);
    let stream = beside.application.open(open)?;
    if stream.replaces() {
        // Before it is answered, and so before what it asks for itself. An error: the agent ends.
        let _ = beside.notices.send(Notice::Anew).await;
    }
    let lines = stream::unfold(stream, move |mut stream| async move {
        let line = line(&mut stream, is_sse).await?;
        Some((Ok::<_, Infallible>(Bytes::from(line)), stream))
    });
    let kind = if is_sse { EVENT_STREAM } else { "application/x-ndjson" };
    Ok(([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-store")], Body::from_stream(lines)).into_response())
}

/// The next thing to write; None: the end.
async fn line(stream: &mut Stream, is_sse: bool) -> Option<String> {
    let Ok(event) = tokio::time::timeout(SILENCE_MAX, stream.next()).await else {
        return Some(if is_sse { ":\n\n".to_owned() } else { "\n".to_owned() });
    };
    let event: Event = event?;
    let json = serde_json::to_string(&event).unwrap_or_default(); // JSON cannot fail
    Some(if is_sse { format!("event: {}\ndata: {json}\n\n", event.kind()) } else { format!("{json}\n") })
}

async fn answer(
    State(beside): State<Beside>,
    Path((set, listener, word)): Path<(String, String, String)>,
    body: Bytes,
) -> Result<StatusCode, Refusal> {
    let Some(word) = Word::ALL.into_iter().find(|known| known.as_str() == word) else {
        let known = Word::ALL.map(Word::as_str).join(", ");
        return Err(Refusal::unknown("path", format!("ends with {word:.40}, which is none of {known}")));
    };
    let body = if body.is_empty() { &b"{}"[..] } else { &body };
    beside.application.hear(&Name { set, listener }, word, read::<Answer>(body)?)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn fence(
    State(beside): State<Beside>,
    Path((set, listener)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    Ok(Json(beside.application.fence(&Name { set, listener })?).into_response())
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::bad("body", format!("{error}; see docs/listeners/sidecar.md")))
}
