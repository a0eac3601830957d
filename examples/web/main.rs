//! A small HTTP service to copy: it says which version answers, and it can be replaced without losing a request.
//!
//! ```text
//! GET /        {"version": "1.0", "instance": 3, "pod": "web-3-6f7c9d8b5k"}
//! GET /work?milliseconds=300   the same, after that time
//! GET /healthz 200 while the process can answer (liveness)
//! GET /readyz  200, or 503 once it is to end (readiness)
//! GET /selftest 200 while it would serve its users well (`spec.health`)
//! POST /drain  200 once no request is in work, 202 until then (`spec.drain`)
//! POST /reload 200 once it greets as the revision in the body wants it (`update: HotReload`)
//! ```
//! What makes it replaceable: Kubernetes sends SIGTERM and takes the Pod out of its Services *at the same time*, and
//! every proxy hears of the latter a little later. So this service goes on accepting connections for its drain time,
//! asks its clients to leave (`Connection: close`), finishes what it has begun, and only then exits, with 0.
//!
//! What makes it reloadable: it reads its files again when it is told to, and says 200 only once these are of the revision that
//! it is told of. The kubelet writes labels and annotations into a volume up to two minutes later, all of them at once.
//!
//! | environment | meaning | default |
//! |---|---|---|
//! | `POD_IP`, `PORT` | where it listens | `0.0.0.0`, `8080` |
//! | `BATON_VERSION`, `BATON_INSTANCE`, `BATON_POD_NAME` | what it says of itself; Baton sets them | empty |
//! | `WEB_DRAIN_SECONDS` | how long it goes on accepting after SIGTERM | 2 |
//! | `WEB_CONFIG_DIR` | folder of a downward API volume, with the files `greeting` and `revision` | none: no greeting |
//! | `WEB_FAIL` | `start`: exit with 1 at once, as a broken release does; `selftest`: /selftest answers 503 | |
use std::{
    env, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    str::FromStr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Query, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// No request works longer than this, whatever it asks for.
const WORK_MILLISECONDS_MAX: u64 = 10_000;

#[tokio::main]
async fn main() -> io::Result<ExitCode> {
    if env::var("WEB_FAIL").is_ok_and(|when| when == "start") {
        eprintln!("web: WEB_FAIL=start");
        return Ok(ExitCode::FAILURE);
    }
    // Before anything else: as PID 1 of a container a process without a handler does not feel SIGTERM at all.
    let terminate = signal(SignalKind::terminate())?;
    let address = SocketAddr::new(setting("POD_IP", IpAddr::V4(Ipv4Addr::UNSPECIFIED))?, setting("PORT", 8080)?);
    let drain = Duration::from_secs(setting("WEB_DRAIN_SECONDS", 2)?);
    let service = Arc::new(Service::from_environment());
    service.read_greeting().await?;
    let listener = TcpListener::bind(address).await?;
    println!("web {}: listening on {}", service.identity().version, listener.local_addr()?);
    axum::serve(listener, routes(&service)).with_graceful_shutdown(drained(service, terminate, drain)).await?;
    println!("web: every request answered");
    Ok(ExitCode::SUCCESS)
}

fn routes(service: &Arc<Service>) -> Router {
    Router::new()
        .route("/", get(identity))
        .route("/work", get(work))
        .route("/reload", post(reload))
        .layer(middleware::from_fn_with_state(service.clone(), count))
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/selftest", get(selftest))
        .route("/drain", post(drain))
        .with_state(service.clone())
}

/// What this process knows of itself and of its work.
struct Service {
    identity: Mutex<Identity>,
    /// Where its configuration is.
    config: Option<PathBuf>,
    /// True from SIGTERM on.
    draining: AtomicBool,
    /// Requests that are not answered yet.
    in_flight: watch::Sender<usize>,
}

/// The answer to `GET /`.
#[derive(Clone, Serialize)]
struct Identity {
    version: String,
    instance: Option<u32>,
    pod: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    greeting: Option<String>,
}

impl Service {
    fn from_environment() -> Self {
        let text = |name| env::var(name).unwrap_or_default();
        let identity = Identity {
            version: text("BATON_VERSION"),
            instance: text("BATON_INSTANCE").parse().ok(),
            pod: text("BATON_POD_NAME"),
            greeting: None,
        };
        let config = env::var_os("WEB_CONFIG_DIR").map(PathBuf::from);
        Self {
            identity: Mutex::new(identity),
            config,
            draining: AtomicBool::new(false),
            in_flight: watch::Sender::new(0),
        }
    }

    fn identity(&self) -> Identity {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A file of its configuration; None without one.
    async fn file(&self, name: &str) -> io::Result<Option<String>> {
        match &self.config {
            Some(folder) => tokio::fs::read_to_string(folder.join(name)).await.map(Some),
            None => Ok(None),
        }
    }

    /// Greets as its configuration says from now on; what cannot be used changes nothing.
    async fn read_greeting(&self) -> io::Result<()> {
        let greeting = self.file("greeting").await?;
        if greeting.as_ref().is_some_and(String::is_empty) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the greeting is empty"));
        }
        self.identity.lock().unwrap_or_else(PoisonError::into_inner).greeting = greeting;
        Ok(())
    }
}

/// Resolves once the listener may be closed: the drain time after SIGTERM has passed and no request is in work.
async fn drained(service: Arc<Service>, mut terminate: Signal, drain: Duration) {
    terminate.recv().await;
    println!("web: SIGTERM, draining for {} s", drain.as_secs());
    service.draining.store(true, Ordering::Relaxed);
    tokio::time::sleep(drain).await;
    // An error would mean that the counter is gone, and this task holds it.
    let _ = service.in_flight.subscribe().wait_for(|requests| *requests == 0).await;
}

/// Counts the request while it is in work, and asks the client to connect elsewhere next time when draining.
async fn count(State(service): State<Arc<Service>>, request: Request, next: Next) -> Response {
    let _in_work = InWork::begin(&service.in_flight);
    let mut response = next.run(request).await;
    if service.draining.load(Ordering::Relaxed) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// One request in work; also uncounted when its client goes away and the handler is dropped half-way.
struct InWork<'a>(&'a watch::Sender<usize>);

impl<'a> InWork<'a> {
    fn begin(in_flight: &'a watch::Sender<usize>) -> Self {
        in_flight.send_modify(|requests| *requests += 1);
        Self(in_flight)
    }
}

impl Drop for InWork<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|requests| *requests -= 1);
    }
}

