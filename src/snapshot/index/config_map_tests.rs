//! ConfigMaps with listeners, and the sets that name them.
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;

use super::{
    tests::{at, by_selector, decode, index, key, listed, look, set},
    *,
};

#[test]
fn a_config_map_is_read_once_it_has_been_looked_for_and_again_when_it_changes() {
    let mut index = index();
    let spec = json!({"selector": {"matchLabels": {"app": "bots"}}, "configMap": {"name": "tokens", "key": "l.yaml"}});
    index.on_set(&None, set("bots", "u1", &spec));
    assert!(!index.is_set_listed(&key("bots")), "no list of Leases yet");
    index.on_lease(&None, listed(Vec::new()), at(0));
    index.on_agent_pod(&None, listed(Vec::new()));
    let Event::Applied(present) = set("bots", "u1", &spec) else { unreachable!() };
    index.on_set(&None, Event::Listed { objects: vec![present], resource_version: "90".into() });
    assert_eq!(index.config_maps_wanted(), [key("tokens")].into());
    assert!(index.is_set_listed(&key("bots")) && !index.is_set_known(&key("bots")));
    let none = || Event::Listed { objects: Vec::new(), resource_version: "90".into() };
    let told = |index: &mut Index, version: &str, text: &str| {
        let metadata = json!({"name": "tokens", "namespace": "shop", "uid": "c", "resourceVersion": version});
        let object: ConfigMap = decode(json!({"metadata": metadata, "data": {"l.yaml": text}}));
        index.on_config_map(&key("tokens"), Event::Applied(object.into()))
    };
    assert_eq!(index.on_config_map(&key("tokens"), none()).sets, [key("bots")].into());
    assert!(index.is_set_known(&key("bots")));
    assert_eq!(look(&index, 0).listeners.unwrap_err().reason, "ConfigMapMissing");
    assert_eq!(told(&mut index, "1", "- name: a").sets, [key("bots")].into());
    assert_eq!(look(&index, 0).listeners.unwrap()[0].name, "a");
    assert!(told(&mut index, "1", "- name: a").is_empty());
    assert_eq!(told(&mut index, "2", "- name: b").sets, [key("bots")].into());
    assert_eq!(look(&index, 0).listeners.unwrap()[0].name, "b");
    // It is not named any more: nothing is kept of it.
    index.on_set(&None, set("bots", "u1", &by_selector()));
    assert!(index.sets.config_maps.is_empty() && told(&mut index, "3", "[]").is_empty());
}

/// After any events, in any order: the index is as one that has only seen the last list.
/// F3: under the lock nothing is parsed, and each set's listeners are made when that set is looked at.
#[test]
fn a_config_map_of_many_sets_is_read_for_none_before_it_is_looked_at() {
    let mut index = index();
    let spec = json!({"selector": {"matchLabels": {"app": "bots"}}, "configMap": {"name": "tokens", "key": "l.yaml"}});
    let names: Vec<String> = (0..20).map(|number| format!("bots-{number}")).collect();
    for name in &names {
        index.on_set(&None, set(name, name, &spec));
    }
    let object: ConfigMap = decode(json!({
        "metadata": {"name": "tokens", "namespace": "shop", "uid": "c", "resourceVersion": "1"},
        "data": {"l.yaml": "- name: a", "other": "no: list"},
    }));
    assert_eq!(index.on_config_map(&key("tokens"), Event::Applied(object.into())).sets.len(), names.len());
    let made = |index: &Index| index.sets.listeners.values().filter(|kept| kept.get().is_some()).count();
    assert_eq!(made(&index), 0);
    let moment = Moment { now: jiff::Timestamp::UNIX_EPOCH, uptime: at(0) };
    let found = index.set_without_pods(&key("bots-7"), moment).unwrap();
    assert_eq!(found.listeners.unwrap()[0].name, "a");
    assert_eq!(made(&index), 1);
    // F1: the next set shares them; one with other defaults cannot.
    let of = |name: &str| index.set_without_pods(&key(name), moment).unwrap().listeners.unwrap();
    assert!(Arc::ptr_eq(&of("bots-7"), &of("bots-8")));
    let (mut other, mut spec) = (index.clone(), spec.clone());
    spec["defaults"] = json!({"useProxy": true});
    other.on_set(&None, set("bots-9", "u9", &spec));
    let changed = other.set_without_pods(&key("bots-9"), moment).unwrap().listeners.unwrap();
    assert!(changed[0].settings.use_proxy && !of("bots-8")[0].settings.use_proxy);
}
