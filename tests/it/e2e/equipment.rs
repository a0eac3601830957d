//! The cluster of all tests: its images, the operator in it, and who may use it when.
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use serde_json::{Value, json};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{processes::Processes, recorder::Recorder};
use crate::cluster::{
    rollout::stage::{SLEEPER, Stage, merge},
    support::{BIN, TESTBED, TestCluster, folder, output_of},
};

const AGENT: &str = env!("CARGO_BIN_EXE_baton-agent");
const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The operator's namespace.
const SYSTEM: &str = "baton-system";
/// What Pod security lets through where users enforce the strictest of its levels.
const RESTRICTED: &str = "pod-security.kubernetes.io/enforce=restricted";

/// What scripts in images need, and tests that run commands in containers.
const TOOLS: [&str; 6] = ["bin/sh", "bin/sleep", "bin/cat", "bin/ls", "usr/bin/touch", "usr/bin/tail"];

/// Many tests at once, or one that breaks things.
static USE: RwLock<()> = RwLock::const_new(());

/// Hold it in a test that leaves nodes and API server alone.
pub async fn together() -> RwLockReadGuard<'static, ()> {
    USE.read().await
}

/// Hold it in a test that does not.
pub async fn alone() -> RwLockWriteGuard<'static, ()> {
    USE.write().await
}

/// Which containerd the two nodes have, as `cluster up --containerd` takes it.
pub fn containerds() -> String {
    env::var("CONTAINERD").unwrap_or_else(|_| "1.6,2".into())
}

/// Names of the nodes.
pub const NODES: [&str; 2] = ["kubelet-1", "kubelet-2"];

/// Two real nodes with Baton on them.
pub struct Real {
    pub cluster: TestCluster,
    pub recorder: Recorder,
    pub processes: Processes,
}

/// The one of this run.
pub fn real() -> &'static Real {
    static REAL: OnceLock<Real> = OnceLock::new();
    REAL.get_or_init(|| {
        let images = images();
        let args = ["--containerd", &containerds(), "--images", images.to_str().unwrap()];
        let cluster = TestCluster::start_with("e2e", "kubelet:2", &args);
        install(&cluster);
        let recorder = Recorder::start(&cluster);
        Real { cluster, recorder, processes: Processes::watch() }
    })
}

/// As README says, where the namespace enforces the strictest level of Pod security.
fn install(cluster: &TestCluster) {
    cluster.kubectl(&["create", "namespace", SYSTEM]);
    cluster.kubectl(&["label", "namespace", SYSTEM, RESTRICTED]);
    let mut helm = Command::new(Path::new(BIN).join("helm"));
    helm.args(["install", "baton", &format!("{ROOT}/charts/baton"), "--namespace", SYSTEM]);
    helm.args(["--wait", "--timeout", "2m"]).env("KUBECONFIG", &cluster.kubeconfig);
    output_of(&mut helm);
}

/// The node of a Pod.
pub fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// `containerd://2.3.7`, of a node.
pub async fn runtime(stage: &Stage, node: &str) -> String {
    let nodes: Api<Node> = Api::all(stage.client.clone());
    nodes.get(node).await.unwrap().status.unwrap().node_info.unwrap().container_runtime_version
}

/// Has the Pods of a template on both nodes, so that both kinds of containerd run some.
pub fn spread(template: &mut Value) {
    template["spec"]["topologySpreadConstraints"] = json!([{
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app": "web"}},
    }]);
}

