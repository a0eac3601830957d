//! Revisions: canonical data, hash, the Pod of a slot. The hash covers the stored spec only and never changes between
//! releases (golden files in the tests).
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{agent, package};
use crate::{
    api::{
        RolloutSpec,
        names::{self, pod_name},
        rollout::Pin,
    },
    snapshot::Revision,
};

/// Letters of a hash: no vowels, so that no words appear, and no digit that looks like a letter; as Kubernetes'
/// `rand.SafeEncodeString`.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// Characters of a hash: 27^10 = 2·10^14 values.
pub const HASH_CHARS: usize = 10;

/// Data of the revision that this spec asks for: {package, template, version}, keys sorted, nulls removed, so that equal specs
/// give equal bytes in any order, and with defaults written or absent.
pub fn data(spec: &RolloutSpec) -> Value {
    let mut data = Map::new();
    if let Some(package) = &spec.package {
        data.insert("package".into(), json!(package));
    }
    let template = Value::Object(spec.template.0.clone());
    data.insert("template".into(), template);
    if let Some(version) = &spec.version {
        data.insert("version".into(), json!(version));
    }
    canonical(Value::Object(data))
}

/// Data of a revision that differs from this one in what the pin says.
///
/// # Errors
/// The pin names a container that is not there.
pub fn differing(base: &Value, pin: &Pin) -> Result<Value, String> {
    let mut data = base.clone();
    if let (Some(version), Some(data)) = (&pin.version, data.as_object_mut()) {
        data.insert("version".into(), json!(version));
    }
    if let (Some(package), Some(data)) = (&pin.package, data.as_object_mut()) {
        data.insert("package".into(), json!(package));
    }
    for (name, image) in pin.images.iter().flatten() {
        let container = ["initContainers", "containers"].into_iter().find_map(|field| {
            let all = data.pointer(&format!("/template/spec/{field}"))?.as_array()?;
            let at = all.iter().position(|container| container["name"] == json!(name))?;
            Some(format!("/template/spec/{field}/{at}/image"))
        });
        match container.and_then(|path| data.pointer_mut(&path)) {
            Some(known) => *known = json!(image),
            None => return Err(format!("it has no container {name}")),
        }
    }
    Ok(canonical(data))
}

/// Container and image, of init containers first.
pub fn images(data: &Value) -> impl Iterator<Item = (&str, &str)> {
    let fields = ["/template/spec/initContainers", "/template/spec/containers"].into_iter();
    let containers = fields.filter_map(|field| data.pointer(field)?.as_array()).flatten();
    containers.filter_map(|container| Some((container["name"].as_str()?, container["image"].as_str()?)))
}

/// Keys sorted, nulls in objects removed, at every depth.
fn canonical(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> = map
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key, canonical(value)))
                .collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(canonical).collect()),
        other => other,
    }
}

/// Ten characters of SHA-256 over the canonical JSON. The first is a letter, so no hash reads as a number and Pod names
/// stay injective.
pub fn hash(data: &Value) -> String {
    let digest = Sha256::digest(canonical(data.clone()).to_string().as_bytes());
    digest
        .iter()
        .take(HASH_CHARS)
        .enumerate()
        .map(|(position, byte)| {
            let letters = if position == 0 { 20 } else { ALPHABET.len() };
            char::from(ALPHABET[usize::from(*byte) % letters])
        })
        .collect()
}

/// Whether this is a [`hash`] by its form.
pub fn is_hash(text: &str) -> bool {
    text.len() == HASH_CHARS && text.bytes().all(|byte| ALPHABET.contains(&byte))
}

/// Version for people of a revision: what the spec said, else tag or short digest of the first container's image.
pub fn version(data: &Value) -> String {
    if let Some(version) = data.get("version").and_then(Value::as_str) {
        return version.to_owned();
    }
    let image = data.pointer("/template/spec/containers/0/image").and_then(Value::as_str).unwrap_or_default();
    image_version(image)
}

/// What people read for each revision, by its name: the version, as `1.1`, and beside it the number, as `1.1 (#3)`, if another
/// revision of those `in_play` has the same version.
pub fn called<'a>(revisions: &'a [Revision], in_play: &BTreeSet<&str>) -> BTreeMap<&'a str, String> {
    let versions: Vec<(&Revision, String)> =
        revisions.iter().map(|revision| (revision, version(&revision.data))).collect();
    let mut played: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (revision, version) in versions.iter().filter(|(revision, _)| in_play.contains(revision.name.as_str())) {
        played.entry(version).or_default().push(&revision.name);
    }
    let called = versions.iter().map(|(revision, own)| {
        let has_namesake = played.get(own.as_str()).is_some_and(|all| all.iter().any(|name| *name != revision.name));
        if !has_namesake {
            return (revision.name.as_str(), own.clone());
        }
        // A revision that only a pin has asked for has no number.
        let number = Some(revision.number).filter(|number| *number > 0);
        let number = number.map_or_else(|| revision.hash.clone(), |number| format!("#{number}"));
        (revision.name.as_str(), format!("{own} ({number})"))
    });
    called.collect()
}

