//! What a write of ours changes of a Pod.
use baton::api::names::{
    ANNOTATION_IN_PLACE, ANNOTATION_KEPT, ANNOTATION_OVERTAKEN, CONDITION_IN_SERVICE, LABEL_KEPT, LABEL_REVISION,
    LABEL_ROLLOUT, RESERVED_PREFIX,
};
use serde_json::Value;

use crate::fake_apiserver::object::Object;

/// What an operator has changed on a Pod.
pub(super) enum Changed {
    /// Conditions of ours.
    Service,
    /// The Pod is in service now.
    InService,
    /// It is no more.
    OutOfService,
    /// Images, labels, annotations, with the revision that says so.
    InPlace,
    /// Its resources, or the note of them.
    Resized,
    /// Labels and annotations alone, with that.
    Relabelled,
    /// What it remembers of that.
    Noted,
    /// It has failed and is kept for a look: nothing but labels and one annotation.
    Kept,
    /// Nothing but its version.
    Overtaken,
    Other,
}

impl Changed {
    /// It is another revision's Pod since.
    pub fn is_of_revision(&self) -> bool {
        matches!(self, Self::InPlace | Self::Relabelled)
    }
}

pub(super) fn what_is_changed(before: &Object, after: &Object) -> Changed {
    let conditions = |object: &Object| object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let is_ours =
        |condition: &Value| condition["type"].as_str().is_some_and(|type_| type_.starts_with(RESERVED_PREFIX));
    let without = |object: &Object, in_place: bool| {
        let mut value = object.value().clone();
        value["metadata"]["resourceVersion"] = Value::Null;
        let others: Vec<Value> = conditions(object).into_iter().filter(|condition| !is_ours(condition)).collect();
        value["status"]["conditions"] = Value::Array(others);
        if in_place {
            for field in ["labels", "annotations", "generation"] {
                value["metadata"][field] = Value::Null;
            }
            value["spec"]["containers"][0]["image"] = Value::Null;
        }
        value
    };
    if is_kept(after) && !is_kept(before) && without_labels(before) == without_labels(after) {
        return Changed::Kept;
    }
    let revision = |object: &Object| object["metadata"]["labels"][LABEL_REVISION].clone();
    let serves = |object: &Object| {
        conditions(object).iter().any(|it| it["type"] == CONDITION_IN_SERVICE && it["status"] == "True")
    };
    if revision(before) != revision(after) && without(before, true) == without(after, true) {
        let image = |object: &Object| object["spec"]["containers"][0]["image"].clone();
        return if image(before) == image(after) { Changed::Relabelled } else { Changed::InPlace };
    }
    let noted = &after["metadata"]["annotations"][ANNOTATION_OVERTAKEN];
    if *noted == before["metadata"]["resourceVersion"] && is_the_same_but(ANNOTATION_OVERTAKEN, before, after) {
        return Changed::Overtaken;
    }
    if is_resized(before, after) {
        return Changed::Resized;
    }
    if is_the_same_but(ANNOTATION_IN_PLACE, before, after) {
        return Changed::Noted;
    }
    if !before["spec"]["readinessGates"].is_array() || without(before, false) != without(after, false) {
        return Changed::Other;
    }
    match (serves(before), serves(after)) {
        (true, false) => Changed::OutOfService,
        (false, true) => Changed::InService,
        _ => Changed::Service,
    }
}

/// No Service can select it.
fn is_kept(pod: &Object) -> bool {
    let labels = pod["metadata"]["labels"].as_object();
    let mut keys = labels.into_iter().flatten().map(|(key, _)| key.as_str());
    pod["metadata"]["annotations"][ANNOTATION_KEPT].is_string()
        && keys.all(|key| [LABEL_KEPT, LABEL_ROLLOUT].contains(&key))
        && pod["metadata"]["labels"][LABEL_ROLLOUT] == ""
}

fn without_labels(pod: &Object) -> Value {
    let mut value = pod.value().clone();
    value["metadata"]["annotations"][ANNOTATION_KEPT] = Value::Null;
    value["metadata"]["labels"] = Value::Null;
    value["metadata"]["resourceVersion"] = Value::Null;
    value
}

/// It was given what it had noted, or has noted that it has that.
fn is_resized(before: &Object, after: &Object) -> bool {
    let without = |object: &Object| {
        let mut value = object.value().clone();
        value["spec"]["containers"][0]["resources"] = Value::Null;
        value["metadata"]["annotations"][ANNOTATION_IN_PLACE] = Value::Null;
        for field in ["generation", "resourceVersion"] {
            value["metadata"][field] = Value::Null;
        }
        value
    };
    let resources = |object: &Object| object["spec"]["containers"][0]["resources"].clone();
    let note = |object: &Object| object["metadata"]["annotations"][ANNOTATION_IN_PLACE].clone();
    let is_one = (resources(before) != resources(after)) != (note(before) != note(after));
    is_one && without(before) == without(after)
}

/// Nothing differs but this annotation, and the resourceVersion.
fn is_the_same_but(annotation: &str, before: &Object, after: &Object) -> bool {
    let without = |object: &Object| {
        let mut value = object.value().clone();
        let annotations = value["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
        let others = annotations.into_iter().filter(|(key, _)| key != annotation).collect();
        value["metadata"]["annotations"] = Value::Object(others);
        value["metadata"]["resourceVersion"] = Value::Null;
        value
    };
    without(before) == without(after)
}
