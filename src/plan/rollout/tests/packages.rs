//! Packages: what their fetch says fails an instance, and what the first one has fetched binds the others.
use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    faults::{live, revisions_run},
    fixture::{Fixture, say},
};
use crate::{
    plan::{
        Change, PodAct, RevisionAct, RevisionMark, Seen, revision,
        rollout::{
            failure_of,
            fold::{End, World},
            plan,
        },
    },
    snapshot::{Container, ContainerState, Fetched, Pod, PodPhase, Snapshot},
};

const URL: &str = "https://packages.example.com/web.tar.gz";

fn with_package(more: &Value) -> Value {
    let mut package = json!({"url": URL, "mountPath": "/opt/app"});
    package.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"package": package, "progressDeadlineSeconds": 60, "strategy": {"maxSurge": 3, "maxUnavailable": 0}})
}

/// The wanted revision is one with the package.
fn with_revision(mut snapshot: Snapshot) -> Snapshot {
    let data = revision::data(&snapshot.rollout.spec);
    snapshot.revisions.iter_mut().find(|revision| revision.name == "b").unwrap().data = data;
    snapshot
}

fn rolling(slots: &str, more: &Value) -> World {
    let mut world = World::new(with_revision(Fixture::new(slots, 'b', with_package(more)).snapshot), 5);
    live(&mut world, 3); // the new Pods are there, and none is ready
    world
}

fn unpacked(sha256: &str) -> Fetched {
    Fetched::Unpacked { sha256: sha256.into() }
}

fn of_b(world: &mut World) -> impl Iterator<Item = &mut Pod> {
    world.snapshot.pods.iter_mut().map(Arc::make_mut).filter(|pod| pod.revision == "b")
}

fn marks(snapshot: &Snapshot) -> Vec<String> {
    let is_mark = |change: &&Change| matches!(change, Change::Revision { act: RevisionAct::Mark(_), .. });
    let planned = plan(snapshot);
    let marks = planned.changes.iter().filter(is_mark).map(|change| match change {
        Change::Revision { seen: Seen { name, .. }, act: RevisionAct::Mark(RevisionMark::Fetched { sha256 }) } => {
            format!("{name} fetched {sha256}")
        }
        Change::Revision { seen: Seen { name, .. }, act: RevisionAct::Mark(RevisionMark::Completed { .. }) } => {
            format!("{name} completed")
        }
        other => format!("{other:?}"),
    });
    marks.collect()
}

/// C8 B7: at once, for both reasons, and with any other state of its container; the old instances stay.
#[test]
fn a_package_that_is_rejected_or_cannot_be_had_takes_its_version_back() {
    let message = format!("package {URL}: says the agent");
    for (fetched, reason) in [
        (Fetched::Rejected { message: message.clone() }, "PackageRejected"),
        (Fetched::Unavailable { message: message.clone() }, "PackageUnavailable"),
    ] {
        let mut world = rolling("a a a", &json!({}));
        let before: Vec<String> =
            world.snapshot.pods.iter().filter(|pod| pod.revision == "a").map(|pod| pod.uid.clone()).collect();
        of_b(&mut world).next().unwrap().package = Some(fetched);
        live(&mut world, 1);
        let failed = world.snapshot.rollout.status.as_ref().unwrap().failed.clone().unwrap();
        assert_eq!((failed.reason.as_str(), failed.message), (reason, format!("web-0: {message}")));
        live(&mut world, 60);
        let after: Vec<String> = world.snapshot.pods.iter().map(|pod| pod.uid.clone()).collect();
        assert_eq!((revisions_run(&world).as_str(), after), ("aaa", before), "no old instance was touched");
    }
}

#[test]
fn an_evicted_pod_is_not_the_packages_fault() {
    let mut world = rolling("a a a", &json!({}));
    let pod = of_b(&mut world).next().unwrap();
    pod.package = Some(Fetched::Unavailable { message: "no network".into() });
    (pod.phase, pod.reason) = (PodPhase::Failed, None);
    assert_eq!(failure_of(pod).unwrap().reason, "PackageUnavailable", "restartPolicy Never");
    pod.reason = Some("Evicted".into());
    assert_eq!(failure_of(pod), None);
}

