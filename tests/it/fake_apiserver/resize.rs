//! The subresource `resize` of a Pod: of what is written only cpu and memory of its containers is taken.
use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{
    object::{Object, set_meta},
    validate::Cause,
};

const LISTS: [&str; 2] = ["limits", "requests"];
const RESOURCES: [&str; 2] = ["cpu", "memory"];

/// The Pod as it is, but for the resources of containers: whatever else is written is passed over.
pub(super) fn keep_all_but_resources(existing: &Object, value: &mut Value) {
    let written = std::mem::replace(value, existing.value().clone());
    for field in ["uid", "resourceVersion"] {
        set_meta(value, field, written["metadata"].get(field).cloned());
    }
    let wanted = |name: &Value| containers(&written).find(|container| container["name"] == *name);
    for container in value["spec"]["containers"].as_array_mut().into_iter().flatten() {
        let resources = wanted(&container["name"]).and_then(|wanted| wanted.get("resources")).cloned();
        if let (Some(resources), Some(container)) = (resources, container.as_object_mut()) {
            container.insert("resources".into(), resources);
        }
    }
}

/// What the real one refuses of it, as far as somebody of ours may ask for it.
pub(super) fn refusals(old: &Value, value: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let statuses = || old["status"]["containerStatuses"].as_array().into_iter().flatten();
    let runs = |status: &&Value| !status["state"]["running"].is_null();
    if statuses().find(runs).is_some_and(|status| status["resources"].is_null()) {
        causes.push(Cause::forbidden("spec", "Pod running on node without support for resize"));
    }
    for (index, (before, after)) in containers(old).zip(containers(value)).enumerate() {
        for list in LISTS {
            let (before, after) = (names(before, list), names(after, list));
            if !before.is_subset(&after) {
                let field = format!("spec.containers[{index}].resources.{list}");
                causes.push(Cause::forbidden(&field, &format!("resource {list} cannot be removed")));
            }
        }
        if rest(before) != rest(after) {
            causes.push(Cause::forbidden("spec", "only cpu and memory resources are mutable"));
        }
    }
    if class(old) != class(value) {
        let why = "Pod QOS Class may not change as a result of resizing";
        causes.push(Cause::invalid("spec", &json!(class(value)), why));
    }
    causes
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    pod["spec"]["containers"].as_array().into_iter().flatten()
}

fn names(container: &Value, list: &str) -> BTreeSet<String> {
    container["resources"][list].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
}

/// Amounts of other resources.
fn rest(container: &Value) -> Vec<Map<String, Value>> {
    let of = |list: &str| {
        let amounts = container["resources"][list].as_object().cloned().unwrap_or_default();
        amounts.into_iter().filter(|(name, _)| !RESOURCES.contains(&name.as_str())).collect()
    };
    LISTS.map(of).into()
}

/// Quality of service.
fn class(pod: &Value) -> &'static str {
    let amount = |container: &Value, list: &str, name: &str| container["resources"][list][name].clone();
    let is_bound = |container: &Value| {
        let is_equal = |name: &str| {
            let limit = amount(container, "limits", name);
            !limit.is_null() && limit == amount(container, "requests", name)
        };
        RESOURCES.into_iter().all(is_equal)
    };
    let asks = |container: &Value| {
        LISTS.into_iter().any(|list| RESOURCES.into_iter().any(|name| !amount(container, list, name).is_null()))
    };
    if containers(pod).all(is_bound) {
        "Guaranteed"
    } else if containers(pod).any(asks) {
        "Burstable"
    } else {
        "BestEffort"
    }
}
