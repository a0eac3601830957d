//! Health before service: real applications are asked at their Pods' own addresses, and EndpointSlices are watched meanwhile.
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
    time::Instant,
};

use baton::api::names::CONDITION_IN_SERVICE;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{Api, ResourceExt, api::PostParams};
use serde_json::{Value, json};

use super::{
    bounds::{Bounds, is_ready},
    drain::{States, is_served, slices, until},
    stage::{Stage, assert_refused, dry_run, merge, program, real, reason},
};
use crate::{
    cluster::support::{TestCluster, output_of},
    testbed::web,
};

/// An application that answers as a folder says, which its Pod shares with the test, and notes there what it was asked. As
/// process 1 it does not feel SIGTERM: it answers as long as its Pod has time.
const ANSWERS: &str = r#"use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
};

fn main() {
    let listener = TcpListener::bind(format!("{}:8080", env::var("POD_IP").unwrap())).unwrap();
    let pod = env::var("BATON_POD_NAME").unwrap();
    for stream in listener.incoming().flatten() {
        let mut lines = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
        let Some(request) = lines.next() else { continue };
        lines.for_each(drop);
        let mut words = request.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let status = fs::read_to_string(format!("/answers{path}")).unwrap_or_else(|_| "200".into());
        let asked = fs::File::options().create(true).append(true).open("/answers/asked");
        asked.unwrap().write_all(format!("{pod} {method} {path} {status}\n").as_bytes()).unwrap();
        let _ = write!(&stream, "HTTP/1.1 {status} said\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    }
}
"#;

/// The cluster of real processes, with the images that these tests run.
pub fn cluster() -> &'static TestCluster {
    static PROGRAMS: Once = Once::new();
    let cluster = real();
    // Once: a program that runs cannot be written.
    PROGRAMS.call_once(|| {
        program(cluster, "checked-web", "1", &fs::read(web::program()).unwrap());
        let (source, built) = (cluster.dir.join("answers.rs"), cluster.dir.join("answers.built"));
        fs::write(&source, ANSWERS).unwrap();
        let mut rustc = Command::new(Path::new(env!("CARGO")).with_file_name("rustc"));
        output_of(rustc.args(["--edition", "2024", "-o"]).arg(&built).arg(&source));
        program(cluster, "answers", "1", &fs::read(&built).unwrap());
    });
    cluster
}

/// One instance after the other; the old Pod goes when the new one is available.
fn one_by_one(version: &str, replicas: i32, pod: &Value) -> Value {
    json!({
        "version": version,
        "replicas": replicas,
        "progressDeadlineSeconds": 120,
        "strategy": {"batchSize": 1, "maxSurge": 1, "maxUnavailable": 0},
        "template": {"spec": pod},
    })
}

/// `examples/web`, failing in this way, if in any.
pub fn web_of(version: &str, replicas: i32, fail: &str, more: Value) -> Value {
    let env = |name: &str, value: &str| json!({"name": name, "value": value});
    let container = json!({
        "name": "web", "image": "example.local/checked-web:1", "command": ["checked-web"],
        "env": [
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            env("RELEASE", version), env("WEB_FAIL", fail), env("WEB_DRAIN_SECONDS", "0"),
        ],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8080}, "periodSeconds": 1},
    });
    let mut spec = one_by_one(version, replicas, &json!({"containers": [container]}));
    merge(&mut spec, more);
    spec
}

/// The folder that [`ANSWERS`] share with a test.
pub struct Answers {
    folder: PathBuf,
}

impl Answers {
    pub fn new(stage: &Stage) -> Self {
        let folder = stage.cluster.dir.join("answers").join(&stage.namespace);
        let _ = fs::remove_dir_all(&folder); // that of an earlier run
        fs::create_dir_all(&folder).unwrap();
        Self { folder }
    }

    /// From now on a request for this path is answered so; before that, with 200.
    pub fn set(&self, path: &str, status: u16) {
        let next = self.folder.join("next");
        fs::write(&next, status.to_string()).unwrap();
        fs::rename(next, self.folder.join(path.trim_start_matches('/'))).unwrap();
    }

    /// What the application in this Pod was asked and has answered so far, such as `POST /drain 202`.
    pub fn asked(&self, pod: &Pod) -> Vec<String> {
        let asked = fs::read_to_string(self.folder.join("asked")).unwrap_or_default();
        let of_pod = |line: &str| line.strip_prefix(&format!("{} ", pod.name_any())).map(str::to_owned);
        asked.lines().filter_map(of_pod).collect()
    }

    /// How often it has answered so.
    pub fn count(&self, pod: &Pod, what: &str) -> usize {
        self.asked(pod).iter().filter(|asked| *asked == what).count()
    }

