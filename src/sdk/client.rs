//! Requests to the agent of this Pod: one connection each, bounded in time and size.
use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use super::wire::{EVENT_BYTES_MAX, Event, PORT, PORT_FILE, SILENCE_MAX, TOKEN_FILE, TOKEN_HEADER};

/// Longest time for an answer to begin.
const PATIENCE: Duration = Duration::from_secs(5);
/// A stream that says nothing for so long is dead.
const DEAD: Duration = SILENCE_MAX.saturating_mul(3);
/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 16 << 10;

/// Where the agent is.
#[derive(Clone, Debug)]
pub struct Client {
    /// Folder that the containers of the Pod share.
    pub state_dir: PathBuf,
    /// The agent's port; None: as it has written into that folder.
    pub port: Option<u16>,
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub text: String,
}

impl Client {
    fn address(&self) -> SocketAddr {
        let told = || fs::read_to_string(self.state_dir.join(PORT_FILE)).ok()?.trim().parse().ok();
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port.or_else(told).unwrap_or(PORT)))
    }

    async fn request(&self, path: &str, body: String) -> io::Result<Response<Incoming>> {
        let address = self.address();
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // Ends with the answer.
        tokio::spawn(connection);
        // Without one the agent says what is wrong. Each agent has another: read anew.
        let token = fs::read_to_string(self.state_dir.join(TOKEN_FILE)).unwrap_or_default();
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(TOKEN_HEADER, token.trim())
            .header(header::HOST, address.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(io::Error::other)?;
        sender.send_request(request).await.map_err(io::Error::other)
    }

    /// Asks, and waits for the answer as long as it takes. A token that is not the agent's is an error.
    pub async fn ask(&self, path: &str, body: String) -> io::Result<Answer> {
        let response = self.request(path, body).await?;
        let status = response.status();
        let text = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(io::Error::other)?;
        let text = String::from_utf8_lossy(&text.to_bytes()).into_owned();
        // The token of the agent before: nothing was heard, so nothing was refused.
        if status == StatusCode::UNAUTHORIZED {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        Ok(Answer { status, text })
    }

    /// Says something.
    pub async fn say(&self, path: &str, body: String) -> io::Result<Answer> {
        timeout(PATIENCE, self.ask(path, body)).await?
    }

    /// Opens the stream of events.
    pub async fn open(&self, body: String) -> io::Result<Events> {
        let response = timeout(PATIENCE, self.request("/v1/listeners", body)).await??;
        let status = response.status();
        if status != StatusCode::OK {
            let text = timeout(PATIENCE, Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect());
            let text = text.await?.map_err(io::Error::other)?.to_bytes();
            return Err(io::Error::other(format!("{status}: {}", String::from_utf8_lossy(&text))));
        }
        Ok(Events { body: response.into_body(), unread: Vec::new() })
    }
}

/// The stream of events; dropped, it is closed.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    unread: Vec<u8>,
}

impl Events {
    /// The next event. Cancel-safe.
    ///
    /// # Errors
    /// The stream has ended, or says what cannot be read: open another one.
    pub async fn next(&mut self) -> io::Result<Event> {
        loop {
            while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                let line = String::from_utf8(line).map_err(io::Error::other)?;
                if line.trim().is_empty() {
                    continue; // it lives
                }
                // One of a later version is none of ours.
                if let Some(event) = Event::read(&line)? {
                    return Ok(event);
                }
            }
            if self.unread.len() > EVENT_BYTES_MAX {
                return Err(io::Error::other("an event that is too long"));
            }
            let frame = timeout(DEAD, self.body.frame()).await?;
            let frame = frame.ok_or(io::ErrorKind::UnexpectedEof)?.map_err(io::Error::other)?;
            if let Ok(bytes) = frame.into_data() {
                self.unread.extend_from_slice(&bytes);
            }
        }
    }
}
