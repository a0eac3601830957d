//! A model API server tells random histories; the index must come out as if built from the last list alone.
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::snapshot::wire::PodView;

const NAMESPACES: [&str; 2] = ["shop", "bank"];

/// What the operator asked to watch in a history: everything, or each namespace by itself.
fn scopes(cluster_wide: bool) -> Vec<Scope> {
    if cluster_wide { vec![None] } else { NAMESPACES.iter().map(|name| Some((*name).to_owned())).collect() }
}

fn rollout(namespace: &str, name: &str, uid: &str, resource_version: u64) -> DeserializeGuard<Rollout> {
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app"}]}});
    serde_json::from_value(json!({
        "metadata": metadata(namespace, name, uid, resource_version),
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template},
    }))
    .expect("a Rollout")
}

fn metadata(namespace: &str, name: &str, uid: &str, resource_version: u64) -> ObjectMeta {
    ObjectMeta {
        namespace: Some(namespace.into()),
        name: Some(name.into()),
        uid: Some(uid.into()),
        resource_version: Some(resource_version.to_string()),
        ..ObjectMeta::default()
    }
}

/// A Pod or ControllerRevision of `owner` (name, uid); None: an orphan.
fn owned(
    namespace: &str,
    name: &str,
    uid: &str,
    rv: u64,
    owner: Option<(&str, &str)>,
    slot: &str,
) -> serde_json::Value {
    let owners = owner.map(|(name, uid)| {
        json!([{"apiVersion": "baton.dev/v1alpha1", "kind": "Rollout", "name": name, "uid": uid, "controller": true}])
    });
    let mut metadata = serde_json::to_value(metadata(namespace, name, uid, rv)).expect("metadata");
    metadata["labels"] = json!({"baton.dev/instance": slot, "baton.dev/revision": "r", "baton.dev/rollout": "web"});
    metadata["ownerReferences"] = owners.unwrap_or(json!([]));
    json!({"metadata": metadata, "data": {}, "revision": rv, "spec": {"nodeName": format!("node-{}", rv % 2)}})
}

/// One write at the API server. Small numbers choose among few names, so that histories collide.
#[derive(Clone, Debug)]
enum Write {
    Rollout {
        namespace: usize,
        name: u8,
        uid: u8,
    },
    Pod {
        namespace: usize,
        name: u8,
        owner: Option<(u8, u8)>,
        slot: &'static str,
    },
    Revision {
        namespace: usize,
        name: u8,
        owner: Option<(u8, u8)>,
    },
    Remove {
        kind: usize,
        pick: prop::sample::Index,
    },
    /// The watch of this kind breaks; what happens next is missed until it lists anew.
    Break {
        kind: usize,
    },
    List {
        kind: usize,
    },
    Node {
        name: u8,
        ready: bool,
    },
    RemoveNode {
        name: u8,
    },
}

fn writes() -> impl Strategy<Value = Vec<Write>> {
    let owner = || prop::option::weighted(0.9, (0..2_u8, 0..2_u8));
    let slot = prop::sample::select(vec!["0", "1", "2", "x"]);
    let write = prop_oneof![
        3 => (0..2_usize, 0..2_u8, 0..2_u8).prop_map(|(namespace, name, uid)| Write::Rollout { namespace, name, uid }),
        6 => (0..2_usize, 0..4_u8, owner(), slot)
            .prop_map(|(namespace, name, owner, slot)| Write::Pod { namespace, name, owner, slot }),
        2 => (0..2_usize, 0..3_u8, owner()).prop_map(|(namespace, name, owner)| Write::Revision { namespace, name, owner }),
        4 => (0..3_usize, any::<prop::sample::Index>()).prop_map(|(kind, pick)| Write::Remove { kind, pick }),
        1 => (0..3_usize).prop_map(|kind| Write::Break { kind }),
        2 => (0..3_usize).prop_map(|kind| Write::List { kind }),
        1 => (0..2_u8, any::<bool>()).prop_map(|(name, ready)| Write::Node { name, ready }),
        1 => (0..2_u8).prop_map(|name| Write::RemoveNode { name }),
    ];
    prop::collection::vec(write, 0..60)
}

