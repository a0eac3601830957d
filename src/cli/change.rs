//! A change of a Rollout's spec, as somebody asks for it.
use anyhow::{Result, bail};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{
    Connection,
    cluster::{Cluster, in_time},
    hints,
    target::RolloutTarget,
};
use crate::{
    api::{Rollout, rollout::Request},
    snapshot::Snapshot,
};

/// Field manager of what this plugin writes.
const MANAGER: &str = "kubectl-baton";
/// Times that a change is tried again which somebody else came before.
const TRIES: usize = 5;
/// Characters of `spec.request.by`.
const BY_CHARS_MAX: usize = 128;

/// The Rollout that is changed, where it is.
pub(super) struct Editor<'a> {
    pub name: String,
    cluster: Cluster,
    connection: &'a Connection,
}

impl<'a> Editor<'a> {
    pub async fn connect(connection: &'a Connection, rollout: &RolloutTarget) -> Result<Self> {
        Ok(Self { name: rollout.name()?, cluster: Cluster::connect(connection).await?, connection })
    }

    /// Changes the Rollout as it is now, and prints what that comes to: what it is comes from the version that is patched, or
    /// it is looked at again.
    pub async fn change(&self, make: impl Fn(&Snapshot) -> Result<(Vec<Value>, String)>) -> Result<()> {
        let (cluster, name) = (&self.cluster, &self.name);
        for _ in 0..TRIES {
            let snapshot = cluster.snapshot(cluster.rollout(name).await?).await?;
            let (mut patch, said) = make(&snapshot)?;
            // Not the resourceVersion: status is written all the time in a roll.
            let seen = snapshot.rollout.metadata.generation;
            patch.insert(0, json!({"op": "test", "path": "/metadata/generation", "value": seen}));
            let patch = Patch::<Rollout>::Json(serde_json::from_value(Value::Array(patch))?);
            let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
            match in_time(cluster.rollouts().patch(name, &params, &patch)).await? {
                Ok(_) => {
                    anstream::println!("{}", hints::addressed(&said, self.connection));
                    return Ok(());
                }
                // A test that has failed, and what the API server refuses for good, have the same code.
                Err(error) if cluster.rollout(name).await?.metadata.generation == seen => {
                    return Err(hints::explain::<Rollout>(cluster, error, Some(name)).await);
                }
                Err(_) => {}
            }
        }
        bail!("{name} is changed by others all the time: try again")
    }

    /// Who asks for a change, and why. With an id it counts for that change alone: whoever changes the spec next need not take it
    /// out.
    pub async fn request(&self, verb: &str, reason: Option<String>) -> Request {
        let id = format!("{verb}-{}", Timestamp::now().as_millisecond());
        Request { id: Some(id), by: who(&self.cluster).await, reason }
    }
}

/// Sets a field: a step of a JSON patch.
pub(super) fn set(path: &str, value: &Value) -> Value {
    json!({"op": "add", "path": path, "value": value})
}

/// As whom the API server knows us.
async fn who(cluster: &Cluster) -> Option<String> {
    let reviews: Api<SelfSubjectReview> = Api::all(cluster.client.clone());
    let review = in_time(reviews.create(&PostParams::default(), &SelfSubjectReview::default())).await.ok()?.ok()?;
    let name = review.status?.user_info?.username?;
    Some(name.chars().take(BY_CHARS_MAX).collect())
}
