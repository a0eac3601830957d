//! A `kube::Client` over a function: answers only, no memory of its own and no opinion about the order of calls.
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response,
    body::{Bytes, Frame},
};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tower::Service;

/// A request as a test looks at it.
#[derive(Clone, Debug)]
pub struct Call {
    /// GET, POST, …
    pub method: String,
    /// Without query.
    pub path: String,
    /// Decoded as far as tests need: `+` and percent signs stay.
    pub query: BTreeMap<String, String>,
    /// JSON body; null without one.
    pub body: Value,
}

impl Call {
    /// A watch, not a list.
    pub fn is_watch(&self) -> bool {
        self.query.get("watch").is_some_and(|value| value == "true")
    }

    /// `POST /api/v1/namespaces/shop/pods`.
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// What the server does.
pub enum Answer {
    /// A status code and JSON.
    Json(u16, Value),
    /// An object, with this in the header `Warning`.
    Warned(String, Value),
    /// Frames of a watch, as the test sends them; it ends when the sender is dropped.
    Watch(mpsc::UnboundedReceiver<Value>),
    /// A body as it stands, which need not be what a JSON value can hold.
    Text(String),
    /// The same of the frames of a watch.
    Lines(mpsc::UnboundedReceiver<String>),
    /// An object, so late.
    Late(Duration, Value),
    /// No answer, ever.
    Never,
}

impl Answer {
    /// A failure as the API server words it.
    pub fn failure(code: u16, reason: &str, message: &str) -> Self {
        Self::Json(code, failure(code, reason, message))
    }

    /// An object.
    pub fn ok(object: Value) -> Self {
        Self::Json(200, object)
    }

    /// A watch that tells these frames and then ends.
    pub fn watch(frames: impl IntoIterator<Item = Value>) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        for frame in frames {
            let _ = sender.send(frame); // the receiver is here
        }
        Self::Watch(receiver)
    }
}

/// metav1.Status of a failure.
pub fn failure(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}

/// The same answer to every call, and the calls.
pub fn recorded(
    answer: impl Fn() -> Answer + Send + Sync + 'static,
) -> (impl Fn(Call) -> Answer + Send + Sync + 'static, Arc<Mutex<Vec<Call>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let answering = move |call| {
        sink.lock().unwrap_or_else(PoisonError::into_inner).push(call);
        answer()
    };
    (answering, seen)
}

/// A client whose every request is answered by `answer`.
pub fn client(answer: impl Fn(Call) -> Answer + Send + Sync + 'static) -> kube::Client {
    kube::Client::new(service(answer), "default")
}

/// A future of an answer.
type Answering = BoxFuture<'static, Result<Response<Stream>, tower::BoxError>>;

/// What is below that client.
pub fn service(
    answer: impl Fn(Call) -> Answer + Send + Sync + 'static,
) -> impl Service<Request<Body>, Response = Response<Stream>, Error = tower::BoxError, Future = Answering> + Send + 'static
{
    let answer = std::sync::Arc::new(answer);
    tower::service_fn(move |request: Request<Body>| {
        let answer = answer.clone();
        let answering = async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let call = Call {
                method: parts.method.to_string(),
                path: parts.uri.path().to_owned(),
                query: parts.uri.query().map(pairs).unwrap_or_default(),
                body: serde_json::from_slice(&body).unwrap_or_default(),
            };
            match answer(call) {
                Answer::Never => std::future::pending().await,
                Answer::Late(wait, value) => {
                    tokio::time::sleep(wait).await;
                    respond(200, Full::from(value.to_string()).boxed_unsync())
                }
                Answer::Json(code, value) => respond(code, Full::from(value.to_string()).boxed_unsync()),
                Answer::Warned(warning, value) => {
                    let mut response = respond(200, Full::from(value.to_string()).boxed_unsync())?;
                    response.headers_mut().insert("warning", warning.parse()?);
                    Ok(response)
                }
                Answer::Text(text) => respond(200, Full::from(text).boxed_unsync()),
                Answer::Watch(frames) => respond(200, stream(frames)),
                Answer::Lines(lines) => respond(200, of_lines(lines)),
            }
        };
        Box::pin(answering) as Answering
    })
}

fn pairs(query: &str) -> BTreeMap<String, String> {
    query.split('&').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect()
}

/// Body of an answer.
pub type Stream = UnsyncBoxBody<Bytes, std::convert::Infallible>;

fn respond(code: u16, body: Stream) -> Result<Response<Stream>, tower::BoxError> {
    Ok(Response::builder().status(code).header("content-type", "application/json").body(body)?)
}

fn of_lines(lines: mpsc::UnboundedReceiver<String>) -> Stream {
    let frames = futures::stream::unfold(lines, |mut lines| async {
        let line = lines.recv().await?;
        Some((Ok(Frame::data(Bytes::from(line + "\n"))), lines))
    });
    StreamBody::new(frames).boxed_unsync()
}

fn stream(frames: mpsc::UnboundedReceiver<Value>) -> Stream {
    let frames = futures::stream::unfold(frames, |mut frames| async {
        let frame = frames.recv().await?;
        // In the API server's order: the type comes first.
        let text = format!("{{\"type\":{},\"object\":{}}}\n", frame["type"], frame["object"]);
        Some((Ok(Frame::data(Bytes::from(text))), frames))
    });
    StreamBody::new(frames).boxed_unsync()
}
