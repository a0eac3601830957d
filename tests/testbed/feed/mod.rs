//! `baton-testbed feed`: an exchange with feeds of numbered messages over websockets, which judges from outside whether each
//! is read by one listener at a time, without loss and without repetition.
//!
//! ```text
//! GET /feeds/NAME?after=SEQ&token=T&pod=P&began=MICROS   a websocket: {"seq": n} comes, {"done": n, "at": micros} is answered,
//!                                                        {"stored": n} comes once all up to n is; at the end {"bye": true}
//! GET /verdict                                           what was seen of every feed (ledger::Verdict as JSON)
//! ```
//! A feed's messages are numbered from 1, one every `--period`; they wait for whoever reads it. The exchange stores what is
//! done, as an application would with its own writes, and tells a listener where to go on: but for feeds whose names begin
//! with `--forget`, which show what "at least once" is.
pub mod ledger;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    pin::pin,
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use axum::{
    Json, Router,
    extract::{
        Path, Query, State, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    response::Response,
    routing::get,
};
use futures::{
    SinkExt, StreamExt,
    future::{Either, select},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

use self::ledger::{Feed, Opening, Verdict};

/// Arguments of `baton-testbed feed`.
#[derive(clap::Args)]
pub struct Args {
    /// Where to listen.
    #[arg(long, default_value = "0.0.0.0:9100")]
    listen: SocketAddr,
    /// Milliseconds between two messages of a feed.
    #[arg(long, default_value_t = 10)]
    period: u64,
    /// Take nothing from a listener with a fencing token that is older than another's.
    #[arg(long)]
    fence: bool,
    /// Feeds whose names begin so store nothing, and refuse nobody.
    #[arg(long)]
    forget: Option<String>,
}

/// Serves until it is killed.
pub fn run(args: &Args) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let listener =
            TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
        println!("listening on {}", listener.local_addr()?);
        axum::serve(listener, Exchange::new(args).routes()).await?;
        Ok(ExitCode::SUCCESS)
    })
}

/// All feeds.
#[derive(Clone)]
pub struct Exchange {
    feeds: Arc<Mutex<BTreeMap<String, Feed>>>,
    began: Instant,
    period: Duration,
    is_fenced: bool,
    forget: Option<String>,
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    token: String,
    #[serde(default)]
    pod: String,
    #[serde(default)]
    began: u64,
}

impl Exchange {
    fn new(args: &Args) -> Self {
        let period = Duration::from_millis(args.period);
        let (is_fenced, forget) = (args.fence, args.forget.clone());
        Self { feeds: Arc::default(), began: Instant::now(), period, is_fenced, forget }
    }

    fn forgets(&self, feed: &str) -> bool {
        self.forget.as_deref().is_some_and(|prefix| feed.starts_with(prefix))
    }

    fn routes(self) -> Router {
        Router::new().route("/feeds/{name}", get(connect)).route("/verdict", get(verdict)).with_state(self)
    }

    fn feeds(&self) -> MutexGuard<'_, BTreeMap<String, Feed>> {
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many messages every feed has by now.
    fn newest(&self) -> u64 {
        (self.began.elapsed().as_nanos() / self.period.as_nanos().max(1)) as u64
    }

    async fn serve(self, name: String, asked: Asked, socket: WebSocket) {
        let forgets = self.forgets(&name);
        let opening = Opening { token: asked.token, pod: asked.pod, began: asked.began, after: asked.after };
        let (connection, mut sent) = self.feeds().entry(name.clone()).or_default().open(opening, !forgets);
        let (mut to, mut from) = socket.split();
        let (stored, mut to_tell) = watch::channel(sent);
        // True while there is more to come.
        let told = |text: &str| {
            let Ok(said) = serde_json::from_str::<Value>(text) else { return false };
            let at = said["at"].as_u64().unwrap_or(0);
            let mut feeds = self.feeds();
            let Some(feed) = feeds.get_mut(&name) else { return false };
            if self.is_fenced && !forgets && feed.refuse(connection) {
                return false;
            }
            match said["done"].as_u64() {
                Some(seq) => {
                    feed.done(connection, seq, at);
                    stored.send_replace(seq);
                }
                None => feed.bye(connection, at),
            }
            said["bye"].is_null()
        };
        let reading = async {
            while let Some(Ok(message)) = from.next().await {
                if matches!(&message, Message::Text(text) if !told(text)) {
                    break;
                }
            }
        };
        let writing = async {
            let mut clock = interval(self.period);
            clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                tokio::select! {
                    Ok(()) = to_tell.changed() => {
                        let seq = *to_tell.borrow_and_update();
                        to.send(message("stored", seq)).await?;
                    }
                    _ = clock.tick(), if sent >= self.newest() => {}
                    // One at a time: who has much to catch up with hears in between of what is stored.
                    () = std::future::ready(()), if sent < self.newest() => {
                        sent += 1;
                        to.send(message("seq", sent)).await?;
                    }
                }
            }
        };
        // Side by side: each may have to wait for the listener, which waits for the other one.
        let reading = pin!(reading);
        if let Either::Right((result, reading)) = select(reading, pin!(writing)).await {
            let _: Result<Infallible, axum::Error> = result; // nothing can be told any more
            reading.await; // what it said before it ended counts
        }
        // Its last words are answered, too.
        let seq = *stored.borrow();
        let _ = to.send(message("stored", seq)).await;
        let _ = to.close().await;
    }
}

fn message(what: &str, seq: u64) -> Message {
    Message::text(json!({ what: seq }).to_string())
}

async fn connect(
    State(exchange): State<Exchange>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
    upgrade: WebSocketUpgrade,
) -> Response {
    upgrade.on_upgrade(move |socket| exchange.serve(name, asked, socket))
}

async fn verdict(State(exchange): State<Exchange>) -> Json<Verdict> {
    Json(Verdict::of(&exchange.feeds()))
}
