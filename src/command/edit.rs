//! A change of a spec.
use serde_json::{Value, json};

use super::Refusal;

/// A change of a Rollout's spec. Its writer puts a test of `metadata.generation` before it: what is changed is what was looked at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpecEdit {
    /// Steps of a JSON patch (RFC 6902). None: the spec asks for that already.
    pub patch: Vec<Value>,
    /// What is said once it is written: one sentence.
    pub summary: String,
    /// The command line that does the same.
    pub kubectl: String,
}

/// The change, or why there is none.
pub type Edited = Result<SpecEdit, Refusal>;

/// The text as one word of a POSIX shell.
pub fn shell_word(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:@%+=,".contains(letter);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Sets a field: a step of a JSON patch.
pub fn set(path: &str, value: &Value) -> Value {
    json!({"op": "add", "path": path, "value": value})
}

/// Removes a field: a step of a JSON patch.
pub(super) fn remove(path: &str) -> Value {
    json!({"op": "remove", "path": path})
}

/// Sets a field, or removes it if it is there.
pub(super) fn set_or_remove(path: &str, value: Option<&Value>, is_there: bool) -> Option<Value> {
    match value {
        Some(value) => Some(set(path, value)),
        None => is_there.then(|| remove(path)),
    }
}
