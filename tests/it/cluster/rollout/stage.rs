//! What a test stands on: a namespace, an operator of its own, and verbs.
use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use baton::api::{ConditionStatus, ConditionType, Rollout};
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Namespace, Pod},
    events::v1::Event,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::cluster::{
    api::kubectl_with,
    support::{TestCluster, output_of},
};

const OPERATOR: &str = env!("CARGO_BIN_EXE_baton-operator");

/// A program that runs until it is told to end. Hundreds of them stand about at the end of a run: a loop of short sleeps in
/// each takes a core.
pub const SLEEPER: &str = "#!/bin/sh\ntrap 'exit 0' TERM\nsleep infinity & wait\n";

/// The cluster of tests with simulated nodes. Its API server is never stopped.
pub fn simulated() -> &'static TestCluster {
    static CLUSTER: OnceLock<TestCluster> = OnceLock::new();
    CLUSTER.get_or_init(|| with_crds("rollouts-kwok", "kwok:3"))
}

/// The cluster of tests with real processes. Its API server is never stopped.
pub fn real() -> &'static TestCluster {
    static CLUSTER: OnceLock<TestCluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let cluster = with_crds("rollouts-process", "process");
        image(&cluster, "sleeper", "1", SLEEPER);
        image(&cluster, "sleeper", "2", SLEEPER);
        image(&cluster, "sleeper", "broken", "#!/bin/sh\nexit 1\n");
        cluster
    })
}

/// A cluster with the CRDs applied, as a user applies them.
pub fn with_crds(name: &str, nodes: &str) -> TestCluster {
    let cluster = TestCluster::start(name, nodes);
    cluster.kubectl(&["apply", "-f", concat!(env!("CARGO_MANIFEST_DIR"), "/crds")]);
    cluster.kubectl(&["wait", "--for=condition=Established", "crd/rollouts.baton.dev", "--timeout=30s"]);
    cluster
}

/// Puts a script where the process node looks for the image `example.local/NAME:TAG`.
pub fn image(cluster: &TestCluster, name: &str, tag: &str, script: &str) {
    program(cluster, name, tag, script.as_bytes());
}

