//! What is written on a failed Pod that is kept for a look: it leaves its slot, and every Service.
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    api::names,
    snapshot::{ChangeRefusal, Pod, Snapshot, specimen::Specimen},
};

/// In place of a revision in the key of a refusal.
const KEEPING: &str = "kept";

/// Key of the refusal to keep this Pod in [`Snapshot::change_refusals`]: a policy may demand the labels that would be taken.
pub fn refusal_key(uid: &str) -> String {
    ChangeRefusal::key_of(KEEPING, uid)
}

/// Labels that Baton gives to each Pod of a slot.
const OF_SLOTS: [&str; 4] =
    [names::LABEL_INSTANCE, names::LABEL_REVISION, names::LABEL_REVISION_HASH, names::LABEL_POD_INDEX];

/// What is written on a Pod to keep it until then, as a merge patch. The label [`names::LABEL_ROLLOUT`] stays, without a value,
/// because Pods are watched by it.
pub fn patch(snapshot: &Snapshot, pod: &Pod, until: Timestamp, run: i64) -> Value {
    let rollout = snapshot.rollout.metadata.name.as_deref().unwrap_or_default();
    let revision = snapshot.revisions.iter().find(|known| known.name == pod.revision);
    let of_template = revision.and_then(|known| known.data.pointer("/template/metadata/labels")?.as_object());
    let of_template =
        of_template.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)));
    let selected =
        snapshot.rollout.spec.selector.match_labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let own: BTreeMap<&str, &str> = selected.chain(of_template).collect();
    let taken = own.keys().copied().chain(OF_SLOTS).map(|key| (key, Value::Null));
    let mut labels: BTreeMap<&str, Value> = taken.collect();
    labels.insert(names::LABEL_ROLLOUT, json!(""));
    labels.insert(names::LABEL_KEPT, json!(rollout));
    let specimen = Specimen {
        until,
        run,
        slot: pod.slot,
        revision: pod.revision.clone(),
        labels: own.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
    };
    let annotations = json!({names::ANNOTATION_KEPT: json!(specimen).to_string()});
    json!({"metadata": {
        "uid": pod.uid,
        "resourceVersion": pod.resource_version,
        "labels": labels,
        "annotations": annotations,
    }})
}
