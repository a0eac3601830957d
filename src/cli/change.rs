//! A change of a Rollout's spec, as a person asks for it.
use anyhow::{Result, anyhow};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{
    Connection,
    cluster::{Cluster, Reads, in_time},
    exit::Exit,
    hints,
    output::say,
    target::RolloutTarget,
};
use crate::{
    api::{Rollout, rollout::Request},
    command::{Edited, SpecEdit},
    snapshot::Snapshot,
};

/// Field manager of what this plugin writes.
const MANAGER: &str = "kubectl-baton";
/// Times that a change is tried again if another writer came first.
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
    /// it is looked at again. It takes get and patch on this one Rollout.
    pub async fn change(&self, make: impl Fn(&Rollout) -> Edited) -> Result<()> {
        for _ in 0..TRIES {
            let rollout = self.cluster.rollout(&self.name).await?;
            if self.is_written(rollout.metadata.generation, refused(make(&rollout))?).await? {
                return Ok(());
            }
        }
        Err(self.overtaken())
    }

    /// The same for an answer to the status: it is made once an operator has seen the present spec.
    pub async fn answer(&self, make: impl Fn(&Rollout) -> Edited) -> Result<()> {
        self.cluster.seen::<Rollout>(&self.name).await?;
        self.change(make).await
    }

    /// The same for what takes more than the object.
    pub async fn change_by(&self, reads: Reads, make: impl Fn(&Snapshot) -> Edited) -> Result<()> {
        for _ in 0..TRIES {
            let rollout = self.cluster.rollout(&self.name).await?;
            let snapshot = self.cluster.snapshot_of(rollout, reads).await?;
            if self.is_written(snapshot.rollout.metadata.generation, refused(make(&snapshot))?).await? {
                return Ok(());
            }
        }
        Err(self.overtaken())
    }

    /// False: another change came first. A patch without steps writes nothing.
    async fn is_written(&self, generation: Option<i64>, edit: SpecEdit) -> Result<bool> {
        let SpecEdit { mut patch, summary, .. } = edit;
        let (cluster, name) = (&self.cluster, &self.name);
        if !patch.is_empty() {
            // Not the resourceVersion: status is written all the time in a roll.
            patch.insert(0, json!({"op": "test", "path": "/metadata/generation", "value": generation}));
            let patch = Patch::<Rollout>::Json(serde_json::from_value(Value::Array(patch))?);
            let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
            if let Err(error) = in_time(cluster.rollouts().patch(name, &params, &patch)).await? {
                // A test that has failed, and what the API server refuses for good, have the same code.
                let is_refused = cluster.rollout(name).await?.metadata.generation == generation;
                return if is_refused {
                    Err(hints::explain::<Rollout>(cluster, error, Some(name)).await)
                } else {
                    Ok(false)
                };
            }
        }
        say(&hints::addressed(&summary, self.connection));
        Ok(true)
    }

    fn overtaken(&self) -> anyhow::Error {
        anyhow!("{} is changed by others all the time: try again", self.name)
    }

    /// Who asks for a change, and why. With an id it counts for that change alone: the next change of the spec need not take it
    /// out.
    pub async fn request(&self, verb: &str, reason: Option<String>) -> Request {
        let id = format!("{verb}-{}", Timestamp::now().as_millisecond());
        Request { id: Some(id), by: who(&self.cluster).await, reason }
    }
}

/// What contradicts itself is wrong usage; the rest is about the Rollout as it is.
fn refused(edited: Edited) -> Result<SpecEdit> {
    edited
        .map_err(|refusal| if refusal.is_misuse() { Exit::Usage.because(refusal.to_string()) } else { refusal.into() })
}

/// As whom the API server knows us.
async fn who(cluster: &Cluster) -> Option<String> {
    let reviews: Api<SelfSubjectReview> = Api::all(cluster.client.clone());
    let review = in_time(reviews.create(&PostParams::default(), &SelfSubjectReview::default())).await.ok()?.ok()?;
    let name = review.status?.user_info?.username?;
    Some(name.chars().take(BY_CHARS_MAX).collect())
}
