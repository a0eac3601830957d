//! A websocket listener to copy: what `baton-agent exec` runs, one process for each listener, with no Baton library.
//!
//! It reads one feed of numbered messages, works on each, says so, and goes on where the one before it stopped:
//! ```text
//! connect   ws://…/feeds/NAME?after=41&token=…      within its time-out, else `ConnectTimeout`
//! receive   {"seq": 42}
//! answer    {"done": 42}                            with the connection's token: an old one is refused
//! receive   {"stored": 42}                          only now is it certain that 42 was not in vain
//! fd 3      {"resume": {"seq": 42}}                 the last of these is what its successor gets as BATON_RESUME
//! ```
//! Being told to end (SIGTERM) it finishes the message at hand, hears that all it did is stored, says where it is, and exits
//! with 0: that is the whole hand-over. After a crash the last words may be missing; then the feed, which stored position and token with the work
//! itself, knows better, and the later of the two counts.
//!
//! | environment | meaning |
//! |---|---|
//! | `FEED_URL` | where the feeds are, such as `ws://10.0.0.1:9100` |
//! | `FEED_FAIL` | `connect`: behave as a release that cannot connect |
//! | `BATON_LISTENER`, `BATON_FENCE_TOKEN`, `BATON_RESUME`, `BATON_CONNECT_TIMEOUT_SECONDS` | set by the agent |
use std::{
    env,
    fs::File,
    io::Write,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_tungstenite::{connect_async, tungstenite::Message};

/// How long the feed may take to hear the last word.
const FAREWELL: Duration = Duration::from_secs(2);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return ExitCode::FAILURE };
    let mut agent = Agent(File::options().write(true).open("/proc/self/fd/3").ok());
    match run(&mut agent, &mut terminate).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("listener: {why}");
            agent.say(&json!({"failed": why}));
            ExitCode::FAILURE
        }
    }
}

async fn run(agent: &mut Agent, terminate: &mut Signal) -> Result<(), String> {
    let began = now();
    let resume: Value = serde_json::from_str(&setting("BATON_RESUME")).unwrap_or_default();
    let (name, token, pod) = (setting("BATON_LISTENER"), setting("BATON_FENCE_TOKEN"), setting("BATON_POD_NAME"));
    let after = resume["seq"].as_u64().unwrap_or(0);
    let url = format!("{}/feeds/{name}?after={after}&token={token}&pod={pod}&began={began}", setting("FEED_URL"));
    let patience = Duration::from_secs(setting("BATON_CONNECT_TIMEOUT_SECONDS").parse().unwrap_or(30));
    if setting("FEED_FAIL") == "connect" {
        return Err(format!("ConnectTimeout: {url} did not answer within {} s", patience.as_secs()));
    }
    let connected = tokio::select! {
        connected = tokio::time::timeout(patience, connect_async(&url)) => connected,
        _ = terminate.recv() => return Ok(()),
    };
    let connected = connected.map_err(|_| format!("ConnectTimeout: no connection within {} s", patience.as_secs()))?;
    let (mut socket, _) = connected.map_err(|error| format!("ConnectFailed: {error}"))?;
    agent.say(&json!({"tick": true}));
    loop {
        let message = tokio::select! {
            biased;
            _ = terminate.recv() => break,
            message = socket.next() => message,
        };
        let Some(message) = message else { return Err("Disconnected: the feed has ended".into()) };
        let message = message.map_err(|error| format!("Disconnected: {error}"))?;
        if let Some(seq) = number(&message, "seq") {
            // Here is where a bot works.
            let done = json!({"done": seq, "at": now()}).to_string();
            socket.send(Message::text(done)).await.map_err(|error| format!("Disconnected: {error}"))?;
        }
        agent.note_stored(&message);
    }
    // Whoever measures the gap counts from here.
    let bye = json!({"bye": true, "at": now()}).to_string();
    let _ = socket.send(Message::text(bye)).await;
    // The feed closes the connection once it has read this, and has told what of ours it has stored.
    let farewell = async {
        while let Some(Ok(message)) = socket.next().await {
            agent.note_stored(&message);
        }
    };
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
    Ok(())
}

/// {"`what`": number}
fn number(message: &Message, what: &str) -> Option<u64> {
    let Message::Text(text) = message else { return None };
    serde_json::from_str::<Value>(text).ok()?[what].as_u64()
}

/// The agent reads lines of JSON from file descriptor 3; without an agent nobody listens.
struct Agent(Option<File>);

impl Agent {
    fn say(&mut self, line: &Value) {
        if let Some(file) = &mut self.0 {
            let _ = writeln!(file, "{line}");
        }
    }

    /// A successor goes on after what is stored. Told earlier, what is on its way to the feed would be lost if it did not
    /// get there.
    fn note_stored(&mut self, message: &Message) {
        if let Some(seq) = number(message, "stored") {
            self.say(&json!({"resume": {"seq": seq}}));
        }
    }
}

fn setting(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

/// Microseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
