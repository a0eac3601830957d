//! The listeners that a ListenerSet asks for, and what an agent is told of each.
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::lists::List;
use crate::api::{
    ListenerSet,
    bounds::{CONFIG_BYTES_MAX, CONFIG_PROPERTIES_MAX, CONFIG_TOTAL_BYTES_MAX, LISTENERS_MAX},
    listener_set::{ConfigMapSource, CountSource, Listener, ListenerState},
};

/// Why the listeners of a set are not known, in a reason and a sentence that names the field and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceError {
    /// CamelCase.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

/// One listener of a set, with all defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Unique in the set.
    pub name: String,
    /// Whether it should run.
    pub state: ListenerState,
    /// Name of the Secret of its application; as in its settings.
    pub secret: Option<String>,
    /// What its agent is told.
    pub settings: Settings,
}

/// What an agent is told of a listener: the value of [`crate::api::names::ANNOTATION_CONFIG`] as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// The application's own.
    pub config: Map<String, Value>,
    /// Name of its Secret. Kept here for when the listener has been removed from the set: another one with the same
    /// Secret must not start before it has stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Whether its connection goes through a proxy.
    pub use_proxy: bool,
    /// How long its connection may take to open.
    pub connect_timeout_seconds: u32,
    /// How long it may take from its start until it runs.
    pub start_timeout_seconds: u32,
    /// How long it may take to stop; then it is killed.
    pub stop_timeout_seconds: u32,
    /// How often what it would resume from is written down; 0: never.
    pub checkpoint_seconds: u32,
    /// Its set has a start budget: what has ended is not started again in its Pod before the operator says so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asks_before_start: bool,
}

/// The listeners of this set, sorted by name, with all defaults filled in. `config_map` is what became of reading
/// `spec.configMap`: what its key holds, or in a sentence why there is none; None when it has not been read yet.
///
/// The schema's bounds are checked here once more: what comes from a ConfigMap no API server has looked at.
pub fn read(set: &ListenerSet, config_map: Option<Result<&List, String>>) -> Result<Vec<Wanted>, SourceError> {
    let spec = &set.spec;
    let (listeners, place) = match (&spec.listeners, &spec.config_map, &spec.count) {
        (Some(listeners), None, None) => (listeners.clone(), "spec.listeners".to_owned()),
        (None, Some(source), None) => (from_config_map(source, config_map)?, place_of(source)),
        (None, None, Some(source)) => (numbered(source), "spec.count".to_owned()),
        _ => {
            let message = "spec: exactly one of listeners, configMap and count says which listeners there are; set one, \
                           remove the others";
            return Err(SourceError { reason: INVALID_SPEC, message: message.into() });
        }
    };
    // What the user wrote in the spec, or in an object that it names.
    let reason = if spec.config_map.is_some() { INVALID_CONFIG_MAP } else { INVALID_SPEC };
    check(&listeners, &place, spec.defaults.start_timeout_seconds)
        .map_err(|message| SourceError { reason, message })?;
    let mut wanted: Vec<Wanted> = listeners.into_iter().map(|listener| with_defaults(set, listener)).collect();
    wanted.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(wanted)
}

const INVALID_SPEC: &str = "InvalidSpec";
const INVALID_CONFIG_MAP: &str = "InvalidConfigMap";

fn place_of(source: &ConfigMapSource) -> String {
    format!("ConfigMap {} key {}", source.name, source.key)
}

fn from_config_map(
    source: &ConfigMapSource,
    config_map: Option<Result<&List, String>>,
) -> Result<Vec<Listener>, SourceError> {
    let place = place_of(source);
    match config_map {
        Some(Ok(Ok(listeners))) => Ok(listeners.clone()),
        Some(Ok(Err(what))) => Err(SourceError { reason: INVALID_CONFIG_MAP, message: format!("{place}{what}") }),
        Some(Err(message)) => Err(SourceError { reason: "ConfigMapMissing", message }),
        None => {
            let message = format!("{place} has not been read yet");
            Err(SourceError { reason: "ConfigMapMissing", message })
        }
    }
}

fn numbered(source: &CountSource) -> Vec<Listener> {
    let name = |number| format!("{}{number}", source.name_prefix);
    let listener = |number| Listener {
        name: name(number),
        state: ListenerState::Started,
        config: None,
        secret_ref: None,
        use_proxy: None,
        connect_timeout_seconds: None,
    };
    (0..source.count.min(LISTENERS_MAX + 1)).map(listener).collect()
}

