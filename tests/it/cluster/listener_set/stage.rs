//! What tests of ListenerSets stand on: an operator, Pods with agents, and an exchange that judges from outside.
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use baton::api::{ListenerSet, names};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::ServiceAccount, rbac::v1::RoleBinding};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::cluster::{
    rollout::{
        faults::Proxy,
        stage::{SLEEPER, Stage, image, merge, program, with_crds},
    },
    support::{TESTBED, TestCluster, output_of},
};

const AGENT: &str = env!("CARGO_BIN_EXE_baton-agent");

/// The cluster of most of these tests: real processes as Pods.
pub fn cluster() -> &'static TestCluster {
    static CLUSTER: OnceLock<TestCluster> = OnceLock::new();
    CLUSTER.get_or_init(|| cluster_of("listener-sets", "process"))
}

/// One with what agents need, and their images.
pub fn cluster_of(name: &str, nodes: &str) -> TestCluster {
    let cluster = with_crds(name, nodes);
    let root = env!("CARGO_MANIFEST_DIR");
    cluster.kubectl(&["apply", "-f", &format!("{root}/config/rbac/agent_role.yaml")]);
    cluster.kubectl(&["apply", "-f", &format!("{root}/config/policy/leases.yaml")]);
    for version in ["1", "2", "fails"] {
        program(&cluster, "bots", version, &fs::read(AGENT).unwrap());
        // Programs of `examples/` are beside the others.
        let folder = cluster.dir.join("images/bots").join(version);
        for example in ["listener", "listener-sdk"] {
            let listener = fs::read(Path::new(AGENT).with_file_name("examples").join(example)).unwrap();
            fs::write(folder.join(example), listener).unwrap();
            make_executable(&folder.join(example));
        }
        // Equal programs, but different images: they have different digests.
        fs::write(folder.join("VERSION"), version).unwrap();
    }
    program(&cluster, "baton-agent", "1", &fs::read(AGENT).unwrap());
    image(&cluster, "sleeper", "1", SLEEPER);
    cluster
}

/// What Pod security of the level "restricted" asks of a container.
fn restricted() -> Value {
    json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}})
}

fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Ports of exchanges.
static PORTS: AtomicU16 = AtomicU16::new(9_100);

/// A namespace with an operator, an exchange, and what agents need.
pub struct Listeners {
    pub stage: Stage,
    exchange: Child,
    port: u16,
    /// Between agents and API server, in some tests.
    proxy: Option<Proxy>,
}

impl Listeners {
    pub async fn new(name: &str) -> Self {
        Self::on(cluster(), name, &[]).await
    }

    /// With an exchange that takes nothing from who has an old fencing token.
    pub async fn fenced(name: &str) -> Self {
        Self::on(cluster(), name, &["--fence"]).await
    }

    pub async fn on(cluster: &'static TestCluster, name: &str, exchange: &[&str]) -> Self {
        Self::at(Stage::new(cluster, name).await, exchange).await
    }

