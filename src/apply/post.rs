//! One call to the application of a Pod, bounded in time and size: to an address, never to a name; nothing is followed, and
//! no proxy is asked.
use std::{io, net::SocketAddr, pin::pin, time::Duration};

use http_body_util::{BodyExt, Collected, Full, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use crate::snapshot::call::Refused;

/// Longest time for one call.
pub const POST_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// As much of an answer is told.
const ANSWER_CHARS_MAX: usize = 200;

/// Tells an application; answers in a few words what went wrong, unless it answers 200.
pub async fn post(to: SocketAddr, path: String, body: String) -> Result<(), String> {
    post_for(to, path, body, POST_TIMEOUT).await.map_err(|refused| refused.said)
}

/// GET; any status from 200 to 299.
pub(super) async fn get(to: SocketAddr, path: String, most: Duration) -> Result<(), Refused> {
    let request = Request::get(path).header(header::HOST, to.to_string()).body(Full::new(Bytes::new()));
    well_answered(to, request, most, |status| status.is_success()).await
}

/// POST; 200.
pub(super) async fn post_for(to: SocketAddr, path: String, body: String, most: Duration) -> Result<(), Refused> {
    let request = Request::post(path)
        .header(header::HOST, to.to_string())
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)));
    well_answered(to, request, most, |status| status == StatusCode::OK).await
}

/// A connection that opens.
pub(super) async fn open(to: SocketAddr, most: Duration) -> Result<(), Refused> {
    let unreachable = |said| Err(Refused { said, is_unreachable: true });
    match timeout(most, TcpStream::connect(to)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(no_answer(&error)),
        Err(_) => unreachable(format!("no connection within {} s", most.as_secs())),
    }
}

/// A Pod that refuses a connection is there: nothing listens on that port.
fn no_answer(error: &io::Error) -> Refused {
    Refused { said: error.to_string(), is_unreachable: error.kind() != io::ErrorKind::ConnectionRefused }
}

async fn well_answered(
    to: SocketAddr,
    request: hyper::http::Result<Request<Full<Bytes>>>,
    most: Duration,
    is_well: fn(StatusCode) -> bool,
) -> Result<(), Refused> {
    let unreachable = |said| Err(Refused { said, is_unreachable: true });
    match timeout(most, answer(to, request)).await {
        Ok(Ok((status, _))) if is_well(status) => Ok(()),
        Ok(Ok((status, text))) => {
            // Of what has gone well in another way nothing need be shown.
            let text = if status.is_success() { String::new() } else { printable(&text) };
            let said = format!("answered {}: {text}", status.as_u16()).trim_end_matches([':', ' ']).to_owned();
            Err(Refused { said, is_unreachable: false })
        }
        Ok(Err(error)) => Err(no_answer(&error)),
        Err(_) => unreachable(format!("no answer within {} s", most.as_secs())),
    }
}

async fn answer(to: SocketAddr, request: hyper::http::Result<Request<Full<Bytes>>>) -> io::Result<(StatusCode, Bytes)> {
    let stream = TcpStream::connect(to).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let mut ask = pin!(async move {
        let request = request.map_err(io::Error::other)?;
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = response.status();
        let text = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        // What it says besides does not matter: an answer that is too long, or breaks off, is shown as none.
        Ok((status, text.map(Collected::to_bytes).unwrap_or_default()))
    });
    // Both in this task, so that nothing of a call outlives it.
    tokio::select! {
        biased;
        answer = &mut ask => answer,
        _ = connection => ask.await,
    }
}

/// The beginning of an answer as one line.
fn printable(text: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(text).chars().take(ANSWER_CHARS_MAX).collect();
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// What a server that gives this answer was sent, and what was made of it.
    async fn told(answer: &'static [u8]) -> (String, Result<(), String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4_096];
            let mut read = 0;
            while !request[..read].ends_with(b"}") {
                read += stream.read(&mut request[read..]).await.unwrap();
            }
            stream.write_all(answer).await.unwrap();
            String::from_utf8_lossy(&request[..read]).into_owned()
        });
        let result = post(to, "/reload?soft=1".into(), r#"{"version":"2"}"#.into()).await;
        (served.await.unwrap().replace(&to.to_string(), "POD"), result)
    }

    #[tokio::test]
    async fn only_200_says_that_it_has_reloaded() {
        let (request, result) = told(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        assert_eq!(result, Ok(()));
        let expected = "POST /reload?soft=1 HTTP/1.1\r\nhost: POD\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n{\"version\":\"2\"}";
        assert_eq!(request, expected, "and no header more than that");
        let answers: [(&[u8], &str); 5] = [
            (b"HTTP/1.1 503 x\r\ncontent-length: 12\r\n\r\nnot\nyet\x1b[31m", "answered 503: not yet [31m"),
            (b"HTTP/1.1 404 x\r\ncontent-length: 0\r\n\r\n", "answered 404"),
            (b"HTTP/1.1 202 x\r\ncontent-length: 3\r\n\r\nyes", "answered 202"),
            (b"HTTP/1.1 302 x\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", "answered 302"),
            (b"HTTP/1.1 500 x\r\ncontent-length: 9\r\n\r\nbroken", "answered 500"),
        ];
        for (answer, said) in answers {
            assert_eq!(told(answer).await.1, Err(said.to_owned()));
        }
        assert!(told(b"").await.1.is_err());
    }

    #[tokio::test]
    async fn an_answer_is_cut() {
        let long = format!("HTTP/1.1 500 x\r\ncontent-length: 300\r\n\r\n{}", "é".repeat(150));
        let (_, result) = told(Box::leak(long.into_boxed_str()).as_bytes()).await;
        assert_eq!(result.unwrap_err().chars().count(), "answered 500: ".len() + 150);
        let huge = format!("HTTP/1.1 500 x\r\ncontent-length: 70000\r\n\r\n{}", "x".repeat(70_000));
        let (_, result) = told(Box::leak(huge.into_boxed_str()).as_bytes()).await;
        assert_eq!(result, Err("answered 500".to_owned()), "nor is more than 64 KiB read");
    }

    #[tokio::test]
    async fn who_does_not_answer_keeps_nobody_waiting() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        tokio::time::pause();
        let result = post(to, "/".into(), String::new()).await;
        assert_eq!(result, Err("no answer within 5 s".to_owned()));
        drop(listener);
        tokio::time::resume();
        assert!(post(to, "/".into(), String::new()).await.unwrap_err().contains("refused"));
    }
}
