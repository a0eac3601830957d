//! Packages: files that come by HTTP, and images that the kubelet mounts.
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt, api::PostParams};
use serde_json::json;

use super::equipment::{NODES, only_on, runtime, spread, stage, together};
use crate::cluster::rollout::{
    packages::{Server, archive},
    stage::reason,
};

#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn a_package_comes_by_http() {
    let _shared = together().await;
    let stage = stage("package").await;
    let server = Server::start(stage.cluster, "e2e");
    for (version, content) in [("1.0", "one"), ("2.0", "two")] {
        let name = format!("{version}.tar.gz");
        let sha256 = server.put(&name, &archive("version", content));
        stage.roll_package_as(version, &json!({"url": server.url(&name), "sha256": sha256}), spread).await;
        stage.complete(120).await;
        assert!(stage.found().await.values().all(|found| found == content), "{:?}", stage.found().await);
    }
    let before: Vec<_> = stage.live().await.iter().filter_map(ResourceExt::uid).collect();
    server.put("3.0.tar.gz", &archive("version", "three"));
    let wrong = json!({"url": server.url("3.0.tar.gz"), "sha256": "0".repeat(64)});
    stage.roll_package_as("3.0", &wrong, spread).await;
    let rollout = stage.until(120, "RolledBack", |rollout| reason(rollout) == "RolledBack").await;
    assert_eq!(rollout.status.unwrap().failed.unwrap().reason, "PackageRejected");
    let after: Vec<_> = stage.live_are(60, 2).await.iter().filter_map(ResourceExt::uid).collect();
    assert_eq!(after, before);
}

/// The server's certificate is known from the package's Secret alone, beside the roots that the agent brings.
#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn a_package_comes_by_https() {
    let _shared = together().await;
    let stage = stage("package-https").await;
    let (server, certificate) = Server::start_secure(stage.cluster, "e2e-https");
    let secret = json!({"metadata": {"name": "packages"}, "stringData": {"token": "t0ken", "ca.crt": certificate}});
    let secrets: Api<Secret> = Api::namespaced(stage.client.clone(), &stage.namespace);
    secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    let sha256 = server.put("private-1.0.tar.gz", &archive("version", "one"));
    let package = json!({"url": server.url("private-1.0.tar.gz"), "sha256": sha256, "secretRef": {"name": "packages"}});
    stage.roll_package_as("1.0", &package, spread).await;
    stage.complete(120).await;
    assert!(stage.found().await.values().all(|found| found == "one"), "{:?}", stage.found().await);
}

/// containerd knows image volumes since 2.1.
#[ignore = "needs real nodes: make e2e"]
#[tokio::test(flavor = "multi_thread")]
async fn a_package_is_an_image() {
    let _shared = together().await;
    for node in NODES {
        let stage = stage(&format!("package-image-{node}")).await;
        let runtime = runtime(&stage, node).await;
        let package = |tag: &str| json!({"image": format!("example.local/files:{tag}")});
        stage.roll_package_as("1.0", &package("1"), |template| only_on(template, node)).await;
        if runtime.starts_with("containerd://1.") {
            let rollout = stage.until(120, "failed", |rollout| reason(rollout) == "FirstRevisionFailed").await;
            assert_eq!(rollout.status.unwrap().failed.unwrap().reason, "CreateContainerError", "{runtime}");
            continue;
        }
        stage.complete(60).await;
        assert!(stage.found().await.values().all(|found| found == "one"), "{:?}", stage.found().await);
        stage.roll_package_as("2.0", &package("2"), |template| only_on(template, node)).await;
        stage.complete(60).await;
        assert!(stage.found().await.values().all(|found| found == "two"), "{:?}", stage.found().await);
    }
}
