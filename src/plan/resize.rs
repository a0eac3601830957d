//! Resources of containers: what of them differs between two revisions where a Pod can be given it, and what is written.
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::in_place;
use crate::snapshot::{InPlace, Pod, in_place::Amounts, resize::is_same};

/// What a Pod can be given more or less of.
const RESOURCES: [&str; 2] = ["cpu", "memory"];

/// Takes out of a container of a template what it requests and is limited to of these, as the API server completes it: what is
/// limited and not requested is requested as well.
pub(super) fn take(container: &mut Value) -> Amounts {
    let mut taken = Amounts::new();
    let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) else { return taken };
    for list in ["limits", "requests"] {
        let Some(amounts) = resources.get_mut(list).and_then(Value::as_object_mut) else { continue };
        let found = RESOURCES.iter().filter_map(|name| Some(((*name).to_owned(), Some(text(&amounts.remove(*name)?)))));
        taken.insert(list.to_owned(), found.collect());
        if amounts.is_empty() {
            resources.remove(list);
        }
    }
    if resources.is_empty() {
        drop(container.as_object_mut().and_then(|container| container.remove("resources")));
    }
    for (name, limit) in taken.get("limits").cloned().unwrap_or_default() {
        taken.entry("requests".into()).or_default().entry(name).or_insert(limit);
    }
    taken
}

/// YAML's `cpu: 2` is a number.
fn text(quantity: &Value) -> String {
    quantity.as_str().map_or_else(|| quantity.to_string(), str::to_owned)
}

/// What is another quantity, or none any more.
pub(super) fn difference(from: &Amounts, to: &Amounts) -> Amounts {
    let of =
        |amounts: &Amounts, list: &str, name: &str| amounts.get(list).and_then(|it| it.get(name)).cloned().flatten();
    let mut found = Amounts::new();
    for list in ["limits", "requests"] {
        for name in RESOURCES {
            let (from, to) = (of(from, list, name), of(to, list, name));
            if !is_same(from.as_deref(), to.as_deref()) {
                found.entry(list.into()).or_default().insert(name.into(), to);
            }
        }
    }
    found
}

/// The container's `resizePolicy` has it started anew for other amounts of one of these.
pub(super) fn starts_anew(container: &Value, amounts: &Amounts) -> bool {
    let policies = container["resizePolicy"].as_array().into_iter().flatten();
    let mut anew = policies.filter(|policy| policy["restartPolicy"] == "RestartContainer");
    anew.any(|policy| {
        policy["resourceName"].as_str().is_some_and(|name| amounts.values().any(|it| it.contains_key(name)))
    })
}

/// What is written on a Pod's subresource `resize`.
pub fn patch(pod: &Pod, resources: &BTreeMap<String, Amounts>) -> Value {
    let containers = resources.iter().map(|(name, amounts)| json!({"name": name, "resources": amounts}));
    json!({
        "metadata": {"uid": pod.uid, "resourceVersion": pod.resource_version},
        "spec": {"containers": containers.collect::<Vec<_>>()},
    })
}

/// What is written on a Pod that is seen to have its resources: from then on Baton leaves them alone.
pub fn patch_once_done(pod: &Pod) -> Option<Value> {
    Some(in_place::noted(pod, &InPlace { resources: BTreeMap::new(), ..pod.in_place.clone()? }))
}
