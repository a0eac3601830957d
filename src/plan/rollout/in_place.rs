//! Changes in place: a Pod is given other images, labels and annotations, and stays the Pod that it is.
//!
//! What differs is found by comparing revisions, never live Pods: what a webhook or a person has added to a Pod is left alone.
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{Alarm, after, replicas};
use crate::{
    api::{
        IntOrPercent, RolloutSpec, names,
        rollout::{Strategy, StrategyType, UpdateMethod},
    },
    plan::{Change, revision},
    snapshot::{Pod, Revision, Snapshot},
};

/// What differs between two revisions, where a Pod can be given it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Images, by name of the container.
    pub images: BTreeMap<String, String>,
    labels: Texts,
    annotations: Texts,
}

/// Other values; None: taken away.
type Texts = BTreeMap<String, Option<String>>;

impl Difference {
    /// A container ends, and starts with another image.
    pub fn restarts(&self) -> bool {
        !self.images.is_empty()
    }

    /// Names of the containers that do.
    pub fn restarted(&self) -> BTreeSet<&str> {
        self.images.keys().map(String::as_str).collect()
    }
}

/// How the Pod of a slot comes to another revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Another Pod takes its place.
    Replace,
    /// It stays, and is changed; whether a container is started anew by that.
    InPlace { restarts: bool },
    /// By none that `spec.strategy.update` permits: a sentence that names the field.
    None(String),
}

/// How Pods of `from` come to `to`.
pub(super) fn way(snapshot: &Snapshot, from: &str, to: &Revision) -> Way {
    let strategy = &snapshot.rollout.spec.strategy;
    if !is_chosen(strategy) {
        return Way::Replace;
    }
    if let Some(refusal) = snapshot.change_refusals.get(&to.name).filter(|refusal| refusal.retry_at > snapshot.now) {
        return match strategy.update {
            UpdateMethod::InPlaceOnly => {
                Way::None(format!("the API server refuses the change of Pods in place: {}", refusal.message))
            }
            _ => Way::Replace,
        };
    }
    let known = snapshot.revisions.iter().rev().find(|revision| revision.name == from);
    let found = known.ok_or_else(|| format!("ControllerRevision {from} is gone, what differs is not known"));
    match found.and_then(|from| difference(&from.data, &to.data)) {
        Ok(difference) => Way::InPlace { restarts: difference.restarts() },
        Err(_) if strategy.update == UpdateMethod::InPlaceIfPossible => Way::Replace,
        Err(why) => Way::None(format!(
            "{why}; spec.strategy.update is InPlaceOnly: change it to InPlaceIfPossible, or that field back"
        )),
    }
}

/// Pods are changed in place where that can be. With maxUnavailable explicitly 0 none may be without a container for a
/// moment: then another Pod takes over.
pub(super) fn is_chosen(strategy: &Strategy) -> bool {
    let none_may_miss = match &strategy.max_unavailable {
        IntOrPercent::Count(count) => *count <= 0,
        IntOrPercent::Percent(percent) => percent == "0%",
    };
    match strategy.update {
        _ if strategy.type_ != StrategyType::Batched => false,
        UpdateMethod::Replace => false,
        UpdateMethod::InPlaceIfPossible => !none_may_miss,
        UpdateMethod::InPlaceOnly => true,
    }
}

/// Fewest instances that must stay available while one is changed in place: no surge stands in for it, so at least one may
/// be missing.
pub(super) fn available_min(spec: &RolloutSpec) -> i32 {
    let replicas = replicas(spec);
    replicas - spec.strategy.max_unavailable.rounded_down(replicas).clamp(1.min(replicas), replicas)
}

/// It has a gate, or is in nobody's service.
pub fn can_leave_service(pod: &Pod) -> bool {
    pod.in_service.is_some() || !pod.is_ready()
}

/// How long after its gate was closed a Pod is left alone: the kubelet says that it is not Ready, and those who send to it
/// hear of that.
const SETTLE_SECONDS: i64 = 2;

/// Pods whose containers are to be ended in place leave service first: those that have not done so for long enough are not
/// changed now. Returns the names of all, and what is said on Pods. A Pod without gate cannot say it.
pub(super) fn leave_service(
    snapshot: &Snapshot,
    changes: &mut Vec<Change>,
    alarm: &mut Alarm,
) -> (BTreeSet<String>, Vec<Change>) {
    let (mut leaving, mut says) = (BTreeSet::new(), Vec::new());
    changes.retain(|change| {
        let Change::ChangeInPlace { name, uid, resource_version, restarts: true, .. } = change else { return true };
        leaving.insert(name.clone());
        let Some(pod) = snapshot.pods.iter().find(|pod| pod.uid == *uid) else { return false };
        // A clock that was set back makes nobody wait.
        let since = pod.in_service_since.filter(|since| *since <= snapshot.now);
        let has_left = match pod.in_service {
            None => true,
            Some(true) => false,
            Some(false) => {
                let is_settled = since.is_none_or(|since| alarm.passed(after(since, SETTLE_SECONDS)));
                is_settled && pod.ready_since.is_none()
            }
        };
        if pod.in_service == Some(true) {
            says.push(Change::SetInService {
                name: name.clone(),
                uid: uid.clone(),
                resource_version: resource_version.clone(),
                in_service: false,
                session_ready: None,
            });
        }
        has_left
    });
    (leaving, says)
}

