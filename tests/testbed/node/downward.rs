//! The downward API: what a Pod's containers may know about the Pod and themselves. Pure.
use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::model;

/// What only the node knows.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub pod_ip: IpAddr,
    pub host_ip: IpAddr,
}

/// What a node with nothing else to do could give a container that has no limit.
pub const ALLOCATABLE: [(&str, &str); 2] = [("cpu", "64"), ("memory", "256Gi")];

/// The value of a fieldRef.
pub fn field(pod: &Pod, path: &str, facts: Facts) -> Result<String> {
    let metadata = &pod.metadata;
    let spec = pod.spec.clone().unwrap_or_default();
    if let Some((list, key)) = path.strip_suffix("']").and_then(|start| start.split_once("['")) {
        let map = match list {
            "metadata.labels" => &metadata.labels,
            "metadata.annotations" => &metadata.annotations,
            _ => bail!("unsupported fieldPath: {path}"),
        };
        return Ok(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => model::name(pod).to_owned(),
        "metadata.namespace" => model::namespace(pod).to_owned(),
        "metadata.uid" => model::uid(pod).to_owned(),
        "metadata.labels" => lines(metadata.labels.as_ref()),
        "metadata.annotations" => lines(metadata.annotations.as_ref()),
        "spec.nodeName" => spec.node_name.unwrap_or_default(),
        "spec.serviceAccountName" => spec.service_account_name.unwrap_or_default(),
        "status.podIP" | "status.podIPs" => facts.pod_ip.to_string(),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.to_string(),
        _ => bail!("unsupported fieldPath: {path}"),
    })
}

fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<_> = map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

/// The value of a resourceFieldRef of `container`, or of the one that it names.
pub fn resource(pod: &Pod, container: Option<&Container>, selector: &ResourceFieldSelector) -> Result<String> {
    let named = selector.container_name.as_deref().filter(|name| !name.is_empty());
    let container = match named {
        Some(name) => model::specs(pod).map(|(spec, _)| spec).find(|spec| spec.name == name),
        None => container,
    };
    let container = container.context("resourceFieldRef names no container")?;
    let resources = container.resources.clone().unwrap_or_default();
    let (list, name) = selector.resource.split_once('.').context("resourceFieldRef names no resource")?;
    let given = match list {
        "limits" => resources.limits,
        "requests" => resources.requests,
        _ => bail!("unsupported resource {}", selector.resource),
    };
    let given = given.and_then(|given| given.get(name).cloned());
    let allocatable = || ALLOCATABLE.iter().find(|(known, _)| *known == name && list == "limits");
    let quantity = match (given, allocatable()) {
        (Some(Quantity(quantity)), _) => quantity,
        (None, Some((_, quantity))) => (*quantity).to_owned(),
        (None, None) => "0".to_owned(),
    };
    let divisor = selector.divisor.as_ref().map_or("1", |Quantity(divisor)| divisor);
    let divisor = match milli(divisor)? {
        0 => 1000,
        divisor => divisor,
    };
    // Rounded up, as the kubelet does.
    Ok(milli(&quantity)?.div_ceil(divisor).to_string())
}

/// A quantity in thousandths.
pub fn milli(quantity: &str) -> Result<u128> {
    const UNITS: [(&str, u128); 12] = [
        ("Ki", 1000 << 10),
        ("Mi", 1000 << 20),
        ("Gi", 1000 << 30),
        ("Ti", 1000 << 40),
        ("Pi", 1000 << 50),
        ("m", 1),
        ("k", 1_000_000),
        ("M", 1_000_000_000),
        ("G", 1_000_000_000_000),
        ("T", 1_000_000_000_000_000),
        ("P", 1_000_000_000_000_000_000),
        ("", 1000),
    ];
    let number_of = |(suffix, unit): &(&str, u128)| Some((quantity.strip_suffix(suffix)?.to_owned(), *unit));
    let (number, unit) = UNITS.iter().find_map(number_of).context("not a quantity")?;
    let (whole, fraction) = number.split_once('.').unwrap_or((&number, ""));
    ensure!(fraction.len() <= 9, "{quantity}: too many digits");
    let digits: u128 = format!("{whole}{fraction}").parse().with_context(|| format!("{quantity}: not a quantity"))?;
    let scaled = digits.checked_mul(unit).context("too large a quantity")?;
    Ok(scaled.div_ceil(10_u128.pow(fraction.len() as u32)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {
                "name": "web-3", "namespace": "shop", "uid": "u-1",
                "labels": { "app": "web", "tier": "front" }, "annotations": { "note": "a \"b\"\nc" },
            },
            "spec": {
                "nodeName": "process-1", "serviceAccountName": "robot",
                "containers": [
                    { "name": "one", "resources": {
                        "limits": { "cpu": "1500m", "memory": "64Mi" }, "requests": { "cpu": "250m" } } },
                    { "name": "two" },
                ],
            },
        }))
        .unwrap()
    }

    fn field_of(path: &str) -> Result<String> {
        let facts = Facts { pod_ip: [10, 244, 1, 2].into(), host_ip: [10, 244, 1, 1].into() };
        field(&pod(), path, facts)
    }

    #[test]
    fn fields_have_the_values_that_the_documentation_names() {
        let cases = [
            ("metadata.name", "web-3"),
            ("metadata.namespace", "shop"),
            ("metadata.uid", "u-1"),
            ("metadata.labels['app']", "web"),
            ("metadata.labels['none']", ""),
            ("metadata.labels", "app=\"web\"\ntier=\"front\""),
            ("metadata.annotations", "note=\"a \\\"b\\\"\\nc\""),
            ("spec.nodeName", "process-1"),
            ("spec.serviceAccountName", "robot"),
            ("status.podIP", "10.244.1.2"),
            ("status.hostIP", "10.244.1.1"),
        ];
        for (path, expected) in cases {
            assert_eq!(field_of(path).unwrap(), expected, "{path}");
        }
        assert!(field_of("spec.hostname").is_err());
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        let pod = pod();
        let value = |container: &str, resource: &str, divisor: Option<&str>| {
            let selector = ResourceFieldSelector {
                container_name: Some(container.into()),
                resource: resource.into(),
                divisor: divisor.map(|divisor| Quantity(divisor.into())),
            };
            super::resource(&pod, None, &selector).unwrap()
        };
        assert_eq!(value("one", "limits.cpu", None), "2");
        assert_eq!(value("one", "limits.cpu", Some("1m")), "1500");
        assert_eq!(value("one", "requests.cpu", Some("0")), "1");
        assert_eq!(value("one", "limits.memory", None), "67108864");
        assert_eq!(value("one", "limits.memory", Some("1Mi")), "64");
        assert_eq!(value("two", "limits.cpu", None), "64");
        assert_eq!(value("two", "requests.cpu", None), "0");
    }
}
