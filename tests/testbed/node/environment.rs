//! The environment of a container. Pure, but for the fetching of what it refers to.
use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod};

use super::{
    downward::{self, Facts},
    model,
    rootfs::IMAGE,
    sources::{Kind, Reference, Sources},
};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where Pods find the API server.
const API_SERVER: [(&str, &str); 3] = [
    ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
    ("KUBERNETES_SERVICE_PORT", "443"),
    ("KUBERNETES_SERVICE_PORT_HTTPS", "443"),
];

pub type Variables = BTreeMap<String, String>;

/// What the variables of a container refer to.
pub fn references(container: &Container) -> BTreeSet<Reference> {
    let from = container.env_from.iter().flatten().flat_map(|from| {
        let config_map = from.config_map_ref.as_ref().map(|source| (Kind::ConfigMap, source.name.clone()));
        let secret = from.secret_ref.as_ref().map(|source| (Kind::Secret, source.name.clone()));
        config_map.into_iter().chain(secret)
    });
    let values = container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()).flat_map(|from| {
        let config_map = from.config_map_key_ref.as_ref().map(|source| (Kind::ConfigMap, source.name.clone()));
        let secret = from.secret_key_ref.as_ref().map(|source| (Kind::Secret, source.name.clone()));
        config_map.into_iter().chain(secret)
    });
    from.chain(values).collect()
}