/// Has the Pods of a template on this node.
pub fn only_on(template: &mut Value, node: &str) {
    template["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node});
}

/// Lets Pods on `kubelet-2` again once it is dropped, also where a test fails.
pub struct Drained;

impl Drop for Drained {
    fn drop(&mut self) {
        real().cluster.try_kubectl(&["uncordon", NODES[1]]);
    }
}

/// Has components of a node run again once it is dropped, also where a test fails.
pub struct Stopped(pub Vec<String>);

impl Drop for Stopped {
    fn drop(&mut self) {
        for name in &self.0 {
            // One that runs already is as good.
            let _ = Command::new(TESTBED).args(["cluster", "start", name, "--dir"]).arg(&real().cluster.dir).status();
        }
    }
}

/// A namespace of the cluster, which the installed operator serves.
pub async fn stage(name: &str) -> Stage {
    // It starts for the first test, and may take a minute.
    let real = tokio::task::block_in_place(real);
    let mut stage = Stage::without_operator(&real.cluster, name).await;
    stage.passing = true;
    stage
}

/// The same where Pod security is strict.
pub async fn restricted_stage(name: &str) -> Stage {
    let stage = stage(name).await;
    stage.cluster.kubectl(&["label", "namespace", name, RESTRICTED]);
    stage
}

/// The specification of a Rollout of the example `web`, which says when it is ready and drains before it ends.
pub fn web(version: &str, spec: Value) -> Value {
    let mut whole = json!({
        "template": {"spec": {
            "terminationGracePeriodSeconds": 10,
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "web",
                "image": format!("example.local/web:{version}"),
                "command": ["web"],
                "env": [{"name": "WEB_DRAIN_SECONDS", "value": "1"}],
                "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8080}, "periodSeconds": 1, "timeoutSeconds": 5},
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        }},
    });
    spread(&mut whole["template"]);
    merge(&mut whole, spec);
    whole
}

/// Makes all archives anew, and answers their folder.
fn images() -> PathBuf {
    let folder = folder("e2e-images");
    for old in fs::read_dir(&folder).unwrap().flatten() {
        fs::remove_file(old.path()).unwrap();
    }
    let programs = Programs { folder: folder.clone() };
    for name in ["baton-operator", "baton-agent"] {
        let file = format!("{name}-{VERSION}.tar");
        let made = made_images().join(&file);
        fs::hard_link(&made, folder.join(file)).unwrap_or_else(|error| panic!("{}: {error}", made.display()));
    }
    for version in ["1.0", "1.1"] {
        programs.pack("web", version, &[("web", &example("web"))]);
    }
    programs.pack("web", "1.2-broken", &[("web", &Path::new(ROOT).join("examples/web/broken.sh"))]);
    let sleeper = programs.script("sleeper.sh", SLEEPER);
    let failing = programs.script("failing.sh", "#!/bin/sh\nexit 1\n");
    for version in ["1", "2"] {
        programs.pack("sleeper", version, &[("sleeper", &sleeper)]);
        let bots = [
            ("bots", Path::new(AGENT)),
            ("listener", &example("listener")),
            ("listener-sdk", &example("listener-sdk")),
        ];
        programs.pack("bots", version, &bots);
    }
    programs.pack("sleeper", "broken", &[("sleeper", &failing)]);
    for (version, content) in [("1", "one"), ("2", "two")] {
        let file = programs.script(&format!("version-{version}"), content);
        programs.pack_files("files", version, &[&format!("version={}", file.display())]);
    }
    folder
}

/// Where `make image` has put those of operator and agent, as `tests/e2e.sh` calls it.
fn made_images() -> PathBuf {
    let target = Path::new(AGENT).parent().unwrap().parent().unwrap();
    match env::var("IMAGE_PROFILE").as_deref() {
        Ok("image") => target.join("images"),
        _ => target.join("images-quick"),
    }
}

/// Programs of `examples/` are beside the others.
fn example(name: &str) -> PathBuf {
    Path::new(AGENT).with_file_name("examples").join(name)
}

struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// Writes the image `example.local/NAME:TAG` with these programs in `/image`, and what scripts need.
    fn pack(&self, name: &str, tag: &str, programs: &[(&str, &Path)]) {
        let mut command = Command::new(TESTBED);
        command.args(["archive", "--name", &format!("example.local/{name}:{tag}"), "--out"]);
        command.arg(self.folder.join(format!("{name}-{tag}.tar")));
        for (at, from) in programs {
            command.arg("--file").arg(format!("image/{at}={}", self.stripped(from).display()));
        }
        // Of images that are equal otherwise each has a digest of its own.
        command.arg("--file").arg(format!("image/VERSION={}", self.script("VERSION", tag).display()));
        for tool in TOOLS {
            command.arg("--file").arg(format!("{tool}=/{tool}"));
        }
        output_of(&mut command);
    }

    /// The same with nothing but files, `PATH=FROM`.
    fn pack_files(&self, name: &str, tag: &str, files: &[&str]) {
        let mut command = Command::new(TESTBED);
        command.args(["archive", "--name", &format!("example.local/{name}:{tag}"), "--out"]);
        command.arg(self.folder.join(format!("{name}-{tag}.tar")));
        command.args(files.iter().flat_map(|file| ["--file", file]));
        output_of(&mut command);
    }

    fn script(&self, name: &str, content: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.folder.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Without what only a debugger reads: a third of the size.
    fn stripped(&self, program: &Path) -> PathBuf {
        let small = self.folder.join(program.file_name().unwrap());
        if !small.exists()
            && !Command::new("strip")
                .arg("-o")
                .arg(&small)
                .arg(program)
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|it| it.success())
        {
            return program.to_owned();
        }
        small
    }
}
