//! A proxy that understands requests: it counts the writes of one client and does one thing at one of them.
//!
//! ```text
//! operator ──HTTP, loopback──> FaultProxy ──TLS, the operator's token──> API server
//!                                  │ the i-th write
//!                                  └──> kill the operator, withhold the answer, reset, 429, cut or silence watches
//! ```
//! It lives in the process of the one who judges the client, and asks that one to kill it: "before it is sent" and "with
//! the answer withheld" are then exact, not a race.
use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Request, Response, StatusCode, Version,
    body::{Bytes, Incoming},
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, TRANSFER_ENCODING},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use kube::{Client, client::Body as KubeBody};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep},
};

mod class;
mod fault;
#[cfg(test)]
mod tests;
mod watches;

use class::Class;
pub use fault::{Fault, Point};
use watches::Watches;

/// Further connections wait.
const CONNECTIONS_MAX: usize = 256;
/// Larger requests, or answers to writes, are refused.
const BODY_BYTES_MAX: usize = 4 << 20;
/// More writes are counted, but not remembered.
const WRITES_MAX: usize = 10_000;
/// From the moment an answer is handed over until its reader is killed: time to begin something with it.
const AFTER: Duration = Duration::from_millis(20);
const RETRY_AFTER_SECONDS: u64 = 1;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A wish that the client be killed; answered once it is dead.
pub type Kill = oneshot::Sender<()>;

/// A write that was counted.
#[derive(Clone, Debug)]
pub struct Write {
    pub at: jiff::Timestamp,
    /// `create pods web-0-…`
    pub what: String,
    /// The status of the answer, where one came back from the server.
    pub status: Option<u16>,
}

/// Serves until it is dropped.
pub struct FaultProxy {
    pub address: SocketAddr,
    state: Arc<State>,
    _server: JoinSet<()>,
}

struct State {
    upstream: Client,
    point: Option<Point>,
    /// How long watches are silent.
    silence: Duration,
    watches: Watches,
    kills: mpsc::Sender<Kill>,
    seen: Mutex<Seen>,
}

struct Seen {
    writes: Vec<Write>,
    count: usize,
    /// When something else than a Lease or a watch's news passed last.
    active_at: Instant,
    /// Whether the client has written its Lease since it was last started.
    leads: bool,
    /// Whether the fault has happened.
    struck: bool,
}

impl FaultProxy {
    /// A proxy to the server of `upstream`, which says who the client is there. `silence`: how long watches are silent.
    pub async fn start(
        upstream: Client,
        point: Option<Point>,
        silence: Duration,
    ) -> Result<(Self, mpsc::Receiver<Kill>)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no port for the proxy")?;
        let (kills, wishes) = mpsc::channel(1);
        let seen = Seen { writes: Vec::new(), count: 0, active_at: Instant::now(), leads: false, struck: false };
        let watches = Watches::default();
        let state = Arc::new(State { upstream, point, silence, watches, kills, seen: Mutex::new(seen) });
        let address = listener.local_addr()?;
        let mut server = JoinSet::new();
        server.spawn(serve(listener, Arc::clone(&state)));
        Ok((Self { address, state, _server: server }, wishes))
    }

    /// To be called right before the client is started.
    pub fn client_starts(&self) {
        let mut seen = self.state.seen();
        seen.leads = false;
        seen.active_at = Instant::now();
    }

    /// Whether the client has had nothing to do for so long, since it has taken its Lease.
    pub fn is_quiet(&self, time: Duration) -> bool {
        let seen = self.state.seen();
        seen.leads && seen.active_at.elapsed() >= time
    }

    /// Whether the fault has happened.
    pub fn has_struck(&self) -> bool {
        self.state.seen().struck
    }

    /// All writes so far, in the order of their arrival.
    pub fn writes(&self) -> Vec<Write> {
        self.state.seen().writes.clone()
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((client, _)) = listener.accept().await else {
            sleep(Duration::from_millis(50)).await; // out of file descriptors, or the client was gone already
            continue;
        };
        while connections.try_join_next().is_some() {}
        let state = Arc::clone(&state);
        connections.spawn(async move {
            // Its end, however it came about, was told to both sides by closing.
            let _ = converse(client, state).await;
            drop(place);
        });
    }
}

