//! I5: Which Pods the selector of a Rollout matches that are of something else.
//!
//! The operator watches only Pods with Baton's label. This is one list of the first others, filtered by the API server, without
//! their specs.
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt,
    core::{ObjectMeta, params::ListParams},
};

use super::{CallError, Calls};
use crate::{
    api::names,
    snapshot::{Overlap, Snapshot, owner::controller},
};

/// So many are counted: a selector may match thousands of Pods, each with kilobytes of metadata.
const LISTED_MAX: u32 = 50;

/// Lists them.
///
/// # Errors
/// Without an answer.
pub async fn list(calls: &Calls, snapshot: &Snapshot) -> Result<Overlap, CallError> {
    let rollout = &snapshot.rollout;
    let (namespace, name) = (rollout.namespace().unwrap_or_default(), rollout.name_any());
    // Without a resource version: the API server ignores the limit of a list of any version.
    let params = ListParams::default().labels(&others(&rollout.spec.selector.match_labels, &name)).limit(LISTED_MAX);
    let (found, has_more) = calls.list_metadata::<Pod>(&namespace, &params).await?;
    let mut others: Vec<&ObjectMeta> = found.iter().filter(|pod| pod.deletion_timestamp.is_none()).collect();
    others.sort_by(|a, b| a.name.cmp(&b.name));
    let named = others.iter().take(Overlap::NAMED_MAX).map(|pod| in_words(pod)).collect();
    Ok(Overlap { at: snapshot.now, generation: rollout.metadata.generation, count: others.len(), has_more, named })
}

/// The Rollout's selector, without the Pods that have its label.
fn others(match_labels: &BTreeMap<String, String>, rollout: &str) -> String {
    let own = match_labels.iter().map(|(key, value)| format!("{key}={value}"));
    own.chain([format!("{}!={rollout}", names::LABEL_ROLLOUT)]).collect::<Vec<_>>().join(",")
}

/// `api-x7 (ReplicaSet api)`.
fn in_words(pod: &ObjectMeta) -> String {
    let name = pod.name.as_deref().unwrap_or_default();
    match controller(pod) {
        Some(owner) => format!("{name} ({} {})", owner.kind, owner.name),
        None => name.to_owned(),
    }
}
