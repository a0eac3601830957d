//! An agent without an API server, told by the test what to run, and the processes that come of it.
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc::{Receiver, channel},
    },
    time::{Duration, Instant},
};

use baton::agent::boottime::Boottime;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

pub const AGENT: &str = env!("CARGO_BIN_EXE_baton-agent");
pub const TESTBED: &str = env!("CARGO_BIN_EXE_baton-testbed");

/// What takes longer has failed. Busy machines are slow.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// Where the agent stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// PID 1 of a PID namespace, as in a container.
    Init,
    /// Somewhere in a process tree.
    Beside,
}

/// Says `{"tick":true}` when it is ready, and ends on SIGTERM with code 5.
pub const POLITE: &str = r#"trap 'exit 5' TERM; echo '{"tick":true}' >&3; while :; do sleep 0.05; done"#;
/// The same, but does not care for SIGTERM.
pub const DEAF: &str = r#"trap '' TERM; echo '{"tick":true}' >&3; while :; do sleep 0.05; done"#;
/// Polite, but has forked twice before, into a session of its own, someone who ignores signals. Says `"out"` as resume value
/// from there, then ticks.
pub const ESCAPING: &str = r#"
    away='trap "" TERM HUP INT QUIT USR1 USR2; echo "{\"resume\":\"out\"}" >&3; while :; do sleep 0.05; done'
    (setsid sh -c "$away" &)
    trap 'exit 5' TERM
    echo '{"tick":true}' >&3
    while :; do sleep 0.05; done"#;

pub struct Agent {
    process: Child,
    orders: Option<ChildStdin>,
    lines: Receiver<String>,
    /// Lines read and not yet asked for.
    unread: Vec<String>,
    /// In the environment of everyone below a guard.
    marker: String,
    /// As the machine counts.
    pub pid: Pid,
}

impl Agent {
    pub fn start(place: Place) -> Self {
        Self::start_by(Command::new(TESTBED).args(init(place)), place)
    }