/// `registry:5000/web:1.4` → `1.4`; `web@sha256:0123456789abcdef…` → `0123456789ab`; `web` → `latest`.
pub(super) fn image_version(image: &str) -> String {
    if let Some((_, digest)) = image.split_once('@') {
        let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
        return hex.chars().take(12).collect();
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split_once(':').map_or("latest", |(_, tag)| tag).to_owned()
}

/// What the Pod of a slot is made from.
pub struct PodRecipe<'a> {
    /// Name of the Rollout.
    pub rollout: &'a str,
    /// Namespace of the Rollout.
    pub namespace: &'a str,
    /// uid of the Rollout.
    pub rollout_uid: &'a str,
    /// Slot.
    pub slot: i32,
    /// Name of the ControllerRevision.
    pub revision: &'a str,
    /// Its hash.
    pub hash: &'a str,
    /// Its data.
    pub data: &'a Value,
    /// The latest restart or retry that is reached (see [`crate::plan::Change::CreatePod`]).
    pub restarted_at: Option<Timestamp>,
    /// SHA-256 that its package is bound to, where the data does not say it.
    pub package_sha256: Option<&'a str>,
    /// The agent's image, where the operator was told one.
    pub agent_image: Option<&'a str>,
    /// It has the readiness gate [`names::CONDITION_IN_SERVICE`], also without an agent.
    pub is_gated: bool,
}

/// The Pod of a slot, as JSON for a create. What is injected here is neither in the hash nor in any comparison.
///
/// # Errors
/// The agent cannot be added that the template asks for, or the package needs: a sentence that begins with the field.
pub fn pod(recipe: &PodRecipe<'_>, name: &str) -> Result<Value, String> {
    let template = recipe.data.get("template").cloned().unwrap_or_default();
    let version = version(recipe.data);
    let mut labels = object_at(&template, "/metadata/labels");
    for (key, value) in [
        (names::LABEL_ROLLOUT, recipe.rollout.to_owned()),
        (names::LABEL_INSTANCE, recipe.slot.to_string()),
        (names::LABEL_REVISION, recipe.revision.to_owned()),
        (names::LABEL_REVISION_HASH, recipe.hash.to_owned()),
        (names::LABEL_POD_INDEX, recipe.slot.to_string()),
    ] {
        labels.insert(key.to_owned(), json!(value));
    }
    let mut annotations = object_at(&template, "/metadata/annotations");
    annotations.insert(names::ANNOTATION_REVISION.to_owned(), json!(recipe.revision));
    annotations.insert(names::ANNOTATION_VERSION.to_owned(), json!(version));
    if let Some(at) = recipe.restarted_at {
        annotations.insert(names::ANNOTATION_RESTARTED_AT.to_owned(), json!(at.to_string()));
    }
    let own = object_at(&template, "/spec");
    let mut spec = own.clone();
    let asked = annotations.get(names::ANNOTATION_HAS_AGENT);
    if let Some(wanted) = package::of(recipe.data) {
        package::add(&mut spec, &wanted, recipe.package_sha256, recipe.agent_image)?;
    }
    if let Some(asked) = asked {
        agent::add(&mut spec, &own, asked.as_str().unwrap_or_default(), recipe.agent_image)?;
    }
    if asked.is_some() || recipe.is_gated {
        let mut gates = spec.get("readinessGates").and_then(Value::as_array).cloned().unwrap_or_default();
        gates.push(json!({"conditionType": names::CONDITION_IN_SERVICE}));
        spec.insert("readinessGates".into(), Value::Array(gates));
    }
    for field in ["initContainers", "containers"] {
        let Some(containers) = spec.get_mut(field).and_then(Value::as_array_mut) else { continue };
        for container in containers.iter_mut().filter_map(Value::as_object_mut) {
            let own = container.get("env").and_then(Value::as_array).cloned().unwrap_or_default();
            container.insert("env".into(), Value::Array(injected_env(recipe.slot).into_iter().chain(own).collect()));
            // Why a version failed is in the last lines of its log, and that goes with the Pod.
            container.entry("terminationMessagePolicy").or_insert_with(|| json!("FallbackToLogsOnError"));
        }
    }
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": recipe.namespace,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [owner_reference(recipe.rollout, recipe.rollout_uid)],
        },
        "spec": spec,
    }))
}

/// The controller ownerRef of everything a Rollout owns.
pub fn owner_reference(rollout: &str, uid: &str) -> Value {
    json!({
        "apiVersion": format!("{}/{}", names::GROUP, names::VERSION),
        "kind": "Rollout",
        "name": rollout,
        "uid": uid,
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// Name of the Pod that a create for this slot uses.
pub fn pod_name_of(recipe: &PodRecipe<'_>, attempt: u32) -> String {
    pod_name(recipe.rollout, recipe.slot, recipe.hash, attempt)
}

/// Env of every container, before the user's own, so that the user's may refer to it and may override it.
fn injected_env(slot: i32) -> Vec<Value> {
    let field = |name: &str, path: String| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    vec![
        json!({"name": "BATON_INSTANCE", "value": slot.to_string()}),
        field("BATON_REVISION", format!("metadata.annotations['{}']", names::ANNOTATION_REVISION)),
        field("BATON_VERSION", format!("metadata.annotations['{}']", names::ANNOTATION_VERSION)),
        field("BATON_POD_NAME", "metadata.name".into()),
        field("BATON_POD_NAMESPACE", "metadata.namespace".into()),
        field("BATON_POD_UID", "metadata.uid".into()),
        field("BATON_POD_IP", "status.podIP".into()),
    ]
}

fn object_at(value: &Value, pointer: &str) -> Map<String, Value> {
    value.pointer(pointer).and_then(Value::as_object).cloned().unwrap_or_default()
}
