//! What a Pod may ask for and this node does not do: told in an event rather than passed over in silence.
use k8s_openapi::api::core::v1::{Container, Pod, Probe};

use super::model;

/// Names of fields that are set and have no effect here. Fields that only restrict or place a Pod
/// (securityContext, resource limits, ports, DNS) are in the README instead: nearly every Pod has some.
pub fn fields(pod: &Pod) -> Vec<String> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let of_pod = [
        ("hostPID", spec.host_pid == Some(true)),
        ("hostIPC", spec.host_ipc == Some(true)),
        ("shareProcessNamespace", spec.share_process_namespace == Some(true)),
        ("ephemeralContainers", spec.ephemeral_containers.is_some()),
        ("resourceClaims", spec.resource_claims.is_some()),
        ("runtimeClassName", spec.runtime_class_name.is_some()),
        ("setHostnameAsFQDN", spec.set_hostname_as_fqdn == Some(true)),
    ];
    let of_pod = of_pod.into_iter().filter(|(_, set)| *set).map(|(name, _)| name.to_owned());
    of_pod.chain(model::specs(pod).flat_map(|(container, _)| of_container(container))).collect()
}

fn of_container(container: &Container) -> impl Iterator<Item = String> + use<> {
    let probes = [&container.startup_probe, &container.readiness_probe, &container.liveness_probe];
    let https = |probe: &Probe| {
        let scheme = probe.http_get.as_ref().and_then(|get| get.scheme.as_deref());
        scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"))
    };
    let name = container.name.clone();
    [
        ("stdin", container.stdin == Some(true)),
        ("tty", container.tty == Some(true)),
        ("volumeDevices", container.volume_devices.is_some()),
        ("restartPolicyRules", container.restart_policy_rules.is_some()),
        ("probe by gRPC", probes.into_iter().flatten().any(|probe| probe.grpc.is_some())),
        ("probe by HTTPS", probes.into_iter().flatten().any(https)),
    ]
    .into_iter()
    .filter(|(_, set)| *set)
    .map(move |(field, _)| format!("{name}: {field}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_without_effect_are_named() {
        let pod = serde_json::from_value(serde_json::json!({
            "spec": { "hostPID": true, "containers": [
                { "name": "main", "tty": true, "readinessProbe": { "httpGet": { "port": 1, "scheme": "HTTPS" } } },
                { "name": "other", "livenessProbe": { "httpGet": { "port": 1 } } },
            ] },
        }))
        .unwrap();
        assert_eq!(fields(&pod), ["hostPID", "main: tty", "main: probe by HTTPS"]);
    }
}
