//! Packages from a server: a real agent fetches them, in real init containers. And those that the kubelet mounts.
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Stdio},
    sync::OnceLock,
    time::Duration,
};

use baton::api::{Rollout, fingerprint::hexadecimal};
use flate2::{Compression, write::GzEncoder};
use k8s_openapi::api::{apps::v1::ControllerRevision, core::v1::Pod};
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    plugin::run as plugin,
    stage::{Stage, program, real, reason},
};
use crate::cluster::support::TestCluster;

const AGENT: &str = env!("CARGO_BIN_EXE_baton-agent");
const TESTBED: &str = env!("CARGO_BIN_EXE_baton-testbed");

/// A folder that a server within the cluster serves.
pub struct Server {
    dir: PathBuf,
    url: String,
    process: Child,
}

impl Server {
    pub fn start(cluster: &TestCluster, name: &str) -> Self {
        Self::with(cluster, name, "http", &[])
    }

    /// The same by https, and the certificate that clients must trust.
    pub fn start_secure(cluster: &TestCluster, name: &str) -> (Self, String) {
        let certificate = cluster.dir.join(format!("packages-{name}.pem"));
        let server = Self::with(cluster, name, "https", &["--certificate", certificate.to_str().unwrap()]);
        (server, fs::read_to_string(certificate).unwrap())
    }

    fn with(cluster: &TestCluster, name: &str, scheme: &str, args: &[&str]) -> Self {
        let dir = cluster.dir.join("packages").join(name);
        fs::create_dir_all(&dir).unwrap();
        let mut command = cluster.enter(TESTBED);
        command.args(["files", "--listen", "10.244.255.1:0", "--token", "t0ken", "--dir"]).arg(&dir).args(args);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = format!("{scheme}://{}", line.trim().strip_prefix("listening on ").unwrap());
        Self { dir, url, process }
    }

    /// Where what is served under this name can be had.
    pub fn url(&self, name: &str) -> String {
        format!("{}/{name}", self.url)
    }

    /// Serves this under a name; its SHA-256.
    pub fn put(&self, name: &str, archive: &[u8]) -> String {
        let part = self.dir.join(".part");
        fs::write(&part, archive).unwrap();
        fs::rename(part, self.dir.join(name)).unwrap();
        hexadecimal(&Sha256::digest(archive))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// A tar.gz of one file.
pub fn archive(path: &str, content: &str) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes()); // whatever it says
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    tar.append(&header, content.as_bytes()).unwrap();
    tar.into_inner().unwrap().finish().unwrap()
}

async fn stage(name: &str) -> Stage {
    static AGENT_IMAGE: OnceLock<()> = OnceLock::new();
    AGENT_IMAGE.get_or_init(|| program(real(), "baton-agent", "1", &fs::read(AGENT).unwrap()));
    let mut stage = Stage::without_operator(real(), name).await;
    stage.operator_args = vec!["--agent-image=example.local/baton-agent:1".into()];
    stage.start_operator();
    stage
}

impl Stage {
    /// Applies two instances with this package, and an init container that finds the file `version` in it.
    pub async fn roll_package(&self, version: &str, package: &Value) {
        self.roll_package_as(version, package, |_| {}).await;
    }

    /// The same with another template.
    pub async fn roll_package_as(&self, version: &str, package: &Value, change: impl FnOnce(&mut Value)) {
        let find =
            ["sh", "-c", "cat /opt/app/version; ! touch /opt/app/x 2>&- && ! ls -d /baton-package* > /dev/null 2>&1"];
        let image = "example.local/sleeper:1";
        let mut template = json!({"spec": {"initContainers": [{"name": "find", "image": image, "command": find}]}});
        change(&mut template);
        let strategy = json!({"batchSize": 1, "maxSurge": 1, "maxUnavailable": 0});
        let mut package = package.clone();
        package["mountPath"] = json!("/opt/app");
        let spec =
            json!({"replicas": 2, "version": version, "package": package, "template": template, "strategy": strategy});
        self.roll("1", spec).await;
    }

    /// What each live Pod has found, by its name.
    pub async fn found(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for pod in self.live().await {
            let name = pod.name_any();
            let words = tokio::task::block_in_place(|| {
                self.cluster.kubectl(&["-n", &self.namespace, "logs", &name, "-c", "find"])
            });
            found.insert(name, words);
        }
        found
    }

    /// Waits until the version was given up and all is as before; what status says of the failure.
    async fn rolled_back(&self, before: &[Pod]) -> (String, String) {
        let rollout = self.until(120, "RolledBack", |rollout| reason(rollout) == "RolledBack").await;
        let uids = |pods: &[Pod]| pods.iter().map(|pod| pod.uid().unwrap()).collect::<Vec<_>>();
        assert_eq!(uids(&self.live_are(30, before.len()).await), uids(before), "the old instances stay");
        failure(&rollout)
    }
}

