//! What a Rollout has run, and what was done to it.
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::rollout::standing;
use crate::{
    api::{RolloutStatus, rollout::Package, status::HistoryEntry},
    plan::{Memory, package, revision, rollout::slots},
    snapshot::{Ranges, Revision, Snapshot},
};

/// Revisions, and what was done: the newest last, as `kubectl rollout history` has them.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// The revisions that are kept.
    pub revisions: Vec<Record>,
    /// Runs, restarts, changes of pinned instances, approvals and pauses, as `status.history` tells them.
    pub changes: Vec<HistoryEntry>,
}

/// A revision, and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Its number: the higher, the later it was asked for.
    pub revision: i64,
    /// Name of its ControllerRevision.
    pub name: String,
    /// Its version for people.
    pub version: String,
    /// stable, updating, failed, aborted, active (clients use it), pinned.
    pub state: Vec<&'static str>,
    /// Instances that have a live Pod of it, as ranges.
    pub instances: String,
    /// How many these are.
    pub instance_count: usize,
    /// Who asked for it and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change_cause: Option<String>,
    /// When it was first asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// When every instance ran it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Timestamp>,
    /// When it failed or was aborted, since it was last asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<Timestamp>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_reason: Option<String>,
    /// Of init containers first.
    pub images: Vec<Image>,
    /// Its package.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<Package>,
    /// The newest backup that a hook made while this was the stable revision, as `id hook run`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// SHA-256 of what was fetched as its package, where that names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package_sha256: Option<String>,
    /// Template of its Pods.
    pub template: Value,
}

/// The image of a container.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// Name of the container.
    pub container: String,
    /// As the template names it.
    pub image: String,
    /// What that was when it first ran, as far as it was noted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// All that is known of the past.
pub fn history(snapshot: &Snapshot) -> History {
    let mut revisions: Vec<&Revision> = snapshot.revisions.iter().filter(|revision| !revision.deleting).collect();
    revisions.sort_by_key(|revision| (revision.number, &revision.name));
    let status = snapshot.rollout.status.as_ref();
    let changes = status.map(|status| status.history.iter().rev().cloned().collect()).unwrap_or_default();
    History { revisions: revisions.into_iter().map(|revision| record(snapshot, revision)).collect(), changes }
}

/// All that is known of one revision.
pub fn record(snapshot: &Snapshot, revision: &Revision) -> Record {
    let live = snapshot.pods.iter().filter(|pod| pod.is_live() && pod.revision == revision.name);
    let instances: Ranges = live.map(|pod| pod.slot).collect();
    let digests = revision.image_digests.as_ref();
    let image = |(container, image): (&str, &str)| Image {
        container: container.to_owned(),
        image: image.to_owned(),
        digest: digests.and_then(|digests| digests.get(container).cloned()),
    };
    Record {
        revision: revision.number,
        name: revision.name.clone(),
        version: revision::version(&revision.data),
        state: state(snapshot, revision),
        instances: instances.to_string(),
        instance_count: instances.0.len(),
        change_cause: revision.change_cause.clone().or_else(|| annotated_later(snapshot, revision)),
        created_at: revision.created,
        completed_at: revision.completed_at,
        failed_at: revision.failed_at,
        failed_reason: revision.failed_reason.clone(),
        images: revision::images(&revision.data).map(image).collect(),
        package: package::of(&revision.data),
        backup: revision.backup.clone(),
        package_sha256: revision.package_sha256.clone(),
        template: revision.data["template"].clone(),
    }
}

/// The cause that was written on the Rollout after the present revision was made.
fn annotated_later(snapshot: &Snapshot, revision: &Revision) -> Option<String> {
    let present = snapshot.rollout.status.as_ref()?.update_revision.as_ref()?;
    if *present == revision.name { snapshot.rollout.annotated_cause() } else { None }
}

