use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json, value::RawValue};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{
    Error, Fence, Listener, Resume, Stop, Unit,
    client::Client,
    clock,
    follow::Follower,
    watchdog::Watchdog,
    wire::{Event, Name, Prepare, REASON_BYTES_MAX, Start, Stop as StopEvent},
};

const PATIENCE: Duration = Duration::from_secs(10);

/// An agent that answers each request with the next of these statuses, and then with 204. Path and body of each are told.
async fn agent(statuses: &'static [u16]) -> (Client, mpsc::UnboundedReceiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, told) = mpsc::unbounded_channel();
    let mut statuses = statuses.iter().copied();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            let (head, body) = loop {
                assert!(stream.read_buf(&mut request).await.unwrap() > 0);
                let text = String::from_utf8_lossy(&request).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if body.len() == length.unwrap().parse::<usize>().unwrap() {
                    break (head.to_owned(), body.to_owned());
                }
            };
            let path = head.split(' ').nth(1).unwrap().to_owned();
            sender.send((path, serde_json::from_str(&body).unwrap())).unwrap();
            let status = statuses.next().unwrap_or(204);
            let answer = format!("HTTP/1.1 {status} It\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (Client { state_dir: "/nowhere".into(), port: Some(port) }, told)
}

async fn next(told: &mut mpsc::UnboundedReceiver<(String, Value)>) -> (String, Value) {
    timeout(PATIENCE, told.recv()).await.unwrap().unwrap()
}

/// What a listener of a test does.
#[derive(Clone, Copy)]
enum Manner {
    Polite,
    Ticking,
    PanicsAtOnce,
    PanicsWhileItRuns,
    PanicsWhenDropped,
    FailsAtLength,
    SlowToPrepare,
}

struct Noting {
    manner: Manner,
    notes: Arc<Mutex<Vec<&'static str>>>,
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

impl Noting {
    fn note(&self, note: &'static str) {
        self.notes.lock().unwrap().push(note);
    }
}

impl Listener for Noting {
    async fn prepare(&self, _: &Unit) -> Result<(), Error> {
        self.note("prepare");
        Ok(())
    }

    async fn unprepare(&self, _: &Unit) {
        self.note("unprepare");
        if matches!(self.manner, Manner::SlowToPrepare) {
            sleep(Duration::from_millis(100)).await;
        }
        self.note("unprepared");
    }

    #[allow(clippy::manual_async_fn)] // its body is to panic before there is a future
    fn run(&self, unit: Unit, _: Resume, _: Fence, stop: Stop) -> impl Future<Output = Result<Resume, Error>> + Send {
        assert!(!matches!(self.manner, Manner::PanicsAtOnce), "at once");
        async move {
            self.note(if stop.is_cancelled() { "run, stopped" } else { "run" });
            match self.manner {
                Manner::PanicsWhileItRuns => panic!("while it runs"),
                Manner::PanicsWhenDropped => {
                    let _bomb = Bomb;
                    std::future::pending().await
                }
                Manner::FailsAtLength => Err(Error::new("Failed", "ä".repeat(20_000))),
                Manner::Ticking => {
                    unit.tick();
                    stop.cancelled().await;
                    Ok(Resume::none())
                }
                _ => {
                    stop.cancelled().await;
                    Resume::new(&7)
                }
            }
        }
    }
}

fn follower(manner: Manner, client: Client) -> (Follower<Noting>, Arc<Mutex<Vec<&'static str>>>) {
    let notes = Arc::<Mutex<Vec<_>>>::default();
    let watchdog = Watchdog::start(()).unwrap();
    (Follower::new(Noting { manner, notes: notes.clone() }, client, watchdog), notes)
}

fn start(token: &str) -> Event {
    Event::Start(Start {
        set: "bots".into(),
        listener: "one".into(),
        token: token.into(),
        config: RawValue::from_string("{}".into()).unwrap(),
        resume: None,
        connect_timeout_seconds: 30,
        use_proxy: false,
        deadline: clock::now() + 600_000_000_000,
        milliseconds: 600_000,
        stop_timeout_seconds: 10,
    })
}

fn prepare() -> Event {
    Event::Prepare(Prepare {
        set: "bots".into(),
        listener: "one".into(),
        config: RawValue::from_string("{}".into()).unwrap(),
        connect_timeout_seconds: 30,
        use_proxy: false,
    })
}

fn stop(token: &str, millis: u64) -> Event {
    Event::Stop(StopEvent {
        set: "bots".into(),
        listener: "one".into(),
        token: token.into(),
        deadline: clock::now() + millis * 1_000_000,
        milliseconds: millis,
    })
}

/// L1: events may come in one piece, before anything that they start has had its turn.
#[tokio::test]
async fn a_stop_right_after_its_start_is_heard() {
    let (client, mut told) = agent(&[]).await;
    let (mut follower, notes) = follower(Manner::Polite, client);
    follower.heed(start("t1"));
    follower.heed(stop("t1", 60_000));
    let (path, said) = next(&mut told).await;
    assert_eq!((path.as_str(), said), ("/v1/listeners/bots/one/stopped", json!({"token": "t1", "resume": 7})));
    assert_eq!(*notes.lock().unwrap(), ["run, stopped"]);
}

/// After any panic its end is told, and the next stream does not name it.
#[tokio::test]
async fn a_listener_that_panics_has_ended() {
    for (manner, millis) in
        [(Manner::PanicsAtOnce, 60_000), (Manner::PanicsWhileItRuns, 60_000), (Manner::PanicsWhenDropped, 500)]
    {
        let (client, mut told) = agent(&[]).await;
        let (mut follower, _) = follower(manner, client);
        follower.heed(start("t1"));
        follower.heed(stop("t1", millis));
        let (path, said) = next(&mut told).await;
        let panicked = json!({"token": "t1", "reason": "Panicked: it has panicked; see the log"});
        assert_eq!((path.as_str(), said), ("/v1/listeners/bots/one/stopped", panicked));
        while follower.hello().contains("t1") {
            sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn a_long_reason_is_cut() {
    let (client, mut told) = agent(&[]).await;
    let (mut follower, _) = follower(Manner::FailsAtLength, client);
    follower.heed(start("t1"));
    let reason = next(&mut told).await.1["reason"].as_str().unwrap().len();
    assert!((REASON_BYTES_MAX - 1..=REASON_BYTES_MAX).contains(&reason), "{reason}");
}

/// L1: what cannot be taken of an answer does not keep the end from being heard.
#[tokio::test]
async fn an_end_is_said_until_it_is_heard() {
    let (client, mut told) = agent(&[503, 413, 429, 404]).await;
    let (mut follower, _) = follower(Manner::Polite, client);
    follower.heed(start("t1"));
    follower.heed(stop("t1", 60_000));
    let (whole, bare) = (json!({"token": "t1", "resume": 7}), json!({"token": "t1"}));
    for expected in [&whole, &whole, &bare, &bare] {
        assert_eq!(next(&mut told).await.1, *expected);
    }
    sleep(Duration::from_millis(50)).await;
    assert!(told.try_recv().is_err(), "it is not known any more");
}

#[tokio::test]
async fn what_a_busy_agent_refuses_is_said_again() {
    let (client, mut told) = agent(&[429, 500]).await;
    let (mut follower, _) = follower(Manner::Ticking, client);
    follower.heed(start("t1"));
    for _ in 0..3 {
        assert_eq!(next(&mut told).await.0, "/v1/listeners/bots/one/started");
    }
}

/// Nothing of a name begins while what was prepared of it is still being let go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_prepared_is_let_go_before_the_next_begins() {
    let (client, mut told) = agent(&[]).await;
    let (mut follower, notes) = follower(Manner::SlowToPrepare, client);
    let name = Name { set: "bots".into(), listener: "one".into() };
    follower.heed(prepare());
    assert_eq!(next(&mut told).await.0, "/v1/listeners/bots/one/prepared");
    follower.heed(Event::Unprepare(name.clone()));
    follower.heed(prepare());
    assert_eq!(next(&mut told).await.0, "/v1/listeners/bots/one/prepared");
    follower.heed(Event::Unprepare(name));
    follower.heed(start("t1"));
    follower.heed(start("t1"));
    while !notes.lock().unwrap().contains(&"run") {
        sleep(Duration::from_millis(1)).await;
    }
    let expected = ["prepare", "unprepare", "unprepared", "prepare", "unprepare", "unprepared", "run"];
    assert_eq!(*notes.lock().unwrap(), expected);
}

/// Each stream says that it is later than the one before.
#[tokio::test]
async fn streams_are_numbered() {
    let (client, _told) = agent(&[]).await;
    let (mut follower, _) = follower(Manner::Polite, client);
    let mut number = || serde_json::from_str::<Value>(&follower.hello()).unwrap()["stream"].as_u64().unwrap();
    assert_eq!([number(), number()], [1, 2]);
}

/// D5: what the container runtime has lost ends by itself, once its agent is gone and nothing of it runs.
#[tokio::test]
async fn an_orphan_without_an_agent_ends() {
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let gone = || Client { state_dir: "/nowhere".into(), port: Some(unused) };
    let (mut follower, _) = follower(Manner::Polite, gone());
    assert!(timeout(Duration::from_millis(300), follower.follow(|| false)).await.is_err(), "the next agent comes");
    timeout(PATIENCE, follower.follow(|| true)).await.unwrap();
    follower.heed(start("bots-1"));
    assert!(timeout(Duration::from_millis(300), follower.follow(|| true)).await.is_err(), "a listener runs");
}
