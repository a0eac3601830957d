//! The local API of a sidecar as somebody without the SDK speaks it.
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use baton::snapshot::lease::Holder;
use serde_json::{Value, json};

use super::stage::{Agent, Stage};
use crate::agent::fixture::{PATIENCE, until};

/// How many streams were opened.
static STREAMS: AtomicU64 = AtomicU64::new(0);

/// A stream of events.
struct Stream(BufReader<TcpStream>);

impl Stream {
    fn open(agent: &Agent, instance: &str, running: &str, accept: &str) -> Self {
        let number = 1 + STREAMS.fetch_add(1, Ordering::Relaxed);
        let running = running.split_once(':').map(|(name, token)| {
            let (set, listener) = name.split_once('/').unwrap();
            json!({"set": set, "listener": listener, "token": token})
        });
        let body = json!({"instance": instance, "stream": number, "running": Vec::from_iter(running)}).to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", agent.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (head, length) = (head(agent), body.len());
        write!(
            stream,
            "POST /v1/listeners HTTP/1.1\r\n{head}Accept: {accept}\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut stream = Self(BufReader::new(stream));
        let status = stream.line();
        assert!(status.starts_with("HTTP/1.1 200"), "{status}");
        stream
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream has ended");
        line
    }

    /// The next event of this kind.
    fn event(&mut self, kind: &str) -> Value {
        loop {
            let line = self.line();
            let json = line.strip_prefix("data: ").unwrap_or(&line);
            // Lengths of chunks and the head are no objects.
            let event: Value = serde_json::from_str(json).unwrap_or_default();
            if event["event"] == kind {
                return event;
            }
        }
    }
}

/// Headers of a program of the Pod.
fn head(agent: &Agent) -> String {
    format!("Host: 127.0.0.1:{}\r\nBaton-Token: {}\r\n", agent.port, agent.token())
}

/// Status and body.
fn ask(agent: &Agent, method: &str, path: &str, body: &str) -> (u16, Value) {
    ask_as(agent, &head(agent), method, path, body)
}

fn ask_as(agent: &Agent, head: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(("127.0.0.1", agent.port)).unwrap();
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.1\r\n{head}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap_or_default())
}

fn say(agent: &Agent, word: &str, body: &Value) -> u16 {
    ask(agent, "POST", &format!("/v1/listeners/bots/one/{word}"), &body.to_string()).0
}

/// With listener `one`, given to a Pod that no application serves yet.
fn given(profile: &str) -> (Stage, Agent, Holder) {
    let stage = Stage::new();
    let agent = stage.sidecar("a", &[]);
    stage.session("a", profile);
    let me = stage.identity("a");
    stage.listener("one", Some(&me), &json!({}));
    (stage, agent, me)
}

fn boottime() -> u64 {
    baton::agent::boottime::Boottime::now().as_nanos()
}

