//! One worker: sends one request after the other, with a kept connection to each endpoint, as a proxy's worker does.
use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::{net::TcpStream, sync::watch, time};

use super::{
    endpoints::{Endpoint, Endpoints},
    stream::Stream,
    tally::{Cause, Tally},
};

/// Larger answers count as truncated.
const BODY_BYTES_MAX: usize = 64 << 10;
/// A worker that is this late gives up what was due, instead of sending a burst later.
const LATE_MAX: Duration = Duration::from_secs(1);

/// What a worker sends, and how patient it is.
#[derive(Clone)]
pub struct Plan {
    pub path: String,
    /// Between two requests of this worker.
    pub period: Duration,
    /// For a connection; and again from the request to the end of its response.
    pub timeout: Duration,
}

pub struct Worker {
    plan: Plan,
    endpoints: watch::Receiver<Endpoints>,
    /// Kept connections, at most one an endpoint.
    kept: BTreeMap<SocketAddr, Connection>,
    /// Counts requests, to spread them evenly.
    turn: usize,
    tally: Arc<Tally>,
    stream: Stream,
}

type Connection = http1::SendRequest<Empty<Bytes>>;

impl Worker {
    /// `turn`: where it begins in the list of endpoints.
    pub fn new(
        plan: Plan,
        endpoints: watch::Receiver<Endpoints>,
        turn: usize,
        tally: Arc<Tally>,
        stream: Stream,
    ) -> Self {
        Self { plan, endpoints, kept: BTreeMap::new(), turn, tally, stream }
    }

    /// Sends from `first` on, until `stop` becomes true; the request in work is finished.
    pub async fn run(mut self, first: Instant, stop: watch::Receiver<bool>) {
        let mut due = first;
        loop {
            let late = Instant::now().saturating_duration_since(due);
            if late > LATE_MAX {
                let skipped = (late.as_secs_f64() / self.plan.period.as_secs_f64()) as u32;
                self.tally.skipped(u64::from(skipped));
                due += self.plan.period * skipped;
            }
            time::sleep_until(due.into()).await;
            if *stop.borrow() {
                return;
            }
            self.request(due).await;
            due += self.plan.period;
        }
    }

    /// One request that was due at `due`: tried, and tried once more on another endpoint when its connection breaks.
    async fn request(&mut self, due: Instant) {
        let endpoints = self.endpoints.borrow_and_update().clone();
        // A proxy forgets its connections to an endpoint that has left.
        self.kept.retain(|address, _| endpoints.iter().any(|endpoint| endpoint.address == *address));
        self.turn = self.turn.wrapping_add(1);
        let Some(first) = pick(&endpoints, self.turn, None) else {
            self.stream.broke(&self.tally.failed(Timestamp::now(), Cause::NoEndpoint, None));
            return;
        };
        match self.exchange(first.address).await {
            Ok(version) => return self.tally.ok(Timestamp::now(), &version, due.elapsed()),
            Err(cause) if !cause.may_be_tried_again() => {
                return self.stream.broke(&self.tally.failed(Timestamp::now(), cause, Some(first)));
            }
            Err(cause) => self.stream.broke(&self.tally.retried(Timestamp::now(), cause, first)),
        }
        let second = pick(&endpoints, self.turn, Some(first.address)).unwrap_or(first);
        match self.exchange(second.address).await {
            Ok(version) => self.tally.ok(Timestamp::now(), &version, due.elapsed()),
            Err(cause) => self.stream.broke(&self.tally.failed(Timestamp::now(), cause, Some(second))),
        }
    }

    /// One try. Answers the version that the response names.
    async fn exchange(&mut self, address: SocketAddr) -> Result<String, Cause> {
        let mut connection = match self.kept_connection(address).await {
            Some(connection) => connection,
            None => connect(address, self.plan.timeout).await?,
        };
        let version = time::timeout(self.plan.timeout, get(&mut connection, address, &self.plan.path))
            .await
            .unwrap_or(Err(Cause::Timeout))?;
        self.kept.insert(address, connection);
        Ok(version)
    }

    /// The kept connection, unless the server has closed it in the meantime: proxies notice that before they send.
    async fn kept_connection(&mut self, address: SocketAddr) -> Option<Connection> {
        let mut connection = self.kept.remove(&address)?;
        connection.ready().await.is_ok().then_some(connection)
    }
}

/// The next endpoint in turn, other than `not`.
fn pick(endpoints: &[Endpoint], turn: usize, not: Option<SocketAddr>) -> Option<&Endpoint> {
    let count = endpoints.len();
    (0..count).map(|step| &endpoints[turn.wrapping_add(step) % count]).find(|endpoint| Some(endpoint.address) != not)
}

async fn connect(address: SocketAddr, timeout: Duration) -> Result<Connection, Cause> {
    let stream = time::timeout(timeout, TcpStream::connect(address))
        .await
        .map_err(|_| Cause::ConnectTimeout)?
        .map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => Cause::Refused,
            io::ErrorKind::ConnectionReset => Cause::Reset,
            io::ErrorKind::TimedOut => Cause::ConnectTimeout,
            _ => Cause::Unreachable,
        })?;
    // A request is one small packet: it must not wait for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let (connection, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| cause_of(&error))?;
    // Its error reaches whoever waits for the response.
    tokio::spawn(driver);
    Ok(connection)
}

/// The part of an answer that is looked at.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    version: String,
}

async fn get(connection: &mut Connection, address: SocketAddr, path: &str) -> Result<String, Cause> {
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .body(Empty::new())
        .map_err(|_| Cause::Unreachable)?;
    let response = connection.send_request(request).await.map_err(|error| cause_of(&error))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await.map_err(|_| Cause::Truncated)?;
    if !status.is_success() {
        return Err(Cause::Status);
    }
    // Any answer is a good one; only those of our own examples name a version.
    let answer: Answer = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
    Ok(answer.version)
}

/// How a connection ended before its response.
fn cause_of(error: &hyper::Error) -> Cause {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return match error.kind() {
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Cause::Reset,
                _ => Cause::Closed,
            };
        }
        source = error.source();
    }
    Cause::Closed
}