async fn identity(State(service): State<Arc<Service>>) -> Json<Identity> {
    Json(service.identity())
}

/// What Baton says after it has given this Pod other labels and annotations.
#[derive(Deserialize)]
struct Reload {
    revision: String,
}

/// Baton asks until it is answered 200, and may ask once more after that: to read the same again does no harm.
async fn reload(State(service): State<Arc<Service>>, Json(wanted): Json<Reload>) -> (StatusCode, String) {
    let answer = match service.file("revision").await {
        Ok(Some(revision)) if revision != wanted.revision => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("the files are still of {revision}"))
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        Ok(_) => match service.read_greeting().await {
            Ok(()) => (StatusCode::OK, "reloaded".to_owned()),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        },
    };
    println!("web: told to reload {}: {} {}", wanted.revision, answer.0.as_u16(), answer.1);
    answer
}

#[derive(Deserialize)]
struct Work {
    milliseconds: u64,
}

async fn work(State(service): State<Arc<Service>>, Query(work): Query<Work>) -> Json<Identity> {
    tokio::time::sleep(Duration::from_millis(work.milliseconds.min(WORK_MILLISECONDS_MAX))).await;
    Json(service.identity())
}

async fn ready(State(service): State<Arc<Service>>) -> (StatusCode, &'static str) {
    if service.draining.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining");
    }
    (StatusCode::OK, "ok")
}

/// Whether it would answer its users well. What a real service asks its database, this one asks its environment.
async fn selftest() -> (StatusCode, &'static str) {
    if env::var("WEB_FAIL").is_ok_and(|when| when == "selftest") {
        return (StatusCode::SERVICE_UNAVAILABLE, "WEB_FAIL=selftest");
    }
    (StatusCode::OK, "ok")
}

/// Whether it is drained (`spec.drain`): Baton asks once it is out of its Services. It may be put back in service after that.
async fn drain(State(service): State<Arc<Service>>) -> (StatusCode, String) {
    match *service.in_flight.borrow() {
        0 => (StatusCode::OK, "drained".into()),
        requests => (StatusCode::ACCEPTED, format!("{requests} in work")),
    }
}

/// An environment variable, or `default` where it is not set or empty; a wrong value is an error that names it.
fn setting<T: FromStr>(name: &str, default: T) -> io::Result<T> {
    match env::var(name) {
        Ok(value) if !value.is_empty() => value
            .parse()
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{name} cannot be {value:?}"))),
        _ => Ok(default),
    }
}