#[test]
fn a_listener_is_told_renewed_and_given_back() {
    let (stage, agent, _) = given("Fast");
    let mut stream = Stream::open(&agent, "i-1", "", "application/json");
    let start = stream.event("start");
    let version = stage.lease("listener.bots.one")["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let token = format!("uid-set-{version}");
    assert_eq!(
        (&start["token"], &start["config"], start.get("resume")),
        (&json!(token), &json!({"feed": "one"}), None)
    );
    let deadline = start["deadline"].as_u64().unwrap();
    let rest = deadline - boottime();
    assert!(rest < 3_500_000_000 && start["milliseconds"].as_u64().unwrap() <= 3_500, "{start}");
    assert!(stream.event("deadline")["deadline"].as_u64().unwrap() > deadline, "each renewal moves it");
    assert!(!stage.report("a").unwrap().running(&[("one", 1)]).unwrap()[0], "it has not said that it works");
    assert_eq!(say(&agent, "started", &json!({"token": token})), 204);
    stage.wait_until_running("a", &[("one", 1)]);
    let (status, fence) = ask(&agent, "GET", "/v1/listeners/bots/one/fence", "");
    assert_eq!((status, &fence["mine"], &fence["token"]), (200, &json!(true), &json!(token)));
    assert_eq!(say(&agent, "resume", &json!({"token": token, "resume": {"seq": 1}})), 204);
    stage.inbox("a", &json!([{"listener": "one", "epoch": 1, "releaseTo": ""}]));
    let stop = stream.event("stop");
    assert_eq!(stop["token"], token);
    assert!(stop["deadline"].as_u64().unwrap() > boottime() + 5_000_000_000, "its stop time-out is 10 s");
    assert_eq!(ask(&agent, "GET", "/v1/listeners/bots/one/fence", "").1["mine"], false);
    assert_eq!(say(&agent, "stopped", &json!({"token": token, "resume": {"seq": 2}})), 204);
    stage.wait_for_owner("one", "", 2);
    assert_eq!(stage.lease("listener.bots.one")["metadata"]["annotations"]["baton.dev/state"], r#"{"seq":2}"#);
    assert_eq!(ask(&agent, "GET", "/v1/listeners/bots/one/fence", "").0, 404);
}

/// L1: a stream that is cut says nothing of what runs: the deadline does, or who connects next.
#[test]
fn a_stream_that_was_cut_extends_nothing_and_ends_nothing_before_the_deadline() {
    let (stage, agent, me) = given("Fast");
    let mut stream = Stream::open(&agent, "i-1", "", "application/json");
    let token = stream.event("start")["token"].as_str().unwrap().to_owned();
    assert_eq!(say(&agent, "started", &json!({"token": token})), 204);
    // Back in time, with what it runs: nothing has happened.
    drop(stream);
    std::thread::sleep(Duration::from_millis(500));
    let mut stream = Stream::open(&agent, "i-1", &format!("bots/one:{token}"), "text/event-stream");
    let mut deadline = stream.event("deadline")["deadline"].as_u64().unwrap();
    assert_eq!(stage.owner("one"), (me.to_string(), 1));
    // Not back: it is another's, or a new start here, only after the last deadline that it was told, and K.
    stream.0.get_ref().set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut line = String::new();
    while stream.0.read_line(&mut line).is_ok() {
        let event: Value = serde_json::from_str(line.strip_prefix("data: ").unwrap_or_default()).unwrap_or_default();
        deadline = deadline.max(event["deadline"].as_u64().unwrap_or(0));
        line.clear();
    }
    drop(stream);
    let ended = until("its end", || (stage.owner("one").1 > 1).then(boottime));
    assert!(ended >= deadline + 500_000_000, "{} ms too early", (deadline + 500_000_000 - ended) / 1_000_000);
    let mut again = Stream::open(&agent, "i-2", "", "application/json");
    assert_ne!(again.event("start")["token"], token);
}

/// L1: what says nothing after it was asked to stop has ended once its time is over, and not before.
#[test]
fn who_never_answers_has_ended_when_its_stop_time_out_is_over() {
    let (stage, agent, _) = given("Fast");
    stage.edit("listener.bots.one", |lease| {
        let settings = lease["metadata"]["annotations"]["baton.dev/config"].as_str().unwrap();
        let settings = settings.replace(r#""stopTimeoutSeconds":10"#, r#""stopTimeoutSeconds":6"#);
        lease["metadata"]["annotations"]["baton.dev/config"] = json!(settings);
    });
    let mut stream = Stream::open(&agent, "i-1", "", "application/json");
    let token = stream.event("start")["token"].as_str().unwrap().to_owned();
    assert_eq!(say(&agent, "started", &json!({"token": token})), 204);
    stage.inbox("a", &json!([{"listener": "one", "epoch": 1, "releaseTo": ""}]));
    let stop = stream.event("stop")["deadline"].as_u64().unwrap();
    assert!(stop > boottime() + 5_000_000_000, "longer than a deadline that nobody moves");
    let ended = until("its end", || (stage.owner("one").1 > 1).then(boottime));
    assert!(ended >= stop + 500_000_000, "{} ms too early", (stop + 500_000_000).saturating_sub(ended) / 1_000_000);
    // An answer that is late is that of a start that is over.
    assert_eq!(say(&agent, "stopped", &json!({"token": token})), 404);
}

/// Each refusal names the field, and says what to do.
#[test]
fn what_cannot_be_taken_is_refused_with_field_and_remedy() {
    let (_stage, agent, _) = given("Default");
    let mut stream = Stream::open(&agent, "i-1", "", "application/json");
    let token = stream.event("start")["token"].as_str().unwrap().to_owned();
    let long = json!({"token": token, "resume": "a".repeat(4_096)}).to_string();
    let huge = json!({"token": token, "reason": "a".repeat(20_000)}).to_string();
    let one = "/v1/listeners/bots/one";
    let all = "/v1/listeners";
    let cases: [(&str, String, &str, u16, &str); 13] = [
        ("POST", all.into(), r#"{"instance":"i-2","stream":1,"running":[]}"#, 409, "instance"),
        ("POST", all.into(), r#"{"instance":"i-1","stream":0,"running":[]}"#, 409, "stream"),
        ("POST", all.into(), r#"{"instance":"i-1","running":[]}"#, 400, "body"),
        ("POST", all.into(), r#"{"instance":"i-1","stream":1000}"#, 400, "body"),
        ("POST", all.into(), r#"{"instance":"","stream":1000,"running":[]}"#, 400, "instance"),
        ("POST", all.into(), r#"{"instance":"i-1","stream":1000,"running":["one"]}"#, 400, "body"),
        ("POST", all.into(), r#"{"instance":"i-1","stream":1000,"running":[],"x":1}"#, 400, "body"),
        ("POST", format!("{one}/dance"), "{}", 404, "path"),
        ("POST", format!("{one}/stopped"), "{}", 400, "token"),
        ("POST", format!("{one}/stopped"), r#"{"token":"uid-set-1"}"#, 404, "token"),
        ("POST", format!("{one}/resume"), &long, 413, "resume"),
        ("POST", format!("{one}/prepared"), "{}", 404, "listener"),
        ("GET", "/v1/listeners/bots/two/fence".into(), "", 404, "listener"),
    ];
    for (method, path, body, status, field) in cases {
        let (found, refused) = ask(&agent, method, &path, body);
        assert_eq!((found, refused["field"].as_str()), (status, Some(field)), "{method} {path} {refused}");
        assert!(refused["message"].as_str().unwrap().len() > 20, "{refused}");
    }
    assert_eq!(ask(&agent, "POST", &format!("{one}/failed"), &huge).0, 413);
    assert_eq!(say(&agent, "started", &json!({"token": token})), 204, "and the stream has not suffered");
}

/// F12, H7: whoever cannot read the shared folder neither ends nor drains anything, though it reaches the port.
#[test]
fn who_has_no_token_changes_nothing() {
    let (stage, agent, me) = given("Fast");
    let mut stream = Stream::open(&agent, "i-1", "", "application/json");
    let token = stream.event("start")["token"].as_str().unwrap().to_owned();
    assert_eq!(say(&agent, "started", &json!({"token": token})), 204);
    drop(stream); // the moment without a stream, in which all that a new one does not name has ended
    let open = json!({"instance": "i-2", "stream": 1, "running": []}).to_string();
    let stopped = json!({"token": token}).to_string();
    let host = format!("Host: 127.0.0.1:{}\r\n", agent.port);
    let foreign = head(&agent).replace("127.0.0.1", "evil.example");
    let page = format!("{}Origin: http://evil.example\r\n", head(&agent));
    for (head, status) in [(host, 401), (foreign, 403), (page, 403)] {
        for (method, path, body) in [
            ("POST", "/v1/listeners", &open),
            ("POST", "/v1/listeners/bots/one/stopped", &stopped),
            ("GET", "/v1/listeners/bots/one/fence", &String::new()),
            ("POST", "/drain", &String::new()),
        ] {
            assert_eq!(ask_as(&agent, &head, method, path, body).0, status, "{method} {path} {head}");
        }
    }
    assert_eq!(ask(&agent, "GET", "/v1/listeners?instance=i-2&stream=1&running=", "").0, 405, "not by a GET");
    Stream::open(&agent, "i-1", &format!("bots/one:{token}"), "application/json").event("deadline");
    assert_eq!(stage.owner("one"), (me.to_string(), 1), "it has not ended");
    assert!(!stage.info("a").unwrap().draining);
    assert_eq!(agent.get("/healthz"), 200, "probes need none");
}

/// Connections beyond the bound wait; the stream that is there goes on.
#[test]
fn connections_are_bounded() {
    let (_stage, agent, _) = given("Fast");
    let mut stream = Stream::open(&agent, "i-1", "", "application/json");
    stream.event("start");
    let idle: Vec<_> = (0..80).map(|_| TcpStream::connect(("127.0.0.1", agent.port)).unwrap()).collect();
    stream.event("deadline");
    let sockets = || std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap().count();
    assert!(sockets() < 64 + 40, "{}", sockets());
    drop(idle);
    until("answers", || (agent.get("/healthz") == 200).then_some(()));
}