type Objects = BTreeMap<ObjectKey, serde_json::Value>;

/// Objects by kind (0 Rollout, 1 Pod, 2 ControllerRevision), and which watches are broken.
#[derive(Default)]
struct Server {
    objects: [Objects; 3],
    broken: [bool; 3],
    nodes: BTreeMap<String, bool>,
    revision: u64,
    cluster_wide: bool,
}

fn decode<K: serde::de::DeserializeOwned>(value: serde_json::Value) -> K {
    serde_json::from_value(value).expect("decodes")
}

fn tell(index: &mut Index, kind: usize, scope: &Scope, event: Event<serde_json::Value>) -> BTreeSet<ObjectKey> {
    fn typed<K: serde::de::DeserializeOwned>(event: Event<serde_json::Value>) -> Event<K> {
        match event {
            Event::Listed { objects, resource_version } => {
                Event::Listed { objects: objects.into_iter().map(decode).collect(), resource_version }
            }
            Event::Applied(object) => Event::Applied(decode(object)),
            Event::Deleted(object) => Event::Deleted(decode(object)),
            Event::Progressed(resource_version) => Event::Progressed(resource_version),
        }
    }
    match kind {
        0 => index.on_rollout(scope, typed(event)),
        1 => index.on_pod(scope, typed::<PodView>(event)),
        _ => index.on_revision(scope, typed(event)),
    }
}

fn node(name: &str, ready: bool) -> NodeView {
    let status = if ready { "True" } else { "Unknown" };
    decode(json!({"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": status}]}}))
}

impl Server {
    fn scope_of(&self, namespace: &str) -> Scope {
        (!self.cluster_wide).then(|| namespace.to_owned())
    }

    fn list(&self, index: &mut Index, kind: usize) -> BTreeSet<ObjectKey> {
        let mut touched = BTreeSet::new();
        for scope in scopes(self.cluster_wide) {
            let covers = |key: &ObjectKey| scope.as_ref().is_none_or(|namespace| key.namespace == *namespace);
            let objects = self.objects[kind].iter().filter(|(key, _)| covers(key)).map(|(_, o)| o.clone()).collect();
            let listed = Event::Listed { objects, resource_version: self.revision.to_string() };
            touched.extend(tell(index, kind, &scope, listed));
        }
        touched
    }

    /// Performs a write and tells the index what its watches would tell.
    fn perform(&mut self, write: &Write, index: &mut Index) -> BTreeSet<ObjectKey> {
        self.revision += 1;
        let rv = self.revision;
        match write.clone() {
            Write::Rollout { namespace, name, uid } => {
                let (name, uid) = (format!("web-{name}"), format!("uid-{name}-{uid}"));
                let guard = rollout(NAMESPACES[namespace], &name, &uid, rv);
                let value = serde_json::to_value(guard.0.expect("valid")).expect("serializes");
                self.put(0, NAMESPACES[namespace], name, value, index)
            }
            Write::Pod { namespace, name, owner, slot } => {
                let name = format!("pod-{name}");
                let value = Self::owned(namespace, &name, rv, owner, slot);
                self.put(1, NAMESPACES[namespace], name, value, index)
            }
            Write::Revision { namespace, name, owner } => {
                let name = format!("revision-{name}");
                let value = Self::owned(namespace, &name, rv, owner, "0");
                self.put(2, NAMESPACES[namespace], name, value, index)
            }
            Write::Remove { kind, pick } => {
                if self.objects[kind].is_empty() {
                    return BTreeSet::new();
                }
                let key = pick.get(&self.objects[kind].keys().cloned().collect::<Vec<_>>()).clone();
                let mut last = self.objects[kind].remove(&key).expect("present");
                last["metadata"]["resourceVersion"] = json!(rv.to_string());
                self.tell(kind, &key.namespace, Event::Deleted(last), index)
            }
            Write::Break { kind } => {
                self.broken[kind] = true;
                BTreeSet::new()
            }
            Write::List { kind } => {
                self.broken[kind] = false;
                self.list(index, kind)
            }
            Write::Node { name, ready } => {
                self.nodes.insert(format!("node-{name}"), ready);
                index.on_node(Event::Applied(node(&format!("node-{name}"), ready)))
            }
            Write::RemoveNode { name } => {
                self.nodes.remove(&format!("node-{name}"));
                index.on_node(Event::Deleted(node(&format!("node-{name}"), true)))
            }
        }
    }

