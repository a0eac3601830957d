//! The status write against the answers of the API server.
use serde_json::json;

use super::{
    status,
    tests::{calls, snapshot},
};
use crate::{
    api::RolloutStatus,
    scripted::{Answer, recorded},
};

#[tokio::test(start_paused = true)]
async fn status_is_put_at_the_version_it_was_decided_from() {
    let (answer, seen) = recorded(|| Answer::ok(json!({"metadata": {"resourceVersion": "6"}})));
    let calls = calls(answer);
    let rollout = snapshot().rollout;
    let status = RolloutStatus { replicas: 3, ..RolloutStatus::default() };
    let written = status::write(&calls, &rollout, &status).await;
    assert!(matches!(written, status::StatusWrite::Done { resource_version } if resource_version == "6"));
    let call = seen.lock().unwrap().remove(0);
    assert_eq!(call.line(), "PUT /apis/baton.dev/v1alpha1/namespaces/shop/rollouts/web/status");
    assert_eq!(call.body["metadata"]["resourceVersion"], "5");
    assert_eq!(call.body["status"]["replicas"], 3);
}

#[tokio::test(start_paused = true)]
async fn a_status_of_an_outdated_look_is_not_forced() {
    for code in [404, 409] {
        let calls = calls(move |_| Answer::failure(code, "Conflict", "modified"));
        let written = status::write(&calls, &snapshot().rollout, &RolloutStatus::default()).await;
        assert!(matches!(written, status::StatusWrite::Stale));
    }
}
