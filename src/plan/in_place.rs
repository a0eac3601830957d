//! What differs between two revisions, where a Pod can be given it as it is: images, resources, labels and annotations.
//!
//! Revisions are compared, never live Pods: what a webhook or a person has added to a Pod is left alone.
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{package, resize, revision};
use crate::{
    api::names,
    snapshot::{
        InPlace, Pod, Revision,
        in_place::{Amounts, Reload},
    },
};

/// What differs between two revisions, where a Pod can be given it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Images, by name of the container.
    pub images: BTreeMap<String, String>,
    /// Resources, by name of the container.
    pub resources: BTreeMap<String, Amounts>,
    /// Containers that are started anew by those.
    anew: BTreeSet<String>,
    labels: Texts,
    annotations: Texts,
}

/// Other values; None: taken away.
type Texts = BTreeMap<String, Option<String>>;

/// Pods that another one takes the place of, though `spec.strategy.update` asks for a change in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotInPlace {
    /// The first of the instances.
    pub slot: i32,
    /// Why it is not changed in place.
    pub why: String,
    /// Number of further instances that get other Pods, for any reason.
    pub more: usize,
}

impl NotInPlace {
    /// One instance more.
    pub(super) fn note(noted: &mut Option<Self>, slot: i32, why: String) {
        match noted {
            Some(first) => first.more += 1,
            None => *noted = Some(Self { slot, why, more: 0 }),
        }
    }
}

impl Difference {
    /// A container ends, and starts with another image or other resources.
    pub fn restarts(&self) -> bool {
        !self.images.is_empty() || !self.anew.is_empty()
    }

    /// A container is given other resources.
    pub fn resizes(&self) -> bool {
        !self.resources.is_empty()
    }

    /// What a Pod remembers that is given it now.
    pub fn remembered(&self, pod: &Pod, now: Timestamp) -> InPlace {
        let imaged = self.images.keys().map(String::as_str).collect();
        pod.remember(&imaged, now).resized(pod, &self.resources, &self.anew)
    }
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
    // What a Pod has fetched once it has for good; what the URL gives now, only another Pod finds out.
    if package::is_bound_by_fetch(to) {
        return Err(cannot("spec.package, which has no sha256 and so may be another one now,"));
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
    let containers = |data: &Value| data.pointer("/template/spec/containers").and_then(Value::as_array).cloned();
    let (before, after) = (containers(from).unwrap_or_default(), containers(to).unwrap_or_default());
    if !before.iter().map(|container| &container["name"]).eq(after.iter().map(|container| &container["name"])) {
        return Err(cannot("spec.template.spec.containers"));
    }
    for (mut before, mut after) in before.into_iter().zip(after) {
        let name = after["name"].as_str().unwrap_or_default().to_owned();
        let (image_before, image) = (take(&mut before, "image"), take(&mut after, "image"));
        let resources = resize::difference(&resize::take(&mut before), &resize::take(&mut after));
        // It was filled in by the tag when the Pod was made, and stays.
        if after.get("imagePullPolicy").is_none() && is_latest(image_before.as_ref()) != is_latest(image.as_ref()) {
            return Err(cannot(&format!(
                "spec.template.spec.containers[{name}].imagePullPolicy, which is Always for the tag latest and not for others,"
            )));
        }
        if let Some(field) = first_difference(&format!("spec.template.spec.containers[{name}]"), &before, &after) {
            return Err(cannot(&field));
        }
        if !resources.is_empty() {
            found.anew.extend(resize::starts_anew(&after, &resources).then(|| name.clone()));
            found.resources.insert(name.clone(), resources);
        }
        match image.as_ref().and_then(Value::as_str) {
            _ if image == image_before => {}
            Some(image) => drop(found.images.insert(name, image.to_owned())),
            None => return Err(cannot(&format!("spec.template.spec.containers[{name}].image"))),
        }
    }
    Ok(found)
}

/// The same, where Pods may be given it: `reloads` is true if their applications only reload it.
///
/// # Errors
/// The field that they cannot be given, or that an application cannot reload.
pub fn permitted(reloads: bool, from: &Value, to: &Value) -> Result<Difference, String> {
    let found = difference(from, to)?;
    let (labels, annotations) = (found.labels.clone(), found.annotations.clone());
    if !reloads || found == (Difference { labels, annotations, ..Difference::default() }) {
        return Ok(found);
    }
    let image = found.images.keys().next().map(|name| format!("[{name}].image")).unwrap_or_default();
    Err(format!("spec.template.spec.containers{image} differs, which an application cannot reload"))
}

fn cannot(field: &str) -> String {
    format!("{field} differs, which a Pod cannot be given in place")
}

fn is_latest(image: Option<&Value>) -> bool {
    revision::image_version(image.and_then(Value::as_str).unwrap_or_default()) == "latest"
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

/// What is written on a Pod to bring it to another revision, as strategic merge patches: containers are merged by their names.
#[derive(Clone, Debug)]
pub struct Patch {
    /// On the Pod, first.
    pub pod: Value,
    /// On its subresource `resize` then, where its resources differ.
    pub resize: Option<Value>,
}

/// What is written on a Pod of `from` to bring it to `to`. `reloads`: that its application is to be told, too.
///
/// # Errors
/// See [`difference`].
pub fn patch(pod: &Pod, from: &Revision, to: &Revision, reloads: bool, now: Timestamp) -> Result<Patch, String> {
    let difference = difference(&from.data, &to.data)?;
    let remembered = InPlace { reload: reloads.then(Reload::default), ..difference.remembered(pod, now) };
    let resize = difference.resizes().then(|| resize::patch(pod, &remembered.resources));
    let remembered = json!(remembered).to_string();
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
    Ok(Patch { pod: patch, resize })
}

/// What is written on a Pod whose application has reloaded what it was given. None: there is nothing to note.
pub fn reloaded(pod: &Pod, now: Timestamp) -> Option<Value> {
    let in_place = pod.in_place.clone().filter(|in_place| in_place.reload.is_some())?;
    Some(noted(pod, &InPlace { reload: Some(Reload { told_at: Some(now) }), ..in_place }))
}

/// What is written on a Pod for it to remember this of its last change.
pub(super) fn noted(pod: &Pod, note: &InPlace) -> Value {
    let annotations = json!({names::ANNOTATION_IN_PLACE: json!(note).to_string()});
    json!({"metadata": {"uid": pod.uid, "resourceVersion": pod.resource_version, "annotations": annotations}})
}
