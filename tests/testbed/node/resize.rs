//! Resources of containers that run: what of another amount a container gets, and what this node says that it has no room for.
use k8s_openapi::api::core::v1::{Container as ContainerSpec, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{downward::milli, model};

/// Annotations by which a Pod's CPU, of all its containers together, is more than this node gives: for ever, or for now.
const MOST: [(&str, &str); 2] =
    [("testbed.baton.dev/infeasible-above-cpu", "Infeasible"), ("testbed.baton.dev/deferred-above-cpu", "Deferred")];

/// Reason and message, where this node does not give a Pod what its specification asks for by now.
pub fn refusal(pod: &Pod) -> Option<(&'static str, String)> {
    let annotations = pod.metadata.annotations.as_ref()?;
    let requested: u128 = model::specs(pod).map(|(spec, _)| cpu(spec)).sum();
    MOST.into_iter().find_map(|(annotation, reason)| {
        let most = milli(annotations.get(annotation)?).ok()?;
        let message = format!("Node didn't have enough capacity: cpu, requested: {requested}, capacity: {most}");
        (requested > most).then_some((reason, message))
    })
}

fn cpu(spec: &ContainerSpec) -> u128 {
    let requests = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    requests.and_then(|requests| requests.get("cpu")).and_then(|Quantity(cpu)| milli(cpu).ok()).unwrap_or(0)
}

/// Its `resizePolicy` has the container started anew when it comes from the one to the other.
pub fn starts_anew(spec: &ContainerSpec, from: &ResourceRequirements, to: &ResourceRequirements) -> bool {
    let differs = |name: &str| {
        let amounts = |resources: &ResourceRequirements| {
            [&resources.requests, &resources.limits].map(|list| list.as_ref().and_then(|list| list.get(name)).cloned())
        };
        amounts(from) != amounts(to)
    };
    let mut policies = spec.resize_policy.iter().flatten();
    policies.any(|policy| policy.restart_policy == "RestartContainer" && differs(&policy.resource_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_says_what_is_too_much() {
        let pod = |annotation: &str, cpu: &str| -> Pod {
            serde_json::from_value(serde_json::json!({
                "metadata": { "annotations": { annotation: "1500m" } },
                "spec": { "containers": [
                    { "name": "one", "resources": { "requests": { "cpu": cpu } } },
                    { "name": "two", "resources": { "requests": { "cpu": "500m" } } },
                ] },
            }))
            .unwrap()
        };
        assert_eq!(refusal(&pod("testbed.baton.dev/infeasible-above-cpu", "1")), None);
        let reason = |annotation| refusal(&pod(annotation, "2")).map(|(reason, _)| reason);
        assert_eq!(reason("testbed.baton.dev/infeasible-above-cpu"), Some("Infeasible"));
        assert_eq!(reason("testbed.baton.dev/deferred-above-cpu"), Some("Deferred"));
        assert_eq!(reason("other"), None);
    }
}
