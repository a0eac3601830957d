//! Events (events.k8s.io/v1) about a Rollout or a ListenerSet: one a transition. Nothing depends on them, so a failure is only logged.
use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event as ApiEvent;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use super::Calls;
use crate::{api::names, snapshot::index::ObjectKey};

/// Longest `note` that the API server takes, in bytes.
const NOTE_BYTES_MAX: usize = 1_024;

/// What an Event says.
#[derive(Clone, Debug)]
pub struct News<'a> {
    /// True for what needs a person.
    pub is_warning: bool,
    /// One CamelCase word.
    pub reason: &'a str,
    /// One CamelCase word: what was done, or found.
    pub action: &'a str,
    /// A sentence.
    pub note: &'a str,
}

/// What an Event is about.
#[derive(Clone, Debug)]
pub struct Regarding {
    /// Rollout or ListenerSet.
    pub kind: &'static str,
    /// Namespace and name.
    pub key: ObjectKey,
    /// uid.
    pub uid: String,
    /// resourceVersion.
    pub resource_version: String,
}

impl Regarding {
    /// An object of a kind of ours.
    pub fn object<K: Resource<DynamicType = ()>>(kind: &'static str, object: &K) -> Self {
        let (uid, version) = (object.uid(), object.resource_version());
        let (uid, resource_version) = (uid.unwrap_or_default(), version.unwrap_or_default());
        Self { kind, key: ObjectKey::of(object), uid, resource_version }
    }
}

/// An Event, ready to be sent.
#[derive(Clone, Debug)]
pub struct Event {
    namespace: String,
    object: Value,
}

impl Event {
    /// As of `now`. `instance` names this process, `suffix` makes the Event's name unique.
    pub fn new(regarding: &Regarding, news: &News<'_>, instance: &str, now: Timestamp, suffix: u64) -> Self {
        let ObjectKey { namespace, name } = regarding.key.clone();
        let object = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": format!("{name}.{suffix:016x}"), "namespace": namespace},
            "eventTime": format!("{now:.6}"),
            "reportingController": names::FIELD_MANAGER,
            "reportingInstance": tail(instance, 128),
            "action": news.action,
            "reason": news.reason,
            "type": if news.is_warning { "Warning" } else { "Normal" },
            "note": head(news.note, NOTE_BYTES_MAX),
            "regarding": {
                "apiVersion": format!("{}/{}", names::GROUP, names::VERSION),
                "kind": regarding.kind,
                "namespace": namespace,
                "name": name,
                "uid": regarding.uid,
                "resourceVersion": regarding.resource_version,
            },
        });
        Self { namespace, object }
    }

    /// Publishes it.
    pub async fn publish(&self, calls: &Calls) {
        if let Err(error) = calls.create::<ApiEvent>(&self.namespace, &self.object).await {
            tracing::debug!(reason = %self.object["reason"], error = error.message(), "event was not published");
        }
    }
}

/// At most `bytes_max` bytes of it, whole characters, from the front.
fn head(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The same from the end.
fn tail(text: &str, bytes_max: usize) -> &str {
    let mut start = text.len().saturating_sub(bytes_max);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}
