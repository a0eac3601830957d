//! Rollouts from a file, as the API server would store them.
use std::{io::Read, path::Path};

use anyhow::{Context, Result, anyhow, bail};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use serde_json::{Map, Value, json};

use super::hints;
use crate::{
    api::{
        Rollout,
        names::{GROUP, VERSION},
    },
    client::{Cluster, asked},
};

/// Where `kubectl apply` keeps what was applied last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Field manager of `kubectl apply --server-side`.
const KUBECTL: &str = "kubectl";

/// The Rollouts among the documents of a YAML or JSON file; `-` is standard input.
pub(super) fn read(path: &Path) -> Result<Vec<Value>> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).context("standard input cannot be read")?;
    } else {
        text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    }
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(&text).with_context(|| format!("{} is not YAML", path.display()))?;
    let rollouts: Vec<Value> = documents.into_iter().flat_map(items).filter(is_rollout).collect();
    if rollouts.is_empty() {
        bail!("{} holds no Rollout of {GROUP}/{VERSION}", path.display());
    }
    Ok(rollouts)
}

/// The members of a `List`, else the document itself.
fn items(document: Value) -> Vec<Value> {
    match document.get("items").and_then(Value::as_array) {
        Some(items) if document["kind"] == "List" => items.clone(),
        _ => vec![document],
    }
}

fn is_rollout(document: &Value) -> bool {
    let group = document["apiVersion"].as_str().and_then(|version| version.split_once('/')).map(|(group, _)| group);
    document["kind"] == "Rollout" && group == Some(GROUP)
}

/// What `kubectl apply` of this document would store: defaulted and checked by the API server, and not stored.
pub(super) async fn dry_run(cluster: &Cluster, document: &Value) -> Result<Rollout> {
    let name = document["metadata"]["name"].as_str().context("metadata.name is missing")?;
    let api: Api<DynamicObject> =
        Api::namespaced_with(cluster.client.clone(), &cluster.namespace, &ApiResource::erase::<Rollout>(&()));
    let live = hints::explained(cluster, asked::<Rollout, _>(None, api.get_opt(name))).await?;
    let last_applied = live.as_ref().and_then(|live| live.metadata.annotations.as_ref()?.get(LAST_APPLIED));
    let last_applied: Option<Value> = last_applied.and_then(|text| serde_json::from_str(text).ok());
    let stored = if let Some(last_applied) = last_applied {
        // Only the spec: what the rollout does depends on nothing else.
        let patch = json!({"spec": merge_patch(&last_applied["spec"], &document["spec"])});
        let params = PatchParams::default().dry_run().validation_strict();
        asked::<Rollout, _>(None, api.patch(name, &params, &Patch::Merge(patch))).await
    } else {
        let manager = live.as_ref().map_or(KUBECTL, applied_by);
        let params = PatchParams::apply(manager).force().dry_run().validation_strict();
        asked::<Rollout, _>(None, api.patch(name, &params, &Patch::Apply(document))).await
    };
    match stored {
        Ok(stored) => stored.try_parse().map_err(|error| anyhow!("the API server's answer cannot be read: {error}")),
        Err(why) => Err(hints::explain(cluster, why).await.context(format!("{name} cannot be applied"))),
    }
}

/// The manager whose server-side apply set the spec: as another one, fields left out of the file would stay.
fn applied_by(live: &DynamicObject) -> &str {
    let entries = live.metadata.managed_fields.iter().flatten();
    let owner = entries.filter(|entry| entry.operation.as_deref() == Some("Apply"));
    let owner = owner.filter(|entry| entry.fields_v1.as_ref().is_some_and(|fields| fields.0.get("f:spec").is_some()));
    owner.into_iter().find_map(|entry| entry.manager.as_deref()).unwrap_or(KUBECTL)
}

/// As `kubectl apply`: everything in the file, and null for what the file held last time and holds no more.
fn merge_patch(last_applied: &Value, document: &Value) -> Value {
    let (Some(old), Some(new)) = (last_applied.as_object(), document.as_object()) else { return document.clone() };
    let gone = old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let kept = new.iter().map(|(key, value)| {
        let merged = old.get(key).map_or_else(|| value.clone(), |old| merge_patch(old, value));
        (key.clone(), merged)
    });
    Value::Object(kept.chain(gone).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_file_holds_no_more_is_removed() {
        let last = json!({"spec": {"replicas": 3, "paused": true, "template": {"spec": {"a": [1, 2]}}}});
        let file = json!({"spec": {"replicas": 4, "template": {"spec": {"a": [1]}}, "version": "2"}});
        let patch = json!({"spec": {"replicas": 4, "paused": null, "template": {"spec": {"a": [1]}}, "version": "2"}});
        assert_eq!(merge_patch(&last, &file), patch);
    }

    #[test]
    fn only_our_rollouts_are_taken_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("all.yaml");
        let text = "kind: Service\napiVersion: v1\n---\nkind: Rollout\napiVersion: argoproj.io/v1alpha1\n---\n\
                    kind: List\napiVersion: v1\nitems:\n- {kind: Rollout, apiVersion: baton.dev/v1alpha1, metadata: {name: web}}\n";
        std::fs::write(&path, text).unwrap();
        let found = read(&path).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0]["metadata"]["name"], "web");
        std::fs::write(&path, "kind: Service\napiVersion: v1\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("holds no Rollout of baton.dev/v1alpha1"));
    }
}