fn failure(rollout: &Rollout) -> (String, String) {
    let failed = rollout.status.as_ref().unwrap().failed.clone().unwrap();
    (failed.reason, failed.message)
}

/// C8: an update comes with its files; what is not what it should be is named and goes no further.
#[tokio::test(flavor = "multi_thread")]
async fn a_package_update_goes_well_and_three_do_not() {
    let stage = stage("packages").await;
    let server = Server::start(stage.cluster, "packages");
    let url = |name: &str| format!("{}/{name}", server.url);

    let one = server.put("1.0.tar.gz", &archive("version", "one"));
    stage.roll_package("1.0", &json!({"url": url("1.0.tar.gz?key=hidden"), "sha256": one})).await;
    stage.complete(60).await;
    let (private, certificate) = Server::start_secure(stage.cluster, "packages-private");
    let two = private.put("private-2.0.tar.gz", &archive("./version", "two"));
    let certificate = format!("--from-literal=ca.crt={certificate}");
    let secret = ["secret", "generic", "server", "--from-literal=token=t0ken", &certificate];
    stage.cluster.kubectl(&[&["-n", "packages", "create"][..], &secret].concat());
    let package = json!({"url": private.url("private-2.0.tar.gz"), "sha256": two, "secretRef": {"name": "server"}});
    stage.roll_package("2.0", &package).await;
    stage.complete(60).await;
    let found = stage.found().await;
    assert_eq!(found.values().collect::<Vec<_>>(), ["two", "two"], "{found:?}");
    let pods = stage.live().await;

    let three = server.put("3.0.tar.gz", &archive("version", "three"));
    let wanted = "0".repeat(64);
    stage.roll_package("3.0", &json!({"url": url("3.0.tar.gz?key=hidden"), "sha256": wanted})).await;
    let (reason, message) = stage.rolled_back(&pods).await;
    println!("{message}");
    let package = url("3.0.tar.gz");
    assert_eq!(reason, "PackageRejected");
    assert_eq!(message, format!("web-0: package {package}: sha256 is {three}, and should be {wanted}"));

    let evil = server.put("evil.tar.gz", &archive("../../evil", "evil"));
    stage.roll_package("evil", &json!({"url": url("evil.tar.gz"), "sha256": evil})).await;
    let (reason, message) = stage.rolled_back(&pods).await;
    println!("{message}");
    let refused = r#"the archive is refused: "../../evil" leads out of its folder"#;
    assert_eq!(
        (reason.as_str(), message),
        ("PackageRejected", format!("web-0: package {}: {refused}", url("evil.tar.gz")))
    );

    stage.roll_package("4.0", &json!({"url": url("4.0.tar.gz"), "sha256": three})).await;
    let (reason, message) = stage.rolled_back(&pods).await;
    println!("{message}");
    let missing = "the server answers 404 Not Found";
    assert_eq!(
        (reason.as_str(), message),
        ("PackageRejected", format!("web-0: package {}: {missing}", url("4.0.tar.gz")))
    );

    // Back to what ran before, package and all.
    let (code, said, complaint) = plugin(&stage, &["undo", "web", "--to", "1.0"]);
    assert_eq!((code, complaint.as_str()), (Some(0), ""), "{said}");
    let rollout = stage.complete(60).await;
    assert_eq!(rollout.spec.package.unwrap().sha256, Some(one));
    assert_eq!(stage.found().await.into_values().collect::<Vec<_>>(), ["one", "one"]);
}

/// C8: a server that is not there.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_package_server_takes_its_version_back() {
    let stage = stage("packages-dead").await;
    let server = Server::start(stage.cluster, "packages-dead");
    let package = json!({"url": format!("{}/1.0.tar.gz", server.url)});
    server.put("1.0.tar.gz", &archive("version", "one"));
    stage.roll_package("1.0", &package).await;
    stage.complete(60).await;
    let pods = stage.live().await;
    drop(server);
    stage.roll_package("2.0", &package).await;
    let (reason, message) = stage.rolled_back(&pods).await;
    println!("{message}");
    let begin = format!("web-0: package {}: not to be had for 60 s: ", package["url"].as_str().unwrap());
    assert!(reason == "PackageUnavailable" && message.starts_with(&begin), "{reason}: {message}");
    assert!(message.contains("Connection refused"), "{message}");
}

