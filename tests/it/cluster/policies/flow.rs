//! From which priority level the API server serves agents.
use std::time::Duration;

use kube::core::Request;
use kube::core::params::ListParams;

use super::{grant, hand::Hand, repository, stage};

/// H3: requests of agents about Leases have a priority level of their own, and wait behind no other program.
#[tokio::test]
async fn an_agents_request_is_of_the_flow_of_leases() {
    let namespace = "policy-flow";
    let cluster = stage(namespace, &["a@bots"]);
    cluster.kubectl(&["apply", "-k", &repository("config/flow")]);
    grant(cluster, namespace, "bots", &[("coordination.k8s.io", "leases", &["list"])]);
    let uid = |kind: &str| cluster.kubectl(&["get", kind, "baton-leases", "-o", "jsonpath={.metadata.uid}"]);
    let expected = [uid("flowschema"), uid("prioritylevelconfiguration")];
    let agent = Hand::of_pod(cluster, namespace, "a").await;
    let client = agent.leases.clone().into_client();
    let mut told = [String::new(), String::new()];
    for _ in 0..500 {
        let request = Request::new(agent.leases.resource_url()).list(&ListParams::default()).unwrap();
        let answer = client.send(request.map(Into::into)).await.unwrap();
        let header =
            |name: &str| answer.headers().get(name).and_then(|it| it.to_str().ok()).unwrap_or_default().to_owned();
        told = ["x-kubernetes-pf-flowschema-uid", "x-kubernetes-pf-prioritylevel-uid"].map(header);
        if told == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{told:?} is not {expected:?}");
}
