//! A Pod that is given another image: what becomes of its containers, labels and generation.
use serde_json::{Value, json};

use super::{
    Servers, objects,
    side::difference,
    step::{STALE, Step, UID, VERSION},
};
use crate::fake_apiserver::kinds::PODS;

/// B4: one container of two by its name, a label of three by another value, one taken away; not where somebody was faster.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_in_place_is_made_alike() {
    let servers = Servers::start().await;
    let mut sides = servers.sides("in-place").await;
    let mut pod = objects::valid(&PODS, "a", 1);
    pod["metadata"]["labels"]["gone"] = json!("1");
    let mut second = pod["spec"]["containers"][0].clone();
    second["name"] = json!("second");
    pod["spec"]["containers"].as_array_mut().unwrap().push(second.clone());
    let patch = |version: &str, image: &str| {
        let labels = json!({"gone": null, "added": "2"});
        let metadata = json!({"uid": UID, "resourceVersion": version, "labels": labels});
        json!({"metadata": metadata, "spec": {"containers": [{"name": "second", "image": image}]}})
    };
    let [fake, real] = &mut sides;
    let mut told = Vec::new();
    for step in [
        Step::create(&PODS, pod.clone()),
        Step::strategic(&PODS, "a", patch(VERSION, "example.local/web:2")),
        Step::strategic(&PODS, "a", patch(STALE, "example.local/web:3")),
        Step::strategic(&PODS, "a", json!({"metadata": {"labels": {"added": "3"}}})),
    ] {
        let (by_fake, by_real) = (fake.take(&step).await, real.take(&step).await);
        assert_eq!(difference(&by_fake, &by_real), "", "{step}");
        told.push(by_real);
    }
    assert_eq!(told.iter().map(|answer| answer.code).collect::<Vec<_>>(), [201, 200, 409, 200]);
    let (_, pod) = real.ask(&Step::get(&PODS, "a")).await;
    let images: Vec<&Value> = pod["spec"]["containers"].as_array().unwrap().iter().map(|it| &it["image"]).collect();
    assert_eq!(
        (images, &pod["metadata"]["generation"]),
        (vec![&json!("web:1"), &json!("example.local/web:2")], &json!(2))
    );
}
