//! An object as it comes over the wire, readable or not: one that cannot be read must not stop the others.
use std::borrow::Cow;

use kube::{Resource, api::ObjectMeta, core::error_boundary::InvalidObject};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error},
};
use serde_json::value::RawValue;

/// The object; or its metadata, and what is wrong with it. kube's type of this name makes a tree of the whole object, and a
/// copy of that, to be able to look twice; this one keeps the text, which serde_json alone can give it.
#[derive(Clone, Debug)]
pub struct DeserializeGuard<K>(pub Result<K, InvalidObject>);

/// What is read of an object that cannot be read.
#[derive(Deserialize)]
struct OnlyMetadata {
    metadata: ObjectMeta,
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for DeserializeGuard<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let error = match serde_json::from_str(text.get()) {
            Ok(object) => return Ok(Self(Ok(object))),
            Err(error) => error.to_string(),
        };
        let OnlyMetadata { metadata } = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
        Ok(Self(Err(InvalidObject { error, metadata })))
    }
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
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use kube::{
        ResourceExt,
        api::{ObjectList, WatchEvent},
    };

    use super::*;

    #[test]
    fn what_cannot_be_read_is_told_with_its_metadata_and_stops_nothing() {
        let told = |spec: &str| {
            let object = format!(r#"{{"spec":{spec},"metadata":{{"name":"web-0"}}}}"#);
            let event = format!(r#"{{"type":"ADDED","object":{object}}}"#);
            let event: WatchEvent<DeserializeGuard<Pod>> = serde_json::from_str(&event).unwrap();
            let WatchEvent::Added(pod) = event else { panic!("another event") };
            let list = format!(r#"{{"kind":"PodList","apiVersion":"v1","metadata":{{}},"items":[{object}]}}"#);
            let list: ObjectList<DeserializeGuard<Pod>> = serde_json::from_str(&list).unwrap();
            assert_eq!([pod.name_any(), list.items[0].name_any()], ["web-0", "web-0"]);
            pod.0.map(|pod| pod.spec.unwrap().node_name).map_err(|invalid| invalid.error)
        };
        assert_eq!(told(r#"{"nodeName":"n","containers":[]}"#).unwrap().as_deref(), Some("n"));
        let error = told(r#"{"containers":"none"}"#).unwrap_err();
        assert!(error.starts_with("invalid type: string \"none\", expected a sequence"), "{error}");
    }
}
