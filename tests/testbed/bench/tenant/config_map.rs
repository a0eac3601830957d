//! ListenerSets on one ConfigMap that is as large as one may be, and changes each second.
use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use anyhow::Result;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{task::JoinSet, time};

use super::{NOISY, counts};

const NAME: &str = "bots";
const KEY: &str = "listeners.yaml";
/// Of the 1 MiB that a ConfigMap may have.
const BYTES: usize = 1_000_000;
const PERIOD: Duration = Duration::from_secs(1);

pub async fn make(client: &Client, sets: usize, tasks: &mut JoinSet<()>) -> Result<()> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), NOISY);
    let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
    let data = Some(BTreeMap::from([(KEY.to_owned(), list())]));
    api.create(&PostParams::default(), &ConfigMap { metadata, data, ..ConfigMap::default() }).await?;
    counts::create(client, sets, &json!({"configMap": {"name": NAME, "key": KEY}})).await?;
    tasks.spawn(async move {
        let mut period = time::interval(PERIOD);
        for edit in 0_u64.. {
            period.tick().await;
            let patch = Patch::Merge(json!({"data": {"edit": edit.to_string()}}));
            drop(api.patch(NAME, &PatchParams::default(), &patch).await);
        }
    });
    Ok(())
}

/// Listeners in YAML, each with a config.
fn list() -> String {
    let mut text = String::new();
    for number in 0.. {
        if text.len() >= BYTES {
            break;
        }
        writeln!(text, "- name: listener-{number}\n  config: {{symbol: \"S{number}\", note: \"{}\"}}", "n".repeat(60))
            .unwrap_or_default();
    }
    text
}
