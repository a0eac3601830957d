//! Clusters for tests.
//!
//! A cluster takes a few seconds to start, so tests share one where they can: [`shared`] has simulated
//! nodes only, and each test works in a namespace of its own. A missing program fails the test, and
//! says how to get it.
use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Output, Stdio},
    sync::OnceLock,
    thread::sleep,
    time::{Duration, Instant},
};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

/// Test equipment, built with these tests.
pub const TESTBED: &str = env!("CARGO_BIN_EXE_baton-testbed");
/// Where `make control-plane` puts its programs.
pub const BIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/control-plane/bin");

/// A cluster that ends with this value, or with the test process, however that ends.
pub struct TestCluster {
    /// Holds `kubeconfig`, `images/`, `logs/`, `node/` and `enter`. It stays when the cluster ends,
    /// for its logs, until a cluster of the same name starts.
    pub dir: PathBuf,
    /// An administrator's.
    pub kubeconfig: PathBuf,
    pub supervisor: Child,
    /// The supervisor's standard input: the cluster ends when it closes.
    lifeline: Option<ChildStdin>,
}

impl TestCluster {
    /// Starts a cluster with `nodes` as `--nodes` takes them, and returns when it is ready. Its
    /// `name` must differ from that of any other cluster in the tests.
    pub fn start(name: &str, nodes: &str) -> Self {
        Self::start_with(name, nodes, &[])
    }

    /// The same with more arguments of `cluster up`.
    pub fn start_with(name: &str, nodes: &str, args: &[&str]) -> Self {
        // That of a test program that has just ended may still be ending.
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match Self::try_start(name, nodes, args) {
                Ok(cluster) => return cluster,
                Err(why) if why.contains("another cluster is running") && Instant::now() < deadline => {}
                Err(why) => panic!("no cluster: {why}"),
            }
            sleep(Duration::from_millis(100));
        }
    }

    fn try_start(name: &str, nodes: &str, args: &[&str]) -> Result<Self, String> {
        let mut supervisor = supervise(name, nodes).args(args).spawn().expect("cannot start the supervisor");
        let progress = BufReader::new(supervisor.stdout.take().expect("a pipe"));
        let mut told = Vec::new();
        for line in progress.lines().map_while(Result::ok) {
            if line.starts_with("export KUBECONFIG=") {
                let dir = folder(name);
                let lifeline = supervisor.stdin.take();
                return Ok(Self { kubeconfig: dir.join("kubeconfig"), dir, supervisor, lifeline });
            }
            told.push(line);
        }
        let output = supervisor.wait_with_output().expect("cannot wait for the supervisor");
        Err(format!("{}\n{}", told.join("\n"), String::from_utf8_lossy(&output.stderr)))
    }

    /// An administrator's client. Each test makes its own: a client belongs to the test's runtime.
    pub async fn client(&self) -> Client {
        let file = Kubeconfig::read_from(&self.kubeconfig).expect("cannot read the kubeconfig");
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        Client::try_from(config.expect("the kubeconfig makes no sense")).expect("cannot make a client")
    }

    /// A command that will run inside, where Pod addresses can be reached.
    pub fn enter(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(self.dir.join("enter"));
        command.arg(program).env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// What `kubectl ARGS` prints; it must succeed. It runs outside.
    pub fn kubectl(&self, args: &[&str]) -> String {
        output_of(&mut self.kubectl_command(args))
    }

    /// What comes of `kubectl ARGS`, which may fail.
    pub fn try_kubectl(&self, args: &[&str]) -> Output {
        self.kubectl_command(args).output().unwrap()
    }

    fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(Path::new(BIN).join("kubectl"));
        command.args(args).env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// What `baton-testbed cluster ARGS --dir DIR` prints; it must succeed.
    pub fn testbed(&self, args: &[&str]) -> String {
        output_of(Command::new(TESTBED).arg("cluster").args(args).arg("--dir").arg(&self.dir))
    }

    /// Restarts the API server, with more `args` if any, and returns when it answers again.
    pub fn restart_api_server(&self, args: &[&str]) {
        self.testbed(&[&["restart", "kube-apiserver"], args].concat());
        let mut ready = Command::new(Path::new(BIN).join("kubectl"));
        ready.args(["get", "--raw", "/readyz"]).env("KUBECONFIG", &self.kubeconfig);
        eventually(60, "the API server to be ready again", || ready.output().is_ok_and(|told| told.status.success()));
    }

    /// The process id, as seen inside, of a component or process node; nothing if it does not run.
    pub fn pid(&self, name: &str) -> Option<u32> {
        let status = self.testbed(&["status"]);
        let mut rows = status.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let row = rows.find(|row| row.first() == Some(&name)).unwrap_or_else(|| panic!("no {name}: {status}"));
        row[1].parse().ok()
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        // The supervisor returns when everything has ended.
        let _ = self.supervisor.wait();
    }
}

/// The cluster of tests that need simulated nodes only.
pub fn shared() -> &'static TestCluster {
    static SHARED: OnceLock<TestCluster> = OnceLock::new();
    SHARED.get_or_init(|| TestCluster::start("shared", "kwok:3"))
}

/// The folder of the cluster called `name`.
pub fn folder(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clusters").join(name);
    fs::create_dir_all(&dir).expect("cannot make the cluster's folder");
    dir.canonicalize().expect("the folder was just made")
}

/// A supervisor in the foreground that ends when its standard input does.
pub fn supervise(name: &str, nodes: &str) -> Command {
    let mut command = Command::new(TESTBED);
    command
        .args(["cluster", "up", "--foreground", "--lifeline", "always", "--nodes", nodes, "--bin", BIN, "--dir"])
        .arg(folder(name))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// What a command prints on standard output; a failure ends the test with everything it printed.
pub fn output_of(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    assert!(status.success(), "{command:?}: {status}\n{stdout}\n{}", String::from_utf8_lossy(&stderr));
    stdout
}

/// All living processes of the machine, those in clusters included: process id and arguments.
pub fn processes() -> Vec<(u32, Vec<String>)> {
    let process = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let args = String::from_utf8_lossy(&line);
        Some((pid, args.trim_end_matches('\0').split('\0').map(str::to_owned).collect()))
    };
    fs::read_dir("/proc").expect("cannot read /proc").flatten().filter_map(process).collect()
}

/// The command lines of living processes that name `dir`, as all of a cluster's own do.
pub fn processes_of(dir: &Path) -> Vec<String> {
    let (dir, below) = (dir.display().to_string(), format!("{}/", dir.display()));
    let ours = processes().into_iter().filter(|(_, args)| args.iter().any(|arg| *arg == dir || arg.contains(&below)));
    ours.map(|(_, args)| args.join(" ")).collect()
}

/// The process ids of what runs `sleep SECONDS`.
pub fn sleepers(seconds: &str) -> Vec<u32> {
    let all = processes().into_iter();
    all.filter(|(_, args)| *args == ["sleep", seconds]).map(|(pid, _)| pid).collect()
}

/// Waits until `check` holds; after `seconds` without, fails and says what did not happen.
pub fn eventually(seconds: u64, what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !check() {
        assert!(Instant::now() < deadline, "not within {seconds} s: {what}");
        sleep(Duration::from_millis(20));
    }
}
