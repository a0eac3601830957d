//! The row about the node as an object.
use std::{path::Path, process::Command};

use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};
use kube::Api;

use super::fixture::{cluster, until};
use crate::cluster::support::BIN;

/// N72
#[tokio::test]
async fn a_node_registers_under_its_own_name_and_renews_its_lease() {
    let client = cluster().client().await;
    let node = Api::<Node>::all(client.clone()).get("process-1").await.unwrap();
    let labels = node.metadata.labels.unwrap();
    assert_eq!(labels["kubernetes.io/hostname"], "process-1");
    assert_eq!((labels["kubernetes.io/os"].as_str(), labels["baton.dev/node"].as_str()), ("linux", "process"));
    let status = node.status.unwrap();
    let addresses = status.addresses.unwrap();
    assert!(addresses.iter().any(|one| (one.type_.as_str(), one.address.as_str()) == ("InternalIP", "10.244.1.1")));
    assert_eq!(status.allocatable.unwrap()["pods"].0, "253", "as many as there are addresses");
    assert_eq!(status.daemon_endpoints.unwrap().kubelet_endpoint.unwrap().port, 10250);

    let leases = Api::<Lease>::namespaced(client, "kube-node-lease");
    let lease = async || leases.get("process-1").await.unwrap();
    let first = lease().await;
    assert_eq!(first.metadata.owner_references.unwrap()[0].uid, node.metadata.uid.unwrap());
    let first = first.spec.unwrap();
    assert_eq!((first.holder_identity.as_deref(), first.lease_duration_seconds), (Some("process-1"), Some(8)));
    let renewed = async || (lease().await.spec?.renew_time > first.renew_time).then_some(());
    until(10, "the lease to be renewed", renewed).await;

    let as_node = |args: &[&str]| {
        let mut kubectl = Command::new(Path::new(BIN).join("kubectl"));
        kubectl.env("KUBECONFIG", cluster().dir.join("node/process-1/kubeconfig"));
        let output = kubectl.args(args).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let fields = "jsonpath={.status.userInfo.username} {.status.userInfo.groups}";
    let (_, who) = as_node(&["auth", "whoami", "-o", fields]);
    assert!(who.starts_with("system:node:process-1 ") && who.contains("\"system:nodes\""), "{who}");
    let patch = ["patch", "node", "--type=merge", "--patch={\"metadata\":{\"labels\":{\"mine\":\"yes\"}}}"];
    let (done, why) = as_node(&[&patch[..], &["process-1"]].concat());
    assert!(done, "{why}");
    let (done, why) = as_node(&[&patch[..], &["process-2"]].concat());
    assert!(!done && why.contains("process-2") && why.contains("Forbidden"), "{why}");
}
