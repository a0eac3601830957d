//! Events about a Rollout or a ListenerSet: one a transition. Nothing depends on them, so a failure is only logged.
//!
//! They are core/v1 Events, because `kubectl describe` and `kubectl get events --sort-by=.lastTimestamp` sort by `lastTimestamp`,
//! and events.k8s.io/v1 refuses an Event that sets it.
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event as ApiEvent;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use super::Calls;
use crate::{
    api::names,
    snapshot::{index::ObjectKey, on_one_line},
};

/// Longest `message` that the API server takes, in bytes.
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
    /// As of `now`. `instance` names this process, `suffix` makes the Event's name unique. Names begin with the time: Events of
    /// one second are listed by their names.
    pub fn new(regarding: &Regarding, news: &News<'_>, instance: &str, now: Timestamp, suffix: u64) -> Self {
        let ObjectKey { mut namespace, name } = regarding.key.clone();
        // Of a Node; where kubelets put theirs.
        if namespace.is_empty() {
            namespace = "default".into();
        }
        let nanoseconds = now.as_nanosecond();
        let seconds = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let object = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": format!("{name}.{nanoseconds:016x}{:04x}", suffix & 0xffff), "namespace": namespace},
            "eventTime": format!("{now:.6}"),
            "firstTimestamp": seconds,
            "lastTimestamp": seconds,
            "count": 1,
            "source": {"component": names::FIELD_MANAGER},
            "reportingComponent": names::FIELD_MANAGER,
            "reportingInstance": tail(instance, 128),
            "action": news.action,
            "reason": news.reason,
            "type": if news.is_warning { "Warning" } else { "Normal" },
            "message": head(&on_one_line(news.note), NOTE_BYTES_MAX),
            "involvedObject": {
                "apiVersion": api_version(regarding.kind),
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

fn api_version(kind: &str) -> String {
    match kind {
        "Pod" | "Node" => "v1".into(),
        "ControllerRevision" => "apps/v1".into(),
        "Lease" => "coordination.k8s.io/v1".into(),
        _ => format!("{}/{}", names::GROUP, names::VERSION),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn event(now: &str, note: &str) -> Value {
        let key = ObjectKey { namespace: "shop".into(), name: "web".into() };
        let regarding = Regarding { kind: "Rollout", key, uid: "u1".into(), resource_version: "5".into() };
        let news = News { is_warning: true, reason: "RolledBack", action: "RollBack", note };
        Event::new(&regarding, &news, "pod-1", now.parse().unwrap(), 7).object
    }

    /// F11
    #[test]
    fn a_note_is_one_line() {
        assert_eq!(event("2026-01-01T10:00:00Z", "a\nb\u{1b}[2K")["message"], "a b\\u{1b}[2K");
    }

    /// `kubectl describe` and `kubectl get events --sort-by=.lastTimestamp` sort by it.
    #[test]
    fn an_event_says_when_as_kubectl_sorts() {
        let event = event("2026-01-01T10:00:00.75Z", "back at 1.0");
        assert_eq!(event["lastTimestamp"], "2026-01-01T10:00:00Z");
        assert_eq!(event["firstTimestamp"], event["lastTimestamp"]);
        assert_eq!((&event["eventTime"], &event["count"]), (&json!("2026-01-01T10:00:00.750000Z"), &json!(1)));
        assert_eq!(event["message"], "back at 1.0");
        let name = |now| self::event(now, "")["metadata"]["name"].as_str().unwrap().to_owned();
        assert!(name("2026-01-01T10:00:00.75Z") < name("2026-01-01T10:00:00.751Z"));
    }

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let message = event("2026-01-01T10:00:00Z", &"ä".repeat(600))["message"].as_str().unwrap().to_owned();
        assert_eq!(message.len(), NOTE_BYTES_MAX);
    }
}