    /// One such application.
    pub fn spec(&self, version: &str, more: Value) -> Value {
        let container = json!({
            "name": "web", "image": "example.local/answers:1", "command": ["answers"],
            "env": [
                {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "RELEASE", "value": version},
            ],
            "volumeMounts": [{"name": "answers", "mountPath": "/answers"}],
        });
        let volume = json!({"name": "answers", "hostPath": {"path": self.folder}});
        let mut spec = one_by_one(version, 1, &json!({"containers": [container], "volumes": [volume]}));
        merge(&mut spec, more);
        spec
    }
}

/// The Service `web`, whose EndpointSlices tell who is in service.
pub async fn service(stage: &Stage) {
    let object = json!({
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    });
    let services: Api<Service> = Api::namespaced(stage.client.clone(), &stage.namespace);
    services.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
}

/// What its readiness gate says; None: nothing yet.
pub fn gate(pod: &Pod) -> Option<bool> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let gate = conditions.iter().find(|condition| condition.type_ == CONDITION_IN_SERVICE)?;
    Some(gate.status == "True")
}

/// The check `selftest`.
pub fn selftest() -> Value {
    json!({"name": "selftest", "httpGet": {"path": "/selftest", "port": 8080}})
}

fn uids(pods: &[Pod]) -> Vec<Option<String>> {
    pods.iter().map(ResourceExt::uid).collect()
}

/// Waits until a live Pod is there that is none of these.
pub async fn another(stage: &Stage, known: &[Pod]) -> Pod {
    let known = uids(known);
    until("another Pod", async || stage.live().await.into_iter().find(|pod| !known.contains(&pod.uid()))).await
}

/// B9 B7: a version that would not serve its users well never gets a client, costs no instance, and goes back with what it said.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_not_well_gets_no_client() {
    let stage = Stage::new(cluster(), "health-unwell").await;
    service(&stage).await;
    let health = json!({"health": {"attempts": 3, "periodSeconds": 1, "checks": [selftest()]}});
    stage.roll("1", web_of("1", 2, "", health.clone())).await;
    stage.complete(60).await;
    let old = stage.live_are(10, 2).await;
    let bounds = Bounds::watch(stage.pods(), 2).await;
    let (pods, slices) = (States::watch(stage.pods()).await, States::watch(slices(&stage)).await);

    stage.roll("1", web_of("2", 2, "selftest", health)).await;
    let rollout = stage.until(120, "RolledBack", |rollout| reason(rollout) == "RolledBack").await;
    let failed = rollout.status.unwrap().failed.unwrap();
    assert_eq!(failed.reason, "HealthCheckFailed");
    assert!(failed.message.contains("health check selftest: answered 503"), "{}", failed.message);

    assert_eq!(uids(&stage.live_are(30, 2).await), uids(&old), "the old ones stay");
    bounds.assert(2, 3).await;
    pods.catch_up().await;
    slices.catch_up().await;
    let (pods, slices) = (pods.all(), slices.all());
    let is_new = |pod: &Pod| !uids(&old).contains(&pod.uid());
    let new: Vec<_> = pods.iter().filter(|state| is_new(&state.object)).collect();
    assert!(!new.is_empty(), "there was no new Pod");
    for state in new {
        assert!(gate(&state.object) != Some(true) && !is_ready(&state.object), "{:?}", state.object.status);
        let uid = state.object.uid().unwrap();
        let sent = slices.iter().find(|slice| is_served(&slices, slice.version, &uid));
        assert!(sent.is_none(), "clients were sent to {}: {sent:?}", state.object.name_any());
    }
    for uid in uids(&old) {
        assert!(is_served(&slices, u64::MAX, &uid.unwrap()), "an old one left the Service");
    }
}

/// B9: a good version goes into service once its checks have passed, not before, and that costs its Pod one or two writes.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_goes_into_service_after_its_checks() {
    let stage = Stage::new(cluster(), "health-well").await;
    service(&stage).await;
    let answers = Answers::new(&stage);
    let health = json!({"health": {"attempts": 60, "periodSeconds": 1, "checks": [selftest()]}});
    stage.roll("1", answers.spec("1", health.clone())).await;
    stage.complete(60).await;
    let old = stage.live_are(10, 1).await;
    let (pods, slices) = (States::watch(stage.pods()).await, States::watch(slices(&stage)).await);

    answers.set("/selftest", 503);
    stage.roll("1", answers.spec("2", health)).await;
    let new = another(&stage, &old).await;
    let uid = new.uid().unwrap();
    let is_asked = async || (answers.count(&new, "GET /selftest 503") >= 3).then_some(());
    until("three questions", is_asked).await;
    let mended = Instant::now();
    answers.set("/selftest", 200);
    stage.complete(60).await;

    pods.catch_up().await;
    let states = pods.of(&uid);
    let open = states.iter().find(|state| gate(&state.object) == Some(true)).expect("it never went into service");
    assert!(open.at > mended, "in service before it was well");
    let early = states.iter().find(|state| state.version < open.version && is_ready(&state.object));
    assert!(early.is_none(), "{early:?}");
    assert_eq!(answers.count(&new, "GET /selftest 200"), 1, "{:?}", answers.asked(&new));
    let mut gates: Vec<_> = states.iter().map(|state| gate_of(&state.object)).collect();
    gates.dedup();
    let writes = gates.len() - 1;
    println!("{writes} writes of the gate");
    assert!(writes <= 2, "{gates:?}");
    until("the new one in the Service", async || is_served(&slices.all(), u64::MAX, &uid).then_some(())).await;
    let slices = slices.all();
    let early = slices.iter().find(|slice| slice.version < open.version && is_served(&slices, slice.version, &uid));
    assert!(early.is_none(), "{early:?}");
}

