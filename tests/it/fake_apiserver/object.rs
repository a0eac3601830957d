//! One version of one object. It never changes: a write makes another.
use std::{ops::Deref, sync::OnceLock};

use hyper::body::Bytes;
use jiff::Timestamp;
use serde_json::Value;

/// An object as stored: its JSON, and the revision at which it was written.
#[derive(Debug)]
pub struct Object {
    value: Value,
    revision: u64,
    /// True while its status is a default that is not stored: any write stores it, and is a change.
    is_filled: bool,
    /// The JSON as text, made once however many watches and lists show it.
    text: OnceLock<Bytes>,
}

impl Object {
    /// `value` with `revision` as its resourceVersion.
    pub fn new(mut value: Value, revision: u64) -> Self {
        value["metadata"]["resourceVersion"] = Value::String(revision.to_string());
        Self { value, revision, is_filled: false, text: OnceLock::new() }
    }

    /// The same, for an object whose status is filled in when it is read.
    pub fn filled(self) -> Self {
        Self { is_filled: true, ..self }
    }

    /// Whether a write that changes nothing is none.
    pub fn is_filled(&self) -> bool {
        self.is_filled
    }

    /// What a dry run would have created: it has no resourceVersion.
    pub fn unstored(value: Value) -> Self {
        Self { value, revision: 0, is_filled: false, text: OnceLock::new() }
    }

    /// The JSON.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// metadata.resourceVersion as a number.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The JSON as it goes over the wire.
    pub fn text(&self) -> &Bytes {
        // Not by its Display, which goes through a formatter piece by piece.
        self.text.get_or_init(|| Bytes::from(serde_json::to_vec(&self.value).expect("JSON")))
    }

    /// metadata.name.
    pub fn name(&self) -> &str {
        meta_text(&self.value, "name")
    }

    /// metadata.namespace; empty for what is in none.
    pub fn namespace(&self) -> &str {
        meta_text(&self.value, "namespace")
    }

    /// metadata.uid.
    pub fn uid(&self) -> &str {
        meta_text(&self.value, "uid")
    }

    /// True once a deletion was asked for.
    pub fn is_terminating(&self) -> bool {
        is_terminating(&self.value)
    }
}

impl Deref for Object {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.value
    }
}

/// A text field of metadata; empty without it.
pub fn meta_text<'a>(value: &'a Value, field: &str) -> &'a str {
    value["metadata"][field].as_str().unwrap_or_default()
}

/// True when metadata.deletionTimestamp is set.
pub fn is_terminating(value: &Value) -> bool {
    value["metadata"]["deletionTimestamp"].is_string()
}

/// metadata.finalizers.
pub fn finalizers(value: &Value) -> Vec<&str> {
    value["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// A time as the API server writes it into metadata: whole seconds, rounded down.
pub fn whole_seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

/// Sets a field of metadata, or takes it away.
pub fn set_meta(value: &mut Value, field: &str, to: Option<Value>) {
    let Some(metadata) = value["metadata"].as_object_mut() else { return };
    match to.filter(|to| !to.is_null()) {
        Some(to) => drop(metadata.insert(field.to_owned(), to)),
        None => drop(metadata.remove(field)),
    }
}
