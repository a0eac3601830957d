//! The supervisor of test clusters: what it promises to tests and to people at their terminals.
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use k8s_openapi::api::core::v1::Node;
use kube::{Api, ResourceExt, api::ListParams};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::support::{
    BIN, TESTBED, TestCluster, eventually, folder, output_of, processes, processes_of, shared, sleepers, supervise,
};

fn assert_gone(dir: &Path) {
    eventually(30, &format!("the end of all processes of {}: {:?}", dir.display(), processes_of(dir)), || {
        processes_of(dir).is_empty()
    });
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).unwrap();
}

/// A namespace of its own in the shared cluster.
fn namespace(name: &str) -> &'static TestCluster {
    shared().kubectl(&["create", "namespace", name]);
    shared()
}

#[tokio::test]
async fn simulated_nodes_are_labelled_and_take_any_pod() {
    let nodes = Api::<Node>::all(shared().client().await).list(&ListParams::default().labels("type=kwok")).await;
    let nodes = nodes.unwrap().items;
    assert_eq!(nodes.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["kwok-0", "kwok-1", "kwok-2"]);
    assert!(nodes.iter().all(|node| node.spec.as_ref().unwrap().taints.is_none()), "{nodes:?}");
}

#[test]
fn pods_run_on_simulated_nodes() {
    let cluster = namespace("deployment");
    let nodes = cluster.kubectl(&["get", "nodes", "--no-headers"]);
    assert_eq!(nodes.lines().filter(|line| line.contains(" Ready ")).count(), 3, "{nodes}");

    let image = "--image=example.local/web:1.0";
    cluster.kubectl(&["-n", "deployment", "create", "deployment", "web", image, "--replicas=6"]);
    cluster.kubectl(&["-n", "deployment", "wait", "deployment/web", "--for=condition=Available", "--timeout=30s"]);
    let path = "jsonpath={range .items[*]}{.spec.nodeName} {.status.podIP}{'\\n'}{end}";
    let pods = cluster.kubectl(&["-n", "deployment", "get", "pods", "-o", path]);
    assert_eq!(pods.lines().count(), 6, "{pods}");
    assert!(pods.lines().all(|pod| pod.starts_with("kwok-") && pod.contains(" 10.245.")), "{pods}");

    cluster.kubectl(&["-n", "deployment", "delete", "deployment", "web", "--timeout=30s"]);
    eventually(30, "the garbage collector to delete the Pods", || {
        cluster.kubectl(&["-n", "deployment", "get", "pods", "-o", "name"]).is_empty()
    });
}

#[test]
fn simulated_pods_can_be_told_to_fail() {
    let cluster = namespace("fate");
    for fate in ["never-ready", "crash"] {
        let annotation = format!("--annotations=testbed.baton.dev/fate={fate}");
        cluster.kubectl(&["-n", "fate", "run", fate, "--image=example.local/web:1.0", &annotation]);
    }
    let state = |pod, path| cluster.kubectl(&["-n", "fate", "get", "pod", pod, "-o", &format!("jsonpath={path}")]);
    eventually(30, "both Pods to be started", || {
        ["never-ready", "crash"].iter().all(|pod| state(pod, "{.status.phase}") == "Running")
    });
    let path = "{.status.containerStatuses[0].ready} {.status.containerStatuses[0].state.waiting.reason}";
    assert_eq!(state("never-ready", path), "false ");
    assert_eq!(state("crash", path), "false CrashLoopBackOff");
}

