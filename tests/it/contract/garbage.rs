//! What becomes of dependents. The real collector works when it likes: its end state is waited for.
use serde_json::{Value, json};

use super::{Servers, objects, step::Step};
use crate::fake_apiserver::kinds::CONFIG_MAPS;

/// ConfigMaps, because the real collector knows of them from the start.
fn owned(name: &str, owners: &[(&str, bool)]) -> Step {
    let mut object = objects::valid(&CONFIG_MAPS, name, 1);
    let reference = |(name, blocks): &(&str, bool)| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": format!("$uid:{name}"), "blockOwnerDeletion": blocks});
    object["metadata"]["ownerReferences"] = owners.iter().map(reference).collect::<Value>();
    Step::create(&CONFIG_MAPS, object)
}

fn owner(name: &str) -> Step {
    Step::create(&CONFIG_MAPS, objects::valid(&CONFIG_MAPS, name, 1))
}

fn delete(name: &str, policy: &str) -> Step {
    Step::delete(&CONFIG_MAPS, name).options("propagationPolicy", json!(policy))
}

#[tokio::test(flavor = "multi_thread")]
async fn dependents_end_alike() {
    let servers = Servers::start().await;
    let family =
        || vec![owner("a"), owner("b"), owned("of-a", &[("a", true)]), owned("of-both", &[("a", true), ("b", false)])];
    let cases = [("background", "Background"), ("foreground", "Foreground"), ("orphan", "Orphan")];
    for (name, policy) in cases {
        let [mut fake, mut real] = servers.sides(&format!("garbage-{name}")).await;
        let mut steps = family();
        steps.push(delete("a", policy));
        for step in &steps {
            assert_eq!(fake.take(step).await, real.take(step).await, "{name}: {step}");
        }
        while servers.fake.collect_garbage() > 0 {}
        let expected = outline(&fake.take(&Step::list(&CONFIG_MAPS)).await.body);
        let found = real.take_until(&Step::list(&CONFIG_MAPS), |answer| outline(&answer.body) == expected).await;
        assert_eq!(outline(&found.body), expected, "{name}");
    }
}

/// Who is left, and whom each names as its owner.
fn outline(list: &Value) -> Vec<String> {
    let line = |object: &Value| {
        let owners = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
        let owners: Vec<&str> = owners.filter_map(|owner| owner["name"].as_str()).collect();
        format!("{} of {owners:?}", object["metadata"]["name"])
    };
    list["items"].as_array().into_iter().flatten().map(line).collect()
}
