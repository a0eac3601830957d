//! What an earlier Rollout of the name left behind.
use std::sync::Arc;

use serde_json::json;

use super::fixture::{Fixture, at, say};
use crate::{
    api::RolloutStatus,
    plan::{
        adoption::{is_adoptable_pod, is_adoptable_revision, left_alone, refusal_key},
        rollout::{
            fold::{End, World},
            plan,
        },
    },
    snapshot::{ChangeRefusal, Pod, Revision},
};

/// All Pods and revisions of this world are an earlier Rollout's, and the Rollout is new.
fn left(words: &str, want: char) -> Fixture {
    let mut fixture = Fixture::new(words, want, json!({}));
    let snapshot = &mut fixture.snapshot;
    let labels = |hash: &str| {
        let labels = [("app", "web"), ("controller-revision-hash", hash)];
        Some(Box::new(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()))
    };
    let name = |letter: &str| format!("web-{letter}");
    let pods = snapshot.pods.drain(..).map(|pod| {
        Arc::new(Pod { revision: name(&pod.revision), loose_labels: labels(&pod.revision), ..(*pod).clone() })
    });
    snapshot.orphans.pods = pods.collect();
    let revisions = snapshot.revisions.drain(..);
    snapshot.orphans.revisions =
        revisions.map(|it| Revision { hash: it.name.clone(), name: name(&it.name), ..it }).collect();
    snapshot.rollout.status = None;
    fixture
}

/// Nothing else is done before: which Pods are missing is not known yet.
#[test]
fn revisions_and_pods_that_were_left_are_adopted_first() {
    let fixture = left("a a", 'a');
    let expected = "adopt revision web-b; adopt revision web-c; adopt revision web-a; adopt web-0-a; adopt web-1-a";
    assert_eq!(fixture.looks(), expected);
    assert!(plan(&fixture.snapshot).changes.iter().all(super::super::Change::is_for_good));
}

#[test]
fn with_the_same_spec_no_pod_is_made_or_ended_after_it() {
    for words in ["a a a", "a", "a a a a"] {
        let mut world = World::new(left(words, 'a').snapshot, 5);
        let mut seen = Vec::new();
        let end = world.run(|_, step| {
            seen.extend(step.changes.iter().map(crate::plan::Change::verb));
        });
        assert_eq!(end, End::Done);
        assert!(!seen.contains(&"CreatePod") && !seen.contains(&"DeletePod"), "{words}: {seen:?}");
        assert_eq!(world.snapshot.revisions.len(), 3, "no other was made");
        let status = world.snapshot.rollout.status.unwrap();
        assert_eq!(status.current_revision.as_deref(), Some("web-a"), "it completed before");
    }
}

/// Another spec than before replaces them within the budget, and knows where to go back to.
#[test]
fn with_another_spec_they_are_replaced_in_batches() {
    let mut world = World::new(left("a a a a", 'b').snapshot, 5);
    let mut fewest = i32::MAX;
    let end = world.run(|world, _| {
        let ready = world.snapshot.pods.iter().filter(|pod| pod.is_live() && pod.is_ready()).count() as i32;
        let orphans = world.snapshot.orphans.pods.len() as i32;
        fewest = fewest.min(ready + orphans);
    });
    assert_eq!((end, fewest), (End::Done, 3));
    let mut broken = World::new(left("a a a a", 'b').snapshot, 5);
    broken.broken.push("web-b".into());
    broken.run(|_, _| ());
    assert!(broken.snapshot.pods.iter().filter(|pod| pod.revision == "web-a").count() >= 3);
}

