//! What is done for good rests on what is so now, past what watches have told.
use serde_json::{Value, json};

use super::{
    tests::{ROLLOUT, Rig},
    *,
};

const SERVICE: &str = "/api/v1/namespaces/shop/services/web";
const REVISIONS: &str = "/apis/apps/v1/namespaces/shop/controllerrevisions";

/// zookeeper-operator#314: the watch on Rollouts may lag behind the one on Pods.
#[tokio::test(start_paused = true)]
async fn no_pod_is_deleted_for_a_spec_that_is_no_longer_the_latest() {
    let rig = Rig::of(3).await;
    rig.run(Duration::from_secs(10)).await;
    rig.pods().iter().for_each(|path| rig.make_ready(path));
    rig.run(Duration::from_secs(10)).await;
    assert_eq!(rig.status()["conditions"][0]["reason"], "Complete", "{}", rig.status());
    let scale = |replicas: i32, generation: i64| {
        let mut rollout = rig.object(ROLLOUT);
        rollout["spec"]["replicas"] = json!(replicas);
        rollout["metadata"]["generation"] = json!(generation);
        rig.world().put(ROLLOUT, rollout);
    };
    rig.world().tells = false;
    scale(1, 2);
    rig.tell().await;
    scale(3, 3); // and this the watch does not tell yet
    let began = Instant::now();
    for _ in 0..20 {
        rig.look().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(rig.count("DELETE"), 0, "{:?}", rig.calls());
    assert!(rig.count(&format!("GET {ROLLOUT}")) > 0);
    rig.run(Duration::from_secs(10)).await;
    assert_eq!((rig.count("DELETE"), rig.pods().len()), (0, 3));
}

/// C10, seed 1660001039: a user has pinned an instance to it in this moment.
#[tokio::test(start_paused = true)]
async fn no_revision_is_cleared_away_that_the_latest_spec_pins() {
    let rig = Rig::of(1).await;
    let settle = async || {
        rig.run(Duration::from_secs(10)).await;
        rig.pods().iter().for_each(|path| rig.make_ready(path));
        rig.run(Duration::from_secs(10)).await;
    };
    settle().await;
    let first = rig.status()["currentRevision"].clone();
    let path = format!("{REVISIONS}/{}", first.as_str().unwrap());
    let containers = json!([{"name": "app", "image": "web:2"}]);
    rig.merge(
        ROLLOUT,
        &json!({"metadata": {"generation": 2}, "spec": {"template": {"spec": {"containers": containers}}}}),
    );
    settle().await;
    settle().await;
    assert_ne!(rig.status()["currentRevision"], first, "{}", rig.status());
    rig.world().tells = false;
    rig.merge(ROLLOUT, &json!({"metadata": {"generation": 3}, "spec": {"revisionHistoryLimit": 0}}));
    rig.tell().await;
    let pins = json!([{"instances": "0", "revision": first}]);
    rig.merge(ROLLOUT, &json!({"metadata": {"generation": 4}, "spec": {"pins": pins}}));
    rig.look().await;
    assert!(rig.world().objects.contains_key(&path), "{:?}", rig.calls());
    rig.tell().await;
    rig.merge(ROLLOUT, &json!({"metadata": {"generation": 5}, "spec": {"pins": null}}));
    rig.run(Duration::from_secs(10)).await;
    settle().await;
    assert!(!rig.world().objects.contains_key(&path), "it is not needed: {:?}", rig.calls());
}

/// B3: the leader before may have switched it in its last moment, and its watch has yet to tell.
#[tokio::test(start_paused = true)]
async fn a_service_is_forgotten_only_as_it_is_now() {
    let rig = Rig::of(1).await;
    let rollout = json!({"status": {"services": ["web"]}});
    rig.merge(ROLLOUT, &rollout);
    let metadata = json!({"name": "web", "namespace": "shop", "annotations": {"baton.dev/rollout": "web"}});
    let service = json!({"metadata": metadata, "spec": {"selector": {"app": "web"}}});
    rig.world().put(SERVICE, service);
    rig.tell().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    rig.merge(SERVICE, &json!({"spec": {"selector": {"baton.dev/revision": "web-x"}}}));
    assert_eq!(rig.look().await.result, Result::Stale);
    assert_eq!(rig.status(), rollout["status"]);
    rig.tell().await;
    rig.run(Duration::from_mins(1)).await;
    assert_eq!(rig.object(SERVICE)["spec"]["selector"], json!({"app": "web"}));
    assert_eq!(rig.status()["services"], Value::Null);
    // Seed 1660000201: what that leader has sent still names the version before.
    assert!(rig.object(SERVICE)["metadata"]["annotations"]["baton.dev/overtaken"].is_string());
}