fn state(snapshot: &Snapshot, revision: &Revision) -> Vec<&'static str> {
    let unknown = RolloutStatus::default();
    let status = snapshot.rollout.status.as_ref().unwrap_or(&unknown);
    let name = Some(revision.name.as_str());
    let mut words = standing(status, revision);
    if status.target_revision.as_deref() == name && status.current_revision.as_deref() != name {
        words.insert(0, "updating");
    }
    let slots = slots(snapshot, &Memory::of(Some(status)));
    if slots.wanted().any(|slot| slot.pin.is_some() && slot.assigned == name) {
        words.push("pinned");
    }
    words
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        api::Time,
        plan::rollout::{
            plan,
            tests::fixture::{Fixture, at},
        },
        status::rollout::status,
    };

    /// Revision 1 (a) is stable, 2 (c) has failed and is what instance 2 is pinned to, 9 (b) is on its way.
    pub(crate) fn past() -> Snapshot {
        let spec = json!({"pins": [{"instances": "2", "revision": "c"}], "strategy": {"batchSize": 2}});
        let mut snapshot = Fixture::new("b b c a a", 'b', spec).opened(2).snapshot;
        let [a, c, b] = snapshot.revisions.as_mut_slice() else { panic!("three revisions") };
        (a.created, a.change_cause) = (Some(at(-900_000)), Some("deploy-1 by ann: first".into()));
        (c.created, c.completed_at, c.failed_at) = (Some(at(-90_000)), None, Some(at(-80_000)));
        c.failed_reason = Some("CrashLoopBackOff: web-1 has failed\n(exit code 1)".into());
        c.change_cause = Some(format!("deploy-2 by bob: {}", "a long story\n".repeat(9)));
        c.data["package"] = json!({"url": "https://a.b/files/2.zip", "mountPath": "/opt/app"});
        c.package_sha256 = Some("0f".repeat(32));
        c.image_digests = Some([("web".to_owned(), "sha256:0f".to_owned())].into());
        b.created = Some(at(-300));
        let mut written = status(&snapshot, &plan(&snapshot), &[]);
        let told = HistoryEntry {
            kind: "InstanceRollback".into(),
            run: 2,
            revision: "c".into(),
            version: "c".into(),
            from_version: "a".into(),
            instances: "2".into(),
            by: Some("ann".into()),
            reason: Some("orders are late".into()),
            started_at: Some(Time(at(-400))),
            completed_at: Some(Time(at(-380))),
            result: "Succeeded".into(),
            ..HistoryEntry::default()
        };
        let odd = (0..60).map(|half| half * 2).collect::<Ranges>().to_string();
        let restarted = HistoryEntry { kind: "Restart".into(), instances: odd, by: None, ..told.clone() };
        written.history = [HistoryEntry { started_at: Some(Time(at(-10))), ..written.history[0].clone() }]
            .into_iter()
            .chain([told, restarted])
            .collect();
        snapshot.rollout.status = Some(written);
        snapshot
    }

    /// C10: what each revision is, and who runs it; the newest last.
    #[test]
    fn each_revision_is_told_by_what_it_is() {
        let history = history(&past());
        let short = |record: &Record| {
            (record.revision, record.version.clone(), record.state.join(" "), record.instances.clone())
        };
        assert_eq!(
            history.revisions.iter().map(short).collect::<Vec<_>>(),
            [
                (1, "a".into(), "stable".into(), "3-4".into()),
                (2, "c".into(), "failed pinned".into(), "2".into()),
                (9, "b".into(), "updating".into(), "0-1".into()),
            ]
        );
        let kinds: Vec<_> = history.changes.iter().map(|entry| entry.kind.as_str()).collect();
        assert_eq!(kinds, ["Restart", "InstanceRollback", "Deploy"]);
    }

    /// What programs get: names as in the API, and nothing of what is not known.
    #[test]
    fn a_record_has_all_there_is() {
        let snapshot = past();
        let mut record = record(&snapshot, &snapshot.revisions[1]);
        record.change_cause = None;
        insta::assert_snapshot!(serde_json::to_string_pretty(&record).unwrap());
    }

    /// One that is being deleted is none that anybody could go back to.
    #[test]
    fn a_deleted_revision_is_past_history() {
        let mut snapshot = past();
        snapshot.revisions[0].deleting = true;
        snapshot.rollout.status = None;
        let history = history(&snapshot);
        assert_eq!(history.revisions.iter().map(|record| record.revision).collect::<Vec<_>>(), [2, 9]);
        assert!(history.changes.is_empty());
    }
}
