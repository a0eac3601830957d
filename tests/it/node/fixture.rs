//! What the rows share: one cluster with process nodes, a namespace a row, and words to say what is awaited.
use std::{
    fs,
    path::PathBuf,
    sync::OnceLock,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStatus, Event, Namespace, Pod, PodCondition, ServiceAccount,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, LogParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::cluster::support::{TESTBED, TestCluster, folder, output_of};

/// A deadline is a safety net, not a measurement: machines are noisy.
const PATIENCE: u32 = 4;
/// An image without files: everything runs from the machine's own programs.
pub const IMAGE: &str = "example.local/sh:1.0";
/// The node on which rows run that do not harm it. Others have one of their own.
pub const NODE: &str = "process-1";
const NAME: &str = "process-node";
/// A Pod that is gone much sooner has not been waited for in vain, however busy the machine.
const LONG_GRACE_SECONDS: u64 = 300;
/// See [`LONG_GRACE_SECONDS`].
pub const MUCH_SOONER: u64 = 30;
const POLL: Duration = Duration::from_millis(30);

/// The cluster of all rows: `process-1` for most, the others for one row each that stops or freezes its node.
pub fn cluster() -> &'static TestCluster {
    static CLUSTER: OnceLock<TestCluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        for leftover in ["images", "shared"] {
            let _ = fs::remove_dir_all(folder(NAME).join(leftover)); // of an earlier run, or none
        }
        fs::create_dir_all(folder(NAME).join("images/sh/1.0")).unwrap();
        TestCluster::start(NAME, "process:7")
    })
}

/// A namespace in which one row plays.
pub struct Space {
    pub client: Client,
    pub namespace: String,
    pub node: String,
}

impl Space {
    pub async fn new(name: &str) -> Self {
        Self::on(NODE, name).await
    }

