//! Agents as processes, an API server in this one, and the test in the place of the controller.
use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    ops::RangeInclusive,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use baton::{
    api::names,
    operator::clock::Clock,
    snapshot::{
        lease::Holder,
        report::{AgentInfo, Report},
    },
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{
    agent::fixture::{AGENT, TESTBED, until},
    fake_apiserver::{
        ApiServer, Options,
        actor::Actor,
        delete::DeleteOptions,
        faults::{Fate, Faults, Request, StreamFate, StreamInfo, Then},
        kinds::LEASES,
        socket,
        store::Store,
    },
};

const NAMESPACE: &str = "shop";
/// How late a machine that is busy with other tests may make a process be.
const SLACK: u128 = 700_000_000;
/// How often it may spoil a measurement.
const TRIES: usize = 5;

/// Nanoseconds since 1970, as `date +%s%N` writes them.
pub fn wall() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()
}

/// Whether it happened between these times, give or take what is a busy machine's.
pub fn is_timely(at: u128, window: &RangeInclusive<u128>) -> bool {
    let is_timely = at + SLACK >= *window.start() && at <= *window.end() + SLACK;
    let millis = |at: u128| at as f64 / 1e6 - *window.start() as f64 / 1e6;
    println!("{:.0} ms after the first moment of {:.0}", millis(at), millis(*window.end()));
    is_timely
}

/// Plays a scene until it says that all was timely. What must hold however slow the machine is, it asserts each time.
pub fn until_timely(scene: impl Fn() -> bool) {
    assert!((0..TRIES).any(|_| scene()), "{TRIES} times too late or too early");
}

/// Notes its start and its end in the log, and ends on SIGTERM.
pub const POLITE: &str = r#"
    note() { echo "$1 $BATON_LISTENER $(date +%s%N) $BATON_FENCE_TOKEN $BATON_RESUME" >>"$LOG"; }
    trap 'note stop; exit 0' TERM
    note start
    while :; do sleep 0.02; done"#;
/// The same, but does not care for SIGTERM.
pub const DEAF: &str = r#"
    trap '' TERM
    echo "start $BATON_LISTENER $(date +%s%N) $BATON_FENCE_TOKEN $BATON_RESUME" >>"$LOG"
    while :; do echo "beat $BATON_LISTENER $(date +%s%N) - -" >>"$LOG"; sleep 0.05; done"#;

/// What a fault does to requests, by verb and name of the object.
pub type Decide = Box<dyn FnMut(&Request) -> Then + Send>;

/// Faults that a test switches while it runs.
#[derive(Clone, Default)]
pub struct Switch(Arc<Mutex<Decided>>);

#[derive(Default)]
struct Decided {
    before: Option<Decide>,
    after: Option<Decide>,
    is_silent: bool,
}

impl Switch {
    /// What becomes of requests.
    pub fn before(&self, decide: impl FnMut(&Request) -> Then + Send + 'static) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).before = Some(Box::new(decide));
    }

    /// What becomes of answers.
    pub fn after(&self, decide: impl FnMut(&Request) -> Then + Send + 'static) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).after = Some(Box::new(decide));
    }

    /// Nothing arrives and nothing is told, as if the network were cut.
    pub fn cut(&self) {
        self.before(|_| Then::Lose);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_silent = true;
    }

    /// All is well again.
    pub fn off(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Decided::default();
    }
}

impl Faults for Switch {
    fn before(&mut self, request: &Request, _: &Store) -> Fate {
        let mut decided = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Fate::now(decided.before.as_mut().map_or(Then::Deliver, |decide| decide(request)))
    }

    fn after(&mut self, request: &Request, _: u16, _: &Store) -> Fate {
        let mut decided = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Fate::now(decided.after.as_mut().map_or(Then::Deliver, |decide| decide(request)))
    }

    fn stream(&mut self, _: &StreamInfo) -> StreamFate {
        let is_silent = self.0.lock().unwrap_or_else(PoisonError::into_inner).is_silent;
        StreamFate { silent_after: is_silent.then_some(Duration::ZERO), ..StreamFate::default() }
    }
}

