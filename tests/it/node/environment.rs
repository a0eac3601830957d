//! Rows about what a container sees: variables, volumes, identity, isolation.
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
};

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::fixture::{Space, condition, idle, main, sh, until, waiting, with};

async fn config_map(space: &Space, name: &str, data: Value) {
    let map: ConfigMap = serde_json::from_value(json!({ "metadata": { "name": name }, "data": data })).unwrap();
    Api::namespaced(space.client.clone(), &space.namespace).create(&PostParams::default(), &map).await.unwrap();
}

async fn secret(space: &Space, name: &str, data: Value) {
    let secret: Secret = serde_json::from_value(json!({ "metadata": { "name": name }, "stringData": data })).unwrap();
    Api::namespaced(space.client.clone(), &space.namespace).create(&PostParams::default(), &secret).await.unwrap();
}

/// Runs a Pod to its end and returns its log.
async fn output(space: &Space, name: &str, script: &str, fields: Value, volumes: Value) -> String {
    let spec = json!({ "restartPolicy": "Never", "volumes": volumes, "containers": [with(sh(script), fields)] });
    space.create(name, spec).await;
    space.until_phase(name, "Succeeded").await;
    space.log(name)
}

/// N50, N51
#[tokio::test]
async fn variables_come_from_all_documented_sources() {
    let space = Space::new("n50").await;
    config_map(&space, "settings", json!({ "mode": "fast", "size": "3" })).await;
    secret(&space, "login", json!({ "password": "a b" })).await;
    let from_field =
        |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let fields = json!({
        "envFrom": [{ "prefix": "S_", "configMapRef": { "name": "settings" } }, { "secretRef": { "name": "none", "optional": true } }],
        "env": [
            { "name": "PLAIN", "value": "one" },
            { "name": "REFERRING", "value": "$(PLAIN)/$(S_mode)/$(NONE)/$$(PLAIN)" },
            { "name": "SIZE", "valueFrom": { "configMapKeyRef": { "name": "settings", "key": "size" } } },
            { "name": "PASSWORD", "valueFrom": { "secretKeyRef": { "name": "login", "key": "password" } } },
            from_field("NAME", "metadata.name"),
            from_field("NAMESPACE", "metadata.namespace"),
            from_field("LABEL", "metadata.labels['app']"),
            from_field("NODE", "spec.nodeName"),
            from_field("ACCOUNT", "spec.serviceAccountName"),
            from_field("IP", "status.podIP"),
            from_field("HOST_IP", "status.hostIP"),
            { "name": "CPU", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu", "divisor": "1m" } } },
        ],
        "resources": { "limits": { "cpu": "250m" } },
        "args": ["$(PLAIN) $(NONE)"],
    });
    let script = "echo \"$0\"; env";
    let log = output(&space, "env", script, fields, json!([])).await;
    let pod = space.pods().get("env").await.unwrap();
    let status = pod.status.unwrap();
    let (ip, host_ip) = (status.pod_ip.unwrap(), status.host_ip.unwrap());
    assert_eq!(log.lines().next(), Some("one $(NONE)"));
    let own_address = format!("IP={ip}");
    let host_address = format!("HOST_IP={host_ip}");
    for line in [
        "PLAIN=one",
        "REFERRING=one/fast/$(NONE)/$(PLAIN)",
        "S_mode=fast",
        "S_size=3",
        "SIZE=3",
        "PASSWORD=a b",
        "NAME=env",
        "NAMESPACE=n50",
        "LABEL=env",
        "NODE=process-1",
        "ACCOUNT=default",
        "CPU=250",
        "HOSTNAME=env",
        "KUBERNETES_SERVICE_HOST=10.96.0.1",
        "KUBERNETES_SERVICE_PORT=443",
        &own_address,
        &host_address,
        &format!("POD_IP={ip}"),
    ] {
        assert!(log.lines().any(|found| found == line), "{line}: {log}");
    }
}

/// N52
#[tokio::test]
async fn a_missing_source_of_a_variable_is_waited_for() {
    let space = Space::new("n52").await;
    space.run("waits", &with(sh(&idle()), json!({ "envFrom": [{ "configMapRef": { "name": "later" } }] }))).await;
    let pod = space.until_waiting("waits", 10, "CreateContainerConfigError").await;
    assert_eq!(waiting(main(&pod).unwrap()).unwrap().1, "configmap \"later\" not found");
    config_map(&space, "later", json!({ "a": "b" })).await;
    space.until_ready("waits").await;
}

/// N53
#[tokio::test]
async fn an_empty_dir_is_shared_by_the_containers_of_a_pod() {
    let space = Space::new("n53").await;
    let mount = |path: &str| json!({ "volumeMounts": [{ "name": "scratch", "mountPath": path }] });
    let init = with(super::fixture::named_sh("init", "mkdir /a/sub; echo text >/a/sub/file"), mount("/a"));
    let fields = json!({ "volumeMounts": [
        { "name": "scratch", "mountPath": "/etc/scratch" },
        { "name": "scratch", "mountPath": "/sub", "subPath": "sub", "readOnly": true },
    ] });
    let script = "cat /etc/scratch/sub/file /sub/file; (echo x >>/sub/file) 2>/dev/null || echo refused; stat -c %a /etc/scratch";
    let spec = json!({
        "restartPolicy": "Never", "volumes": [{ "name": "scratch", "emptyDir": {} }],
        "initContainers": [init], "containers": [with(sh(script), fields)],
    });
    space.create("both", spec).await;
    space.until_phase("both", "Succeeded").await;
    let log = space.log("both");
    assert_eq!(log, "text\ntext\nrefused\n777\n");
}

/// N54, N55
#[tokio::test]
async fn a_volume_from_a_config_map_follows_it() {
    let space = Space::new("n54").await;
    config_map(&space, "settings", json!({ "a": "1", "b": "2" })).await;
    let volumes = json!([{ "name": "settings", "configMap": { "name": "settings", "items": [{ "key": "a", "path": "deep/a" }] } }]);
    let mounts = json!({ "volumeMounts": [
        { "name": "settings", "mountPath": "/settings" },
        { "name": "settings", "mountPath": "/fixed", "subPath": "deep/a" },
    ] });
    let script =
        "ls /settings; trap 'exit 0' TERM; while :; do echo \"$(cat /settings/deep/a) $(cat /fixed)\"; sleep 0.2; done";
    space.create("reads", json!({ "volumes": volumes, "containers": [with(sh(script), mounts)] })).await;
    let log = space.until_log("reads", "1 1").await;
    assert!(log.starts_with("deep\n"), "only what `items` names: {log}");
    let maps = Api::<ConfigMap>::namespaced(space.client.clone(), &space.namespace);
    let patch = Patch::Merge(json!({ "data": { "a": "new" } }));
    maps.patch("settings", &PatchParams::default(), &patch).await.unwrap();
    space.patch("reads", json!({ "metadata": { "annotations": { "touched": "1" } } })).await;
    space.until_log("reads", "new 1").await;

    // Without such a hint it takes a period of a minute.
    let patch = Patch::Merge(json!({ "data": { "a": "newer" } }));
    maps.patch("settings", &PatchParams::default(), &patch).await.unwrap();
    until(60, "the next look at the map", async || space.log("reads").contains("newer 1").then_some(())).await;
}

/// N56
#[tokio::test]
async fn a_secret_volume_has_the_modes_it_asks_for() {
    let space = Space::new("n56").await;
    secret(&space, "login", json!({ "user": "me", "password": "x" })).await;
    let items = json!([{ "key": "user", "path": "user" }, { "key": "password", "path": "password", "mode": 0o600 }]);
    let volumes =
        json!([{ "name": "login", "secret": { "secretName": "login", "defaultMode": 0o440, "items": items } }]);
    let mounts = json!({ "volumeMounts": [{ "name": "login", "mountPath": "/login" }] });
    let script = "cd /login; stat -L -c '%n %a' user password; cat user; touch x 2>/dev/null || echo :refused";
    let log = output(&space, "reads", script, mounts, volumes).await;
    assert_eq!(log, "user 440\npassword 600\nme:refused\n");
}

/// N57
#[tokio::test]
async fn a_downward_volume_follows_the_labels() {
    let space = Space::new("n57").await;
    let items = json!([{ "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } }]);
    let volumes = json!([{ "name": "me", "downwardAPI": { "items": items } }]);
    let mounts = json!({ "volumeMounts": [{ "name": "me", "mountPath": "/me" }] });
    let script = "trap 'exit 0' TERM; while :; do cat /me/labels; echo; sleep 0.2; done";
    space.create("reads", json!({ "volumes": volumes, "containers": [with(sh(script), mounts)] })).await;
    space.until_log("reads", "app=\"reads\"").await;
    space.patch("reads", json!({ "metadata": { "labels": { "color": "red" } } })).await;
    space.until_log("reads", "color=\"red\"").await;
}

/// N58
#[tokio::test]
async fn a_volume_that_cannot_be_made_keeps_the_pod_from_starting() {
    let space = Space::new("n58").await;
    let volumes = json!([{ "name": "late", "configMap": { "name": "late" } }]);
    space.create("waits", json!({ "volumes": volumes, "containers": [sh(&idle())] })).await;
    space.until_event("waits", "FailedMount", "configmap \"late\" not found").await;
    let pod = space.until_waiting("waits", 5, "ContainerCreating").await;
    assert_eq!(condition(&pod, "PodReadyToStartContainers").status, "False");
    config_map(&space, "late", json!({})).await;
    space.until_ready("waits").await;

    let volumes = json!([{ "name": "disk", "nfs": { "server": "nowhere", "path": "/" } }]);
    space.create("disk", json!({ "volumes": volumes, "containers": [sh(&idle())] })).await;
    space.until_event("disk", "FailedMount", "this node has no volumes of this kind").await;
}

/// N59
#[tokio::test]
async fn the_token_of_the_service_account_opens_the_api() {
    let space = Space::new("n59").await;
    let folder = "/var/run/secrets/kubernetes.io/serviceaccount";
    let script = format!("cat {folder}/namespace; echo; cat {folder}/token; echo; head -1 {folder}/ca.crt");
    let log = output(&space, "shows", &script, json!({}), json!([])).await;
    let mut lines = log.lines();
    assert_eq!(lines.next(), Some("n59"));
    let token = lines.next().unwrap().to_owned();
    assert_eq!(lines.next(), Some("-----BEGIN CERTIFICATE-----"));
    let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": { "token": token } });
    let review: k8s_openapi::api::authentication::v1::TokenReview = serde_json::from_value(review).unwrap();
    let review = Api::all(space.client.clone()).create(&PostParams::default(), &review).await.unwrap();
    let user = review.status.unwrap().user.unwrap();
    assert_eq!(user.username.as_deref(), Some("system:serviceaccount:n59:default"));
    let pod = user.extra.unwrap()["authentication.kubernetes.io/pod-name"].clone();
    assert_eq!(pod, ["shows"], "bound to the Pod");

    let spec = json!({
        "restartPolicy": "Never", "automountServiceAccountToken": false,
        "containers": [sh(&format!("ls {folder} 2>/dev/null || echo none"))],
    });
    space.create("without", spec).await;
    space.until_phase("without", "Succeeded").await;
    assert_eq!(space.log("without"), "none\n");
}

/// N74
#[tokio::test]
async fn a_token_is_renewed_at_four_fifths_of_its_life() {
    let space = Space::new("n74").await;
    // The fields of a file that say when.
    let renewal = |schedule: &Path| -> jiff::Timestamp {
        let text = fs::read_to_string(schedule).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["renew_at"].as_str().unwrap().parse().unwrap()
    };
    let source = json!({ "serviceAccountToken": { "path": "token", "expirationSeconds": 1000 } });
    let volumes = json!([{ "name": "mine", "projected": { "sources": [source] } }]);
    let mounts = json!({ "volumeMounts": [{ "name": "mine", "mountPath": "/mine" }] });
    let spec = json!({ "volumes": volumes, "containers": [with(sh(&idle()), mounts)] });
    let begun = jiff::Timestamp::now();
    let pod = space.create("renews", spec).await;
    space.until_ready("renews").await;
    let volumes = space.state().join("pods").join(pod.metadata.uid.as_ref().unwrap()).join("volumes");
    let (token, schedule) = (volumes.join("mine/token"), volumes.join("mine.token.schedule"));
    let first = fs::read_to_string(&token).unwrap();
    let renew_in = renewal(&schedule).duration_since(begun).as_secs();
    // The time that all this took is part of it.
    let took = jiff::Timestamp::now().duration_since(begun).as_secs();
    assert!((799..=801 + took).contains(&renew_in), "{renew_in} s after {took} s");

    space.patch("renews", json!({ "metadata": { "annotations": { "look": "1" } } })).await;
    space.until_log("renews", "up").await;
    assert_eq!(fs::read_to_string(&token).unwrap(), first, "it is not time yet");
    fs::write(&schedule, json!({ "renew_at": begun }).to_string()).unwrap();
    space.patch("renews", json!({ "metadata": { "annotations": { "look": "2" } } })).await;
    let renewed = async || fs::read_to_string(&token).ok().filter(|token| *token != first);
    until(15, "another token", renewed).await;
    assert!(renewal(&schedule) > jiff::Timestamp::now());
}

/// N60
#[tokio::test]
async fn a_container_is_alone_and_cannot_change_the_machine() {
    let space = Space::new("n60").await;
    let script = "echo $$$$; ls -d /proc/[0-9]* | wc -l; (touch /usr/x || echo usr; touch /image/x || echo image) 2>/dev/null; \
        touch /x && echo root; [ -e \"$0\" ] || echo hidden; echo x >/etc/own && cat /etc/own; \
        [ -e /etc/ssl/certs/ca-certificates.crt ] || echo no roots";
    // A folder of the machine that no image and no volume has.
    let fields = json!({ "args": [env!("CARGO_MANIFEST_DIR")] });
    let log = output(&space, "alone", script, fields, json!([])).await;
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[0], "1", "the command is process 1");
    assert!(lines[1].trim().parse::<u32>().unwrap() <= 3, "{log}");
    assert_eq!(lines[2..], ["usr", "image", "root", "hidden", "x", "no roots"], "{log}");
    assert!(!std::path::Path::new("/x").exists());
}

/// N61
#[tokio::test]
async fn the_host_name_is_the_pods() {
    let space = Space::new("n61").await;
    let script = "hostname; cat /etc/hostname; grep -c \"^$POD_IP\" /etc/hosts; grep other /etc/hosts";
    let spec = |hostname: Value| {
        json!({
            "restartPolicy": "Never", "hostname": hostname, "containers": [sh(script)],
            "hostAliases": [{ "ip": "10.1.2.3", "hostnames": ["other.example"] }],
        })
    };
    for (name, hostname, expected) in [("plain", Value::Null, "plain"), ("named", json!("own"), "own")] {
        space.create(name, spec(hostname)).await;
        space.until_phase(name, "Succeeded").await;
        assert_eq!(space.log(name), format!("{expected}\n{expected}\n1\n10.1.2.3\tother.example\n"));
    }
}

/// N62
#[tokio::test]
async fn every_pod_has_an_address_of_its_own() {
    let space = Space::new("n62").await;
    let mut addresses = BTreeSet::new();
    for name in ["one", "two", "three"] {
        space.run(name, &sh(&idle())).await;
        let status = space.until_ready(name).await.status.unwrap();
        assert_eq!(status.host_ip.as_deref(), Some("10.244.1.1"));
        let address = status.pod_ip.unwrap();
        assert_eq!(status.pod_ips.unwrap()[0].ip, address);
        assert!(address.starts_with("10.244.1."), "{address}");
        addresses.insert(address);
    }
    assert_eq!(addresses.len(), 3);
    space.create("host", json!({ "hostNetwork": true, "containers": [sh(&idle())] })).await;
    assert_eq!(space.until_ready("host").await.status.unwrap().pod_ip.as_deref(), Some("10.244.1.1"));
}

/// N63
#[tokio::test]
async fn the_observed_generation_follows_the_specification() {
    let space = Space::new("n63").await;
    space.run("pod", &sh(&idle())).await;
    let pod = space.until_ready("pod").await;
    let observed = |pod: &Pod| pod.status.as_ref()?.observed_generation;
    assert_eq!((pod.metadata.generation, observed(&pod)), (Some(1), Some(1)));
    space.patch("pod", json!({ "spec": { "activeDeadlineSeconds": 1000 } })).await;
    let seen =
        |pod: &Pod| (observed(pod) == Some(2) && condition(pod, "Ready").observed_generation == Some(2)).then_some(());
    space.until("pod", 5, "generation 2", seen).await;
    assert_eq!(space.pods().get("pod").await.unwrap().metadata.generation, Some(2));
}

/// N64
#[tokio::test]
async fn logs_can_be_read_in_all_usual_ways() {
    let space = Space::new("n64").await;
    let script = "echo start; echo problem >&2; n=0; until [ -e /shared/end ]; do sleep 0.1; done; echo end";
    let fields = json!({ "volumeMounts": [{ "name": "shared", "mountPath": "/shared" }] });
    let side = super::fixture::named_sh("side", "echo from the side; sleep 100");
    space.create("talks", json!({ "volumes": [space.shared()], "containers": [with(sh(script), fields), side] })).await;
    space.until_log("talks", "problem").await;
    let mut lines: Vec<String> = space.log("talks").lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["problem", "start"]);
    space.until_log_of("talks", "side", "from the side").await;
    assert_eq!(space.kubectl(&["logs", "talks", "--tail=1"]).lines().count(), 1);
    let stamped = space.kubectl(&["logs", "talks", "--timestamps"]);
    let stamps = stamped.lines().map(|line| line.split_once(' ').unwrap().0.parse::<jiff::Timestamp>());
    assert_eq!(stamps.flatten().count(), 2, "{stamped}");

    let kubectl = std::path::Path::new(crate::cluster::support::BIN).join("kubectl");
    let mut follow = std::process::Command::new(kubectl);
    follow.args(["--namespace", "n64", "logs", "talks", "--follow"]);
    follow.env("KUBECONFIG", &super::fixture::cluster().kubeconfig).stdout(std::process::Stdio::piped());
    let mut follow = follow.spawn().unwrap();
    let mut out = BufReader::new(follow.stdout.take().unwrap());
    let end = space.folder().join("end");
    let out = tokio::task::spawn_blocking(move || {
        let mut told = String::new();
        out.read_line(&mut told).unwrap();
        // It is being followed: what comes now it can only have by waiting for it.
        fs::write(end, "").unwrap();
        out.read_to_string(&mut told).unwrap();
        assert!(follow.wait().unwrap().success());
        told
    });
    let out = out.await.unwrap();
    assert!(out.ends_with("end\n"), "following ends with the container: {out}");
    let again = until(10, "the log before the restart", async || {
        let pod = space.pods().get("talks").await.unwrap();
        (main(&pod)?.restart_count > 0).then(|| space.kubectl(&["logs", "talks", "--previous"]))
    });
    assert!(again.await.contains("start\n"));
}

/// N75
#[tokio::test]
async fn of_a_long_log_the_newest_part_is_kept() {
    const LINES: usize = 12_000;
    let space = Space::new("n75").await;
    // 12 MB in lines of 1000 bytes and their number.
    let script = format!("yes $(printf %01000d 0) | head -n {LINES} | cat -n; echo last");
    let log = output(&space, "long", &script, json!({}), json!([])).await;
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.last(), Some(&"last"));
    assert!(lines.len() > 1 && lines.len() < LINES, "{} lines", lines.len());
    let first: usize = lines[0].split_whitespace().next().unwrap().parse().unwrap();
    assert_eq!(lines.len(), LINES - first + 2, "nothing is missing between the first one shown and the last");
}

/// N73
#[tokio::test]
async fn a_security_context_is_accepted_and_not_enforced() {
    let space = Space::new("n73").await;
    let context = json!({ "securityContext": { "runAsUser": 12345, "readOnlyRootFilesystem": true } });
    let log = output(&space, "root", "id -u; touch /x && echo writable", context, json!([])).await;
    assert_eq!(log, "0\nwritable\n");
}

/// N65
#[tokio::test]
async fn what_the_node_does_not_do_is_said() {
    let space = Space::new("n65").await;
    space
        .create(
            "odd",
            json!({ "shareProcessNamespace": true, "containers": [with(sh(&idle()), json!({ "tty": true }))] }),
        )
        .await;
    space.until_event("odd", "Unsupported", "shareProcessNamespace, main: tty").await;
    space.until_ready("odd").await;
}