/// A Pod's way to the API server: the Service VIP and a ServiceAccount token.
#[test]
fn the_api_server_answers_at_the_service_address_inside() {
    let cluster = namespace("vip");
    let token = cluster.kubectl(&["-n", "vip", "create", "token", "default"]);
    let mut kubectl = cluster.enter(Path::new(BIN).join("kubectl"));
    kubectl.env("KUBECONFIG", "/dev/null").args(["--server=https://10.96.0.1", "--token", token.trim()]);
    kubectl.arg(format!("--certificate-authority={}", cluster.dir.join("pki/ca.crt").display()));
    let user = output_of(kubectl.args(["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]));
    assert_eq!(user, "system:serviceaccount:vip:default");
}

#[test]
fn enter_passes_everything_through() {
    let cluster = shared();
    let script = "pwd; echo $GREETING; cat; exit 7";
    let mut inside = cluster.enter("sh");
    inside.args(["-c", script]).current_dir("/usr").env("GREETING", "hello");
    let mut inside = inside.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    inside.stdin.take().unwrap().write_all(b"from outside\n").unwrap();
    let output = inside.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "/usr\nhello\nfrom outside\n");

    assert_eq!(cluster.enter("sh").args(["-c", "kill -KILL $$"]).status().unwrap().code(), Some(128 + 9));
    assert_eq!(cluster.enter("/no/such/program").stderr(Stdio::null()).status().unwrap().code(), Some(127));
}

/// A shell that cannot connect reads on from whatever it finds under the number.
#[test]
fn nothing_of_enters_own_stays_open_in_the_command() {
    let found = output_of(shared().enter("sh").args(["-c", "ls -l /proc/$$/fd"]));
    assert!(!found.contains("signalfd"), "{found}");
}

#[test]
fn a_signal_to_enter_reaches_the_command() {
    let mut inside = shared().enter("sh");
    inside.args(["-c", "trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.1; done"]);
    let mut inside = inside.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(inside.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    signal(&inside, Signal::SIGTERM);
    assert_eq!(lines.next().unwrap().unwrap(), "got it");
    assert_eq!(inside.wait().unwrap().code(), Some(3));
}

#[test]
fn a_command_inside_ends_with_an_enter_that_is_killed() {
    let mut inside = shared().enter("sh");
    let mut inside = inside.args(["-c", "echo ready; exec sleep 600"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(inside.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    inside.kill().unwrap();
    inside.wait().unwrap();
    // The pipe ends when the command, which holds it too, does.
    assert_eq!(stdout.read_to_end(&mut Vec::new()).unwrap(), 0);
}

#[test]
fn the_api_server_can_be_restarted() {
    let cluster = TestCluster::start("restart", "kwok:1");
    cluster.kubectl(&["create", "namespace", "before"]);
    let pid = || cluster.pid("kube-apiserver");
    let first = pid();
    for how in [&[][..], &["--kill"]] {
        let before = pid();
        cluster.restart_api_server(how);
        assert_ne!(pid(), before);
        cluster.kubectl(&["get", "namespace", "before"]);
    }
    assert_ne!(pid(), first);

    cluster.testbed(&["stop", "kube-apiserver", "--kill"]);
    assert_eq!(pid(), None);
    cluster.testbed(&["start", "kube-apiserver"]);
    assert_ne!(pid(), None);
}

#[test]
fn nothing_is_left_of_a_cluster_whose_user_is_gone() {
    let cluster = TestCluster::start("dropped", "kwok:1");
    let dir = cluster.dir.clone();
    assert!(processes_of(&dir).len() >= 7, "{:?}", processes_of(&dir));
    drop(cluster);
    assert_eq!(processes_of(&dir), [""; 0], "the supervisor must return last");
    assert!(!dir.join("kubeconfig").exists());
}

#[test]
fn nothing_is_left_of_a_cluster_whose_supervisor_is_killed() {
    let cluster = TestCluster::start("killed", "kwok:1");
    let orphan = cluster.dir.join("orphan").display().to_string();
    let detached = "setsid sh -c 'while :; do sleep 0.1; done' \"$0\" </dev/null >/dev/null 2>&1 &";
    output_of(cluster.enter("sh").args(["-c", detached, &orphan]));
    let lives = || processes().iter().any(|(_, args)| args.last() == Some(&orphan));
    eventually(10, "an orphan inside", lives);
    signal(&cluster.supervisor, Signal::SIGKILL);
    assert_gone(&cluster.dir);
    assert!(!lives());
    assert!(!cluster.kubeconfig.exists());
    // The folder is free for another one, which then may be killed with its PID 1: that leaves something to tidy up.
    drop(cluster);
    let cluster = TestCluster::start("killed", "kwok:1");
    let is_init = |args: &[String]| args.get(1..3).is_some_and(|verb| verb == ["cluster", "init"]);
    let ours = |args: &[String]| args.iter().any(|arg| *arg == cluster.dir.display().to_string());
    let init = processes().into_iter().find(|(_, args)| is_init(args) && ours(args)).unwrap().0;
    kill(Pid::from_raw(init.cast_signed()), Signal::SIGSTOP).unwrap();
    // Each of its threads, also one that was at work: else it would still tidy up.
    let stands_still = |task: fs::DirEntry| fs::read_to_string(task.path().join("stat")).unwrap().contains(") T ");
    let tasks = || fs::read_dir(format!("/proc/{init}/task")).unwrap().map(Result::unwrap);
    eventually(10, "PID 1 to stand still", || tasks().all(stands_still));
    signal(&cluster.supervisor, Signal::SIGKILL);
    kill(Pid::from_raw(init.cast_signed()), Signal::SIGKILL).unwrap();
    assert_gone(&cluster.dir);
    assert!(cluster.kubeconfig.exists());
    cluster.testbed(&["down"]);
    assert!(!cluster.kubeconfig.exists());
}

#[test]
fn nothing_is_left_after_ctrl_c_while_starting() {
    let dir = folder("interrupted");
    let mut supervisor = supervise("interrupted", "kwok:1").spawn().unwrap();
    eventually(30, "the API server to start", || processes_of(&dir).iter().any(|line| line.contains("kube-apiserver")));
    signal(&supervisor, Signal::SIGINT);
    assert_eq!(supervisor.wait().unwrap().code(), Some(130));
    assert_eq!(processes_of(&dir), [""; 0]);
}

#[test]
fn nothing_is_left_when_a_background_start_is_killed() {
    let dir = folder("abandoned");
    let mut launcher = Command::new(TESTBED);
    launcher.args(["cluster", "up", "--nodes", "kwok:1", "--bin", BIN, "--dir"]).arg(&dir).stdout(Stdio::null());
    let mut launcher = launcher.spawn().unwrap();
    eventually(30, "the API server to start", || processes_of(&dir).iter().any(|line| line.contains("kube-apiserver")));
    launcher.kill().unwrap();
    assert_eq!(launcher.wait().unwrap().signal(), Some(9));
    assert_gone(&dir);
}

/// A cluster in the background, which ends with the test however that ends.
struct Background(PathBuf);

impl Background {
    fn testbed(&self, args: &[&str]) -> String {
        output_of(Command::new(TESTBED).arg("cluster").args(args).arg("--dir").arg(&self.0))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = Command::new(TESTBED).args(["cluster", "down", "--dir"]).arg(&self.0).output();
    }
}

#[test]
fn a_cluster_in_the_background_goes_on_until_it_is_taken_down() {
    let dir = folder("background");
    let cluster = Background(dir.clone());
    let testbed = |args: &[&str]| cluster.testbed(args);
    let up = ["up", "--nodes", "kwok:1", "--bin", BIN];
    let export = format!("export KUBECONFIG={}\n", dir.join("kubeconfig").display());
    let first = testbed(&up);
    assert!(first.ends_with(&export), "{first}");
    assert!(testbed(&up).ends_with(&export), "a second start finds the first");
    assert!(testbed(&["status"]).contains("ready"));
    testbed(&["down"]);
    assert_eq!(processes_of(&dir), [""; 0]);
    assert!(!dir.join("pki").exists() && dir.join("logs").exists(), "logs stay, keys do not");
    testbed(&["down", "--purge"]); // nothing to end is fine
    assert!(!dir.join("logs").exists());
}

/// The folder's name has what a shell would not take as it is.
#[test]
fn a_cluster_in_the_background_is_as_gone_when_its_supervisor_was_killed() {
    let (dir, images) = (folder("it's in the background"), folder("other-images"));
    let cluster = Background(dir.clone());
    let testbed = |args: &[&str]| cluster.testbed(args);
    fs::create_dir_all(images.join("idle/1.0")).unwrap();
    let up = ["up", "--nodes", "process", "--bin", BIN, "--images", images.to_str().unwrap()];
    let told = testbed(&up);
    let export = told.lines().last().unwrap().to_owned();
    assert_eq!(testbed(&up).lines().last(), Some(export.as_str()));
    let mut elsewhere = Command::new(TESTBED);
    elsewhere.args(["cluster", "up", "--bin", BIN, "--nodes", "process", "--dir"]).arg(&dir);
    let refusal = elsewhere.output().unwrap();
    assert!(!refusal.status.success() && String::from_utf8_lossy(&refusal.stderr).contains("other-images"));

    // As a person would, with the line that was printed; the image is in the other folder.
    let run = "run idle --image=example.local/idle:1.0 --command -- sleep 86395";
    let script =
        format!("{export}; '{BIN}/kubectl' {run} && '{BIN}/kubectl' wait pod/idle --for=condition=Ready --timeout=60s");
    output_of(Command::new("sh").args(["-c", &script]));
    assert_eq!(sleepers("86395").len(), 1);

    let all = processes().into_iter();
    let is_supervisor = |args: &[String]| {
        args.iter().any(|arg| arg == "--foreground") && args.iter().any(|arg| *arg == dir.display().to_string())
    };
    let supervisor: Vec<u32> = all.filter(|(_, args)| is_supervisor(args)).map(|(pid, _)| pid).collect();
    assert_eq!(supervisor.len(), 1);
    kill(Pid::from_raw(supervisor[0].cast_signed()), Signal::SIGKILL).unwrap();
    assert_gone(&dir);
    eventually(30, "the end of its Pod's process", || sleepers("86395").is_empty());
    for file in ["kubeconfig", "control.sock"] {
        assert!(!dir.join(file).exists(), "{file}");
    }
}

#[test]
fn a_component_that_dies_ends_the_cluster_and_is_named() {
    fs::write(folder("component-death").join("supervisor.log"), "of an earlier cluster\n").unwrap();
    let mut cluster = TestCluster::start("component-death", "kwok:1");
    output_of(cluster.enter("sh").args(["-c", &format!("kill -KILL {}", cluster.pid("kube-scheduler").unwrap())]));
    assert_eq!(cluster.supervisor.wait().unwrap().code(), Some(1));
    assert_gone(&cluster.dir);
    let told = fs::read_to_string(cluster.dir.join("supervisor.log")).unwrap();
    assert!(!told.contains("earlier"), "{told}");
    assert!(told.contains("kube-scheduler was killed by SIGKILL"), "{told}");
    assert!(told.contains("logs/kube-scheduler.log:\n"), "the end of its log is shown: {told}");
}

#[test]
fn a_missing_program_is_named_with_the_way_to_get_it() {
    let mut up = Command::new(TESTBED);
    up.args(["cluster", "up", "--foreground", "--bin", "/nonexistent", "--dir"]).arg(folder("no-programs"));
    let output = up.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("kube-apiserver") && told.contains("make control-plane"), "{told}");
    assert_eq!(output.status.code(), Some(1));
}
