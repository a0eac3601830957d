//! Rollouts with large templates. They have no Pods.
use anyhow::Result;
use baton::api::Rollout;
use kube::Client;
use serde_json::json;

use super::create_all;
use crate::bench::subject::Subject;

/// A little less than the operator reads of one object: 256 KiB.
pub const READ_BYTES: usize = 240_000;
/// A little less than etcd takes of one request: 1.5 MiB.
pub const HUGE_BYTES: usize = 1_400_000;
/// Length of one environment variable's value: a template is many small values, as users' are.
const VALUE_BYTES: usize = 50;

pub async fn make(client: &Client, rollouts: usize, bytes: usize) -> Result<()> {
    let variable = |number: usize| json!({"name": format!("V{number:06}"), "value": "v".repeat(VALUE_BYTES)});
    let length = variable(0).to_string().len() + 1;
    let variables: Vec<_> = (0..bytes / length).map(variable).collect();
    create_all::<Rollout>(client, rollouts, |number| {
        let mut manifest = Subject::Baton.manifest(0, 0);
        manifest["metadata"] = json!({"name": format!("large-{number}")});
        manifest["spec"]["template"]["spec"]["containers"][0]["env"] = json!(variables);
        manifest
    })
    .await
}
