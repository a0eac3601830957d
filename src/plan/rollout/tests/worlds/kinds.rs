//! Worlds with more in them than batches: pins, changes in place, packages, other strategies. Apart from [`super::world`], whose
//! saved cases depend on how it is drawn.
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{coins, world};
use crate::{
    api::rollout::{BlueGreen, HotReload, HttpPost, KeepFailed, OnFailure, Pin, Promote, StrategyType, UpdateMethod},
    plan::{
        revision,
        rollout::tests::fixture::{Fixture, at},
    },
    snapshot::{Fetched, InPlace, Pod, Resize, ServiceSeen, Snapshot, Switched, in_place::Reload, specimen::Specimen},
};

/// The same with pins of single instances, to revisions that work there.
pub(crate) fn world_with_pins() -> impl Strategy<Value = Snapshot> {
    let pin = (0..7i32, prop_oneof![Just("a"), Just("b"), Just("c")]);
    (world(), proptest::collection::vec(pin, 1..4)).prop_map(|(mut snapshot, pins)| {
        let works = |(slot, letter): &(i32, &str)| {
            let mut pods = snapshot.pods.iter().filter(|pod| pod.slot == *slot && pod.revision == *letter);
            pods.all(|pod| pod.containers.is_empty())
        };
        let pins = pins.into_iter().filter(works).map(|(slot, letter)| Pin {
            instances: slot.to_string(),
            revision: Some(letter.to_owned()),
            ..Pin::default()
        });
        snapshot.rollout.spec.pins = pins.collect();
        if snapshot.rollout.spec.pins.len() == 2 {
            snapshot.rollout.spec.strategy.on_failure = OnFailure::RollbackFailed;
        }
        snapshot
    })
}

/// The same with revisions of other images, that Pods are given in place; some Pods without gate.
pub(crate) fn world_in_place() -> impl Strategy<Value = Snapshot> {
    (world_with_pins(), any::<u64>()).prop_map(|(mut snapshot, seed)| {
        give_images(&mut snapshot);
        let mut coin = coins(seed);
        for pod in snapshot.pods_mut() {
            pod.in_service = coin().then_some(pod.ready_since.is_some());
        }
        snapshot
    })
}

/// The same with revisions of other resources alone; some Pods have yet to get what they were given, or never do.
pub(crate) fn world_resized() -> impl Strategy<Value = Snapshot> {
    let stage = || {
        let awaited = |reason: &'static str| {
            Just(Some(Resize::Awaited { reason: reason.into(), message: "no room".into(), since: Some(at(-30)) }))
        };
        prop_oneof![
            4 => Just(None),
            1 => Just(Some(Resize::Due)),
            1 => Just(Some(Resize::Done)),
            1 => awaited("Infeasible"),
            1 => awaited("Deferred"),
            1 => awaited(""),
        ]
    };
    let stages = proptest::collection::vec(stage(), 14);
    (world_with_pins(), any::<bool>(), stages).prop_map(|(mut snapshot, starts_anew, stages)| {
        let policy = if starts_anew { "RestartContainer" } else { "NotRequired" };
        let specs = snapshot.revisions.iter_mut().map(|revision| &mut revision.data["template"]["spec"]);
        for spec in specs.chain([&mut snapshot.rollout.spec.template.0["spec"]]) {
            let container = &mut spec["containers"][0];
            container["resources"] = json!({});
            container["resizePolicy"] = json!([{"resourceName": "cpu", "restartPolicy": policy}]);
        }
        give_images(&mut snapshot);
        for (pod, stage) in snapshot.pods_mut().zip(stages) {
            let note = json!({"at": at(-40), "resources": {"web": {"requests": {"cpu": "2"}}}});
            pod.in_place = stage.is_some().then(|| serde_json::from_value(note).unwrap());
            pod.resize = stage;
        }
        snapshot
    })
}

/// Revisions differ in their images, or where they have resources in these, and Pods are changed in place.
pub(crate) fn give_images(snapshot: &mut Snapshot) {
    for pod in snapshot.pods_mut() {
        pod.in_service = Some(pod.ready_since.is_some());
    }
    let give = |spec: &mut Value, name: &str| {
        let container = &mut spec["containers"][0];
        if container["resources"].is_null() {
            container["image"] = json!(format!("example.local/web:{name}"));
        } else {
            container["resources"] = json!({"requests": {"cpu": name.bytes().map(u32::from).sum::<u32>()}});
        }
    };
    for revision in &mut snapshot.revisions {
        give(&mut revision.data["template"]["spec"], &revision.name);
    }
    let spec = &mut snapshot.rollout.spec;
    let wanted = spec.version.clone().unwrap_or_default();
    give(&mut spec.template.0["spec"], &wanted);
    spec.strategy.update = UpdateMethod::InPlaceIfPossible;
}