    /// With file 7 open, as a careless shell would leave it.
    pub fn start_with_a_leak(place: Place) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"exec 7</dev/null; exec "$@""#, "sh", TESTBED]).args(init(place));
        Self::start_by(&mut shell, place)
    }

    fn start_by(command: &mut Command, place: Place) -> Self {
        static AGENTS: AtomicU32 = AtomicU32::new(0);
        let marker = format!("guarded-{}-{}-", std::process::id(), AGENTS.fetch_add(1, Ordering::Relaxed));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(process.stdout.take().unwrap());
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let pid = Pid::from_raw(process.id() as i32);
        let mut agent = Self { orders: process.stdin.take(), process, lines, unread: Vec::new(), marker, pid };
        agent.line("", |line| line == "ready");
        if place == Place::Init {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
            agent.pid = Pid::from_raw(children.trim().parse().unwrap());
        }
        agent
    }

    /// Runs a script of `sh` under a guard, for a minute unless told otherwise.
    pub fn spawn(&mut self, name: &str, script: &str) {
        self.run(name, &["sh", "-c", script]);
    }

    pub fn run(&mut self, name: &str, command: &[&str]) {
        let name = self.full(name);
        self.order(&json!({ "spawn": { "name": name, "command": command, "milliseconds": 60_000 } }));
        self.line(&name, |line| line == "spawned");
    }

    /// Sets the deadline to so many milliseconds from now.
    pub fn extend(&mut self, name: &str, milliseconds: u64) -> Boottime {
        let name = self.full(name);
        self.order(&json!({ "extend": { "name": name, "milliseconds": milliseconds } }));
        let line = self.line(&name, |line| line.starts_with("deadline "));
        Boottime::from_nanos(line["deadline ".len()..].parse().unwrap())
    }

    pub fn stop(&mut self, name: &str, grace_milliseconds: u64) {
        let name = self.full(name);
        self.order(&json!({ "stop": { "name": name, "milliseconds": grace_milliseconds } }));
    }

    pub fn let_go(&mut self, name: &str) {
        let name = self.full(name);
        self.order(&json!({ "drop": { "name": name } }));
    }

    fn order(&mut self, order: &Value) {
        writeln!(self.orders.as_mut().unwrap(), "{order}").unwrap();
    }

    /// Waits until this event has happened.
    pub fn event(&mut self, name: &str, event: &str) {
        let name = self.full(name);
        self.line(&name, |line| line == event);
    }

    /// Events until the end, which they include.
    pub fn events_to_the_end(&mut self, name: &str) -> Vec<String> {
        let name = self.full(name);
        let mut events = Vec::new();
        while !events.last().is_some_and(|event: &String| event.starts_with("Ended")) {
            events.push(self.line(&name, |_| true));
        }
        events
    }

    /// What a child wrote to standard output.
    pub fn output(&mut self, expected: &str) {
        self.line("", |line| line == expected);
    }

    /// The next line of this listener that fits; others of it stay unread.
    fn line(&mut self, name: &str, fits: impl Fn(&str) -> bool) -> String {
        let prefix = if name.is_empty() { String::new() } else { format!("{name} ") };
        let until = Instant::now() + PATIENCE;
        let mut next = 0;
        loop {
            while next == self.unread.len() {
                let line = self.lines.recv_timeout(until.saturating_duration_since(Instant::now()));
                self.unread.push(line.unwrap_or_else(|_| panic!("not said in time; what was: {:#?}", self.unread)));
            }
            if self.unread[next].strip_prefix(&prefix).is_some_and(&fits) {
                return self.unread.remove(next)[prefix.len()..].to_owned();
            }
            next += 1;
        }
    }

    /// A listener whose child and grandchild out of reach are both running.
    pub fn spawn_escaping(&mut self, name: &str) {
        self.spawn(name, ESCAPING);
        self.event(name, r#"Line(Resume("\"out\""))"#);
        self.event(name, "Line(Tick)");
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.marker)
    }

    /// Living processes of a listener, its guard included.
    pub fn living(&self, name: &str) -> Vec<Pid> {
        let entry = format!("BATON_LISTENER={}", self.full(name)).into_bytes();
        processes().filter(|pid| has_in_environment(*pid, &entry)).collect()
    }

    /// Those after an end: none but the guard, which has just said so, and soon not even that.
    pub fn assert_nothing_is_left(&self, name: &str) {
        let is_left = |words: &Vec<String>| {
            let has_ended_meanwhile = words.concat().is_empty();
            !has_ended_meanwhile && !names_a_guard(words)
        };
        let left: Vec<_> = self.living(name).into_iter().map(words).filter(is_left).collect();
        assert!(left.is_empty(), "{left:?}");
        self.wait_until_dead(name);
    }

    pub fn guard(&self, name: &str) -> Pid {
        self.living(name).into_iter().find(|pid| names_a_guard(&words(*pid))).expect("no guard")
    }

    /// The listener's command: the child of its guard with that name.
    pub fn child(&self, name: &str) -> Pid {
        let guard = self.guard(name);
        let children = fs::read_to_string(format!("/proc/{guard}/task/{guard}/children")).unwrap();
        let first = children.split_ascii_whitespace().next().expect("no child");
        Pid::from_raw(first.parse().unwrap())
    }

    /// Waits until nothing is alive of a listener; returns when that was seen.
    pub fn wait_until_dead(&self, name: &str) -> Boottime {
        until(&format!("{name} to be dead"), || self.living(name).is_empty().then(Boottime::now))
    }

    /// For a stopped or killed agent nothing is said any more.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid, signal).unwrap();
        if signal == Signal::SIGSTOP {
            wait_until_stopped(self.pid);
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = self.process.kill();
        let _ = self.process.wait();
        // What a failing test has left, or one of what does not hold.
        let mine = format!("BATON_LISTENER={}", self.marker).into_bytes();
        let until = Instant::now() + PATIENCE;
        loop {
            let left: Vec<_> = processes().filter(|pid| has_in_environment(*pid, &mine)).collect();
            if left.is_empty() || Instant::now() > until {
                return;
            }
            for pid in left {
                let _ = kill(pid, Signal::SIGKILL);
            }
            std::thread::sleep(LOOK);
        }
    }
}

fn init(place: Place) -> Vec<&'static str> {
    let init = (place == Place::Init).then_some("--init");
    ["guards", "--agent", AGENT].into_iter().chain(init).collect()
}

/// Looks until there is something.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited too long for {what}");
        std::thread::sleep(LOOK);
    }
}

pub fn wait_until_stopped(pid: Pid) {
    until("a process to stop", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.trim_start().starts_with('T').then_some(())
    });
}

fn processes() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok().map(Pid::from_raw))
}

/// Zombies have no environment.
fn has_in_environment(pid: Pid, beginning: &[u8]) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|entry| entry.starts_with(beginning))
}

fn names_a_guard(words: &[String]) -> bool {
    words.get(1).is_some_and(|word| word == "guard")
}

/// The command line; empty for who has ended.
fn words(pid: Pid) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}
