//! The local HTTP API of `baton-agent serve`.
use std::{convert::Infallible, sync::Arc};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Path, Query, State},
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
    sdk::wire::{Answer, Event, INSTANCE_BYTES_MAX, Name, Open, Running, SILENCE_MAX, Word},
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
        .route("/v1/listeners", get(open_by_query).post(open_by_body).layer(DefaultBodyLimit::max(OPEN_BYTES_MAX)))
        .route("/v1/listeners/{set}/{listener}/fence", get(fence))
        .route("/v1/listeners/{set}/{listener}/{word}", post(answer).layer(DefaultBodyLimit::max(ANSWER_BYTES_MAX)))
        .with_state(Beside { application, notices })
}

async fn open_by_query(
    State(beside): State<Beside>,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    opened(beside, open_of(query)?, &headers).await
}

/// What a query says. Nothing of it is guessed or skipped: what is not named in `running` counts as ended.
fn open_of(query: Vec<(String, String)>) -> Result<Open, Refusal> {
    let (mut instance, mut stream, mut running) = (None, None, None);
    for (key, value) in query {
        let place = match key.as_str() {
            "instance" => &mut instance,
            "stream" => &mut stream,
            "running" => &mut running,
            _ => {
                let message = format!("is not known ({key:.40}): there are instance, stream and running");
                return Err(Refusal::bad("query", message));
            }
        };
        if place.replace(value).is_some() {
            let message = "is there twice: name everything that runs in one, separated by commas";
            return Err(Refusal::bad(&key, message.to_owned()));
        }
    }
    let Some(running) = running else {
        let message = "is missing: what still runs in this process, as set/listener:token,…; empty when nothing does";
        return Err(Refusal::bad("running", message.to_owned()));
    };
    let Some(stream) = stream.and_then(|stream: String| stream.parse().ok()) else {
        let message = "must be a number, higher with each stream that this process opens: 1, 2, 3 …";
        return Err(Refusal::bad("stream", message.to_owned()));
    };
    let entries = running.split(',').filter(|entry| !entry.is_empty());
    let read = |entry: &str| {
        let (name, token) = entry.split_once(':')?;
        let (set, listener) = name.split_once('/')?;
        Some(Running { set: set.to_owned(), listener: listener.to_owned(), token: token.to_owned() })
    };
    let wrong = |entry: &str| Refusal::bad("running", format!("{entry:.80} is not set/listener:token"));
    let running = entries.map(|entry| read(entry).ok_or_else(|| wrong(entry))).collect::<Result<_, _>>()?;
    Ok(Open { instance: instance.unwrap_or_default(), stream, running })
}

async fn open_by_body(State(beside): State<Beside>, headers: HeaderMap, body: Bytes) -> Result<Response, Refusal> {
    opened(beside, read(&body)?, &headers).await
}

async fn opened(beside: Beside, open: Open, headers: &HeaderMap) -> Result<Response, Refusal> {
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
        // Before it is answered, and so before whatever it asks for itself. An error: the agent ends.
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
    serde_json::from_slice(body).map_err(|error| Refusal::bad("body", format!("{error}; see docs/listeners.md")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &[(&str, &str)]) -> Result<Open, String> {
        let query = query.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        open_of(query).map_err(|refusal| refusal.said.field)
    }

    /// L1: what is left out of `running` counts as ended, so nothing of it is skipped.
    #[test]
    fn a_query_says_each_thing_once() {
        let whole = [("instance", "i"), ("stream", "2"), ("running", "bots/one:t1,bots/two:t2")];
        let open = read(&whole).unwrap();
        assert_eq!((open.instance.as_str(), open.stream, open.running.len()), ("i", 2, 2));
        assert_eq!(open.running[1].token, "t2");
        for (key, value, field) in [
            ("running", "bots/two:t2", "running"),
            ("running", "", "running"),
            ("stream", "3", "stream"),
            ("x", "", "query"),
        ] {
            let with = [whole.as_slice(), &[(key, value)]].concat();
            assert_eq!(read(&with).unwrap_err(), field, "{key}");
        }
        let without = |key: &str| whole.into_iter().filter(|(other, _)| *other != key).collect::<Vec<_>>();
        assert_eq!(read(&without("running")).unwrap_err(), "running");
        assert_eq!(read(&without("stream")).unwrap_err(), "stream");
        assert_eq!(read(&[("stream", "-1"), ("running", "")]).unwrap_err(), "stream");
        assert_eq!(read(&[("stream", "1"), ("running", "one")]).unwrap_err(), "running");
    }
}