/// The same with revisions that applications reload; some have yet to reload what they have.
pub(crate) fn world_reloading() -> impl Strategy<Value = Snapshot> {
    (world_with_pins(), any::<u64>()).prop_map(|(mut snapshot, seed)| {
        let mut coin = coins(seed);
        let strategy = &mut snapshot.rollout.spec.strategy;
        strategy.update = UpdateMethod::HotReload;
        let http_post = HttpPost { path: "/reload".into(), port: 8080 };
        strategy.hot_reload = Some(HotReload { http_post, timeout_seconds: 60 });
        for pod in snapshot.pods_mut() {
            let reload = Some(Reload { told_at: coin().then(|| at(-5)) });
            pod.in_place = coin().then(|| InPlace { at: at(-20), containers: [].into(), resources: [].into(), reload });
        }
        snapshot
    })
}

/// The same with a package of the wanted revision, of which the Pods that are there have fetched this or that.
pub(crate) fn world_with_packages() -> impl Strategy<Value = Snapshot> {
    let fetched = prop::option::of(prop_oneof![3 => Just("one"), 1 => Just("another")]);
    (world(), proptest::collection::vec(fetched, 14)).prop_map(|(mut snapshot, fetched)| {
        let before = revision::data(&snapshot.rollout.spec);
        let package = json!({"url": "https://packages.example.com/web.zip", "mountPath": "/opt/app"});
        snapshot.rollout.spec.package = serde_json::from_value(package).unwrap();
        let wanted = snapshot.revisions.iter_mut().find(|revision| revision.data == before).unwrap();
        wanted.data = revision::data(&snapshot.rollout.spec);
        let name = wanted.name.clone();
        for (pod, fetched) in snapshot.pods_mut().zip(fetched).filter(|(pod, _)| pod.revision == name) {
            pod.package = fetched.map(|sha256| Fetched::Unpacked { sha256: sha256.into() });
        }
        snapshot
    })
}

/// It has fetched another package than was noted on its revision.
pub(crate) fn has_another_package(snapshot: &Snapshot, pod: &Pod) -> bool {
    let revision = snapshot.revisions.iter().find(|revision| revision.name == pod.revision);
    let noted = revision.and_then(|revision| revision.package_sha256.as_ref());
    matches!((noted, &pod.package), (Some(noted), Some(Fetched::Unpacked { sha256 })) if noted != sha256)
}

/// The same where failed Pods are kept for a look, and some are already: by another run, or by a setting that was larger.
pub(crate) fn world_that_keeps() -> impl Strategy<Value = Snapshot> {
    let specimens = prop::collection::vec((-10..60i64, 0..9i64, prop::bool::weighted(0.2)), 0..4);
    (world(), prop::option::weighted(0.9, 1..3i32), specimens).prop_map(|(mut snapshot, pods, specimens)| {
        snapshot.rollout.spec.strategy.keep_failed = pods.map(|pods| KeepFailed { pods, seconds: 20 });
        for (number, (until, run, ends)) in (0..).zip(specimens) {
            let mut pod = Fixture::new("b!", 'b', json!({})).snapshot.pods.remove(0);
            let kept = Arc::make_mut(&mut pod);
            // One has the name that the next Pod of slot 0 would get.
            kept.name = if number == 0 { "web-0-b".into() } else { format!("web-{number}-kept") };
            (kept.uid, kept.deletion) = (format!("kept-{number}"), ends.then(|| at(5)));
            kept.specimen = Some(Specimen { until: at(until), run, slot: 0, revision: "b".into(), labels: [].into() });
            snapshot.specimens.push(pod);
        }
        // Two Pods of one name there cannot be.
        let is_taken = |name: &str| snapshot.pods.iter().any(|pod| pod.name == name);
        if is_taken("web-0-b") {
            snapshot.specimens.retain(|pod| pod.name != "web-0-b");
        }
        snapshot
    })
}

/// The same with strategy Recreate.
pub(crate) fn world_to_recreate() -> impl Strategy<Value = Snapshot> {
    world().prop_map(|mut snapshot| {
        let strategy = &mut snapshot.rollout.spec.strategy;
        strategy.type_ = StrategyType::Recreate;
        (strategy.batches, strategy.batch_size) = (None, None);
        snapshot
    })
}

/// The same with strategy BlueGreen, whose Services select any revision that is there.
pub(crate) fn world_of_blue_green() -> impl Strategy<Value = Snapshot> {
    let service = || prop_oneof![4 => Just(Some('a')), 2 => Just(Some('b')), 1 => Just(Some('c')), 1 => Just(None)];
    let switched = prop::option::of((prop_oneof![Just("a"), Just("b"), Just("c")], -40..0i64));
    (world(), service(), switched, any::<bool>(), 0..40i32).prop_map(|(snapshot, serves, switched, manual, delay)| {
        let mut fixture = Fixture { snapshot };
        let strategy = &mut fixture.snapshot.rollout.spec.strategy;
        strategy.type_ = StrategyType::BlueGreen;
        (strategy.batches, strategy.batch_size) = (None, None);
        strategy.blue_green = Some(BlueGreen {
            active_service: "web".into(),
            preview_service: Some("web-preview".into()),
            promote: if manual { Promote::Manual } else { Promote::Auto },
            scale_down_delay_seconds: delay,
        });
        fixture = fixture.serving(serves);
        if let ServiceSeen::Seen(active) = &mut fixture.snapshot.services.active {
            active.switched = switched.map(|(from, second)| Switched { from: from.into(), at: at(second) });
        }
        fixture.snapshot
    })
}