/// C8: what the first instance has fetched binds the others, also after it is gone; and what is there is not fetched again.
#[tokio::test(flavor = "multi_thread")]
async fn a_package_without_a_checksum_stays_what_it_was_first() {
    let stage = stage("packages-bound").await;
    let server = Server::start(stage.cluster, "packages-bound");
    let package = json!({"url": format!("{}/latest.tar.gz", server.url)});
    let first = server.put("latest.tar.gz", &archive("version", "first"));
    stage.roll_package("1", &package).await;
    stage.complete(60).await;
    let revisions: Api<ControllerRevision> = Api::namespaced(stage.client.clone(), &stage.namespace);
    // What images came to is noted by a write of its own, which may follow that of the completion.
    let noted = async {
        loop {
            let revision = revisions.list(&ListParams::default()).await.unwrap().items.remove(0);
            if revision.annotations().contains_key("baton.dev/image-digests") {
                break revision;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let revision = tokio::time::timeout(Duration::from_secs(10), noted).await.expect("digests are noted");
    assert_eq!(revision.annotations()["baton.dev/package-sha256"], first);
    let images: BTreeMap<String, String> =
        serde_json::from_str(&revision.annotations()["baton.dev/image-digests"]).unwrap();
    let ran = stage.live().await[0].status.clone().unwrap().container_statuses.unwrap()[0].image_id.clone();
    assert_eq!(images.keys().collect::<Vec<_>>(), ["find", "web"], "{images:?}");
    assert_eq!(ran, format!("example.local/sleeper@{}", images["web"]));

    let second = server.put("latest.tar.gz", &archive("version", "second"));
    let lost = stage.live().await.remove(1).name_any();
    stage.delete_pod(&lost).await;
    let is_named = |rollout: &Rollout| {
        let exceptions = rollout.status.iter().flat_map(|status| &status.exceptions);
        exceptions.into_iter().any(|exception| exception.reason == "PackageRejected" && exception.instance == 1)
    };
    let rollout = stage.until(60, "the other package is rejected", is_named).await;
    let message = &rollout.status.unwrap().exceptions[0].message;
    println!("{message}");
    assert!(message.ends_with(&format!("sha256 is {second}, and should be {first}")), "{message}");

    // As soon as it is what it was, the instance is back: the kubelet tries again.
    server.put("latest.tar.gz", &archive("version", "first"));
    stage.complete(90).await;
    assert_eq!(stage.found().await.into_values().collect::<Vec<_>>(), ["first", "first"]);
}

/// C8: an image that the kubelet mounts, without an agent; another one replaces the Pods, one that is not there goes no further.
#[tokio::test(flavor = "multi_thread")]
async fn a_package_may_be_an_image() {
    let stage = Stage::new(real(), "packages-image").await;
    for (tag, content) in [("1", "one"), ("2", "two")] {
        let folder = stage.cluster.dir.join("images/files").join(tag);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("version"), content).unwrap();
    }
    let package = |tag: &str| json!({"image": format!("example.local/files:{tag}")});
    stage.roll_package("1.0", &package("1")).await;
    stage.complete(60).await;
    assert_eq!(stage.found().await.into_values().collect::<Vec<_>>(), ["one", "one"]);
    stage.roll_package("2.0", &package("2")).await;
    stage.complete(60).await;
    assert_eq!(stage.found().await.into_values().collect::<Vec<_>>(), ["two", "two"]);
    let pods = stage.live().await;
    let names = |pod: &Pod| pod.spec.clone().unwrap().init_containers.into_iter().flatten().map(|init| init.name);
    assert!(pods.iter().flat_map(names).all(|name| name == "find"), "nothing fetches it");

    stage.roll_package("3.0", &package("3")).await;
    let (reason, message) = stage.rolled_back(&pods).await;
    println!("{message}");
    assert!(["ErrImagePull", "ImagePullBackOff"].contains(&reason.as_str()), "{reason}");
    assert!(message.starts_with("web-0: container find: "), "{message}");
    assert!(message.contains("example.local/files:3: not found"), "{message}");
}

/// C8: the class is the API server's word; what it would refuse is said before, with the field.
#[tokio::test(flavor = "multi_thread")]
async fn a_package_takes_no_class_from_a_pod_and_no_place_that_is_taken() {
    let stage = stage("packages-class").await;
    let container = |mount: &str| {
        json!({
            "name": "web",
            "image": "example.local/sleeper:1",
            "command": ["sleeper"],
            "resources": {"limits": {"cpu": "50m", "memory": "32Mi"}},
            "volumeMounts": [{"name": "data", "mountPath": mount}],
        })
    };
    let template = |mount: &str| json!({"spec": {"containers": [container(mount)], "volumes": [{"name": "data", "emptyDir": {}}]}});
    let package = json!({"url": "http://127.0.0.1:1/web.tar.gz", "mountPath": "/opt/app"});
    stage.roll("1", json!({"replicas": 1, "package": package, "template": template("/opt/app/")})).await;
    let said = "spec.template.spec.containers[0].volumeMounts[0].mountPath: spec.package mounts its volume at /opt/app; mount \
                this one elsewhere";
    let is_said = |rollout: &Rollout| rollout.status.as_ref().is_some_and(|status| status.waiting_for.contains(said));
    stage.until(30, said, is_said).await;

    stage.roll("1", json!({"replicas": 1, "package": package, "template": template("/opt/data")})).await;
    let pod = stage.live_are(30, 1).await.remove(0);
    assert_eq!(pod.status.unwrap().qos_class.as_deref(), Some("Guaranteed"), "{:?}", pod.spec);
}
