//! ListenerSets with as many listeners as a set may have, and no Pod that could run one.
use anyhow::Result;
use baton::api::ListenerSet;
use kube::Client;
use serde_json::{Value, json};

use super::create_all;

/// spec.count at most.
const COUNT: usize = 10_000;

pub async fn make(client: &Client, sets: usize) -> Result<()> {
    create(client, sets, &json!({"count": {"count": COUNT}})).await
}

/// Creates sets that have their listeners from this source.
pub async fn create(client: &Client, sets: usize, source: &Value) -> Result<()> {
    create_all::<ListenerSet>(client, sets, |number| {
        let mut spec = source.clone();
        spec["rolloutRef"] = json!({"name": format!("none-{number}")});
        if let Some(count) = spec.get_mut("count") {
            count["namePrefix"] = json!(format!("set-{number}-"));
        }
        json!({"metadata": {"name": format!("set-{number}")}, "spec": spec})
    })
    .await
}