/// A line of the log that children write.
#[derive(Clone, Debug)]
pub struct Note {
    pub what: String,
    /// Wall clock, nanoseconds.
    pub at: u128,
    pub token: String,
    pub resume: String,
}

pub struct Stage {
    pub server: ApiServer,
    pub controller: Actor,
    pub faults: Switch,
    folder: tempfile::TempDir,
    address: String,
    _runtime: Runtime,
}

impl Stage {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (server, faults) = runtime.block_on(async {
            let server = ApiServer::new(Options::new(7, Clock::system()));
            let faults = Switch::default();
            server.set_faults(faults.clone());
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            tokio::spawn(socket::serve(server.clone(), listener));
            (server, faults)
        });
        let folder = tempfile::tempdir().unwrap();
        let controller = server.actor("controller");
        Self { server, controller, faults, folder, address, _runtime: runtime }
    }

    /// With Pod `a`, whose session has this profile, and whose listener `one`, with more settings, has started this script.
    pub fn running(profile: &str, script: &str, more: &Value) -> (Self, Agent, Holder) {
        let stage = Self::new();
        let agent = stage.agent("a", &[], script);
        stage.session("a", profile);
        let me = stage.identity("a");
        stage.listener("one", Some(&me), more);
        agent.note("start", 1);
        (stage, agent, me)
    }

    /// Starts the agent of a Pod, whose listeners run this script of `sh`.
    pub fn agent(&self, pod: &str, args: &[&str], script: &str) -> Agent {
        self.start("exec", pod, args, &["--", "sh", "-c", script])
    }

    /// Starts the agent of a Pod, whose listeners run in an application beside it.
    pub fn sidecar(&self, pod: &str, args: &[&str]) -> Agent {
        self.start("serve", pod, args, &[])
    }

    /// Starts the agent of a Pod with these arguments, before and after its own.
    pub fn start(&self, verb: &str, pod: &str, args: &[&str], tail: &[&str]) -> Agent {
        let folder = self.folder.path().join(pod);
        fs::create_dir_all(&folder).unwrap();
        let kubeconfig = folder.join("kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": self.address}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": NAMESPACE}}],
        });
        fs::write(&kubeconfig, config.to_string()).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = folder.join("agent.log");
        let stderr = fs::File::options().create(true).append(true).open(&log).unwrap();
        let mut command = Command::new(AGENT);
        command.arg(verb).arg("--state-dir").arg(&folder).arg("--kubeconfig").arg(&kubeconfig);
        command.args(["--port", &port.to_string(), "--log-level", "info,baton=debug"]).args(args).args(tail);
        command
            .env("BATON_POD_NAME", pod)
            .env("BATON_POD_UID", format!("uid-{pod}"))
            .env("BATON_POD_NAMESPACE", NAMESPACE);
        command.env("BATON_REVISION", "r1").env("LOG", folder.join("children.log")).env_remove("RUST_LOG");
        let process = command.stdin(Stdio::null()).stderr(stderr).spawn().unwrap();
        Agent { process, pod: pod.to_owned(), port, folder }
    }

    /// Starts an application beside the agent of a Pod, on the SDK; see `baton-testbed application`.
    pub fn application(&self, pod: &str) -> Application {
        let folder = self.folder.path().join(pod);
        let stderr = fs::File::options().create(true).append(true).open(folder.join("application.log")).unwrap();
        let mut command = Command::new(TESTBED);
        command.arg("application").env("BATON_STATE_DIR", &folder).env("LOG", folder.join("children.log"));
        command.env("BATON_POD_NAME", pod).env_remove("RUST_LOG").env_remove("BATON_PORT");
        let process = command.stdin(Stdio::null()).stderr(stderr).spawn().unwrap();
        Application { process, folder }
    }

    /// With Pod `a`, whose session has this profile, and whose listener `one` of this manner runs in an application.
    pub fn beside(profile: &str, manner: &str, more: &Value) -> (Self, Agent, Application, Holder) {
        let stage = Self::new();
        let agent = stage.sidecar("a", &[]);
        let application = stage.application("a");
        stage.session("a", profile);
        let me = stage.identity("a");
        let mut settings = json!({"config": {"manner": manner}});
        json_patch::merge(&mut settings, more);
        stage.listener("one", Some(&me), &settings);
        agent.note("start", 1);
        stage.wait_until_running("a", &[("one", 1)]);
        (stage, agent, application, me)
    }

    /// Makes a Pod's session Lease.
    pub fn session(&self, pod: &str, profile: &str) {
        let lease = json!({
            "metadata": {
                "name": format!("session.{pod}"), "labels": {"baton.dev/lease": "session"},
                "annotations": {"baton.dev/profile": profile},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": format!("uid-{pod}")}],
            },
            "spec": {"leaseTransitions": 0, "leaseDurationSeconds": 15},
        });
        self.controller.create(&LEASES, NAMESPACE, lease).unwrap();
    }

    /// Waits until the agent of a Pod has claimed its session.
    pub fn identity(&self, pod: &str) -> Holder {
        until(&format!("{pod} to claim its session"), || self.identity_now(pod))
    }

    /// Who holds a Pod's session now.
    pub fn identity_now(&self, pod: &str) -> Option<Holder> {
        Holder::parse(self.lease(&format!("session.{pod}"))["spec"]["holderIdentity"].as_str()?)
    }

    /// Open watches say nothing more.
    pub fn silence_watches(&self) {
        let silent = StreamFate { silent_after: Some(Duration::ZERO), ..StreamFate::default() };
        self.server.change_fates(|_| true, &silent);
    }

    /// Makes the ownership Lease of a listener of the set `bots`, with more settings.
    pub fn listener(&self, name: &str, holder: Option<&Holder>, more: &Value) {
        self.listener_again("uid-set", 1, name, holder, more);
    }

    /// The same of a set `bots` with this uid, and with this epoch.
    pub fn listener_again(&self, set_uid: &str, epoch: u32, name: &str, holder: Option<&Holder>, more: &Value) {
        let mut settings = json!({
            "config": {"feed": name}, "useProxy": false, "connectTimeoutSeconds": 5, "startTimeoutSeconds": 30,
            "stopTimeoutSeconds": 10, "checkpointSeconds": 0,
        });
        json_patch::merge(&mut settings, more);
        let mut lease = json!({
            "metadata": {
                "name": format!("listener.bots.{name}"),
                "labels": {
                    "baton.dev/lease": "listener", "baton.dev/listener-set": "bots", "baton.dev/holder": label(holder),
                },
                "annotations": {
                    "baton.dev/listener": name, "baton.dev/config": settings.to_string(), "baton.dev/config-hash": "c1",
                },
                "ownerReferences": [{"apiVersion": "baton.dev/v1alpha1", "kind": "ListenerSet", "name": "bots",
                    "uid": set_uid, "controller": true, "blockOwnerDeletion": false}],
            },
            "spec": {"holderIdentity": holder.map(ToString::to_string), "leaseTransitions": epoch},
        });
        if holder.is_none() {
            lease["metadata"]["labels"].as_object_mut().unwrap().remove("baton.dev/holder");
            lease["spec"].as_object_mut().unwrap().remove("holderIdentity");
        }
        self.controller.create(&LEASES, NAMESPACE, lease).unwrap();
    }

    /// Tells an agent what to do for the set `bots`.
    pub fn inbox(&self, pod: &str, letters: &Value) {
        self.edit(&format!("session.{pod}"), |lease| {
            lease["metadata"]["annotations"]["inbox.baton.dev/bots"] = letters.to_string().into();
        });
    }

    pub fn edit(&self, lease: &str, edit: impl FnMut(&mut Value)) {
        self.controller.edit(&LEASES, NAMESPACE, lease, edit).unwrap();
    }

    pub fn delete(&self, lease: &str) {
        self.controller.delete(&LEASES, NAMESPACE, lease, &DeleteOptions::default()).unwrap();
    }

    /// A Lease as it is; null when there is none.
    pub fn lease(&self, name: &str) -> Value {
        self.controller.get(&LEASES, NAMESPACE, name).map_or(Value::Null, |lease| lease.value().clone())
    }

    /// Whose a listener is, and its epoch.
    pub fn owner(&self, listener: &str) -> (String, u64) {
        let spec = self.lease(&format!("listener.bots.{listener}"))["spec"].clone();
        let holder = spec["holderIdentity"].as_str().unwrap_or_default();
        (holder.to_owned(), spec["leaseTransitions"].as_u64().unwrap_or(0))
    }

    pub fn wait_for_owner(&self, listener: &str, holder: &str, epoch: u64) {
        let wanted = (holder.to_owned(), epoch);
        until(&format!("{listener} to be {holder:?}'s with epoch {epoch}, not {:?}", self.owner(listener)), || {
            (self.owner(listener) == wanted).then_some(())
        });
    }

    pub fn report(&self, pod: &str) -> Option<Report> {
        let lease = self.lease(&format!("session.{pod}"));
        serde_json::from_str(lease["metadata"]["annotations"]["report.baton.dev/bots"].as_str()?).ok()
    }

    pub fn info(&self, pod: &str) -> Option<AgentInfo> {
        let lease = self.lease(&format!("session.{pod}"));
        serde_json::from_str(lease["metadata"]["annotations"]["baton.dev/agent"].as_str()?).ok()
    }

    /// Waits until a Pod reports that of these listeners, with these epochs, each runs.
    pub fn wait_until_running(&self, pod: &str, held: &[(&str, u32)]) {
        until(&format!("{pod} to run {held:?}"), || {
            let runs = self.report(pod)?.running(held)?;
            runs.iter().all(|runs| *runs).then_some(())
        });
    }

    /// Cuts agents off: requests are lost, and open watches say nothing more.
    pub fn cut(&self) {
        self.faults.cut();
        self.silence_watches();
    }
}

