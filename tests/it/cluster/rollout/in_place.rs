//! Pods that are given another image and stay the Pods that they are.
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, api::LogParams};
use serde_json::json;

use super::stage::{Stage, image, real, reason};

/// uid and address, by slot.
fn identities(pods: &[Pod]) -> BTreeMap<String, (String, String)> {
    let ip = |pod: &Pod| pod.status.as_ref().unwrap().pod_ip.clone().unwrap();
    pods.iter().map(|pod| (pod.labels()["baton.dev/instance"].clone(), (pod.uid().unwrap(), ip(pod)))).collect()
}

/// Image and id of the container that runs, and how often it was restarted.
fn containers(pods: &[Pod]) -> Vec<(String, String, i32)> {
    let of = |pod: &Pod| {
        let status = pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0].clone();
        (status.image, status.container_id.unwrap(), status.restart_count)
    };
    pods.iter().map(of).collect()
}

/// B4 B7: uid and address stay, the process is the other image's, with its version in the environment; one that does not start
/// goes back the same way; what no Pod can be given replaces it.
#[tokio::test(flavor = "multi_thread")]
async fn pods_stay_and_run_another_image() {
    let stage = Stage::new(real(), "in-place").await;
    let said =
        "#!/bin/sh\ntrap 'exit 0' TERM\necho \"I am $BATON_VERSION of $BATON_REVISION\"\nsleep infinity & wait\n";
    image(stage.cluster, "sleeper", "in-place", said);
    let spec = json!({"replicas": 4, "strategy": {"update": "InPlaceIfPossible", "maxUnavailable": 1, "batchSize": 2}});
    stage.roll("1", spec.clone()).await;
    stage.complete(60).await;
    let before = stage.live().await;
    stage.roll("in-place", spec.clone()).await;
    let rollout = stage.complete(60).await;
    let after = stage.live().await;
    assert_eq!(identities(&after), identities(&before));
    for ((image, id, restarts), (_, old, _)) in containers(&after).into_iter().zip(containers(&before)) {
        assert!(image.ends_with(":in-place") && id != old && restarts == 1, "{image} {id} {restarts}");
    }
    let status = rollout.status.unwrap();
    assert_eq!(
        status.versions.iter().map(|it| (it.version.as_str(), it.ready.as_str())).collect::<Vec<_>>(),
        [("in-place", "0-3")]
    );
    let log = stage.pods().logs(&after[0].name_any(), &LogParams::default()).await.unwrap();
    let revision = &after[0].annotations()["baton.dev/revision"];
    assert!(log.contains(&format!("I am in-place of {revision}")), "{log}");

    stage.roll("broken", spec.clone()).await;
    let rollout = stage.until(120, "rolled back", |rollout| reason(rollout) == "RolledBack").await;
    assert_eq!(rollout.status.unwrap().failed.unwrap().slots, "0", "one at a time");
    let back = stage.live().await;
    assert_eq!(identities(&back), identities(&before));
    assert!(containers(&back).iter().all(|(image, ..)| image.ends_with(":in-place")), "{:?}", containers(&back));

    let mut other = spec;
    other["template"] = json!({"spec": {"hostname": "other"}});
    stage.roll("1", other).await;
    stage.complete(60).await;
    let replaced = identities(&stage.live_are(30, 4).await);
    assert!(identities(&before).iter().all(|(slot, identity)| replaced[slot].0 != identity.0), "{replaced:?}");
}