/// The same with any program.
pub fn program(cluster: &TestCluster, name: &str, tag: &str, content: &[u8]) {
    use std::os::unix::fs::PermissionsExt;
    let folder = cluster.dir.join("images").join(name).join(tag);
    fs::create_dir_all(&folder).unwrap();
    let program = folder.join(name);
    fs::write(&program, content).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A namespace with an operator.
pub struct Stage {
    pub cluster: &'static TestCluster,
    pub namespace: String,
    pub client: Client,
    pub operator: Option<Child>,
    /// Where the operator finds the API server; the cluster's own unless a test puts something in between.
    pub kubeconfig: PathBuf,
    /// Where the operator's probes and metrics are, inside the cluster.
    pub bind: String,
    /// Further arguments of the operator.
    pub operator_args: Vec<String>,
    /// Whether the namespace goes with this value, so that its Pods make way for others.
    pub passing: bool,
}

impl Stage {
    /// A namespace called `name`, and an operator for it.
    pub async fn new(cluster: &'static TestCluster, name: &str) -> Self {
        let mut stage = Self::without_operator(cluster, name).await;
        stage.start_operator();
        stage
    }

    pub async fn without_operator(cluster: &'static TestCluster, name: &str) -> Self {
        let client = cluster.client().await;
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
        let kubeconfig = cluster.kubeconfig.clone();
        let (namespace, bind) = (name.to_owned(), "127.0.0.1:0".to_owned());
        Self { cluster, namespace, client, operator: None, kubeconfig, bind, operator_args: Vec::new(), passing: false }
    }

    /// Starts the operator as in one Pod whose container is restarted: a successor takes over at once. A test ends with
    /// its log when it fails.
    pub fn start_operator(&mut self) {
        let file = fs::OpenOptions::new().create(true).append(true).open(self.log_file()).unwrap();
        let state = self.cluster.dir.join("operators").join(&self.namespace);
        fs::create_dir_all(&state).unwrap();
        let mut command: Command = self.cluster.enter(OPERATOR);
        command
            .args(["--namespace", &self.namespace, "--lease-namespace", &self.namespace])
            .args(["--bind", &self.bind, "--state-dir"])
            .arg(state)
            .args(&self.operator_args)
            .env("POD_NAME", "operator")
            .env("POD_UID", &self.namespace)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("RUST_LOG", "info,baton::operator::reconcile=debug,baton::operator::shell=debug")
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file);
        self.operator = Some(command.spawn().unwrap());
    }

    /// kill -9, and nothing of it goes on.
    pub fn kill_operator(&mut self) {
        if let Some(mut operator) = self.operator.take() {
            operator.kill().unwrap();
            operator.wait().unwrap();
        }
    }

    /// What the operators of this test have logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.cluster.dir.join("logs").join(format!("operator-{}.log", self.namespace))
    }

    /// What the operator counts; `bind` must name a port.
    pub fn metrics(&self) -> String {
        let (host, port) = self.bind.rsplit_once(':').unwrap();
        let ask =
            format!("exec 3<>/dev/tcp/{host}/{port} || exit; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3");
        output_of(self.cluster.enter("bash").args(["-c", &ask]))
    }

    /// Waits until another operator leads than `before`; its identity.
    pub async fn next_leader(&self, before: &str) -> String {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            let lease = leases.get_opt("baton-operator").await.unwrap();
            let holder = lease.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default();
            if !holder.is_empty() && holder != before {
                return holder;
            }
            assert!(Instant::now() < deadline, "no operator leads after {before:?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn rollouts(&self) -> Api<Rollout> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Live Pods by name.
    pub async fn live(&self) -> Vec<Pod> {
        let pods = self.pods().list(&ListParams::default()).await.unwrap().items;
        pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect()
    }

    /// Waits until there are so many live Pods.
    pub async fn live_are(&self, seconds: u64, count: usize) -> Vec<Pod> {
        let deadline = Instant::now() + Duration::from_secs(seconds) * 2; // a safety net, not a measurement
        loop {
            let live = self.live().await;
            if live.len() == count {
                return live;
            }
            assert!(Instant::now() < deadline, "{} live Pods after {seconds} s, not {count}", live.len());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a Pod is Ready.
    pub async fn until_ready(&self, seconds: u64, name: &str) {
        let deadline = Instant::now() + Duration::from_secs(seconds) * 2; // a safety net, not a measurement
        loop {
            let pod = self.pods().get(name).await.unwrap();
            let conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
            if conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
                return;
            }
            assert!(Instant::now() < deadline, "{name} is not Ready after {seconds} s: {:?}", pod.status);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Applies a Rollout `web` of `sleeper` at `version`; `spec` on top of the defaults.
    pub async fn roll(&self, version: &str, spec: Value) {
        let mut object = json!({
            "apiVersion": "baton.dev/v1alpha1",
            "kind": "Rollout",
            "metadata": {"name": "web"},
            "spec": {
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {
                        "terminationGracePeriodSeconds": 1,
                        "containers": [{"name": "web", "image": format!("example.local/sleeper:{version}"), "command": ["sleeper"]}],
                    },
                },
            },
        });
        merge(&mut object["spec"], spec);
        let params = PatchParams::apply("test").force();
        self.rollouts().patch("web", &params, &Patch::Apply(&object)).await.unwrap();
    }

    /// Merge-patches the Rollout `web`.
    pub async fn patch(&self, patch: Value) {
        self.rollouts().patch("web", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Waits until the Rollout `web` is so; fails with its status and the operator's log.
    pub async fn until(&self, seconds: u64, what: &str, mut is: impl FnMut(&Rollout) -> bool) -> Rollout {
        let deadline = Instant::now() + Duration::from_secs(seconds) * 2; // a safety net, not a measurement
        loop {
            // A moment without API server is part of some tests.
            let found = self.rollouts().get("web").await;
            match found {
                Ok(rollout) if is(&rollout) => return rollout,
                other if Instant::now() > deadline => {
                    let status = other.map(|rollout| rollout.status);
                    let log = self.log();
                    let tail: Vec<&str> = log.lines().rev().take(40).collect();
                    let tail: Vec<&str> = tail.into_iter().rev().collect();
                    panic!("not within {seconds} s: {what}\nstatus: {status:#?}\noperator:\n{}", tail.join("\n"));
                }
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Waits until the present spec is complete.
    pub async fn complete(&self, seconds: u64) -> Rollout {
        self.until(seconds, "Ready, for the present spec", |rollout| reason(rollout) == "Complete").await
    }

    /// What Events of this reason say.
    pub async fn notes(&self, reason: &str) -> Vec<String> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let events = events.list(&ListParams::default()).await.unwrap().items;
        let of_reason = events.into_iter().filter(|event| event.reason.as_deref() == Some(reason));
        of_reason.filter_map(|event| event.note).collect()
    }

    /// Deletes a Pod as `kubectl delete pod` does.
    pub async fn delete_pod(&self, name: &str) {
        self.pods().delete(name, &DeleteParams::default()).await.unwrap();
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.kill_operator();
        if self.passing {
            self.cluster.try_kubectl(&["delete", "namespace", &self.namespace, "--wait=false"]);
        }
        if std::thread::panicking() {
            let log = self.log();
            println!("--- the operator of {}\n{log}---", self.namespace);
        }
    }
}

/// The Ready condition's reason, when status is about the present spec; else nothing.
pub fn reason(rollout: &Rollout) -> &str {
    let Some(status) = &rollout.status else { return "" };
    if status.observed_generation != rollout.metadata.generation {
        return "";
    }
    let ready = status.conditions.iter().find(|condition| condition.type_ == ConditionType::Ready);
    let ready = ready.filter(|ready| ready.observed_generation == rollout.metadata.generation);
    let Some(ready) = ready else { return "" };
    assert!(
        (ready.status == ConditionStatus::True) == ["Complete", "Unproven"].contains(&&*ready.reason)
            || (ready.reason == "Paused" && rollout.spec.paused),
        "Ready is {:?} for {}",
        ready.status,
        ready.reason
    );
    &ready.reason
}

/// status.run, 0 before the first.
pub fn run(rollout: &Rollout) -> i64 {
    rollout.status.as_ref().and_then(|status| status.run).unwrap_or(0)
}

/// The version label's hash of each live Pod, with its slot, sorted.
pub fn slots(pods: &[Pod]) -> Vec<(i32, String)> {
    let mut slots: Vec<(i32, String)> = pods
        .iter()
        .map(|pod| {
            let label = |key: &str| pod.metadata.labels.as_ref().and_then(|labels| labels.get(key)).cloned().unwrap();
            (label("baton.dev/instance").parse().unwrap(), label("baton.dev/revision"))
        })
        .collect();
    slots.sort();
    slots
}

pub fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// What `kubectl create --dry-run=server` makes of a Rollout with this in its spec, or what it complains of.
pub fn dry_run(spec: &Value) -> Result<Value, String> {
    let container = json!({"name": "web", "image": "example.local/sleeper:1"});
    let mut object = json!({
        "apiVersion": "baton.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}},
        },
    });
    merge(&mut object["spec"], spec.clone());
    let output = kubectl_with(&["create", "--dry-run=server", "-o", "json", "-f", "-"], &object);
    if output.status.success() {
        return Ok(serde_json::from_slice(&output.stdout).unwrap());
    }
    Err(String::from_utf8(output.stderr).unwrap())
}

/// Such a Rollout is refused, and told so.
#[track_caller]
pub fn assert_refused(spec: &Value, sentence: &str) {
    let message = dry_run(spec).expect_err("it is accepted");
    assert!(message.contains(sentence), "{spec}\nshould say: {sentence}\nbut says: {message}");
}
