//! `examples/web` as a process: it says what it is, and it ends without losing a request.
use std::{
    env,
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use nix::{sys::signal, unistd::Pid};

const PATIENCE: Duration = Duration::from_secs(20);

/// The built example. Cargo builds examples along with all tests, but tells tests nothing of them.
pub fn program() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--locked", "--all-features", "--example", "web"]);
        assert!(cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
        // This program is TARGET/debug/deps/it-HASH.
        let profile = env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned();
        profile.join("examples/web")
    };
    BUILT.get_or_init(build).clone()
}

struct Web {
    process: Child,
    output: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Web {
    /// Started, and listening.
    fn start(drain_seconds: u32) -> Self {
        Self::start_with(drain_seconds, &[])
    }

    fn start_with(drain_seconds: u32, more: &[(&str, &OsStr)]) -> Self {
        let mut process = Command::new(program())
            .envs(more.iter().copied())
            .env("POD_IP", "127.0.0.1")
            .env("PORT", "0")
            .env("WEB_DRAIN_SECONDS", drain_seconds.to_string())
            .envs([("BATON_VERSION", "1.1"), ("BATON_INSTANCE", "3"), ("BATON_POD_NAME", "web-3-abc")])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("{line}"));
        Self { process, output, address }
    }

    /// Sends a request and returns the connection, on which the answer will come.
    fn ask(&self, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: web\r\n\r\n").unwrap();
        stream
    }

    /// Tells it to reload what this revision says; status and answer.
    fn reload(&self, revision: &str) -> (u16, String) {
        let body = format!("{{\"version\": \"1.1\", \"revision\": \"{revision}\"}}");
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!("content-type: application/json\r\ncontent-length: {}", body.len());
        write!(stream, "POST /reload HTTP/1.1\r\nhost: web\r\n{head}\r\n\r\n{body}").unwrap();
        let (head, answer) = answer(&mut stream);
        (head.split(' ').nth(1).unwrap().parse().unwrap(), answer)
    }

    /// Sends SIGTERM, and returns once it says so.
    fn terminate(&mut self) {
        signal::kill(Pid::from_raw(self.process.id().cast_signed()), signal::Signal::SIGTERM).unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(line.contains("SIGTERM"), "{line}");
    }

    fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it did not end")
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The next answer on a connection: head and body.
fn answer(stream: &mut TcpStream) -> (String, String) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "closed after {head:?}");
    }
    let head = head.to_lowercase();
    let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    (head, String::from_utf8(body).unwrap())
}

#[test]
fn it_says_who_it_is() {
    let web = Web::start(0);
    let (head, body) = answer(&mut web.ask("/"));
    assert!(head.starts_with("http/1.1 200") && !head.contains("connection: close"), "{head}");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body, serde_json::json!({"version": "1.1", "instance": 3, "pod": "web-3-abc"}));
    for path in ["/healthz", "/readyz"] {
        assert!(answer(&mut web.ask(path)).0.starts_with("http/1.1 200"), "{path}");
    }
}

/// It says 200 once its files are of the revision that it is told of, and it could use them.
#[test]
fn it_reloads_when_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let give = |revision: &str, greeting: &str| {
        fs::write(folder.path().join("greeting"), greeting).unwrap();
        fs::write(folder.path().join("revision"), revision).unwrap();
    };
    give("web-a", "hello");
    let web = Web::start_with(0, &[("WEB_CONFIG_DIR", folder.path().as_os_str())]);
    let greeting = || answer(&mut web.ask("/")).1.split("\"greeting\":\"").nth(1).unwrap().replace("\"}", "");
    assert_eq!(greeting(), "hello");
    assert_eq!(web.reload("web-b"), (503, "the files are still of web-a".into()));
    give("web-b", "good day");
    assert_eq!((web.reload("web-b"), greeting().as_str()), ((200, "reloaded".into()), "good day"));
    assert_eq!(web.reload("web-b").0, 200, "and again");
    give("web-c", "");
    assert_eq!((web.reload("web-c"), greeting().as_str()), ((500, "the greeting is empty".into()), "good day"));
}

#[test]
fn it_drains_on_sigterm() {
    let mut web = Web::start(1);
    let mut kept = web.ask("/");
    answer(&mut kept);
    let mut in_work = web.ask("/work?milliseconds=2000");
    // The service has taken it once it answers a later request on another connection.
    answer(&mut web.ask("/"));
    web.terminate();

    // It accepts new connections, tells them and kept ones to leave, and is not ready.
    let (head, _) = answer(&mut web.ask("/"));
    assert!(head.starts_with("http/1.1 200") && head.contains("connection: close"), "{head}");
    write!(kept, "GET / HTTP/1.1\r\nhost: web\r\n\r\n").unwrap();
    let (head, _) = answer(&mut kept);
    assert!(head.starts_with("http/1.1 200") && head.contains("connection: close"), "{head}");
    assert!(answer(&mut web.ask("/readyz")).0.starts_with("http/1.1 503"));

    // Longer in work than the drain time, and answered all the same.
    let (head, body) = answer(&mut in_work);
    assert!(head.starts_with("http/1.1 200") && body.contains("\"1.1\""), "{head}{body}");
    assert!(web.end().success());
}

#[test]
fn a_broken_release_ends_at_its_start() {
    let status = Command::new(program()).env("WEB_FAIL", "start").stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(1));
    let output = Command::new(program()).env("PORT", "eighty").output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("PORT cannot be \\\"eighty\\\""), "{output:?}");
}
