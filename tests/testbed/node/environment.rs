//! The environment of a container.
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::{model, rootfs::IMAGE};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables that every container has, before its own.
pub fn defaults(pod: &Pod, pod_ip: &str) -> BTreeMap<String, String> {
    let pairs = [
        ("PATH", format!("{IMAGE}:{PATH}")),
        ("HOME", "/root".into()),
        ("HOSTNAME", model::name(pod).to_owned()),
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1".into()),
        ("KUBERNETES_SERVICE_PORT", "443".into()),
        ("KUBERNETES_SERVICE_PORT_HTTPS", "443".into()),
        ("POD_IP", pod_ip.to_owned()),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Replaces `$(NAME)` by the variable's value, as Kubernetes does: unknown names stay, `$$` is a `$`.
pub fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(remaining) = after.strip_prefix('$') {
            out.push('$');
            rest = remaining;
        } else if let Some((name, remaining)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match variables.get(name) {
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

/// The variables of a container.
pub fn of(pod: &Pod, container: &Container, pod_ip: &str) -> BTreeMap<String, String> {
    let mut variables = defaults(pod, pod_ip);
    for variable in container.env.iter().flatten() {
        if let Some(value) = &variable.value {
            let value = expand(value, &variables);
            variables.insert(variable.name.clone(), value);
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_expanded() {
        let variables = BTreeMap::from([("A".to_owned(), "1".to_owned()), ("B".to_owned(), "two".to_owned())]);
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
            assert_eq!(expand(text, &variables), expected, "{text}");
        }
    }
}
