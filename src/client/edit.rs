//! A change of a Rollout's spec by compare-and-swap on its generation.
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{Cluster, Reads, Unanswered, asked};
use crate::{
    api::Rollout,
    command::{Edited, Refusal, SpecEdit},
    snapshot::Snapshot,
};

/// Times that a change is tried again if another writer came first.
const TRIES: usize = 5;

/// Why a change was not made.
#[derive(Debug)]
pub enum Unchanged {
    /// The Rollout as it is does not allow it.
    Refused(Refusal),
    /// The API server does not.
    Unanswered(Unanswered),
    /// Another writer has come first, five times.
    Overtaken,
}

impl From<Unanswered> for Unchanged {
    fn from(why: Unanswered) -> Self {
        Self::Unanswered(why)
    }
}

impl Cluster {
    /// Changes the Rollout as it is now, as field manager `manager`; what that comes to, in one sentence. The change comes from the
    /// version that is patched: another writer's change makes it come again. It takes get and patch on this one Rollout.
    ///
    /// # Errors
    /// [`Unchanged`]: nothing has been written.
    pub async fn change(
        &self,
        name: &str,
        manager: &str,
        make: impl Fn(&Rollout) -> Edited,
    ) -> Result<String, Unchanged> {
        self.swap(name, manager, async |rollout| Ok(rollout), make).await
    }

    /// The same for a change that takes more than the object.
    ///
    /// # Errors
    /// [`Unchanged`]: nothing has been written.
    pub async fn change_by(
        &self,
        name: &str,
        manager: &str,
        reads: Reads,
        make: impl Fn(&Snapshot) -> Edited,
    ) -> Result<String, Unchanged> {
        self.swap(name, manager, async |rollout| self.snapshot_of(rollout, reads).await, make).await
    }

    /// Reads what the change comes from, and writes; again if another writer came first.
    async fn swap<T>(
        &self,
        name: &str,
        manager: &str,
        read: impl AsyncFn(Rollout) -> Result<T, Unanswered>,
        make: impl Fn(&T) -> Edited,
    ) -> Result<String, Unchanged> {
        for _ in 0..TRIES {
            let rollout = self.rollout(name).await?;
            let generation = rollout.metadata.generation;
            let edit = make(&read(rollout).await?).map_err(Unchanged::Refused)?;
            if let Some(summary) = self.write(name, manager, generation, edit).await? {
                return Ok(summary);
            }
        }
        Err(Unchanged::Overtaken)
    }

    /// None: another change came first. A patch without steps writes nothing.
    async fn write(
        &self,
        name: &str,
        manager: &str,
        generation: Option<i64>,
        edit: SpecEdit,
    ) -> Result<Option<String>, Unanswered> {
        let SpecEdit { mut patch, summary, .. } = edit;
        if patch.is_empty() {
            return Ok(Some(summary));
        }
        // Not the resourceVersion: status is written all the time in a roll.
        patch.insert(0, json!({"op": "test", "path": "/metadata/generation", "value": generation}));
        let params = PatchParams { field_manager: Some(manager.into()), ..PatchParams::default() };
        let written = async {
            let steps = serde_json::from_value(Value::Array(patch)).map_err(kube::Error::SerdeError)?;
            self.rollouts().patch(name, &params, &Patch::<Rollout>::Json(steps)).await
        };
        let Err(refused) = asked::<Rollout, _>(Some(name), written).await else { return Ok(Some(summary)) };
        // A test that has failed, and what the API server refuses for good, have the same code. An answer that was lost is neither: the
        // change may have been made, and is not made twice.
        if let Unanswered::Refused { error: kube::Error::Api(_), .. } = &refused
            && self.rollout(name).await?.metadata.generation != generation
        {
            return Ok(None);
        }
        Err(refused)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicI64, Ordering::SeqCst},
    };

    use super::*;
    use crate::{
        command::steer,
        scripted::{self, Answer, Call},
    };
    use jiff::Timestamp;

    /// Has `web` paused where the API server answers the first patch so, and takes each later one; another writer has come first
    /// if the generation moves with it. What comes of it, and the number of patches.
    async fn paused(moves: bool, first: fn() -> Answer) -> (Result<String, Unchanged>, i64) {
        let patches = Arc::new(AtomicI64::new(0));
        let counted = patches.clone();
        let client = scripted::client(move |call: Call| {
            let generation = if moves { 1 + counted.load(SeqCst) } else { 1 };
            let metadata = json!({"name": "web", "namespace": "shop", "uid": "u", "generation": generation});
            let spec = json!({"selector": {"matchLabels": {}}, "template": {"spec": {"containers": []}}});
            let web =
                json!({"apiVersion": "baton.dev/v1alpha1", "kind": "Rollout", "metadata": metadata, "spec": spec});
            match call.method.as_str() {
                "PATCH" => {
                    let test = json!({"op": "test", "path": "/metadata/generation", "value": generation});
                    assert_eq!(call.body[0], test, "what is changed is what was looked at");
                    if counted.fetch_add(1, SeqCst) == 0 { first() } else { Answer::ok(web) }
                }
                _ => Answer::ok(web),
            }
        });
        let cluster = Cluster { client, namespace: "shop".into() };
        let changed = cluster.change("web", "test", |rollout| steer::pause(rollout, Timestamp::UNIX_EPOCH)).await;
        (changed, patches.load(SeqCst))
    }

    fn refused() -> Answer {
        Answer::failure(422, "Invalid", "the server rejected our request due to an error in our request")
    }

    #[tokio::test]
    async fn a_change_that_another_has_overtaken_is_made_again() {
        let (changed, patches) = paused(true, refused).await;
        assert!(changed.unwrap().contains("paused") && patches == 2, "{patches}");
    }

    #[tokio::test]
    async fn what_is_refused_for_good_is_not_tried_again() {
        let (changed, patches) = paused(false, refused).await;
        assert!(matches!(changed, Err(Unchanged::Unanswered(Unanswered::Refused { .. }))) && patches == 1, "{patches}");
    }

    /// The change may have been made, and nothing tells: the second one would be another restart.
    #[tokio::test(start_paused = true)]
    async fn a_change_whose_answer_is_lost_is_not_made_twice() {
        let (changed, patches) = paused(true, || Answer::Text("cut o".into())).await;
        assert!(matches!(changed, Err(Unchanged::Unanswered(Unanswered::Refused { .. }))) && patches == 1, "{patches}");
        let (changed, patches) = paused(true, || Answer::Never).await;
        assert!(matches!(changed, Err(Unchanged::Unanswered(Unanswered::Late(_)))) && patches == 1, "{patches}");
    }
}
