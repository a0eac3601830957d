//! A request before it is known what the server will have made of the ones before: where a uid or resourceVersion is
//! wanted stands a placeholder.
use serde_json::{Value, json};

use crate::fake_apiserver::{faults::Verb, kinds::Kind};

/// The latest uid that was answered for the object of the request.
pub const UID: &str = "$uid";
/// A uid that nothing has.
pub const OTHER_UID: &str = "6e1f2a30-0000-4000-8000-000000000000";
/// The latest resourceVersion that was answered for the object of the request.
pub const VERSION: &str = "$version";
/// One that is older.
pub const STALE: &str = "$stale";
/// Where the next page begins, as the last list said.
pub const CONTINUE: &str = "$continue";
/// The namespace of the test.
pub const NAMESPACE: &str = "$namespace";
/// resourceVersion of the first list of the kind.
pub const BEGIN: &str = "$begin";

/// A request.
#[derive(Clone, Debug)]
pub struct Step {
    pub verb: Verb,
    pub kind: &'static Kind,
    /// Empty for the collection.
    pub name: String,
    pub subresource: &'static str,
    pub query: Vec<(&'static str, String)>,
    pub body: Value,
    pub content_type: &'static str,
    /// Sent when both servers have forgotten what was.
    pub is_after_compaction: bool,
}

impl Step {
    pub fn new(verb: Verb, kind: &'static Kind, name: &str) -> Self {
        let content_type = "application/json";
        let (name, query) = (name.to_owned(), Vec::new());
        let body = Value::Null;
        Self { verb, kind, name, subresource: "", query, body, content_type, is_after_compaction: false }
    }

    pub fn create(kind: &'static Kind, body: Value) -> Self {
        Self::new(Verb::Create, kind, "").body(body)
    }

    pub fn replace(kind: &'static Kind, name: &str, body: Value) -> Self {
        Self::new(Verb::Update, kind, name).body(body)
    }

    pub fn merge(kind: &'static Kind, name: &str, patch: Value) -> Self {
        Self { content_type: "application/merge-patch+json", ..Self::new(Verb::Patch, kind, name).body(patch) }
    }

    pub fn strategic(kind: &'static Kind, name: &str, patch: Value) -> Self {
        Self {
            content_type: "application/strategic-merge-patch+json",
            ..Self::new(Verb::Patch, kind, name).body(patch)
        }
    }

    pub fn json_patch(kind: &'static Kind, name: &str, patch: Value) -> Self {
        Self { content_type: "application/json-patch+json", ..Self::new(Verb::Patch, kind, name).body(patch) }
    }

    pub fn get(kind: &'static Kind, name: &str) -> Self {
        Self::new(Verb::Get, kind, name)
    }

    /// Only what these tests made.
    pub fn list(kind: &'static Kind) -> Self {
        Self::new(Verb::List, kind, "").query("labelSelector", super::objects::SELECTOR)
    }

    /// For a second.
    pub fn watch(kind: &'static Kind, version: &str) -> Self {
        let watch = Self::new(Verb::Watch, kind, "").query("watch", "true").query("timeoutSeconds", "1");
        let watch = watch.query("labelSelector", super::objects::SELECTOR);
        if version.is_empty() { watch } else { watch.query("resourceVersion", version) }
    }

    pub fn delete(kind: &'static Kind, name: &str) -> Self {
        Self::new(Verb::Delete, kind, name)
    }

    /// `uid` and `version` empty: without that precondition.
    pub fn delete_if(kind: &'static Kind, name: &str, uid: &str, version: &str) -> Self {
        let mut preconditions = json!({});
        if !uid.is_empty() {
            preconditions["uid"] = json!(uid);
        }
        if !version.is_empty() {
            preconditions["resourceVersion"] = json!(version);
        }
        Self::delete(kind, name).options("preconditions", preconditions)
    }

    pub fn body(self, body: Value) -> Self {
        Self { body, ..self }
    }

    pub fn query(mut self, name: &'static str, value: &str) -> Self {
        self.query.push((name, value.to_owned()));
        self
    }

    pub fn subresource(self, subresource: &'static str) -> Self {
        Self { subresource, ..self }
    }

    /// A field of DeleteOptions.
    pub fn options(mut self, field: &str, value: Value) -> Self {
        if self.body.is_null() {
            self.body = json!({"kind": "DeleteOptions", "apiVersion": "v1"});
        }
        self.body[field] = value;
        self
    }

    pub fn dry_run(self) -> Self {
        if self.verb == Verb::Delete { self.options("dryRun", json!(["All"])) } else { self.query("dryRun", "All") }
    }

    pub fn after_compaction(self) -> Self {
        Self { is_after_compaction: true, ..self }
    }

    pub fn is_dry_run(&self) -> bool {
        self.body["dryRun"] == json!(["All"]) || self.query.iter().any(|(name, _)| *name == "dryRun")
    }

    /// Path in a namespace.
    pub fn path(&self, namespace: &str) -> String {
        let root = if self.kind.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", self.kind.group) };
        let scope = if self.kind.is_namespaced { format!("/namespaces/{namespace}") } else { String::new() };
        let mut path = format!("{root}/{}{scope}/{}", self.kind.version, self.kind.resource);
        for part in [self.name.as_str(), self.subresource].into_iter().filter(|part| !part.is_empty()) {
            path.push('/');
            path.push_str(part);
        }
        path
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let query: Vec<String> = self.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        write!(f, "{} {}?{}", self.verb.as_str(), self.path("…"), query.join("&"))?;
        if self.body.is_null() { Ok(()) } else { write!(f, " {}", self.body) }
    }
}
