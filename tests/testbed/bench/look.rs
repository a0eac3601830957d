//! One look at a Rollout without cluster and clock: snapshot, plan, status; and what the operator would do of it.
use std::hint::black_box;

use anyhow::{Context, Result, bail};
use baton::{
    api::{Rollout, RolloutStatus, names},
    plan::{self, Change, Plan, PodAct, Question, RevisionAct, RevisionMark, Seen, revision},
    snapshot::{
        Snapshot, TemplateCheck,
        guard::DeserializeGuard,
        index::{Event, Index, ObjectKey, Recollection},
        wire::PodView,
    },
    status,
};
use clap::ValueEnum;
use jiff::{Timestamp, ToSpan};
use k8s_openapi::api::apps::v1::ControllerRevision;
use serde_json::{Value, json};

const NAME: &str = "bench";
const NAMESPACE: &str = "bench";
const UID: &str = "0b5f9c1e-0000-4000-8000-000000000000";
/// A roll of 25 % a step takes a dozen.
const STEPS_MAX: usize = 100;

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scene {
    /// Every Pod is at the wanted version and available: nothing to do.
    Settled,
    /// A half is, a quarter was deleted just now.
    Rolling,
}

/// The objects of one Rollout, and what the operator remembers.
pub struct World {
    index: Index,
    recollection: Recollection,
    rollout: Value,
    now: Timestamp,
    version: u64,
}

impl World {
    /// So many Pods, in this scene.
    pub fn new(pods: usize, scene: Scene) -> Result<Self> {
        let rollout = json!({
            "apiVersion": "baton.dev/v1alpha1",
            "kind": "Rollout",
            "metadata": {"name": NAME, "namespace": NAMESPACE, "uid": UID, "generation": 1},
            "spec": {
                "replicas": pods,
                "selector": {"matchLabels": {"app": NAME}},
                "strategy": {"maxUnavailable": "25%", "maxSurge": 0},
                "template": {
                    "metadata": {"labels": {"app": NAME}},
                    "spec": {"nodeName": "kwok-0", "containers": [{"name": "main", "image": "example.local/bench:1"}]},
                },
            },
        });
        let now = Timestamp::UNIX_EPOCH + 1_000_000.hours();
        let mut world =
            Self { index: Index::default(), recollection: Recollection::default(), rollout, now, version: 0 };
        world.tell_rollout()?;
        world.roll_until(|world, plan| Ok(plan.changes.is_empty() && world.updated(1)? == pods))?;
        if scene == Scene::Rolling {
            world.rollout["spec"]["template"]["spec"]["containers"][0]["image"] = json!("example.local/bench:2");
            world.rollout["metadata"]["generation"] = json!(2);
            world.tell_rollout()?;
            world.roll_until(|world, plan| {
                let deletes =
                    plan.changes.iter().any(|change| matches!(change, Change::Pod { act: PodAct::Delete { .. }, .. }));
                Ok(deletes && world.updated(2)? >= pods / 2)
            })?;
            world.step()?; // these deletes: the look that follows finds empty slots
        }
        Ok(world)
    }

    /// What the operator computes in one look.
    pub fn look(&self) -> Result<(Plan, RolloutStatus)> {
        let snapshot = self.snapshot()?;
        let plan = plan::rollout::plan(&snapshot);
        let status = status::rollout::status(&snapshot, &plan, &[]);
        Ok((plan, status))
    }

    /// The same again and again, for counting.
    pub fn look_often(&self, times: usize) -> Result<()> {
        for _ in 0..times {
            black_box(self.look()?);
        }
        Ok(())
    }

    fn snapshot(&self) -> Result<Snapshot> {
        self.index.snapshot(&key(), &self.recollection, self.now).context("the Rollout is not known")
    }

    /// Pods at this version.
    fn updated(&self, version: u32) -> Result<usize> {
        let version = version.to_string();
        Ok(self.snapshot()?.pods.iter().filter(|pod| pod.version == version).count())
    }

    fn roll_until(&mut self, is_it: impl Fn(&Self, &Plan) -> Result<bool>) -> Result<()> {
        for _ in 0..STEPS_MAX {
            let plan = self.look()?.0;
            if is_it(self, &plan)? {
                return Ok(());
            }
            self.step()?;
        }
        bail!("the Rollout does not get there")
    }

    /// One look, and all that it asks for; Pods come and go at once.
    fn step(&mut self) -> Result<()> {
        let snapshot = self.snapshot()?;
        let (plan, status) = self.look()?;
        self.now += 1.second();
        for change in &plan.changes {
            self.make(&snapshot, change)?;
        }
        self.rollout["status"] = serde_json::to_value(status)?;
        self.tell_rollout()
    }

