//! ListenerSets with as many listeners as a set may have, and no Pod that could run one.
use anyhow::Result;
use baton::api::ListenerSet;
use futures::{StreamExt, TryStreamExt, stream};
use kube::{Api, Client, api::PostParams};
use serde_json::{Value, json};

use super::{AT_ONCE, NOISY};

/// spec.count at most.
const COUNT: usize = 10_000;

pub async fn make(client: &Client, sets: usize) -> Result<()> {
    create(client, sets, &json!({"count": {"count": COUNT}})).await
}

/// Creates sets that have their listeners from this source.
pub async fn create(client: &Client, sets: usize, source: &Value) -> Result<()> {
    let api: Api<ListenerSet> = Api::namespaced(client.clone(), NOISY);
    stream::iter(0..sets)
        .map(|number| {
            let mut spec = source.clone();
            spec["rolloutRef"] = json!({"name": format!("none-{number}")});
            if let Some(count) = spec.get_mut("count") {
                count["namePrefix"] = json!(format!("set-{number}-"));
            }
            let set = json!({"metadata": {"name": format!("set-{number}")}, "spec": spec});
            let api = &api;
            async move {
                api.create(&PostParams::default(), &serde_json::from_value(set)?).await?;
                anyhow::Ok(())
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}
