//! I20: An object as it comes over the wire, readable or not: one that cannot be read must not stop the others.
//!
//! Every watched kind is decoded here and nowhere else, one object at a time. Of an object that cannot be read only its
//! metadata is known, each part of it by itself, as far as that part can be read.
use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{Resource, api::ObjectMeta, core::error_boundary::InvalidObject};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::time;
use crate::api::{ListenerSet, Rollout, names};

/// An object with more JSON than this is not decoded, save managedFields, which are never: as a tree in memory it takes up to
/// 500 times as much.
pub const OBJECT_BYTES_MAX: usize = 256 * 1_024;
/// Of an object that cannot be read, longer labels or annotations are reduced to those that Baton writes.
const MAP_BYTES_MAX: usize = 64 * 1_024;
/// Of an object that cannot be read, so many owner references are looked at.
const OWNERS_MAX: usize = 64;

/// The object; or its metadata, and what is wrong with it. kube's type of this name makes a tree of the whole object, and a
/// copy of that, to be able to look twice; this one keeps the text, which serde_json alone can give it.
#[derive(Clone, Debug)]
pub struct DeserializeGuard<K>(pub Result<K, InvalidObject>);

/// What may be there without being readable.
pub trait Guarded {
    /// Why it cannot be read; None: it can.
    fn unreadable(&self) -> Option<&str>;
}

impl<K> Guarded for DeserializeGuard<K> {
    fn unreadable(&self) -> Option<&str> {
        self.0.as_ref().err().map(|invalid| invalid.error.as_str())
    }
}

/// What is decoded only up to a size.
pub trait Bounded {
    /// More JSON than this is not decoded.
    const BYTES_MAX: usize = OBJECT_BYTES_MAX;
}

impl Bounded for Rollout {}
impl Bounded for ListenerSet {}

/// Texts alone: in memory it takes no more than as JSON.
impl Bounded for ConfigMap {
    const BYTES_MAX: usize = usize::MAX;
}

/// The parts of an object, as text.
type Parts<'a> = BTreeMap<String, &'a RawValue>;

impl<'de, K: DeserializeOwned + Bounded> Deserialize<'de> for DeserializeGuard<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let kept = without_managed_fields(text.get());
        let kept = kept.as_deref().unwrap_or(text.get());
        let object = if kept.len() > K::BYTES_MAX {
            let (size, most) = (kept.len() / 1_024, K::BYTES_MAX / 1_024);
            Err(format!("it is too large: {size} KiB of JSON, where {most} KiB are read"))
        } else {
            serde_json::from_str(kept).map_err(|error: serde_json::Error| error.to_string())
        };
        Ok(Self(object.map_err(|error| InvalidObject { error, metadata: metadata(kept) })))
    }
}

/// The object without metadata.managedFields: a good part of its text, a tree of many small maps, and times that anybody may
/// write. None where it has none.
fn without_managed_fields(text: &str) -> Option<String> {
    if !text.contains("\"managedFields\"") {
        return None;
    }
    let mut parts: Parts<'_> = serde_json::from_str(text).ok()?;
    let mut metadata: Parts<'_> = serde_json::from_str(parts.get("metadata")?.get()).ok()?;
    metadata.remove("managedFields")?;
    let metadata = serde_json::value::to_raw_value(&metadata).ok()?;
    parts.insert("metadata".to_owned(), &metadata);
    serde_json::to_string(&parts).ok()
}

fn read<T: DeserializeOwned>(parts: &Parts<'_>, name: &str) -> Option<T> {
    serde_json::from_str(parts.get(name)?.get()).ok()
}

/// What can be read of the metadata of an object that cannot be read.
fn metadata(text: &str) -> ObjectMeta {
    let parts: Parts<'_> = serde_json::from_str(text).unwrap_or_default();
    let metadata = parts.get("metadata").and_then(|part| serde_json::from_str(part.get()).ok());
    let metadata: Parts<'_> = metadata.unwrap_or_default();
    let text = |name: &str| read::<String>(&metadata, name);
    let time = |name: &str| {
        // A deletion that cannot be read has begun all the same.
        let is_there = metadata.get(name).is_some_and(|part| part.get() != "null");
        is_there.then(|| text(name).and_then(|text| time::parse(&text)).unwrap_or(time::LATEST).into())
    };
    let map = |name: &str| Some(strings(metadata.get(name)?));
    ObjectMeta {
        name: text("name"),
        namespace: text("namespace"),
        uid: text("uid"),
        resource_version: text("resourceVersion"),
        generation: read(&metadata, "generation"),
        creation_timestamp: time("creationTimestamp"),
        deletion_timestamp: time("deletionTimestamp"),
        labels: map("labels"),
        annotations: map("annotations"),
        owner_references: metadata.get("ownerReferences").map(|part| owners(part)),
        ..ObjectMeta::default()
    }
}

/// The texts of a map; of a very large one those that Baton writes.
fn strings(part: &RawValue) -> BTreeMap<String, String> {
    let is_kept = |name: &String| part.get().len() <= MAP_BYTES_MAX || name.contains(names::GROUP);
    let parts: Parts<'_> = serde_json::from_str(part.get()).unwrap_or_default();
    let parts = parts.into_iter().filter(|(name, part)| is_kept(name) && part.get().len() <= MAP_BYTES_MAX);
    parts.filter_map(|(name, part)| Some((name, serde_json::from_str(part.get()).ok()?))).collect()
}

fn owners(part: &RawValue) -> Vec<OwnerReference> {
    let parts: Vec<&RawValue> = serde_json::from_str(part.get()).unwrap_or_default();
    parts.into_iter().take(OWNERS_MAX).filter_map(|part| serde_json::from_str(part.get()).ok()).collect()
}

impl<K: Resource> Resource for DeserializeGuard<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(of: &K::DynamicType) -> Cow<'_, str> {
        K::kind(of)
    }

    fn group(of: &K::DynamicType) -> Cow<'_, str> {
        K::group(of)
    }

    fn version(of: &K::DynamicType) -> Cow<'_, str> {
        K::version(of)
    }

    fn plural(of: &K::DynamicType) -> Cow<'_, str> {
        K::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|invalid| &invalid.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|invalid| &mut invalid.metadata, K::meta_mut)
    }
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