    /// With Pods on the given node.
    pub async fn on(node: &str, name: &str) -> Self {
        let client = cluster().client().await;
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
        let accounts = Api::<ServiceAccount>::namespaced(client.clone(), name);
        until(30, "a service account", async || accounts.get_opt("default").await.unwrap()).await;
        Self { client, namespace: name.to_owned(), node: node.to_owned() }
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// A folder of the machine that Pods can mount by hostPath.
    pub fn folder(&self) -> PathBuf {
        let folder = cluster().dir.join("shared").join(&self.namespace);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// The folder as a volume called `shared`.
    pub fn shared(&self) -> Value {
        json!({ "name": "shared", "hostPath": { "path": self.folder(), "type": "Directory" } })
    }

    /// What is in a file of the folder; nothing if it is not there.
    pub fn shared_file(&self, name: &str) -> String {
        fs::read_to_string(self.folder().join(name)).unwrap_or_default()
    }

    /// Waits until a file of the folder has exactly this content.
    pub async fn until_file(&self, name: &str, content: &str) {
        let what = format!("{content:?} in {name}");
        until(10, &what, async || (self.shared_file(name) == content).then_some(())).await;
    }

    /// Creates a Pod of one container, `main`.
    pub async fn run(&self, name: &str, container: &Value) -> Pod {
        self.create(name, json!({ "containers": [container] })).await
    }

    /// Creates a Pod; it lands on the space's node and has a long grace period unless it says otherwise.
    pub async fn create(&self, name: &str, mut spec: Value) -> Pod {
        merge(
            &mut spec,
            &[("nodeName", json!(self.node)), ("terminationGracePeriodSeconds", json!(LONG_GRACE_SECONDS))],
        );
        let pod = json!({ "metadata": { "name": name, "labels": { "app": name } }, "spec": spec });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        self.pods().create(&PostParams::default(), &pod).await.unwrap()
    }

    /// Waits for what `check` finds in the Pod.
    pub async fn until<T>(&self, name: &str, seconds: u64, what: &str, check: impl Fn(&Pod) -> Option<T>) -> T {
        let pods = self.pods();
        let deadline = Instant::now() + Duration::from_secs(seconds) * PATIENCE;
        loop {
            let pod = pods.get(name).await.unwrap_or_else(|error| panic!("{what}: {error}"));
            if let Some(found) = check(&pod) {
                return found;
            }
            let status = serde_json::to_string_pretty(&pod.status).unwrap();
            assert!(Instant::now() < deadline, "{name}: not within {seconds} s: {what}\n{status}");
            sleep(POLL).await;
        }
    }

    pub async fn until_ready(&self, name: &str) -> Pod {
        self.until(name, 20, "to be Ready", |pod| (condition(pod, "Ready").status == "True").then(|| pod.clone())).await
    }

    /// Waits until the Pod is Ready and the script of `main`, a [`looping`] one, feels SIGTERM.
    pub async fn until_up(&self, name: &str) -> Pod {
        self.until_log(name, "up").await;
        self.until_ready(name).await
    }

    pub async fn until_phase(&self, name: &str, wanted: &str) -> Pod {
        self.until(name, 20, wanted, |pod| (phase(pod) == wanted).then(|| pod.clone())).await
    }

    /// Waits until `main` waits for this reason.
    pub async fn until_waiting(&self, name: &str, seconds: u64, reason: &str) -> Pod {
        let waits = |pod: &Pod| (waiting(main(pod)?)?.0 == reason).then(|| pod.clone());
        self.until(name, seconds, reason, waits).await
    }

    /// Waits until `main` has been restarted so often and runs.
    pub async fn until_restarted(&self, name: &str, seconds: u64, restarts: i32) -> Pod {
        let check = |pod: &Pod| {
            let main = main(pod)?;
            (main.restart_count >= restarts && state(main).running.is_some()).then(|| pod.clone())
        };
        self.until(name, seconds, "a restart", check).await
    }

    pub async fn delete(&self, name: &str) {
        self.pods().delete(name, &DeleteParams::default()).await.unwrap();
    }

    pub async fn delete_with_grace(&self, name: &str, seconds: u32) {
        self.pods().delete(name, &DeleteParams::default().grace_period(seconds)).await.unwrap();
    }

    /// Waits until the Pod is gone; returns how long that took.
    pub async fn gone(&self, name: &str, seconds: u64) -> Duration {
        let begun = Instant::now();
        let pods = self.pods();
        until(seconds, &format!("{name} to be gone"), async || match pods.get_opt(name).await.unwrap() {
            Some(_) => None,
            None => Some(()),
        })
        .await;
        begun.elapsed()
    }

    /// Merges into the Pod.
    pub async fn patch(&self, name: &str, patch: Value) {
        self.pods().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    pub async fn patch_status(&self, name: &str, patch: Value) {
        self.pods().patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    }

    /// The messages of the Pod's events with this reason.
    pub async fn events(&self, name: &str, reason: &str) -> Vec<String> {
        let events = Api::<Event>::namespaced(self.client.clone(), &self.namespace);
        let selector = format!("involvedObject.name={name},reason={reason}");
        let events = events.list(&ListParams::default().fields(&selector)).await.unwrap().items;
        events.into_iter().filter_map(|event| event.message).collect()
    }

    pub async fn until_event(&self, name: &str, reason: &str, part: &str) {
        let what = format!("an event {reason} of {name} with {part:?}");
        until(15, &what, async || self.events(name, reason).await.into_iter().find(|message| message.contains(part)))
            .await;
    }

    /// `kubectl ARGS` in this namespace.
    pub fn kubectl(&self, args: &[&str]) -> String {
        cluster().kubectl(&[&["--namespace", &self.namespace], args].concat())
    }

    pub fn log(&self, name: &str) -> String {
        self.kubectl(&["logs", name])
    }

    /// Waits until the log of `main` has this part.
    pub async fn until_log(&self, name: &str, part: &str) -> String {
        self.until_log_of(name, "main", part).await
    }

    pub async fn until_log_of(&self, name: &str, container: &str, part: &str) -> String {
        until(15, &format!("{part:?} in the log of {name}"), async || {
            // Refused as long as the container waits.
            let params = LogParams { container: Some(container.into()), ..LogParams::default() };
            self.pods().logs(name, &params).await.ok().filter(|log| log.contains(part))
        })
        .await
    }

    /// The process id, within the cluster, of the process of a container that runs.
    pub fn pid(&self, pod: &Pod, container: &str, number: u32) -> i32 {
        let text = fs::read_to_string(self.start_of(pod, container, number)).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["pid"].as_i64().unwrap() as i32
    }

    /// The file that is there once the process of this start of a container is.
    pub fn start_of(&self, pod: &Pod, container: &str, number: u32) -> PathBuf {
        let containers = self.state().join("pods").join(pod.uid().unwrap()).join("containers");
        containers.join(container).join(number.to_string()).join("started.json")
    }

    /// The state folder of the space's node.
    pub fn state(&self) -> PathBuf {
        cluster().dir.join("node").join(&self.node)
    }

    /// `baton-testbed node-ctl ARGS` for the space's node.
    pub fn control(&self, args: &[&str]) {
        let mut command = std::process::Command::new(TESTBED);
        output_of(command.arg("node-ctl").arg("--state").arg(self.state()).args(args));
    }
}

/// Signals a process of the cluster.
pub fn signal(name: &str, pid: i32) {
    output_of(cluster().enter("sh").args(["-c", &format!("kill -{name} {pid}")]));
}

/// Whether a process of the cluster lives.
pub fn lives(pid: i32) -> bool {
    let alive = format!("kill -0 {pid} 2>/dev/null && echo yes || echo no");
    output_of(cluster().enter("sh").args(["-c", &alive])).trim() == "yes"
}

/// Whether a process of the cluster is stopped.
pub fn stopped(pid: i32) -> bool {
    stat(pid).starts_with('T')
}

/// The fields of /proc/PID/stat of a process of the cluster, from the third on: its state, its parent, …
pub fn stat(pid: i32) -> String {
    let text = output_of(cluster().enter("cat").arg(format!("/proc/{pid}/stat")));
    text.rsplit(") ").next().unwrap().to_owned()
}

/// Waits for what `look` finds.
pub async fn until<T>(seconds: u64, what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds) * PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {seconds} s: {what}");
        sleep(POLL).await;
    }
}

/// A container `main` that runs a shell script.
pub fn sh(script: &str) -> Value {
    named_sh("main", script)
}

pub fn named_sh(name: &str, script: &str) -> Value {
    json!({ "name": name, "image": IMAGE, "command": ["sh", "-c", script] })
}

/// A script that runs until it is told to end, and then ends with 0.
pub fn idle() -> String {
    looping("exit 0")
}

/// A script that answers SIGTERM with a command of the shell, and says `up` from when on it does.
pub fn looping(on_term: &str) -> String {
    format!("trap '{on_term}' TERM; echo up; while :; do sleep 0.1; done")
}

/// A probe that succeeds while a file of the Pod's volume `/shared` exists, and whose answers count at once.
pub fn exists(file: &str) -> Value {
    json!({ "exec": { "command": ["test", "-e", format!("/shared/{file}")] }, "periodSeconds": 1, "failureThreshold": 1 })
}

/// The container with further fields.
pub fn with(mut container: Value, fields: Value) -> Value {
    let (Value::Object(container_fields), Value::Object(fields)) = (&mut container, fields) else { panic!("objects") };
    container_fields.extend(fields);
    container
}

fn merge(spec: &mut Value, defaults: &[(&str, Value)]) {
    for (field, value) in defaults {
        if spec.get(*field).is_none() {
            spec[*field] = value.clone();
        }
    }
}

pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

pub fn condition(pod: &Pod, kind: &str) -> PodCondition {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().find(|condition| condition.type_ == kind).cloned().unwrap_or_default()
}

pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let mut all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    all.find(|container| container.name == name)
}

pub fn main(pod: &Pod) -> Option<&ContainerStatus> {
    container(pod, "main")
}

pub fn state(container: &ContainerStatus) -> ContainerState {
    container.state.clone().unwrap_or_default()
}

pub fn last_state(container: &ContainerStatus) -> ContainerState {
    container.last_state.clone().unwrap_or_default()
}

/// Reason and message.
pub fn waiting(container: &ContainerStatus) -> Option<(String, String)> {
    let waiting = state(container).waiting?;
    Some((waiting.reason.unwrap_or_default(), waiting.message.unwrap_or_default()))
}

/// Exit code and reason of the present state or else of the last.
pub fn ended(container: &ContainerStatus) -> Option<(i32, String)> {
    let terminated = state(container).terminated.or(last_state(container).terminated)?;
    Some((terminated.exit_code, terminated.reason.unwrap_or_default()))
}