fn label(holder: Option<&Holder>) -> Option<String> {
    holder.map(|holder| names::holder_label(&holder.to_string()))
}

/// The agent of a Pod.
pub struct Agent {
    process: Child,
    pub pod: String,
    pub port: u16,
    pub folder: PathBuf,
}

impl Agent {
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id() as i32)
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits until the process has ended.
    pub fn wait(&mut self) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(begin.elapsed() < Duration::from_secs(30), "the agent does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// What its local server answers to a GET: the status code; 0 before it listens.
    pub fn get(&self, path: &str) -> u16 {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return 0 };
        write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// What requests to its local API must have: the folder is the one that the containers of the Pod share.
    pub fn token(&self) -> String {
        fs::read_to_string(self.folder.join("agent.token")).unwrap_or_default()
    }

    /// What a preStop hook runs.
    pub fn drain(&self) -> Child {
        let mut command = Command::new(AGENT);
        command.args(["drain", "--wait", "--port", &self.port.to_string(), "--state-dir"]).arg(&self.folder);
        command.spawn().unwrap()
    }

    /// Kilobytes of memory that are its own.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("agent.log")).unwrap_or_default()
    }

    /// What its children have noted.
    pub fn notes(&self) -> Vec<Note> {
        let text = fs::read_to_string(self.folder.join("children.log")).unwrap_or_default();
        let note = |line: &str| {
            let mut words = line.splitn(5, ' ').map(str::to_owned);
            Some(Note {
                what: words.next()?,
                at: words.nth(1)?.parse().ok()?, // behind the listener's name
                token: words.next()?,
                resume: words.next().unwrap_or_default(),
            })
        };
        text.lines().filter_map(note).collect()
    }

    /// Waits for the note of this kind with this number, from 1.
    pub fn note(&self, what: &str, number: usize) -> Note {
        until(&format!("{what} {number} in {}: {:#?}", self.pod, self.notes()), || {
            self.notes().into_iter().filter(|note| note.what == what).nth(number - 1)
        })
    }

    pub fn count(&self, what: &str) -> usize {
        self.notes().iter().filter(|note| note.what == what).count()
    }
}

/// An application beside an agent.
pub struct Application {
    process: Child,
    folder: PathBuf,
}

impl Application {
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id() as i32), signal).unwrap();
    }

    /// Waits until the process has ended.
    pub fn wait(&mut self) -> ExitStatus {
        until("an application to end", || self.process.try_wait().unwrap())
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("application.log")).unwrap_or_default()
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("application:\n{}", self.log());
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("agent of {}:\n{}", self.pod, self.log());
        }
    }
}