async fn converse(client: TcpStream, state: Arc<State>) -> Result<()> {
    client.set_nodelay(true)?;
    client.set_zero_linger()?; // a connection that is dropped is reset
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { state.answer(request).await }
    });
    http1::Builder::new().serve_connection(TokioIo::new(client), service).await?;
    Ok(())
}

impl State {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error resets the connection.
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>> {
        let (mut parts, body) = request.into_parts();
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(anyhow::Error::from_boxed)?.to_bytes();
        let class = Class::of(&parts.method, &parts.uri, &body);
        strip(&mut parts.headers);
        let request = Request::from_parts(parts, KubeBody::from(body.to_vec()));
        if class != Class::Lease {
            self.seen().active_at = Instant::now();
        }
        match class {
            Class::Write(what) => self.write(what, request).await,
            Class::Lease => {
                let is_write = request.method() != hyper::Method::GET;
                let answer = self.whole_answer(request).await?;
                self.seen().leads |= is_write && answer.status().is_success();
                Ok(answer)
            }
            Class::Watch => {
                let (parts, body) = self.forward(request).await?.into_parts();
                let body = StreamBody::new(self.watches.relay(body));
                Ok(Response::from_parts(parts, UnsyncBoxBody::new(body)))
            }
            Class::Read => self.whole_answer(request).await,
        }
    }

    async fn write(self: Arc<Self>, what: String, request: Request<KubeBody>) -> Result<Response<Body>> {
        let (number, fault) = self.count(what);
        match fault {
            Some(Fault::Before) => return self.kill().await,
            Some(Fault::Reset) => anyhow::bail!("a fault"),
            Some(Fault::Busy) => return too_many_requests(),
            _ => {}
        }
        let answer = self.whole_answer(request).await?;
        if let Some(write) = self.seen().writes.get_mut(number - 1) {
            write.status = Some(answer.status().as_u16());
        }
        match fault {
            Some(Fault::Committed) => return self.kill().await,
            Some(Fault::Lost) => std::future::pending().await, // until the client gives up
            Some(Fault::After) => drop(tokio::spawn(async move {
                sleep(AFTER).await;
                self.kill::<()>().await
            })),
            Some(Fault::Cut) => self.watches.cut(),
            Some(Fault::Silent) => self.watches.silence(self.silence),
            Some(Fault::Before | Fault::Reset | Fault::Busy) | None => {}
        }
        Ok(answer)
    }

    /// Its number from 1, and what is to happen to it.
    fn count(&self, what: String) -> (usize, Option<Fault>) {
        let mut seen = self.seen();
        seen.count += 1;
        if seen.writes.len() < WRITES_MAX {
            seen.writes.push(Write { at: jiff::Timestamp::now(), what, status: None });
        }
        let fault = self.point.filter(|point| point.write == seen.count).map(|point| point.fault);
        seen.struck |= fault.is_some();
        (seen.count, fault)
    }

    /// Returns, with an error, once the client is dead.
    async fn kill<T>(&self) -> Result<T> {
        let (done, dead) = oneshot::channel();
        // Nobody there to hear it: the run is over.
        if self.kills.send(done).await.is_ok() {
            let _ = dead.await;
        }
        anyhow::bail!("the client was killed")
    }

    /// An answer that has come as a whole.
    async fn whole_answer(&self, request: Request<KubeBody>) -> Result<Response<Body>> {
        let (parts, body) = self.forward(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Response::from_parts(parts, whole(body)))
    }

    async fn forward(&self, request: Request<KubeBody>) -> Result<Response<KubeBody>> {
        let mut answer = self.upstream.send(request).await?;
        *answer.version_mut() = Version::HTTP_11;
        strip(answer.headers_mut());
        Ok(answer)
    }
}

/// What is about one connection, not about the message.
fn strip(headers: &mut HeaderMap) {
    for name in [HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
        headers.remove(name);
    }
}

fn whole(body: Bytes) -> Body {
    UnsyncBoxBody::new(Full::new(body).map_err(|never: Infallible| match never {}))
}

fn too_many_requests() -> Result<Response<Body>> {
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "TooManyRequests", "code": 429,
        "message": "a fault", "details": {"retryAfterSeconds": RETRY_AFTER_SECONDS},
    });
    let mut answer = Response::new(whole(serde_json::to_vec(&status)?.into()));
    *answer.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(answer)
}