/// C8: one look, one note: of the first instance, on the revision; who has fetched something else is made anew.
#[test]
fn the_first_fetch_binds_the_others() {
    let mut world = rolling("a a a", &json!({}));
    for (pod, sha256) in of_b(&mut world).zip(["one", "another", "one"]) {
        pod.package = Some(unpacked(sha256));
    }
    assert_eq!(marks(&world.snapshot), ["b fetched one"]);
    let mut deleted = Vec::new();
    let end = world.run(|_, step| {
        let gone =
            step.changes.iter().filter(|change| matches!(change, Change::Pod { act: PodAct::Delete { .. }, .. }));
        deleted.extend(gone.map(|change| format!("{} {}", change.name(), change.reason())));
    });
    assert_eq!((end, revisions_run(&world).as_str()), (End::Done, "bbb"));
    assert!(deleted.contains(&"web-1-b Forward".to_owned()), "{deleted:?}");
    assert_eq!(deleted.iter().filter(|gone| gone.contains("-b")).count(), 1, "{deleted:?}");
    let bound = world.snapshot.revisions.iter().find(|revision| revision.name == "b").unwrap();
    assert_eq!(bound.package_sha256.as_deref(), Some("one"));
    assert!(world.snapshot.pods.iter().all(|pod| pod.package != Some(unpacked("another"))));
    assert_eq!(say(&plan(&world.snapshot)), "", "R7");
}

/// What has completed is what can be gone back to: by then it is known what that is.
#[test]
fn a_revision_completes_once_it_is_bound() {
    let mut fixture = Fixture::new("b", 'b', with_package(&json!({})));
    fixture.snapshot = with_revision(fixture.snapshot);
    let mut snapshot = fixture.opened(1).snapshot;
    snapshot.pod_mut(0).package = Some(unpacked("one"));
    assert_eq!(marks(&snapshot), ["b fetched one"], "one write at a time");
    snapshot.revisions.iter_mut().for_each(|revision| revision.package_sha256 = Some("one".into()));
    assert_eq!(marks(&snapshot), ["b completed"]);
}

fn sha(digit: usize) -> String {
    format!("sha256:{}", digit.to_string().repeat(64))
}

fn ran(name: &str, digit: Option<usize>) -> Container {
    Container {
        name: name.into(),
        ready: true,
        state: ContainerState::Running,
        image_id: digit.map(|digit| format!("example.local/web@{}", sha(digit))).unwrap_or_default(),
        ..Container::default()
    }
}

/// C6: of the first Pod that is ready, of the template's own containers, and only where a tag says less.
#[test]
fn the_images_that_a_revision_ran_are_noted_once() {
    let mut snapshot = Fixture::new("a~ a", 'a', json!({})).settled().snapshot;
    for slot in 0..2 {
        snapshot.pod_mut(slot).containers = vec![ran("baton-agent", Some(9)), ran("web", Some(slot))];
    }
    let noted = format!("a ran {{\"web\": \"{}\"}}", sha(1));
    assert!(say(&plan(&snapshot)).contains(&noted), "{}", say(&plan(&snapshot)));
    let mut known = snapshot.clone();
    known.revisions.iter_mut().for_each(|revision| revision.image_digests = Some([].into()));
    assert!(!say(&plan(&known)).contains(" ran "), "once");
    let mut by_digest = snapshot.clone();
    let image = by_digest.revisions.iter_mut().find(|r| r.name == "a").unwrap();
    image.data["template"]["spec"]["containers"][0]["image"] = json!("web:1@sha256:1");
    assert!(!say(&plan(&by_digest)).contains(" ran "), "the template says it");
    snapshot.pod_mut(1).containers = vec![ran("web", None)];
    assert!(!say(&plan(&snapshot)).contains(" ran "), "it is not known");
}

/// C8 X3
#[test]
fn a_pin_may_differ_by_its_package_alone() {
    let pin = json!({"instances": "1", "base": "a", "package": {"url": URL, "mountPath": "/opt/app"}});
    let mut world = World::new(Fixture::new("a a", 'a', json!({"pins": [pin]})).snapshot, 5);
    assert_eq!(world.run(|_, _| ()), End::Done);
    let pinned = world.snapshot.pods.iter().find(|pod| pod.slot == 1).unwrap();
    let data =
        |name: &str| world.snapshot.revisions.iter().find(|revision| revision.name == name).unwrap().data.clone();
    let mut differing = data(&pinned.revision);
    assert_eq!(
        differing.as_object_mut().unwrap().remove("package"),
        Some(json!({"url": URL, "mountPath": "/opt/app"}))
    );
    assert_eq!(differing, data("a"));
}

#[test]
fn what_the_spec_says_needs_no_note() {
    let mut world = rolling("a a", &json!({"sha256": "0".repeat(64)}));
    of_b(&mut world).for_each(|pod| pod.package = Some(unpacked(&"0".repeat(64))));
    assert_eq!(marks(&world.snapshot), [""; 0]);
    let mut world = rolling("a a", &json!({}));
    of_b(&mut world).for_each(|pod| pod.package = Some(unpacked("one")));
    world.snapshot.revisions.iter_mut().for_each(|revision| revision.deleting = revision.name == "b");
    assert!(!marks(&world.snapshot).contains(&"b fetched one".to_owned()), "it is going");
}
