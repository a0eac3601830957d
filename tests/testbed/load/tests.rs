//! The generator against servers that refuse, reset, close, stall and answer wrongly, on purpose.
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use tally::Cause;

/// What a scripted server does with one request.
#[derive(Clone, Copy)]
enum Act {
    Answer,
    AnswerAndClose,
    Reset,
    Close,
    HalfAnAnswer,
    Stall,
    Unavailable,
}

/// A server on loopback that does the same with every request.
async fn server(act: Act) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, act));
        }
    });
    address
}

async fn serve(mut stream: TcpStream, act: Act) {
    let mut request = [0; 4096];
    // One read is one request: the generator sends the next only after the answer.
    while stream.read(&mut request).await.is_ok_and(|bytes| bytes > 0) {
        let body = r#"{"version":"1.0"}"#;
        let answer = match act {
            Act::Answer => format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()),
            Act::AnswerAndClose => {
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
            }
            Act::HalfAnAnswer => format!("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{body}"),
            Act::Unavailable => "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_owned(),
            Act::Reset => {
                stream.set_zero_linger().unwrap();
                return;
            }
            Act::Close => return,
            Act::Stall => std::future::pending().await,
        };
        stream.write_all(answer.as_bytes()).await.unwrap();
        if matches!(act, Act::AnswerAndClose | Act::HalfAnAnswer) {
            return;
        }
    }
}

/// An address at which nobody listens.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

fn arguments(endpoint: Vec<SocketAddr>) -> Args {
    Args {
        service: None,
        namespace: String::new(),
        endpoint,
        rate: 200,
        connections: 2,
        path: "/".into(),
        timeout_milliseconds: 10_000,
        wait_seconds: 1,
        duration_seconds: Some(3),
        report: None,
        stream: false,
    }
}

/// Three seconds of load on these endpoints.
async fn load(endpoints: Vec<SocketAddr>) -> Report {
    send(&arguments(endpoints)).await.unwrap()
}

#[tokio::test]
async fn good_answers_are_counted_by_second_and_version() {
    let report = load(vec![server(Act::Answer).await, server(Act::Answer).await]).await;
    let counts = &report.counts;
    // 200 a second for three; a busy machine may send some late, none more.
    assert!((100..=604).contains(&counts.sent), "{counts:?}");
    assert_eq!((counts.ok, counts.failed, counts.retried), (counts.sent, 0, 0));
    assert_eq!(counts.versions, [("1.0".to_owned(), counts.ok)].into());
    assert_eq!(report.seconds.iter().map(|second| second.counts.sent).sum::<u64>(), counts.sent);
    assert!(
        report.latency.p50_milliseconds > 0.0 && report.latency.p50_milliseconds <= report.latency.max_milliseconds
    );
    assert!(report.breaks.is_empty());
}

#[tokio::test]
async fn a_broken_connection_is_tried_once_more_elsewhere_and_counted_by_cause() {
    for (broken, cause) in [
        (nobody().await, Cause::Refused),
        (server(Act::Reset).await, Cause::Reset),
        (server(Act::Close).await, Cause::Closed),
    ] {
        let good = server(Act::Answer).await;
        let report = load(vec![broken, good]).await;
        let counts = &report.counts;
        assert_eq!((counts.failed, counts.ok), (0, counts.sent), "{cause}: {:?}", report.breaks.first());
        // Every other request goes to the broken one first.
        assert!(counts.retried.abs_diff(counts.sent / 2) <= 2, "{cause}: {counts:?}");
        assert_eq!(report.retries_by_cause, [(cause, counts.retried)].into());
        assert_eq!(report.breaks.len() as u64, counts.retried);
        assert!(report.breaks.iter().all(|it| it.retried && it.cause == cause && it.endpoint == broken.to_string()));
        assert!(report.breaks.is_sorted_by_key(|it| it.at));
    }
}

#[tokio::test]
async fn a_request_that_breaks_twice_has_failed() {
    let report = load(vec![nobody().await, server(Act::Close).await]).await;
    let counts = &report.counts;
    assert!(counts.sent > 0);
    assert_eq!((counts.failed, counts.retried, counts.ok), (counts.sent, counts.sent, 0));
    let causes = |causes: &std::collections::BTreeMap<Cause, u64>| causes.keys().copied().collect::<Vec<_>>();
    assert_eq!(causes(&report.retries_by_cause), [Cause::Refused, Cause::Closed]);
    assert_eq!(causes(&report.failures_by_cause), [Cause::Refused, Cause::Closed]);
}

#[tokio::test]
async fn what_may_have_been_answered_is_not_tried_again() {
    for (act, cause) in
        [(Act::Stall, Cause::Timeout), (Act::Unavailable, Cause::Status), (Act::HalfAnAnswer, Cause::Truncated)]
    {
        let all = arguments(vec![server(act).await]);
        let timeout_milliseconds = if cause == Cause::Timeout { 200 } else { all.timeout_milliseconds };
        let report = send(&Args { timeout_milliseconds, ..all }).await.unwrap();
        let counts = &report.counts;
        assert!(counts.sent > 0, "{cause}");
        assert_eq!((counts.failed, counts.retried), (counts.sent, 0), "{cause}");
        assert_eq!(report.failures_by_cause, [(cause, counts.sent)].into());
    }
}

#[tokio::test]
async fn a_server_that_says_it_closes_costs_no_retry() {
    let report = load(vec![server(Act::AnswerAndClose).await]).await;
    assert!(report.counts.sent > 0);
    assert_eq!((report.counts.failed, report.counts.retried), (0, 0), "{:?}", report.breaks);
}

#[tokio::test]
async fn no_endpoint_is_a_failure_of_its_own_once_load_has_begun() {
    let (publish, endpoints) = watch::channel(Endpoints::default());
    let tally = Arc::new(Tally::new(Timestamp::now()));
    let (stop, stopped) = watch::channel(false);
    let mut workers = start_workers(&arguments(vec![]), &endpoints, &tally, Stream::new(false), &stopped);
    let counted = async {
        while tally.report(Timestamp::now()).counts.failed == 0 {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    time::timeout(Duration::from_secs(5), counted).await.unwrap();
    stop.send_replace(true);
    while workers.join_next().await.is_some() {}
    let report = tally.report(Timestamp::now());
    assert_eq!(report.failures_by_cause, [(Cause::NoEndpoint, report.counts.sent)].into());
    drop(publish);
}

#[tokio::test]
async fn load_goes_to_test_networks_only() {
    assert!(send(&arguments(vec!["192.168.0.1:80".parse().unwrap()])).await.is_err());
}
