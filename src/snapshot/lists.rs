//! A ConfigMap with lists of listeners: each of its keys is read once a version, however many sets name it.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::api::listener_set::{Listener, ListenerState, SecretRef};

/// Characters of what a parser says. It may quote the text, which who reads the status may not be allowed to read.
const ERROR_CHARS_MAX: usize = 200;

/// What one key holds: listeners as they are written, or a sentence that follows the key's name and says why there are none.
pub type List = Result<Vec<Listener>, String>;

/// What is kept of a ConfigMap. The text is not.
#[derive(Clone, Debug, PartialEq)]
pub struct Lists {
    /// uid.
    pub uid: String,
    /// resourceVersion.
    pub resource_version: String,
    keys: BTreeMap<String, Arc<List>>,
}

/// Reads every key, which takes up to a quarter of a second for the largest ConfigMap: not while anything else waits.
impl From<ConfigMap> for Lists {
    fn from(object: ConfigMap) -> Self {
        let (uid, resource_version) = (object.uid().unwrap_or_default(), object.resource_version().unwrap_or_default());
        let data = object.data.into_iter().flatten();
        Self { uid, resource_version, keys: data.map(|(key, text)| (key, Arc::new(read(&text)))).collect() }
    }
}

impl Lists {
    /// What this key holds; None: there is no such key.
    pub fn list(&self, key: &str) -> Option<&List> {
        self.keys.get(key).map(|list| &**list)
    }
}

/// Reads a list of listeners, in YAML or JSON.
///
/// # Errors
/// A sentence that follows the name of its place, such as `[0].nam: no such field`.
pub fn read(text: &str) -> List {
    let invalid = |error: String| {
        format!(
            " must be a list of listeners, each as in spec.listeners, such as `- name: listener-1`: {}",
            one_line(&error)
        )
    };
    let maps = parse::<Vec<Map<String, Value>>>(text).map_err(invalid)?;
    if let Some(error) = unknown_field(&maps) {
        return Err(error);
    }
    // Nothing is read as an empty list, too: it is no wish that all listeners end.
    if maps.is_empty() && !serde_saphyr::from_str::<Value>(text).is_ok_and(|value| value.is_array()) {
        return Err(invalid("it is empty; no listeners are written as []".to_owned()));
    }
    let listeners: Result<Vec<Listener>, _> =
        maps.into_iter().map(|map| serde_json::from_value(Value::Object(map))).collect();
    // What is wrong with one is said best by who knows its place in the text.
    listeners.or_else(|error| parse::<Vec<Listener>>(text).and(Err(error.to_string())).map_err(invalid))
}

/// JSON is YAML, but read faster as what it is.
fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    if text.trim_start().starts_with('[') {
        serde_json::from_str(text).map_err(|error| error.to_string())
    } else {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }
}

/// Without the lines of the text that a parser quotes.
fn one_line(error: &str) -> String {
    error.lines().next().unwrap_or_default().chars().take(ERROR_CHARS_MAX).collect()
}

/// What is wrong with a field that no listener has, after the list's name. In a spec the API server refuses it.
fn unknown_field(listeners: &[Map<String, Value>]) -> Option<String> {
    let known = known_fields();
    let mut fields =
        listeners.iter().enumerate().flat_map(|(index, fields)| fields.keys().map(move |key| (index, key)));
    let (index, field) = fields.find(|(_, key)| !known.contains(*key))?;
    let field: String = field.chars().take(80).collect();
    let known: Vec<String> = known.into_iter().collect();
    Some(format!("[{index}].{field}: no such field; a listener has {}", known.join(", ")))
}

fn known_fields() -> BTreeSet<String> {
    let all = Listener {
        name: String::new(),
        state: ListenerState::Started,
        config: Some(Map::new()),
        secret_ref: Some(SecretRef { name: String::new() }),
        use_proxy: Some(false),
        connect_timeout_seconds: Some(1),
    };
    let fields = serde_json::to_value(all).unwrap_or_default();
    fields.as_object().map(|fields| fields.keys().cloned().collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// F11: who may read a status need not be allowed to read the ConfigMap.
    #[test]
    fn what_is_wrong_is_said_in_one_line_and_without_the_text() {
        for text in [
            "- name: a\n  config: {password: hunter2\n- nam: b\n",
            "- name: a\n  config: [hunter2]\n",
            "- name: a\n  state: hunter2\u{1b}[31m\n  config:\n    hunter2: [}",
            "hunter2:\n  - [",
        ] {
            let error = read(text).unwrap_err();
            assert!(!error.contains('\n') && error.chars().count() < 320, "{error}");
            assert!(!error.contains("hunter2") || text.contains("state"), "{error}");
        }
    }
}