    fn make(&mut self, snapshot: &Snapshot, change: &Change) -> Result<()> {
        match change {
            Change::CreateRevision { name, hash, number, data, .. } => {
                let labels = json!({names::LABEL_ROLLOUT: NAME, names::LABEL_REVISION_HASH: hash});
                let metadata = self.metadata(name, &labels, &json!({}));
                self.tell_revision(&json!({"metadata": metadata, "data": data, "revision": number}))
            }
            Change::Revision { seen: Seen { name, .. }, act: RevisionAct::Mark(RevisionMark::Completed { at }) } => {
                let known = snapshot.revisions.iter().find(|it| it.name == *name).context("an unknown revision")?;
                let labels = json!({names::LABEL_ROLLOUT: NAME, names::LABEL_REVISION_HASH: known.hash});
                let metadata = self.metadata(name, &labels, &json!({names::ANNOTATION_COMPLETED_AT: at.to_string()}));
                self.tell_revision(&json!({"metadata": metadata, "data": known.data, "revision": known.number}))
            }
            Change::Ask(Question::Template { revision }) => {
                self.recollection.template_checks.insert(revision.clone(), TemplateCheck::Valid);
                Ok(())
            }
            Change::CreatePod { name, slot, revision, restarted_at, .. } => {
                let known = snapshot.revisions.iter().find(|it| it.name == *revision).context("an unknown revision")?;
                let recipe = revision::PodRecipe {
                    rollout: NAME,
                    namespace: NAMESPACE,
                    rollout_uid: UID,
                    slot: *slot,
                    revision,
                    hash: &known.hash,
                    data: &known.data,
                    restarted_at: *restarted_at,
                    package_sha256: known.package_sha256.as_deref(),
                    agent_image: None,
                    is_gated: false,
                };
                let pod = revision::pod(&recipe, name).map_err(anyhow::Error::msg)?;
                let pod = self.running(pod, name);
                self.index.on_pod(&None, Event::Applied(serde_json::from_value(pod)?));
                Ok(())
            }
            Change::Pod { seen: Seen { name, .. }, act: PodAct::Delete { .. } } => {
                let pod = json!({"metadata": self.metadata(name, &json!({}), &json!({}))});
                self.index.on_pod(&None, Event::Deleted(serde_json::from_value::<PodView>(pod)?));
                Ok(())
            }
            other => bail!("nobody expected {}", other.verb()),
        }
    }

    /// As the API server and a kubelet make it of what was asked for.
    fn running(&mut self, mut pod: Value, name: &str) -> Value {
        let (labels, annotations) = (&pod["metadata"]["labels"], &pod["metadata"]["annotations"]);
        pod["metadata"] = self.metadata(name, labels, annotations);
        let now = self.now.to_string();
        let conditions = ["Initialized", "ContainersReady", "Ready"]
            .map(|type_| json!({"type": type_, "status": "True", "lastTransitionTime": now}));
        pod["status"] = json!({
            "phase": "Running",
            "podIP": "10.245.0.2",
            "startTime": now,
            "conditions": conditions,
            "containerStatuses": [{
                "name": "main", "image": "example.local/bench", "imageID": "example.local/bench",
                "ready": true, "started": true, "restartCount": 0, "state": {"running": {"startedAt": now}},
            }],
        });
        pod
    }

    fn metadata(&mut self, name: &str, labels: &Value, annotations: &Value) -> Value {
        self.version += 1;
        json!({
            "name": name, "namespace": NAMESPACE, "uid": format!("uid-{name}"), "resourceVersion": self.version.to_string(),
            "creationTimestamp": self.now.to_string(), "labels": labels, "annotations": annotations,
            "ownerReferences": [revision::owner_reference(NAME, UID)],
        })
    }

    fn tell_rollout(&mut self) -> Result<()> {
        self.version += 1;
        self.rollout["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let rollout: Rollout = serde_json::from_value(self.rollout.clone())?;
        self.index.on_rollout(&None, Event::Applied(DeserializeGuard(Ok(rollout))));
        Ok(())
    }

    fn tell_revision(&mut self, object: &Value) -> Result<()> {
        let object: ControllerRevision = serde_json::from_value(object.clone())?;
        self.index.on_revision(&None, Event::Applied(object.into()));
        Ok(())
    }
}

fn key() -> ObjectKey {
    ObjectKey { namespace: NAMESPACE.into(), name: NAME.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scenes_are_what_they_are_called() {
        let settled = World::new(40, Scene::Settled).unwrap();
        let (plan, status) = settled.look().unwrap();
        assert_eq!((plan.changes.len(), status.available_replicas, status.updated_replicas), (0, 40, 40));

        let rolling = World::new(40, Scene::Rolling).unwrap();
        let (plan, status) = rolling.look().unwrap();
        assert_eq!((status.replicas, status.available_replicas, status.updated_replicas), (30, 30, 20));
        assert_eq!(plan.changes.len(), 10, "a Pod for each empty slot: {:?}", plan.changes);
    }
}