    fn owned(namespace: usize, name: &str, rv: u64, owner: Option<(u8, u8)>, slot: &str) -> serde_json::Value {
        let owner = owner.map(|(name, uid)| (format!("web-{name}"), format!("uid-{name}-{uid}")));
        let owner = owner.as_ref().map(|(name, uid)| (name.as_str(), uid.as_str()));
        owned(NAMESPACES[namespace], name, name, rv, owner, slot)
    }

    fn put(
        &mut self,
        kind: usize,
        namespace: &str,
        name: String,
        value: serde_json::Value,
        index: &mut Index,
    ) -> BTreeSet<ObjectKey> {
        self.objects[kind].insert(ObjectKey { namespace: namespace.to_owned(), name }, value.clone());
        self.tell(kind, namespace, Event::Applied(value), index)
    }

    fn tell(
        &self,
        kind: usize,
        namespace: &str,
        event: Event<serde_json::Value>,
        index: &mut Index,
    ) -> BTreeSet<ObjectKey> {
        if self.broken[kind] { BTreeSet::new() } else { tell(index, kind, &self.scope_of(namespace), event) }
    }
}

/// Every Rollout's snapshot, readable as text for comparison.
fn snapshots(index: &Index) -> BTreeMap<ObjectKey, String> {
    let look = |key: &ObjectKey| index.snapshot(key, &Recollection::default(), Timestamp::UNIX_EPOCH);
    index.keys().into_iter().map(|key| (key.clone(), format!("{:?}", look(&key)))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_history_equals_a_rebuild_from_the_last_lists(cluster_wide: bool, history in writes()) {
        let mut server = Server { cluster_wide, ..Server::default() };
        let mut index = Index::default();
        index.on_node(Event::Listed { objects: Vec::new(), resource_version: "0".into() });
        for write in &history {
            let before = snapshots(&index);
            let touched = server.perform(write, &mut index);
            let after = snapshots(&index);
            for key in before.keys().chain(after.keys()).filter(|key| before.get(*key) != after.get(*key)) {
                prop_assert!(touched.contains(key), "{key} changed by {write:?}, yet only {touched:?} were touched");
            }
        }
        // What is broken now lists anew; what is not has been told everything.
        for kind in (0..3).filter(|kind| server.broken[*kind]) {
            server.list(&mut index, kind);
        }
        let mut rebuilt = Index::default();
        let nodes = server.nodes.iter().map(|(name, ready)| node(name, *ready)).collect();
        rebuilt.on_node(Event::Listed { objects: nodes, resource_version: "0".into() });
        for kind in 0..3 {
            server.list(&mut rebuilt, kind);
        }
        prop_assert_eq!(snapshots(&index), snapshots(&rebuilt));
        // Nothing is left behind that no snapshot shows.
        prop_assert_eq!(index.pods.keys_and_files(), rebuilt.pods.keys_and_files());
        prop_assert_eq!(index.revisions.keys_and_files(), rebuilt.revisions.keys_and_files());
    }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey { namespace: "shop".into(), name: name.into() }
}

fn look(index: &Index, name: &str) -> Option<Snapshot> {
    index.snapshot(&key(name), &Recollection::default(), Timestamp::UNIX_EPOCH)
}

fn pod(name: &str, resource_version: u64, uid_of_owner: &str, slot: &str) -> PodView {
    decode(owned("shop", name, name, resource_version, Some(("web", uid_of_owner)), slot))
}

#[test]
fn a_relist_without_a_pod_is_its_deletion() {
    let mut index = Index::default();
    index.on_rollout(&None, Event::Applied(rollout("shop", "web", "u1", 1)));
    index.on_pod(&None, Event::Applied(pod("a", 2, "u1", "0")));
    assert_eq!(look(&index, "web").expect("known").pods.len(), 1);
    let touched = index.on_pod(&None, Event::Listed { objects: Vec::new(), resource_version: "9".into() });
    assert_eq!(touched, [key("web")].into());
    assert_eq!(look(&index, "web").expect("known").pods, []);
}

#[test]
fn a_recreated_rollout_does_not_inherit_the_pods_of_its_namesake() {
    let mut index = Index::default();
    index.on_rollout(&None, Event::Applied(rollout("shop", "web", "u1", 1)));
    index.on_pod(&None, Event::Applied(pod("a", 2, "u1", "0")));
    index.on_rollout(&None, Event::Applied(rollout("shop", "web", "u2", 3)));
    assert_eq!(look(&index, "web").expect("known").pods, []);
}

/// `kubectl delete --cascade=orphan` takes the owner off Pods and ControllerRevisions.
#[test]
fn what_was_left_behind_is_known_and_not_owned() {
    let mut index = Index::default();
    index.on_rollout(&None, Event::Applied(rollout("shop", "web", "u1", 1)));
    index.on_pod(&None, Event::Applied(pod("a", 2, "u1", "0")));
    let left = decode(owned("shop", "a", "a", 3, None, "0"));
    assert_eq!(index.on_pod(&None, Event::Applied(left)), [key("web")].into());
    index.on_rollout(&None, Event::Applied(rollout("shop", "web", "u2", 4)));
    let snapshot = look(&index, "web").expect("known");
    let names = |snapshot: &Snapshot| {
        let pods = snapshot.orphans.pods.iter().map(|pod| pod.name.clone());
        pods.chain(snapshot.orphans.revisions.iter().map(|revision| revision.name.clone())).collect::<Vec<_>>()
    };
    assert_eq!((snapshot.pods.len(), names(&snapshot)), (0, vec!["a".to_owned()]));
    let labels = snapshot.orphans.pods[0].loose_labels.as_ref().expect("no controller");
    assert_eq!(labels.get("baton.dev/rollout").map(String::as_str), Some("web"));
    let left = decode(owned("shop", "r", "r", 5, None, "0"));
    assert_eq!(index.on_revision(&None, Event::Applied(left)), [key("web")].into());
    assert_eq!(names(&look(&index, "web").expect("known")), ["a", "r"]);
    index.on_rollout(&None, Event::Applied(rollout("shop", "other", "u3", 6)));
    assert_eq!(names(&look(&index, "other").expect("known")), [] as [String; 0]);
    index.on_pod(&None, Event::Applied(decode(owned("shop", "a", "a", 7, Some(("web", "u2")), "0"))));
    let adopted = look(&index, "web").expect("known");
    assert_eq!((adopted.pods.len(), names(&adopted)), (1, vec!["r".to_owned()]));
    assert_eq!(adopted.pods[0].loose_labels, None);
}

/// A failed Pod that is kept for a look touches its Rollout and is in no slot; labels that were given back count.
#[test]
fn a_pod_that_is_kept_is_known_and_in_no_slot() {
    let mut index = Index::default();
    index.on_rollout(&None, Event::Applied(rollout("shop", "web", "u1", 1)));
    index.on_pod(&None, Event::Applied(pod("a", 2, "u1", "0")));
    let mut kept = owned("shop", "a", "a", 3, Some(("web", "u1")), "0");
    let said =
        json!({"until": "2026-01-01T10:10:00Z", "run": 4, "slot": 3, "revision": "web-abc", "labels": {"app": "web"}});
    kept["metadata"]["annotations"] = json!({"baton.dev/kept": said.to_string()});
    let in_slot: PodView = decode(kept.clone());
    kept["metadata"]["labels"] = json!({"baton.dev/rollout": "", "baton.dev/kept": "web"});
    assert_eq!(index.on_pod(&None, Event::Applied(decode(kept.clone()))), [key("web")].into());
    let snapshot = look(&index, "web").expect("known");
    assert_eq!((snapshot.pods.len(), snapshot.specimens.len(), snapshot.orphans.pods.len()), (0, 1, 0));
    let pod = &snapshot.specimens[0];
    assert_eq!((pod.slot, pod.revision.as_str(), pod.specimen.as_ref().map(|it| it.run)), (3, "web-abc", Some(4)));
    assert_eq!(index.version(Kind::Pod, &key("a")), Some(("a", "3")), "a write to it comes back");

    index.on_pod(&None, Event::Applied(in_slot));
    let snapshot = look(&index, "web").expect("known");
    assert_eq!((snapshot.pods.len(), snapshot.specimens.len()), (1, 0));

    kept["metadata"]["annotations"] = json!({});
    index.on_pod(&None, Event::Applied(decode(kept)));
    let snapshot = look(&index, "web").expect("known");
    assert_eq!((snapshot.pods.len(), snapshot.specimens.len()), (0, 0), "a person keeps it as long as they like");
}

#[test]
fn an_owner_of_another_namespace_is_none() {
    let mut index = Index::default();
    index.on_rollout(&None, Event::Applied(rollout("bank", "web", "u1", 1)));
    index.on_pod(&None, Event::Applied(pod("a", 2, "u1", "0")));
    let bank = ObjectKey { namespace: "bank".into(), name: "web".into() };
    let snapshot = index.snapshot(&bank, &Recollection::default(), Timestamp::UNIX_EPOCH);
    assert_eq!(snapshot.expect("known").pods, []);
}

#[test]
fn an_unreadable_rollout_is_known_but_left_alone() {
    let mut index = Index::default();
    let broken = json!({"metadata": metadata("shop", "web", "u1", 1), "spec": {"replicas": "many"}});
    index.on_rollout(&None, Event::Applied(decode(broken)));
    assert!(look(&index, "web").is_none());
    assert!(index.unreadable(&key("web")).is_some());
    assert_eq!(index.identity(&key("web")), Some(("u1", 0)));
}

#[test]
fn pods_are_sorted_by_slot_whatever_their_names() {
    let mut index = Index::default();
    index.on_rollout(&None, Event::Applied(rollout("shop", "web", "u1", 1)));
    for (name, slot, rv) in [("c", "10", 2), ("b", "9", 3), ("a", "9", 4)] {
        index.on_pod(&None, Event::Applied(pod(name, rv, "u1", slot)));
    }
    let pods = look(&index, "web").expect("known").pods;
    assert_eq!(pods.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[test]
fn progress_is_of_the_watch_that_covers_the_namespace() {
    let mut index = Index::default();
    let shop = Some("shop".to_owned());
    index.on_pod(&shop, Event::Listed { objects: Vec::new(), resource_version: "99".into() });
    assert!(index.has_reached(Kind::Pod, "shop", "99"));
    assert!(!index.has_reached(Kind::Pod, "shop", "100"));
    assert!(!index.has_reached(Kind::Pod, "bank", "1"));
    index.on_pod(&shop, Event::Progressed("100".into()));
    assert!(index.has_reached(Kind::Pod, "shop", "100"));
}

#[test]
fn resource_versions_compare_as_integers_of_any_length() {
    assert!(is_at_least("100", "99"));
    assert!(is_at_least("18446744073709551617", "18446744073709551616"));
    assert!(!is_at_least("9", "10"));
    assert!(is_at_least("abc", "abc") && !is_at_least("abc", "abd"));
    assert!(is_older("9", "10") && !is_older("10", "9") && !is_older("9", "9"));
    assert!(!is_older("x", "10") && !is_older("9", ""));
}

#[test]
fn lost_nodes_are_named_only_where_nodes_are_watched() {
    let mut index = Index::default();
    index.on_rollout(&None, Event::Applied(rollout("shop", "web", "u1", 1)));
    index.on_pod(&None, Event::Applied(pod("a", 2, "u1", "0")));
    assert!(look(&index, "web").expect("known").lost_nodes.is_empty());
    index.on_node(Event::Listed { objects: vec![node("node-0", true)], resource_version: "3".into() });
    assert!(look(&index, "web").expect("known").lost_nodes.is_empty());
    let touched = index.on_node(Event::Applied(node("node-0", false)));
    assert_eq!(touched, [key("web")].into());
    assert_eq!(look(&index, "web").expect("known").lost_nodes, ["node-0".to_owned()].into());
}