/// All of the condition, whoever writes it.
fn gate_of(pod: &Pod) -> Value {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    json!(conditions.find(|condition| condition.type_ == CONDITION_IN_SERVICE))
}

/// B9: what could never be asked is refused, with what to write instead.
#[test]
fn checks_that_could_never_be_made_are_refused() {
    let of = |checks: Value| json!({"health": {"checks": checks}});
    let get = |path: &str, port: i32| of(json!([{"name": "api", "httpGet": {"path": path, "port": port}}]));
    let connect = |port: i32| of(json!([{"name": "api", "tcpSocket": {"port": port}}]));
    assert_refused(&json!({"health": {}}), "spec.health.checks: Required value");
    assert_refused(&of(json!([])), "spec.health.checks: Invalid value");
    let one = "checks[]: exactly one of httpGet and tcpSocket says what is asked; set one, remove the other";
    assert_refused(&of(json!([{"name": "api"}])), one);
    let both = json!([{"name": "api", "httpGet": {"path": "/healthz", "port": 8080}, "tcpSocket": {"port": 8080}}]);
    assert_refused(&of(both), one);
    for port in [0, 65_536, -1] {
        let invalid = |question: &str| format!("spec.health.checks[0].{question}.port: Invalid value: {port}");
        assert_refused(&get("/healthz", port), &invalid("httpGet"));
        assert_refused(&connect(port), &invalid("tcpSocket"));
    }
    let path = "httpGet.path must begin with / and have only characters that a URL may have, such as /healthz";
    for wrong in ["healthz", "http://a.b/c", "/a\r\nhost: b", "/a b", "/a#b", "/ä"] {
        assert_refused(&get(wrong, 8080), path);
    }
    assert_refused(&get("", 8080), "spec.health.checks[0].httpGet.path");
    let same = of(json!([selftest(), {"name": "selftest", "tcpSocket": {"port": 8080}}]));
    assert_refused(&same, "spec.health.checks[1]: Duplicate value");
    let nine: Vec<_> =
        (0..9).map(|number| json!({"name": format!("api-{number}"), "tcpSocket": {"port": 1}})).collect();
    assert_refused(&of(json!(nine)), "spec.health.checks: Too many: 9: must have at most 8 items");
    let name = "checks[].name must be a DNS label of at most 32 characters, such as api";
    assert_refused(&of(json!([{"name": "Api", "tcpSocket": {"port": 1}}])), name);
    for (field, wrong) in [("attempts", 0), ("attempts", 101), ("periodSeconds", 0), ("periodSeconds", 301)] {
        let spec = json!({"health": {field: wrong, "checks": [selftest()]}});
        assert_refused(&spec, &format!("spec.health.{field}: Invalid value: {wrong}"));
    }
    for wrong in [0, 31] {
        let spec = json!({"health": {"timeoutSeconds": wrong, "checks": [selftest()]}});
        assert_refused(&spec, &format!("spec.health.timeoutSeconds: Invalid value: {wrong}"));
    }
}

/// B9: so is what the rest of the spec does not go with.
#[test]
fn checks_that_do_not_go_with_the_rest_are_refused() {
    let host = "spec.health and spec.drain.httpPost send requests to each Pod's own IP address, and a Pod with hostNetwork has none: \
                remove spec.template.spec.hostNetwork, or spec.health and spec.drain.httpPost";
    let on_host = |mut spec: Value| {
        merge(&mut spec, json!({"template": {"spec": {"hostNetwork": true}}}));
        spec
    };
    assert_refused(&on_host(json!({"health": {"checks": [selftest()]}})), host);
    assert_refused(&on_host(json!({"drain": {"httpPost": {"path": "/drain", "port": 8080}}})), host);
    let late = "spec.health: attempts times periodSeconds must be less than spec.progressDeadlineSeconds, or the deadline would \
                come before the last attempt: lower one of the first two or raise the third";
    let of = |attempts: i32, period: i32, deadline: i32| {
        let health = json!({"attempts": attempts, "periodSeconds": period, "checks": [selftest()]});
        json!({"health": health, "progressDeadlineSeconds": deadline})
    };
    assert_refused(&of(10, 6, 60), late);
    assert_refused(&of(100, 300, 600), late);
    for sound in [of(10, 5, 60), of(100, 1, 101), on_host(json!({"drain": {"timeoutSeconds": 0}}))] {
        let made = dry_run(&sound);
        assert!(made.is_ok(), "{sound}\n{made:?}");
    }
}
