//! The HTTP servers of operator and agent: so many connections at once, each for one request, whose head comes soon.
//!
//! A client that reaches a port can open connections and say nothing. So where all places are taken, the connection that has waited
//! longest without a request makes room: a kubelet's probe, which asks at once, is always answered.
use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Request, header},
    response::Response,
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tower::Service;

/// The head of a request comes within this time.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// After a connection could not be accepted, because there are too many open files for example.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Bounds of a server.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections at once.
    pub connections: usize,
    /// How long one may take in all; None: as long as its answer does, as with a stream of events.
    pub lasts: Option<Duration>,
}

/// A connection, and whether its request is yet to come.
struct Place {
    task: AbortHandle,
    is_idle: Arc<AtomicBool>,
}

/// Serves these routes until it is dropped, and every connection with it.
pub async fn serve(listener: TcpListener, bounds: Bounds, routes: Router) -> Infallible {
    let mut tasks = JoinSet::new();
    // The oldest first.
    let mut places: Vec<Place> = Vec::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = tasks.join_next() => continue,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            // Of a client that has gone again there is nothing to say.
            Err(error) if is_of_the_client(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        make_room(&mut places, &mut tasks, bounds.connections).await;
        let is_idle = Arc::new(AtomicBool::new(true));
        let task = tasks.spawn(answer(stream, routes.clone(), is_idle.clone(), bounds.lasts));
        places.push(Place { task, is_idle });
    }
}

/// Returns once there are fewer than `most` connections.
async fn make_room(places: &mut Vec<Place>, tasks: &mut JoinSet<()>, most: usize) {
    loop {
        places.retain(|place| !place.task.is_finished());
        if places.len() < most {
            return;
        }
        if let Some(oldest) = places.iter().position(|place| place.is_idle.load(Ordering::Relaxed)) {
            places.remove(oldest).task.abort();
        } else {
            let _ = tasks.join_next().await; // one of those that are being answered
        }
    }
}

fn is_of_the_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn answer(stream: TcpStream, routes: Router, is_idle: Arc<AtomicBool>, lasts: Option<Duration>) {
    let service = service_fn(move |request: Request<Incoming>| {
        is_idle.store(false, Ordering::Relaxed);
        let mut routes = routes.clone();
        async move {
            let mut response: Response = Service::call(&mut routes, request.map(Body::new)).await?;
            // One that is kept for the next request keeps others out.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).keep_alive(false);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    // How it has ended, its client knows.
    match lasts {
        Some(lasts) => drop(timeout(lasts, connection).await),
        None => drop(connection.await),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    async fn server(connections: usize) -> (SocketAddr, JoinSet<Infallible>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new()
            .route("/", get(async || "ok"))
            .route("/slow", get(async || std::future::pending::<String>().await));
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, Bounds { connections, lasts: None }, routes));
        (address, tasks)
    }

    async fn connect(address: SocketAddr) -> TcpStream {
        TcpStream::connect(address).await.unwrap()
    }

    async fn answer(stream: &mut TcpStream, path: &str) -> String {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }

    #[tokio::test]
    async fn a_connection_is_for_one_request() {
        let (address, _server) = server(2).await;
        let mut kept = Vec::new();
        for path in ["/", "/missing", "/", "/"] {
            let mut stream = connect(address).await;
            let answer = answer(&mut stream, path).await;
            assert!(answer.contains("connection: close\r\n"), "{answer}");
            kept.push(stream);
        }
    }

    /// F6, H9: connections that say nothing, or half of it, take no place from one that asks.
    #[tokio::test]
    async fn idle_connections_make_room() {
        let (address, _server) = server(4).await;
        let mut idle = Vec::new();
        for number in 0..200 {
            let mut stream = connect(address).await;
            if number % 2 == 0 {
                stream.write_all(b"GET / HTTP/1.1\r\nHos").await.unwrap();
            }
            idle.push(stream);
        }
        assert!(answer(&mut connect(address).await, "/").await.ends_with("ok"));
    }

    /// What is being answered is not ended for another: it is waited for.
    #[tokio::test]
    async fn answers_under_way_are_left_alone() {
        let (address, _server) = server(2).await;
        let mut streams = Vec::new();
        for _ in 0..2 {
            let mut stream = connect(address).await;
            stream.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            streams.push(stream);
        }
        let mut byte = [0];
        assert!(timeout(Duration::from_millis(300), streams[0].read(&mut byte)).await.is_err());
        let mut third = connect(address).await;
        third.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert!(timeout(Duration::from_millis(300), third.read(&mut byte)).await.is_err(), "no place is free");
        assert!(timeout(Duration::from_millis(100), streams[1].read(&mut byte)).await.is_err());
        drop(streams.pop());
        assert_eq!(timeout(PATIENCE, third.read(&mut byte)).await.unwrap().unwrap(), 1);
    }

    /// F6: a head that never ends.
    #[tokio::test(start_paused = true)]
    async fn half_a_head_is_not_waited_for() {
        let (address, _server) = server(4).await;
        let mut slow = connect(address).await;
        slow.write_all(b"GET / HTTP/1.1\r\nHos").await.unwrap();
        let mut rest = Vec::new();
        timeout(4 * HEAD_WITHIN, slow.read_to_end(&mut rest)).await.unwrap().unwrap();
    }
}