/// What differs between the data of two revisions.
///
/// # Errors
/// The field that no Pod can be given another value of.
pub fn difference(from: &Value, to: &Value) -> Result<Difference, String> {
    let (labels, annotations) = (texts(from, to, "labels"), texts(from, to, "annotations"));
    let mut found = Difference { labels, annotations, ..Difference::default() };
    // The API server refuses changes of the last two.
    let fixed = |key: &&String| {
        *key == names::ANNOTATION_HAS_AGENT
            || *key == "kubernetes.io/config.mirror"
            || key.starts_with("container.apparmor.security.beta.kubernetes.io/")
    };
    if let Some(key) = found.annotations.keys().find(fixed) {
        return Err(cannot(&format!("spec.template.metadata.annotations[{key}]")));
    }
    let rest = |data: &Value| {
        let mut data = data.clone();
        for known in ["/template/metadata/labels", "/template/metadata/annotations", "/template/spec/containers"] {
            if let Some(value) = data.pointer_mut(known) {
                *value = Value::Null;
            }
        }
        if let Some(data) = data.as_object_mut() {
            data.remove("version");
        }
        data
    };
    if let Some(field) = first_difference("spec", &rest(from), &rest(to)) {
        return Err(cannot(&field));
    }
    let none = Vec::new();
    let containers = |data: &Value| data.pointer("/template/spec/containers").and_then(Value::as_array).cloned();
    let (before, after) = (containers(from).unwrap_or(none.clone()), containers(to).unwrap_or(none));
    if !before.iter().map(|container| &container["name"]).eq(after.iter().map(|container| &container["name"])) {
        return Err(cannot("spec.template.spec.containers"));
    }
    for (mut before, mut after) in before.into_iter().zip(after) {
        let name = after["name"].as_str().unwrap_or_default().to_owned();
        let (image_before, image) = (take(&mut before, "image"), take(&mut after, "image"));
        // It was filled in by the tag when the Pod was made, and stays.
        if after.get("imagePullPolicy").is_none() && is_latest(image_before.as_ref()) != is_latest(image.as_ref()) {
            return Err(cannot(&format!(
                "spec.template.spec.containers[{name}].imagePullPolicy, which is Always for the tag latest and not for others,"
            )));
        }
        if let Some(field) = first_difference(&format!("spec.template.spec.containers[{name}]"), &before, &after) {
            return Err(cannot(&field));
        }
        match image.as_ref().and_then(Value::as_str) {
            _ if image == image_before => {}
            Some(image) => drop(found.images.insert(name, image.to_owned())),
            None => return Err(cannot(&format!("spec.template.spec.containers[{name}].image"))),
        }
    }
    Ok(found)
}

fn cannot(field: &str) -> String {
    format!("{field} differs, which a Pod cannot be given in place")
}

fn is_latest(image: Option<&Value>) -> bool {
    let image = image.and_then(Value::as_str).unwrap_or_default();
    let last = image.rsplit('/').next().unwrap_or_default();
    last.ends_with(":latest") || !last.contains([':', '@'])
}

fn take(value: &mut Value, key: &str) -> Option<Value> {
    value.as_object_mut()?.remove(key)
}

/// Labels or annotations of the template that differ.
fn texts(from: &Value, to: &Value, which: &str) -> Texts {
    let none = Map::new();
    let all = |data: &Value| {
        let found = data.pointer(&format!("/template/metadata/{which}")).and_then(Value::as_object);
        found.unwrap_or(&none).clone()
    };
    let (from, to) = (all(from), all(to));
    let gone = from.keys().filter(|key| !to.contains_key(*key)).map(|key| (key.clone(), None));
    let other = to.iter().filter(|(key, value)| from.get(*key) != Some(value));
    let other = other.map(|(key, value)| (key.clone(), value.as_str().map(str::to_owned)));
    gone.chain(other).collect()
}

/// The first field, in the order of names, that is not the same in both.
fn first_difference(path: &str, from: &Value, to: &Value) -> Option<String> {
    match (from, to) {
        _ if from == to => None,
        (Value::Object(from), Value::Object(to)) => {
            let keys: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
            keys.into_iter().find_map(|key| match (from.get(key), to.get(key)) {
                (Some(from), Some(to)) => first_difference(&format!("{path}.{key}"), from, to),
                _ => Some(format!("{path}.{key}")),
            })
        }
        _ => Some(path.to_owned()),
    }
}

/// What is written on a Pod of `from` to bring it to `to`, as a strategic merge patch: containers are merged by their names.
///
/// # Errors
/// See [`difference`].
pub fn patch(pod: &Pod, from: &Revision, to: &Revision, now: Timestamp) -> Result<Value, String> {
    let difference = difference(&from.data, &to.data)?;
    let remembered = json!(pod.remember(&difference.restarted(), now)).to_string();
    let mut labels = difference.labels;
    labels.insert(names::LABEL_REVISION.into(), Some(to.name.clone()));
    labels.insert(names::LABEL_REVISION_HASH.into(), Some(to.hash.clone()));
    let mut annotations = difference.annotations;
    annotations.insert(names::ANNOTATION_REVISION.into(), Some(to.name.clone()));
    annotations.insert(names::ANNOTATION_VERSION.into(), Some(revision::version(&to.data)));
    annotations.insert(names::ANNOTATION_IN_PLACE.into(), Some(remembered));
    let mut patch = json!({
        "metadata": {
            "uid": pod.uid,
            "resourceVersion": pod.resource_version,
            "labels": labels,
            "annotations": annotations,
        },
    });
    if !difference.images.is_empty() {
        let containers: Vec<Value> =
            difference.images.iter().map(|(name, image)| json!({"name": name, "image": image})).collect();
        patch["spec"] = json!({"containers": containers});
    }
    Ok(patch)
}