    /// In a namespace that has an operator already.
    pub async fn at(stage: Stage, exchange: &[&str]) -> Self {
        let (cluster, name) = (stage.cluster, stage.namespace.as_str());
        let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "bots"}})).unwrap();
        let accounts: Api<ServiceAccount> = Api::namespaced(stage.client.clone(), name);
        accounts.create(&PostParams::default(), &account).await.unwrap();
        let binding: RoleBinding = serde_json::from_value(json!({
            "metadata": {"name": "bots-baton-agent"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "baton-agent"},
            "subjects": [{"kind": "ServiceAccount", "name": "bots", "namespace": name}],
        }))
        .unwrap();
        let bindings: Api<RoleBinding> = Api::namespaced(stage.client.clone(), name);
        bindings.create(&PostParams::default(), &binding).await.unwrap();
        // One port for each namespace, all in the cluster's own network.
        let port = PORTS.fetch_add(1, Ordering::Relaxed);
        let mut command = cluster.enter(TESTBED);
        command.args(["feed", "--listen", &format!("0.0.0.0:{port}")]).args(exchange);
        let exchange = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        Self { stage, exchange, port, proxy: None }
    }

    /// The same, with agents that reach the API server through a proxy.
    pub async fn behind_a_proxy(name: &str) -> Self {
        let mut listeners = Self::new(name).await;
        listeners.proxy = Some(Proxy::start(&listeners.stage));
        listeners
    }

    /// See `baton-testbed proxy`.
    pub fn tell_proxy(&self, word: &str) {
        self.proxy.as_ref().expect("a proxy").tell(word);
    }

    /// An address of the cluster's network that Pods of all kinds of nodes reach.
    fn exchange_url(&self) -> String {
        format!("ws://10.244.255.1:{}", self.port)
    }

    /// Applies the Rollout `web` of Pods with agents, at this version.
    pub async fn roll(&self, version: &str, spec: Value) {
        self.roll_as(version, spec, |_| {}).await;
    }

    /// The same with another template.
    pub async fn roll_as(&self, version: &str, spec: Value, change: impl FnOnce(&mut Value)) {
        let mut object = json!({
            "template": {
                "metadata": {"annotations": {"baton.dev/agent": "own"}},
                "spec": {
                    "serviceAccountName": "bots",
                    "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                    "terminationGracePeriodSeconds": 30,
                    "containers": [{
                        "name": "web",
                        "image": format!("example.local/bots:{version}"),
                        "command": ["/image/bots", "exec", "--", "/image/listener"],
                        // The Pods of a process node share its network: any free port for each agent.
                        "env": [
                            {"name": "FEED_URL", "value": self.exchange_url()},
                            {"name": "BATON_PORT", "value": "0"},
                        ],
                        "volumeMounts": [{"name": "baton", "mountPath": "/baton"}],
                        "securityContext": restricted(),
                    }],
                    "volumes": [{"name": "baton", "emptyDir": {}}],
                },
            },
        });
        let env = object["template"]["spec"]["containers"][0]["env"].as_array_mut().unwrap();
        if version == "fails" {
            env.push(json!({"name": "FEED_FAIL", "value": "connect"}));
        }
        if let Some((host, port)) = self.proxy.as_ref().and_then(|proxy| proxy.address.rsplit_once(':')) {
            env.push(json!({"name": "KUBERNETES_SERVICE_HOST", "value": host}));
            env.push(json!({"name": "KUBERNETES_SERVICE_PORT", "value": port}));
        }
        merge(&mut object, spec);
        change(&mut object["template"]);
        self.stage.roll("1", object).await;
    }

    /// The same of Pods whose listeners run on the SDK, beside an agent that is a native sidecar.
    pub async fn roll_beside(&self, version: &str, mut spec: Value) {
        let container = |name: &str, command: &[&str]| {
            json!({
                "name": name, "image": format!("example.local/bots:{version}"), "command": command,
                "env": [
                    {"name": "FEED_URL", "value": self.exchange_url()},
                    {"name": "BATON_PORT", "value": "0"},
                ],
                "volumeMounts": [{"name": "baton", "mountPath": "/baton"}],
                "securityContext": restricted(),
            })
        };
        let mut agent = container("baton-agent", &["/image/bots", "serve"]);
        agent["restartPolicy"] = json!("Always");
        let application = container("web", &["/image/listener-sdk"]);
        let template = json!({"spec": {"initContainers": [agent], "containers": [application]}});
        spec["template"] = template;
        self.roll(version, spec).await;
    }

    /// Applies the ListenerSet `bots` of so many numbered listeners on the Pods of `web`; `spec` on top.
    pub async fn listen(&self, count: usize, spec: Value) {
        let listeners: Vec<_> = (0..count).map(|number| json!({"name": format!("feed-{number}")})).collect();
        let mut object = json!({
            "apiVersion": "baton.dev/v1alpha1", "kind": "ListenerSet", "metadata": {"name": "bots"},
            "spec": {"rolloutRef": {"name": "web"}, "listeners": listeners},
        });
        merge(&mut object["spec"], spec);
        self.sets().patch("bots", &PatchParams::apply("test").force(), &Patch::Apply(&object)).await.unwrap();
    }

    pub fn sets(&self) -> Api<ListenerSet> {
        Api::namespaced(self.stage.client.clone(), &self.stage.namespace)
    }

    pub fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.stage.client.clone(), &self.stage.namespace)
    }

    /// Waits until the set's status is so.
    pub async fn until(&self, seconds: u64, what: &str, mut is: impl FnMut(&ListenerSet) -> bool) -> ListenerSet {
        let deadline = Instant::now() + Duration::from_secs(seconds) * 2; // a safety net, not a measurement
        loop {
            let found = self.sets().get("bots").await;
            match found {
                Ok(set) if is(&set) => return set,
                other if Instant::now() > deadline => {
                    let status = other.map(|set| set.status);
                    panic!("not within {seconds} s: {what}\nstatus: {status:#?}\n{}", self.explain());
                }
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Waits until so many listeners run, all that there are to run, and nothing moves.
    pub async fn running(&self, seconds: u64, count: i32) -> ListenerSet {
        self.until(seconds, &format!("{count} listeners run"), |set| {
            let Some(status) = &set.status else { return false };
            let ready = status.conditions.iter().find(|condition| condition.type_.as_str() == "Ready");
            let is_ready = ready.is_some_and(|ready| ready.reason == "Complete");
            status.observed_generation == set.metadata.generation && status.running == count && is_ready
        })
        .await
    }

    /// Pod by listener, as the Leases say.
    pub async fn holders(&self) -> BTreeMap<String, String> {
        let selector = format!("{}=bots", names::LABEL_LISTENER_SET);
        let leases = self.leases().list(&ListParams::default().labels(&selector)).await.unwrap();
        let held = |lease: Lease| Some((Self::listener_of(&lease)?, Self::holder_of(&lease)?));
        leases.items.into_iter().filter_map(held).collect()
    }

    /// The listener that an ownership Lease is of.
    pub fn listener_of(lease: &Lease) -> Option<String> {
        lease.metadata.annotations.as_ref()?.get(names::ANNOTATION_LISTENER).cloned()
    }

    /// Name of the Pod that holds it.
    pub fn holder_of(lease: &Lease) -> Option<String> {
        let holder = lease.spec.as_ref()?.holder_identity.as_deref()?;
        holder.split('/').next().filter(|pod| !pod.is_empty()).map(str::to_owned)
    }

    /// Waits until nothing is held by this Pod.
    pub async fn until_held_by_others(&self, seconds: u64, pod: &str) {
        let deadline = Instant::now() + Duration::from_secs(seconds) * 2;
        while self.holders().await.values().any(|holder| holder == pod) {
            assert!(Instant::now() < deadline, "{}", self.explain());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What the exchange has seen.
    pub fn verdict(&self) -> BTreeMap<String, Value> {
        let ask = format!(
            "exec 3<>/dev/tcp/127.0.0.1/{} || exit; printf 'GET /verdict HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3",
            self.port
        );
        let answer = output_of(self.stage.cluster.enter("bash").args(["-c", &ask]));
        let body = answer.split_once("\r\n\r\n").expect("a body").1;
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    /// Fails if any feed was read by two at once, or not wholly; and if messages were done twice, unless `may_repeat`, as where
    /// a process was killed. Answers the gaps in milliseconds.
    pub fn judge(&self, feeds: usize, may_repeat: bool) -> Vec<f64> {
        let verdict = self.verdict();
        assert_eq!(verdict.len(), feeds, "{:?}", verdict.keys());
        let mut gaps = Vec::new();
        for (name, feed) in &verdict {
            assert_eq!(feed["overlaps"], json!([]), "{name}: {feed:#}");
            assert_eq!(feed["problems"], json!([]), "{name}: {feed:#}");
            assert!(may_repeat || feed["duplicates"] == 0, "{name}: {feed:#}");
            assert!(feed["position"].as_u64() > Some(0), "{name}: {feed:#}");
            gaps.extend(
                feed["gaps"].as_array().into_iter().flatten().filter_map(Value::as_f64).map(|gap| gap / 1_000.0),
            );
        }
        gaps.sort_by(f64::total_cmp);
        gaps
    }

    /// How often a feed was connected to.
    pub fn connections(&self, feed: &str) -> usize {
        self.verdict().get(feed).and_then(|feed| feed["connections"].as_array().map(Vec::len)).unwrap_or(0)
    }

    /// Waits until the messages of this feed go on: more are done than now.
    pub async fn flows(&self, seconds: u64, feed: &str) {
        let position = || self.verdict().get(feed).and_then(|feed| feed["position"].as_u64()).unwrap_or(0);
        let before = position();
        let deadline = Instant::now() + Duration::from_secs(seconds) * 2;
        while position() <= before {
            assert!(Instant::now() < deadline, "{feed} stands still at {before}\n{}", self.explain());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until this feed flows again, under another holder and a higher epoch than before.
    pub async fn taken_over(&self, feed: &str, (epoch, holder): (i32, &str)) {
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            let (next, successor) = self.ownership(feed).await;
            if next > epoch && successor != holder && !successor.is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "{epoch} {holder} → {next} {successor}: {}", self.explain());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.flows(30, feed).await;
    }

    /// (epoch, identity of the holder) of a listener.
    pub async fn ownership(&self, listener: &str) -> (i32, String) {
        let lease = self.leases().get(&names::listener_lease_name("bots", listener)).await.unwrap();
        let spec = lease.spec.unwrap_or_default();
        (spec.lease_transitions.unwrap_or(0), spec.holder_identity.unwrap_or_default())
    }

    /// Waits until a listener's Lease is owned by its set and by the Pod that holds it, and by nobody else. The operator
    /// writes that where the API server does not let agents do so (OwnerReferencesPermissionEnforcement, as here).
    pub async fn assert_owned(&self, listener: &str) {
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            let lease = self.leases().get(&names::listener_lease_name("bots", listener)).await.unwrap();
            let holder = lease.spec.unwrap_or_default().holder_identity.unwrap_or_default();
            let owners = lease.metadata.owner_references.unwrap_or_default();
            let pods: Vec<&str> = owners.iter().filter(|owner| owner.kind == "Pod").map(|owner| &*owner.uid).collect();
            let has_set = owners.iter().any(|owner| owner.kind == "ListenerSet" && owner.controller == Some(true));
            if owners.len() == 2 && has_set && pods.first().copied() == holder.split('/').nth(1) {
                return;
            }
            assert!(Instant::now() < deadline, "{holder}: {owners:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// `baton-testbed node-ctl ARGS`.
    pub fn node(&self, args: &[&str]) {
        let state = self.stage.cluster.dir.join("node/process-1");
        output_of(Command::new(TESTBED).arg("node-ctl").arg("--state").arg(state).args(args));
    }

    /// The file with the token of the Pod with this uid.
    pub fn token_of(&self, uid: &str) -> PathBuf {
        let state = self.stage.cluster.dir.join("node/process-1");
        let found = output_of(Command::new("find").arg(state).args(["-path", &format!("*{uid}*"), "-name", "token"]));
        PathBuf::from(found.lines().next().unwrap_or_else(|| panic!("no token of {uid}")))
    }

    /// What helps to understand a failure.
    pub fn explain(&self) -> String {
        let namespace = self.stage.namespace.as_str();
        let leases = self.stage.cluster.kubectl(&[
            "get",
            "leases",
            "-n",
            namespace,
            "-o",
            "yaml",
            "--show-managed-fields=false",
        ]);
        let pods = self.stage.cluster.kubectl(&["get", "pods", "-n", namespace, "-o", "wide"]);
        // A node that is lost answers for none of its Pods.
        let logs = ["logs", "-n", namespace, "-l", "app=web", "--tail=60", "--prefix", "--ignore-errors"];
        let logs = self.stage.cluster.kubectl(&logs);
        format!("{pods}\n{leases}\n{logs}")
    }
}

/// Signals the process of this Pod that is called so, the child of this listener if one is named.
pub fn signal(signal: Signal, pod: &str, command: &str, listener: Option<&str>) {
    kill(process(pod, command, listener), signal).unwrap();
}

/// The process of this Pod that is called so, the child of this listener if one is named.
pub fn process(pod: &str, command: &str, listener: Option<&str>) -> Pid {
    find_process(pod, command, listener).unwrap_or_else(|| panic!("no process {command} of {listener:?} in {pod}"))
}

/// The same, if there is one.
pub fn find_process(pod: &str, command: &str, listener: Option<&str>) -> Option<Pid> {
    let mut wanted = vec![format!("BATON_POD_NAME={pod}")];
    wanted.extend(listener.map(|name| format!("BATON_LISTENER={name}")));
    let is_it = |pid: &u32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.trim_end() == command && environment_has(*pid, &wanted)
    };
    pids().find(is_it).map(|pid| Pid::from_raw(pid.cast_signed()))
}

/// The guard of this listener in this Pod: the parent of its child.
pub fn guard(pod: &str, listener: &str) -> Pid {
    parent(process(pod, "listener", Some(listener)))
}

/// The agent that runs this listener in this Pod: the parent of its guard, which is called as it is.
pub fn agent(pod: &str, listener: &str) -> Pid {
    parent(guard(pod, listener))
}

/// The shim of the container whose first process this is.
pub fn shim(first: Pid) -> Pid {
    parent(first)
}

fn parent(child: Pid) -> Pid {
    let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    Pid::from_raw(parent.trim().parse().unwrap())
}

/// Ends every process of this Pod at once, as a machine that loses its power does.
pub fn kill_all(pod: &str) {
    let wanted = [format!("BATON_POD_NAME={pod}")];
    for pid in pids().filter(|pid| environment_has(*pid, &wanted)) {
        let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL); // or the first has taken it along
    }
}

fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn environment_has(pid: u32, wanted: &[String]) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    wanted.iter().all(|text| environment.split(|byte| *byte == 0).any(|it| it == text.as_bytes()))
}

impl Drop for Listeners {
    fn drop(&mut self) {
        let _ = self.exchange.kill();
        let _ = self.exchange.wait();
    }
}