/// The variables that the Pod's specification gives a container, and those by which it finds the API server.
pub fn of(pod: &Pod, container: &Container, facts: Facts, sources: &Sources) -> Result<Variables> {
    let services: Variables = API_SERVER.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let mut variables = Variables::new();
    for from in container.env_from.iter().flatten() {
        let config_map = from.config_map_ref.as_ref().map(|source| (Kind::ConfigMap, &source.name, source.optional));
        let secret = from.secret_ref.as_ref().map(|source| (Kind::Secret, &source.name, source.optional));
        let prefix = from.prefix.as_deref().unwrap_or_default();
        for (kind, name, optional) in config_map.into_iter().chain(secret) {
            for (key, value) in sources.get(kind, name, optional.unwrap_or(false))?.into_iter().flatten() {
                variables.insert(format!("{prefix}{key}"), String::from_utf8_lossy(value).into_owned());
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (_, Some(from)) => value_from(pod, container, facts, sources, from)?,
            // Only what was defined before counts.
            (Some(value), None) => Some(expand(value, &services, &variables)),
            (None, None) => Some(String::new()),
        };
        variables.extend(value.map(|value| (variable.name.clone(), value)));
    }
    for (name, value) in services {
        variables.entry(name).or_insert(value);
    }
    Ok(variables)
}

/// Nothing for an optional reference to what is not there.
fn value_from(
    pod: &Pod,
    container: &Container,
    facts: Facts,
    sources: &Sources,
    from: &EnvVarSource,
) -> Result<Option<String>> {
    let config_map = from.config_map_key_ref.as_ref();
    let config_map = config_map.map(|source| (Kind::ConfigMap, &source.name, &source.key, source.optional));
    let secret = from.secret_key_ref.as_ref();
    let secret = secret.map(|source| (Kind::Secret, &source.name, &source.key, source.optional));
    if let Some((kind, name, key, optional)) = config_map.or(secret) {
        let value = sources.value(kind, name, key, optional.unwrap_or(false))?;
        return Ok(value.map(|value| String::from_utf8_lossy(value).into_owned()));
    }
    if let Some(selector) = &from.field_ref {
        return downward::field(pod, &selector.field_path, facts).map(Some);
    }
    if let Some(selector) = &from.resource_field_ref {
        return downward::resource(pod, Some(container), selector).map(Some);
    }
    anyhow::bail!("this node cannot take a variable from such a source")
}

/// Adds what container runtimes add, and this node's own `POD_IP`, where the Pod does not say otherwise.
pub fn complete(mut variables: Variables, pod: &Pod, facts: Facts) -> Variables {
    let added = [
        ("PATH", format!("{IMAGE}:{PATH}")),
        ("HOME", "/root".into()),
        ("HOSTNAME", model::hostname(pod).to_owned()),
        ("POD_IP", facts.pod_ip.to_string()),
    ];
    for (name, value) in added {
        variables.entry(name.to_owned()).or_insert(value);
    }
    variables
}

/// Replaces `$(NAME)` in a command's word by the variable's value.
pub fn expand_word(word: &str, variables: &Variables) -> String {
    expand(word, &Variables::new(), variables)
}

/// Replaces `$(NAME)` as Kubernetes does: unknown names stay, `$$` is a `$`.
fn expand(text: &str, services: &Variables, variables: &Variables) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(remaining) = after.strip_prefix('$') {
            out.push('$');
            rest = remaining;
        } else if let Some((name, remaining)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match variables.get(name).or_else(|| services.get(name)) {
                Some(value) => out.push_str(value),
                None => out.extend(["$(", name, ")"]),
            }
            rest = remaining;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_expanded() {
        let variables = Variables::from([("A".to_owned(), "1".to_owned()), ("B".to_owned(), "two".to_owned())]);
        let cases = [
            ("$(A)-$(B)", "1-two"),
            ("$$(A)", "$(A)"),
            ("$(C)", "$(C)"),
            ("$(A", "$(A"),
            ("cost: 5$", "cost: 5$"),
            ("$A", "$A"),
            ("", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(expand_word(text, &variables), expected, "{text}");
        }
    }

    fn variables(container: &serde_json::Value) -> Result<Variables> {
        let pod = serde_json::from_value(serde_json::json!({ "metadata": { "name": "web-3" } })).unwrap();
        let container = serde_json::from_value(container.clone()).unwrap();
        let facts = Facts { pod_ip: [10, 244, 1, 2].into(), host_ip: [10, 244, 1, 1].into() };
        let sources = Sources::of(Kind::ConfigMap, "settings", &[("mode", "fast"), ("size", "3")]);
        of(&pod, &container, facts, &sources)
    }

    #[test]
    fn later_variables_win_and_may_refer_to_earlier_ones() {
        let found = variables(&serde_json::json!({
            "name": "main",
            "envFrom": [{ "prefix": "S_", "configMapRef": { "name": "settings" } }],
            "env": [
                { "name": "S_mode", "value": "slow" },
                { "name": "BOTH", "value": "$(S_mode)/$(S_size)/$(LATER)" },
                { "name": "LATER", "value": "x" },
                { "name": "NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                { "name": "SIZE", "valueFrom": { "configMapKeyRef": { "name": "settings", "key": "size" } } },
                { "name": "GONE", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k", "optional": true } } },
                { "name": "API", "value": "$(KUBERNETES_SERVICE_HOST)" },
            ],
        }))
        .unwrap();
        let value = |name: &str| found.get(name).map(String::as_str);
        assert_eq!(value("S_mode"), Some("slow"));
        assert_eq!(value("BOTH"), Some("slow/3/$(LATER)"));
        assert_eq!(value("NAME"), Some("web-3"));
        assert_eq!(value("SIZE"), Some("3"));
        assert_eq!(value("GONE"), None);
        assert_eq!(value("API"), Some("10.96.0.1"));
        assert_eq!(value("KUBERNETES_SERVICE_PORT"), Some("443"));
    }

    #[test]
    fn what_is_not_there_and_not_optional_is_an_error() {
        let problem = |container| variables(&container).unwrap_err().to_string();
        let missing = serde_json::json!({ "name": "main", "envFrom": [{ "secretRef": { "name": "none" } }] });
        assert_eq!(problem(missing), "secret \"none\" not found");
        let key = serde_json::json!({ "name": "main", "env": [
            { "name": "A", "valueFrom": { "configMapKeyRef": { "name": "settings", "key": "none" } } }] });
        assert_eq!(problem(key), "couldn't find key none in configmap \"settings\"");
    }
}