/// The first thing that is wrong, in a sentence.
fn check(listeners: &[Listener], place: &str, start_timeout: i32) -> Result<(), String> {
    let most = usize::try_from(LISTENERS_MAX).unwrap_or(usize::MAX);
    if listeners.len() > most {
        return Err(format!(
            "{place}: a ListenerSet has at most {LISTENERS_MAX} listeners; divide them into several sets"
        ));
    }
    let mut names = BTreeSet::new();
    let mut total = 0;
    for (index, listener) in listeners.iter().enumerate() {
        let name = &listener.name;
        if !is_dns_label(name) {
            let name: String = name.chars().take(80).collect();
            return Err(format!(
                "{place}[{index}].name: {name:?} must be a DNS label: at most 63 lower-case letters, digits and '-', such \
                 as listener-1"
            ));
        }
        if !names.insert(name.as_str()) {
            return Err(format!("{place}[{index}].name: {name} is there twice; names are unique in a set: rename one"));
        }
        total += check_one(listener, start_timeout)
            .map_err(|(field, what)| format!("{place}[{index}].{field} of {name} {what}"))?;
    }
    if total > CONFIG_TOTAL_BYTES_MAX {
        return Err(format!(
            "{place}: the config of all listeners is {total} bytes as compact JSON, at most {CONFIG_TOTAL_BYTES_MAX} are \
             allowed; shorten them, or divide the listeners into several sets"
        ));
    }
    Ok(())
}

/// The bytes of its config, or which field is wrong, and how.
fn check_one(listener: &Listener, start_timeout: i32) -> Result<usize, (&'static str, String)> {
    let Listener { config, secret_ref, connect_timeout_seconds, .. } = listener;
    if let Some(seconds) = connect_timeout_seconds {
        if !(1..=600).contains(seconds) {
            return Err(("connectTimeoutSeconds", format!("is {seconds}; it must be 1 to 600")));
        }
        if *seconds > start_timeout {
            let remedy = "or the start would fail before the connection: lower the first or raise the second";
            let what =
                format!("is {seconds}, which exceeds spec.defaults.startTimeoutSeconds ({start_timeout}), {remedy}");
            return Err(("connectTimeoutSeconds", what));
        }
    }
    let is_secret_name = |name: &str| (1..=253).contains(&name.len()) && name.split('.').all(is_label_of_any_length);
    if secret_ref.as_ref().is_some_and(|secret| !is_secret_name(&secret.name)) {
        let what = "must be the name of a Secret: lower-case letters, digits, '-' and '.', such as token-1";
        return Err(("secretRef.name", what.into()));
    }
    let Some(config) = config else { return Ok(0) };
    if config.len() > CONFIG_PROPERTIES_MAX {
        let what = format!("has {} fields; at most {CONFIG_PROPERTIES_MAX} are allowed: nest them", config.len());
        return Err(("config", what));
    }
    let bytes = serde_json::to_string(config).map_or(0, |text| text.len());
    if bytes > CONFIG_BYTES_MAX {
        let what = format!(
            "is {bytes} bytes as compact JSON, at most {CONFIG_BYTES_MAX} are allowed; keep what is larger in an object that \
             the application reads"
        );
        return Err(("config", what));
    }
    Ok(bytes)
}

fn is_dns_label(name: &str) -> bool {
    name.len() <= 63 && is_label_of_any_length(name)
}

fn is_label_of_any_length(name: &str) -> bool {
    let is_inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    let is_edge = |byte: Option<&u8>| byte.is_some_and(|byte| *byte != b'-');
    let bytes = name.as_bytes();
    bytes.iter().all(is_inner) && is_edge(bytes.first()) && is_edge(bytes.last())
}

fn with_defaults(set: &ListenerSet, listener: Listener) -> Wanted {
    let (defaults, handoff) = (&set.spec.defaults, &set.spec.handoff);
    let seconds = |seconds: i32| u32::try_from(seconds).unwrap_or(0);
    let secret = listener.secret_ref.map(|secret| secret.name);
    let settings = Settings {
        config: listener.config.unwrap_or_default(),
        secret: secret.clone(),
        use_proxy: listener.use_proxy.unwrap_or(defaults.use_proxy),
        connect_timeout_seconds: seconds(listener.connect_timeout_seconds.unwrap_or(defaults.connect_timeout_seconds)),
        start_timeout_seconds: seconds(defaults.start_timeout_seconds),
        stop_timeout_seconds: seconds(defaults.stop_timeout_seconds),
        checkpoint_seconds: seconds(handoff.checkpoint_seconds),
        asks_before_start: set.spec.start_budget.is_some(),
    };
    Wanted { name: listener.name, state: listener.state, secret, settings }
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
