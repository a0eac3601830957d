//! A websocket listener to copy, on Baton's SDK: all listeners of the Pod in one process, beside `baton-agent serve`.
//!
//! It speaks to the same feeds as `examples/listener`, which needs no library, and has a process for each listener:
//! ```text
//! connect   ws://…/feeds/NAME?after=41&token=…      within its time-out, else `ConnectTimeout`
//! receive   {"seq": 42}
//! answer    {"done": 42}                            with the connection's token: an old one is refused
//! receive   {"stored": 42}                          only now is it certain that 42 was not in vain
//! ```
//! Where it is it says by `unit.checkpoint`; asked to stop it finishes the message at hand, hears that all it did is stored,
//! and returns where it is: that is the whole hand-over. After a crash the feed, which stored position and token with the work itself, knows better.
//!
//! | environment | meaning |
//! |---|---|
//! | `FEED_URL` | where the feeds are, such as `ws://10.0.0.1:9100` |
//! | `FEED_PROXY` | host and port of the proxy for listeners with `useProxy`: it must forward to the feeds whatever it is sent |
//! | `FEED_FAIL` | `connect`: behave as a release that cannot connect |
//! | `BATON_STATE_DIR`, `BATON_PORT`, `BATON_POD_NAME` | where the agent is, and which Pod this is |
use std::{
    env, io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use baton::sdk::{Error, Fence, Listener, Problem, Resume, Sidecar, Stop, Unit};
use futures::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

/// How long the feed may take to hear the last word.
const FAREWELL: Duration = Duration::from_secs(2);

/// Where a successor goes on: as `examples/listener` writes it, so that one can follow the other.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Position {
    seq: u64,
}

struct Feeds {
    url: String,
    proxy: String,
    cannot_connect: bool,
}

#[tokio::main]
async fn main() -> Result<(), Problem> {
    tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false).init();
    let cannot_connect = setting("FEED_FAIL") == "connect";
    let feeds = Feeds { url: setting("FEED_URL"), proxy: setting("FEED_PROXY"), cannot_connect };
    Sidecar::from_environment().run(feeds).await
}

impl Listener for Feeds {
    async fn run(&self, unit: Unit, resume: Resume, fence: Fence, stop: Stop) -> Result<Resume, Error> {
        let began = now();
        let mut position: Position = resume.read()?.unwrap_or_default();
        let mut socket = tokio::select! {
            connected = self.connect(&unit, position, &fence, began) => connected?,
            () = stop.cancelled() => return Resume::new(&position),
        };
        unit.tick(); // it works
        loop {
            let message = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                message = socket.next() => message,
            };
            let Some(message) = message else { return Err(Error::new("Disconnected", "the feed has ended")) };
            let message = message.map_err(disconnected)?;
            if let Some(seq) = number(&message, "seq") {
                fence.check()?; // nothing is done once another may do it
                let done = json!({"done": seq, "at": now()}).to_string();
                socket.send(Message::text(done)).await.map_err(disconnected)?;
            }
            if let Some(seq) = number(&message, "stored") {
                // Told earlier, what is on its way to the feed would be lost if it did not get there.
                position = Position { seq };
                unit.checkpoint(&position)?;
            }
        }
        // Whoever measures the gap counts from here.
        let _ = socket.send(Message::text(json!({"bye": true, "at": now()}).to_string())).await;
        // The feed closes the connection once it has read this, and has told what of ours it has stored.
        let farewell = async {
            while let Some(Ok(message)) = socket.next().await {
                position.seq = number(&message, "stored").unwrap_or(position.seq);
            }
        };
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
        Resume::new(&position)
    }
}

impl Feeds {
    async fn connect(
        &self,
        unit: &Unit,
        Position { seq }: Position,
        fence: &Fence,
        began: u64,
    ) -> Result<WebSocketStream<TcpStream>, Error> {
        let (name, token, pod) = (unit.listener(), fence.token(), setting("BATON_POD_NAME"));
        let url = format!("{}/feeds/{name}?after={seq}&token={token}&pod={pod}&began={began}", self.url);
        let patience = unit.connect_timeout();
        let late = || Error::new("ConnectTimeout", format!("no connection within {} s", patience.as_secs()));
        if self.cannot_connect {
            return Err(late());
        }
        let host = self.url.split_once("://").map_or("", |(_, host)| host);
        let address = if unit.use_proxy() { self.proxy.as_str() } else { host };
        let connects = async {
            let stream = TcpStream::connect(address).await.map_err(failed)?;
            Ok(client_async(&url, stream).await.map_err(failed)?.0)
        };
        tokio::time::timeout(patience, connects).await.map_err(|_| late())?
    }
}

/// {"`what`": number}
fn number(message: &Message, what: &str) -> Option<u64> {
    let Message::Text(text) = message else { return None };
    serde_json::from_str::<Value>(text).ok()?[what].as_u64()
}

fn failed(error: impl std::error::Error) -> Error {
    Error::new("ConnectFailed", error)
}

fn disconnected(error: impl std::error::Error) -> Error {
    Error::new("Disconnected", error)
}

fn setting(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

/// Microseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
