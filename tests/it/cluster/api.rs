//! The API as a person meets it with plain kubectl: what is printed, what is explained, what is refused and in which
//! words.
use std::{
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use serde_json::{Value, json};

use super::support::{BIN, TestCluster, eventually, shared};
use crate::sources;

/// The shared cluster with the CRDs, installed as README says.
pub fn cluster() -> &'static TestCluster {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| install_crds(shared()));
    shared()
}

/// Has a cluster know the CRDs.
pub fn install_crds(cluster: &TestCluster) {
    cluster.kubectl(&["apply", "-f", &repository("crds")]);
    for crd in ["crd/listenersets.baton.dev", "crd/rollouts.baton.dev"] {
        cluster.kubectl(&["wait", "--for=condition=Established", crd, "--timeout=30s"]);
    }
}

pub fn repository(path: &str) -> String {
    sources::root().join(path).display().to_string()
}

/// `kubectl ARGS` with `object` on its standard input.
pub fn kubectl_with(args: &[&str], object: &Value) -> Output {
    let mut child = Command::new(Path::new(BIN).join("kubectl"))
        .args(args)
        .env("KUBECONFIG", &cluster().kubeconfig)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(object.to_string().as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// The sample `web`, without its Service.
fn web() -> Value {
    let text = std::fs::read_to_string(sources::root().join("config/samples/rollout_web.yaml")).unwrap();
    serde_saphyr::from_multiple::<Value>(&text).unwrap().remove(0)
}

/// What kubectl says when it creates the sample with the value at a JSON pointer replaced (removed, when null).
fn refusal(changes: &[(&str, Value)]) -> String {
    let mut object = web();
    for (pointer, value) in changes {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        let parent = object.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}"));
        parent[field] = value.clone();
    }
    let output = kubectl_with(&["create", "--dry-run=server", "-f", "-"], &object);
    assert!(!output.status.success(), "accepted: {changes:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[track_caller]
fn assert_refused(changes: &[(&str, Value)], sentences: &[&str]) {
    let message = refusal(changes);
    for sentence in sentences {
        assert!(message.contains(sentence), "{changes:?}\nshould say: {sentence}\nbut says: {message}");
    }
}

#[test]
fn labels_that_do_not_match_are_refused() {
    assert_refused(
        &[("/spec/selector/matchLabels/app", json!("other"))],
        &["spec.selector.matchLabels must be among spec.template.metadata.labels: set the same labels in both"],
    );
    assert_refused(&[("/spec/selector/matchLabels", json!({}))], &["spec.selector.matchLabels"]);
    assert_refused(
        &[("/spec/template/metadata/labels", json!({"app": "web", "baton.dev/instance": "7"}))],
        &["spec.template.metadata.labels: baton.dev/", "are set by Baton; remove them"],
    );
}

#[test]
fn where_the_agent_comes_from_is_one_of_three() {
    let with = |value: &str| [("/spec/template/metadata/annotations", json!({"baton.dev/agent": value}))];
    let sentences =
        ["spec.template.metadata.annotations: names that begin with baton.dev/", "own", "install", "sidecar"];
    assert_refused(&with("inject"), &sentences);
    for value in ["own", "install", "sidecar"] {
        let mut object = web();
        object["spec"]["template"]["metadata"]["annotations"] = json!({"baton.dev/agent": value});
        let output = kubectl_with(&["create", "--dry-run=server", "-f", "-"], &object);
        assert!(output.status.success(), "{value}: {output:?}");
    }
}

/// C8
#[test]
fn what_a_package_says_is_checked() {
    let changed = |mut package: Value, field: &str, value: Value| {
        package[field] = value;
        [("/spec/package", package)]
    };
    let archive = json!({"url": "https://packages.example.com/web/1.4.2.tar.gz", "mountPath": "/opt/app"});
    let with = |field: &str, value: Value| changed(archive.clone(), field, value);
    let url = "package.url must be an http or https URL without user name and password, such as https://packages.example.com/";
    let path = "package.mountPath must be an absolute path such as /opt/app";
    for (field, values, sentence) in [
        (
            "url",
            &["ftp://a.b/c", "https://ann:pass@a.b/c", "https:///c", "https://a.b/c d", "https://a.b#c", "a.b/c"][..],
            url,
        ),
        (
            "mountPath",
            &["opt/app", "/opt/../etc", "/..", "/opt/./a", "/opt/app/", "//opt", "/a:b", "/baton", "/proc/1"],
            path,
        ),
        ("sha256", &[&"A".repeat(64), &"g".repeat(64)], "package.sha256 must be 64 lower-case hexadecimal digits"),
        ("sha256", &["abc"], "spec.package.sha256"),
    ] {
        for value in values {
            assert_refused(&with(field, json!(value)), &[sentence]);
        }
    }
    assert_refused(
        &with("secretRef", json!({"name": "../other"})),
        &["package.secretRef.name must be the name of a Secret"],
    );
    // F14
    let mut over_http = archive.clone();
    over_http["url"] = json!("http://packages.example.com/web.zip");
    assert_refused(
        &changed(over_http, "secretRef", json!({"name": "packages"})),
        &[
            "package.secretRef needs an https URL, because http sends the credentials in clear text: set package.url to https or remove secretRef",
        ],
    );
    assert_refused(&[("/spec/package", json!({"url": "https://a.b/c"}))], &["spec.package.mountPath: Required value"]);
    let files = json!({"image": "registry.example.com/rules:1.4.2", "mountPath": "/opt/rules"});
    let image = |field: &str, value: Value| changed(files.clone(), field, value);
    let one = "package must have exactly one of url (an archive that is downloaded) and image (an image that the kubelet pulls)";
    assert_refused(&image("url", json!("https://a.b/c")), &[one]);
    assert_refused(&image("image", Value::Null), &[one]);
    assert_refused(
        &image("sha256", json!("0f".repeat(32))),
        &["with package.image, remove sha256 and put the digest into the reference"],
    );
    assert_refused(
        &image("secretRef", json!({"name": "packages"})),
        &["with package.image, remove secretRef and set imagePullSecrets"],
    );
    for reference in ["oci://a.b/c:1", "a.b/c 1", "a.b/c@sha256:0f", "a.b/c@0f"] {
        assert_refused(&image("image", json!(reference)), &["package.image must be a reference without a scheme"]);
    }
    let digest = format!("[fd00::1]:5000/Team/rules:1@sha256:{}", "0f".repeat(32));
    for package in [image("mountPath", json!("/opt/a")), image("image", json!(digest)), image("image", json!("rules"))]
    {
        let mut object = web();
        object["spec"]["package"] = package[0].1.clone();
        let output = kubectl_with(&["create", "--dry-run=server", "-f", "-"], &object);
        assert!(output.status.success(), "{object}: {output:?}");
    }
    for (field, value) in [
        ("url", json!("http://10.0.0.1:8080/web.zip?key=$(a)%20&b=@")),
        ("url", json!("https://[fd00::1]?web")),
        ("mountPath", json!("/opt/.app/..web/batons")),
        ("mountPath", json!("/batons")),
        ("sha256", json!("0f".repeat(32))),
        ("secretRef", json!({"name": "packages.example.com"})),
    ] {
        let mut object = web();
        object["spec"]["package"] = with(field, value)[0].1.clone();
        let output = kubectl_with(&["create", "--dry-run=server", "-f", "-"], &object);
        assert!(output.status.success(), "{object}: {output:?}");
    }
}

#[test]
fn replicas_outside_their_range_are_refused() {
    assert_refused(
        &[("/spec/replicas", json!(-1))],
        &["spec.replicas: Invalid value: -1", "should be greater than or equal to 0"],
    );
    assert_refused(
        &[("/spec/replicas", json!(10_001))],
        &["spec.replicas: Invalid value: 10001", "should be less than or equal to 10000"],
    );
}

#[test]
fn a_budget_of_nothing_is_refused() {
    for nothing in [json!(0), json!("0%")] {
        assert_refused(
            &[("/spec/strategy/maxUnavailable", nothing.clone()), ("/spec/strategy/maxSurge", json!(0))],
            &["spec.strategy: maxUnavailable and maxSurge cannot both be 0", "set one of them to 1 or more"],
        );
    }
}

#[test]
fn two_ways_to_say_the_batches_are_refused() {
    assert_refused(
        &[("/spec/strategy/batches", json!([{"upTo": 1}]))],
        &["spec.strategy: batchSize and batches exclude each other; remove one of them"],
    );
    assert_refused(&[("/spec/strategy/batchSize", json!(0))], &["spec.strategy.batchSize must be at least 1 or 1%"]);
}

/// R21: what counts cannot fall; what depends on the number of instances is not the schema's to judge.
#[test]
fn batches_that_fall_are_refused() {
    let of = |batches: Value| [("/spec/strategy/batchSize", json!(null)), ("/spec/strategy/batches", batches)];
    let rising = "spec.strategy.batches: upTo includes the instances of earlier batches and cannot fall from one entry to \
                  the next: write the entries in rising order";
    assert_refused(&of(json!([{"upTo": 5}, {"upTo": 2, "pause": {}}])), &[rising]);
    assert_refused(&of(json!([{"upTo": 5}, {"upTo": "90%"}, {"upTo": 2}])), &[rising]);
    for batches in [
        json!([{"upTo": 0, "pause": {}}, {"upTo": 1, "pause": {}}, {"upTo": 1, "pause": {"seconds": 5}}]),
        json!([{"upTo": 1}, {"upTo": "50%"}, {"upTo": 2}, {"upTo": "100%", "pause": {}}]),
    ] {
        let mut object = web();
        object["spec"]["strategy"] = json!({"batches": batches});
        object["spec"]["approve"] = json!({"run": 1, "batch": 0, "by": "ann", "reason": "looks good"});
        let output = kubectl_with(&["create", "--dry-run=server", "-f", "-"], &object);
        assert!(output.status.success(), "{output:?}");
    }
}

/// B1: what would leave two versions side by side contradicts the type.
#[test]
fn batches_pins_and_part_rollbacks_are_for_batched() {
    let of = |field, value| {
        [("/spec/strategy/type", json!("Recreate")), ("/spec/strategy/batchSize", json!(null)), (field, value)]
    };
    let batches = "spec.strategy: batchSize and batches are for type Batched; remove them or set type to Batched";
    assert_refused(&of("/spec/strategy/batchSize", json!(1)), &[batches]);
    assert_refused(&of("/spec/strategy/batches", json!([{"upTo": 1}])), &[batches]);
    let part = "spec.strategy.onFailure RollbackFailed leaves two versions side by side and is for type Batched";
    assert_refused(&of("/spec/strategy/onFailure", json!("RollbackFailed")), &[part]);
    let pins = json!([{"instances": "0", "revision": "web-b"}]);
    assert_refused(&of("/spec/pins", pins), &["spec.pins needs spec.strategy.type Batched"]);
    let mut object = web();
    object["spec"]["strategy"] = json!({"type": "Recreate"});
    let output = kubectl_with(&["create", "--dry-run=server", "-f", "-"], &object);
    assert!(output.status.success(), "{output:?}");
}

/// B7: what is kept runs on beside the others, so there must be room for it.
#[test]
fn failed_pods_are_kept_where_there_may_be_a_pod_more() {
    let with = |more: Value| {
        let mut strategy = json!({"keepFailed": {}, "maxSurge": 1});
        strategy.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        [("/spec/strategy", strategy)]
    };
    let surge = "spec.strategy.keepFailed needs room for one more Pod: set type to BlueGreen, or to Batched with maxSurge of 1 or more";
    for without in [json!({"maxSurge": 0}), json!({"maxSurge": "0%"}), json!({"type": "Recreate"})] {
        assert_refused(&with(without), &[surge]);
    }
    for (field, wrong) in [("pods", json!(0)), ("pods", json!(11)), ("seconds", json!(0)), ("seconds", json!(86_401))] {
        let part = format!("spec.strategy.keepFailed.{field}: Invalid value: {wrong}");
        assert_refused(&with(json!({"keepFailed": {field: wrong}})), &[&part]);
    }
    for strategy in [json!({}), json!({"type": "BlueGreen", "blueGreen": {"activeService": "web"}, "maxSurge": 0})] {
        let mut object = web();
        object["spec"]["strategy"] = with(strategy)[0].1.clone();
        let output = kubectl_with(&["create", "--dry-run=server", "-o", "json", "-f", "-"], &object);
        assert!(output.status.success(), "{output:?}");
        let made: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(made["spec"]["strategy"]["keepFailed"], json!({"pods": 1, "seconds": 600}));
    }
}

/// B3
#[test]
fn blue_green_names_its_services() {
    let strategy = |strategy: Value| [("/spec/strategy", strategy)];
    let both = "spec.strategy: type BlueGreen and blueGreen belong together; set both, or neither";
    assert_refused(&strategy(json!({"type": "BlueGreen"})), &[both]);
    assert_refused(&strategy(json!({"blueGreen": {"activeService": "web"}})), &[both]);
    let of = |settings: Value| strategy(json!({"type": "BlueGreen", "blueGreen": settings}));
    assert_refused(&of(json!({})), &["spec.strategy.blueGreen.activeService: Required value"]);
    let name = "spec.strategy.blueGreen.activeService must be the name of a Service, such as web";
    assert_refused(&of(json!({"activeService": "shop/web"})), &[name]);
    let same = "spec.strategy.blueGreen.previewService must differ from activeService";
    assert_refused(&of(json!({"activeService": "web", "previewService": "web"})), &[same]);
    assert_refused(&of(json!({"activeService": "web", "scaleDownDelaySeconds": -1})), &["scaleDownDelaySeconds"]);
    let batches = json!({"type": "BlueGreen", "blueGreen": {"activeService": "web"}, "batchSize": 1});
    assert_refused(&strategy(batches), &["batchSize and batches are for type Batched"]);
    let mut object = web();
    object["spec"]["strategy"] = json!({"type": "BlueGreen", "blueGreen": {"activeService": "web"}});
    let output = kubectl_with(&["create", "--dry-run=server", "-o", "json", "-f", "-"], &object);
    assert!(output.status.success(), "{output:?}");
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    let settings = json!({"activeService": "web", "promote": "Auto", "scaleDownDelaySeconds": 30});
    assert_eq!(made["spec"]["strategy"]["blueGreen"], settings);
}

#[test]
fn hot_reload_says_where_applications_are_told() {
    let strategy = |strategy: Value| [("/spec/strategy", strategy)];
    let settings = json!({"httpPost": {"path": "/reload", "port": 8080}});
    let both =
        "spec.strategy: update HotReload and the field hotReload (the request that applications get) belong together";
    assert_refused(&strategy(json!({"update": "HotReload"})), &[both]);
    assert_refused(&strategy(json!({"hotReload": settings})), &[both]);
    assert_refused(&strategy(json!({"update": "InPlaceOnly", "maxUnavailable": 1, "hotReload": settings})), &[both]);
    let of = |settings: &Value| strategy(json!({"update": "HotReload", "hotReload": settings}));
    assert_refused(&of(&json!({})), &["spec.strategy.hotReload.httpPost: Required value"]);
    for port in [0, 65_536] {
        assert_refused(
            &of(&json!({"httpPost": {"path": "/", "port": port}})),
            &["spec.strategy.hotReload.httpPost.port"],
        );
    }
    let path = "httpPost.path must begin with / and have only characters that a URL may have, such as /reload";
    for wrong in ["reload", "//a b", "/a#b", "http://elsewhere/"] {
        assert_refused(&of(&json!({"httpPost": {"path": wrong, "port": 8080}})), &[path]);
    }
    let long = json!({"httpPost": {"path": format!("/{}", "a".repeat(1_024)), "port": 8080}});
    assert_refused(&of(&long), &["spec.strategy.hotReload.httpPost.path"]);
    let never = json!({"httpPost": {"path": "/", "port": 8080}, "timeoutSeconds": 0});
    assert_refused(&of(&never), &["spec.strategy.hotReload.timeoutSeconds"]);
    let type_ = "spec.strategy: update changes Pods one by one and is for type Batched";
    assert_refused(&strategy(json!({"type": "Recreate", "update": "HotReload", "hotReload": settings})), &[type_]);
    let [(strategy, value)] = of(&settings);
    let network = "remove spec.template.spec.hostNetwork, or set update to InPlaceIfPossible and remove hotReload";
    assert_refused(&[(strategy, value.clone()), ("/spec/template/spec/hostNetwork", json!(true))], &[network]);
    let mut object = web();
    object["spec"]["strategy"] = value;
    object["spec"]["template"]["spec"]["hostNetwork"] = json!(false);
    let output = kubectl_with(&["create", "--dry-run=server", "-o", "json", "-f", "-"], &object);
    assert!(output.status.success(), "{output:?}");
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(made["spec"]["strategy"]["hotReload"]["timeoutSeconds"], 180);
}

#[test]
fn names_that_leave_no_room_for_those_of_pods_are_refused() {
    let sentence = "metadata.name must be a DNS label that starts with a letter, of at most 40 characters";
    assert_refused(&[("/metadata/name", json!("a".repeat(41)))], &[sentence]);
    assert_refused(&[("/metadata/name", json!("7up"))], &[sentence]);
    assert_refused(&[("/metadata/name", json!("web.shop"))], &[sentence]);
    let mut longest = web();
    longest["metadata"]["name"] = json!("a".repeat(40));
    let output = kubectl_with(&["create", "--dry-run=server", "-f", "-"], &longest);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_deadline_that_no_instance_could_meet_is_refused() {
    let sentence = "spec.progressDeadlineSeconds must exceed spec.minReadySeconds, or no instance could become available in time: raise the first or lower the second";
    assert_refused(&[("/spec/minReadySeconds", json!(600))], &[sentence]);
    let seconds =
        |deadline: i32| [("/spec/minReadySeconds", json!(30)), ("/spec/progressDeadlineSeconds", json!(deadline))];
    assert_refused(&seconds(30), &[sentence]);
    let mut object = web();
    object["spec"]["minReadySeconds"] = json!(30);
    object["spec"]["progressDeadlineSeconds"] = json!(31);
    let output = kubectl_with(&["create", "--dry-run=server", "-f", "-"], &object);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn percentages_that_are_none_are_refused() {
    let sentence = "must be a count from 0 to 10000, such as 5, or a percentage from 0% to 100%, such as \"25%\"";
    for wrong in [json!("101%"), json!("25"), json!("-5%"), json!("2.5%"), json!("%"), json!(-1), json!(10_001)] {
        assert_refused(&[("/spec/strategy/maxSurge", wrong)], &["spec.strategy.maxSurge", sentence]);
    }
}

#[test]
fn typos_and_unknown_words_are_refused() {
    assert_refused(&[("/spec/strategy/batchSise", json!(2))], &["unknown field \"spec.strategy.batchSise\""]);
    assert_refused(
        &[("/spec/strategy/onFailure", json!("Explode"))],
        &["spec.strategy.onFailure: Unsupported value: \"Explode\"", "\"Rollback\"", "\"Pause\""],
    );
    assert_refused(
        &[("/spec/template/spec/restartPolicy", json!("Never"))],
        &["spec.template.spec.restartPolicy must be Always"],
    );
}

#[test]
fn the_selector_cannot_be_changed_later() {
    cluster().kubectl(&["create", "namespace", "selector"]);
    let mut object = web();
    assert!(kubectl_with(&["-n", "selector", "create", "-f", "-"], &object).status.success());
    object["spec"]["selector"]["matchLabels"] = json!({"app": "other"});
    object["spec"]["template"]["metadata"]["labels"] = json!({"app": "other"});
    let output = kubectl_with(&["-n", "selector", "replace", "-f", "-"], &object);
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.contains("spec.selector is immutable: create a new Rollout under another name instead"),
        "{message}"
    );
    cluster().kubectl(&["-n", "selector", "delete", "rollouts.baton.dev", "web"]);
}

/// The names of the columns in what `kubectl get` printed.
pub fn columns(printed: &str) -> Vec<String> {
    let names = printed.lines().next().unwrap_or_default().split("  ").map(str::trim);
    names.filter(|name| !name.is_empty()).map(String::from).collect()
}

/// X15: no tool but kubectl.
#[test]
fn samples_apply_and_show_the_agreed_columns() {
    cluster().kubectl(&["create", "namespace", "samples"]);
    cluster().kubectl(&["-n", "samples", "apply", "-f", &repository("config/samples")]);
    let get = |output: &str| cluster().kubectl(&["-n", "samples", "get", "rollouts.baton.dev", "-o", output]);
    let columns = |output: &str| columns(&get(output));
    let shown = ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "BATCH", "STATUS", "AGE"];
    assert_eq!(columns(""), shown);
    let wide: Vec<_> = shown.into_iter().chain(["VERSION", "REVISION", "IMAGES", "MESSAGE"]).collect();
    assert_eq!(columns("wide"), wide);
    let short = cluster().kubectl(&["-n", "samples", "get", "bro", "web", "-o", "name"]);
    assert_eq!(short.trim(), "rollout.baton.dev/web");
    let category = cluster().kubectl(&["-n", "samples", "get", "baton", "-o", "name"]);
    assert!(category.contains("rollout.baton.dev/web"), "{category}");

    cluster().kubectl(&["-n", "samples", "scale", "rollouts.baton.dev/web", "--replicas=6"]);
    assert_eq!(get("jsonpath={.items[?(@.metadata.name==\"web\")].spec.replicas}"), "6");
    cluster().kubectl(&["delete", "namespace", "samples", "--wait=false"]);
}

/// X15: the two commands as a person types them, with nothing in between, on a cluster that has never seen Baton.
#[test]
fn crds_and_samples_apply_one_after_the_other() {
    const BOTH: &str = "kubectl apply -f crds/ && kubectl apply -f config/samples/";
    let cluster = TestCluster::start("two-commands", "kwok:1");
    let path = format!("{BIN}:{}", std::env::var("PATH").unwrap());
    eventually(30, "both accepted", || {
        let mut command = Command::new("sh");
        command.args(["-c", BOTH]).current_dir(sources::root()).env("PATH", &path);
        let output = command.env("KUBECONFIG", &cluster.kubeconfig).output().unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        // Only what kubectl itself asks to do again: the API server may need a moment to serve a new kind.
        let is_early = complaint.contains("ensure CRDs are installed first");
        assert!(output.status.success() || is_early, "{complaint}");
        output.status.success()
    });
    let names = cluster.kubectl(&["get", "rollouts.baton.dev", "-o", "name"]);
    assert!(names.contains("rollout.baton.dev/web"), "{names}");
    cluster.kubectl(&["apply", "-f", &repository("config/samples/listenersets")]);
    let names = cluster.kubectl(&["get", "listenersets.baton.dev", "-o", "name"]);
    assert_eq!(names.lines().count(), 3, "{names}");
}

/// Nobody has looked at it yet: the generic tools must not take it for finished.
#[test]
fn an_object_that_nobody_has_seen_is_pending() {
    let output = kubectl_with(&["create", "--dry-run=server", "-o", "json", "-f", "-"], &web());
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    let ready = &object["status"]["conditions"][0];
    assert_eq!(
        (&ready["type"], &ready["status"], &ready["reason"]),
        (&json!("Ready"), &json!("Unknown"), &json!("Pending"))
    );
}

/// Defaults are filled in where a user can see them.
#[test]
fn defaults_are_those_of_a_deployment_where_it_has_them() {
    let mut object = web();
    let spec = object["spec"].as_object_mut().unwrap();
    spec.remove("replicas");
    spec.remove("strategy");
    let output = kubectl_with(&["create", "--dry-run=server", "-o", "json", "-f", "-"], &object);
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    let spec = &object["spec"];
    assert_eq!(spec["replicas"], 1);
    assert_eq!(spec["progressDeadlineSeconds"], 600);
    assert_eq!(spec["revisionHistoryLimit"], 10);
    assert_eq!(spec["paused"], false);
    let strategy = json!({
        "type": "Batched", "maxUnavailable": "25%", "maxSurge": "25%", "onFailure": "Rollback", "failureThreshold": 1,
    });
    assert_eq!(spec["strategy"], strategy);
}