#[test]
fn a_pod_is_adopted_by_selector_name_and_life() {
    let is_taken = |change: &dyn Fn(&mut Pod)| {
        let mut fixture = left("a", 'a');
        let orphan = Arc::make_mut(&mut fixture.snapshot.orphans.pods[0]);
        change(orphan);
        let orphan = orphan.clone();
        let is_taken = fixture.looks().contains(&format!("adopt {}", orphan.name));
        assert_eq!(is_adoptable_pod(&fixture.snapshot, &orphan), is_taken);
        let is_told = left_alone(&fixture.snapshot).next().is_some();
        assert_eq!(is_told, !is_taken && orphan.deletion.is_none());
        is_taken
    };
    let labels = |app: &str| Some(Box::new([("app".to_owned(), app.to_owned())].into()));
    assert!(is_taken(&|_| ()));
    assert!(is_taken(&|pod| pod.name = "web-0-a-3".into()));
    assert!(is_taken(&|pod| pod.name = "web-0-hrrgfvpllp".into()), "changed in place since");
    assert!(!is_taken(&|pod| pod.loose_labels = labels("api")));
    assert!(!is_taken(&|pod| pod.loose_labels = None), "something controls it");
    assert!(!is_taken(&|pod| pod.deletion = Some(at(0))));
    assert!(!is_taken(&|pod| pod.slot = 1));
    for name in ["web-00-a", "other-0-a", "web-0", "web-0-", "web-0-debug", "web-0-a-x"] {
        assert!(!is_taken(&|pod| pod.name = name.into()), "{name}");
    }
}

#[test]
fn a_revision_is_adopted_by_its_name() {
    let fixture = left("a", 'a');
    let revision = fixture.snapshot.orphans.revisions.iter().find(|it| it.name == "web-a").unwrap();
    for (name, is_taken) in [
        ("web-a", true),
        ("web-a-12", true),
        ("web-a-", false),
        ("web-a-copy", false),
        ("web-a-1-2", false),
        ("web-ab", false),
        ("other-a", false),
    ] {
        let named = Revision { name: name.into(), ..revision.clone() };
        assert_eq!(is_adoptable_revision(&fixture.snapshot, &named), is_taken, "{name}");
    }
}

#[test]
fn a_selector_that_is_empty_adopts_nothing() {
    let mut fixture = left("a", 'a');
    fixture.snapshot.rollout.spec.selector.match_labels.clear();
    assert!(!fixture.looks().contains("adopt web-0-a"), "{}", fixture.looks());
}

/// GC takes the owner off the Pods of a Rollout that is deleted so: taken back, they would end with it.
#[test]
fn a_rollout_that_is_being_deleted_adopts_nothing() {
    let mut fixture = left("a a", 'a');
    fixture.snapshot.rollout.metadata.deletion_timestamp = Some(crate::api::Time(at(0)));
    assert_eq!(fixture.looks(), "hold Deleting: being deleted");
}

/// A Pod that a webhook keeps from being adopted does not keep the others from being replaced; it is tried again.
#[test]
fn a_refusal_holds_up_nothing_else() {
    let mut fixture = left("a a", 'a');
    let (pod, revision) = ("uid-1-a-0", fixture.snapshot.orphans.revisions[0].uid.clone());
    for uid in [pod, &revision] {
        let refusal = ChangeRefusal { message: "no".into(), retry_at: at(60) };
        fixture.snapshot.change_refusals.insert(refusal_key(uid), refusal);
    }
    assert_eq!(fixture.looks(), "adopt revision web-c; adopt revision web-a; adopt web-0-a");
    assert_eq!(left_alone(&fixture.snapshot).count(), 1);
    fixture.snapshot.now = at(60);
    assert!(fixture.looks().contains("adopt web-1-a"));
}

/// One whose owner is taken away while the Rollout works comes back to it; its replacement, if there is one, goes.
#[test]
fn a_pod_without_its_owner_comes_back() {
    let mut fixture = Fixture::new("a a", 'a', json!({})).settled();
    let pod = fixture.snapshot.pods.remove(1);
    let labels = [("app", "web"), ("controller-revision-hash", "a")];
    let labels = Some(Box::new(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()));
    fixture.snapshot.orphans.pods = vec![Arc::new(Pod { loose_labels: labels, ..(*pod).clone() })];
    assert_eq!(say(&plan(&fixture.snapshot)), "adopt web-1-a");
    let memory = plan(&fixture.snapshot).memory;
    let mut status = RolloutStatus::default();
    memory.write(&mut status);
    assert_eq!(status.run, fixture.snapshot.rollout.status.unwrap().run);
}
