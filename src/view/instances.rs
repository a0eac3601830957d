//! Every instance in full, for programs: status has room for ranges and the worst ones only.
use std::collections::BTreeSet;

use serde::Serialize;

use crate::{
    api::names,
    plan::{
        Memory, revision,
        rollout::{Slot, slots},
    },
    snapshot::{Pod, Snapshot},
    status::instances::pod_state,
};

/// A Pod of a Rollout, or an instance that has none.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// Its number; beyond replicas for one that is to go.
    pub instance: i32,
    /// Its name: `web-3`.
    pub name: String,
    /// Its Pod. An instance that is being replaced has several entries, one for each Pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The ControllerRevision that the Pod is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Its version for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The ControllerRevision that the instance should be at now; none beyond replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_revision: Option<String>,
    /// Its version for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_version: Option<String>,
    /// Whether spec.pins say so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
    /// Available, Starting, Reloading, NotReady, Failed, Terminating or Missing.
    pub state: &'static str,
    /// One CamelCase word, Kubernetes' own where there is one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// A sentence.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// How often its containers were started again.
    pub restarts: i32,
    /// How a container ended last: `app: Error, exit code 1: FATAL …`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<String>,
    /// Where it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The Pod's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// When the Pod was made, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
}

/// All instances, by number; of one, Pods in the order of their names.
pub fn instances(snapshot: &Snapshot) -> Vec<Instance> {
    let slots = slots(snapshot, &Memory::of(snapshot.rollout.status.as_ref()));
    let of_pods = snapshot.pods.iter().map(|pod| of_pod(snapshot, slots.wanted_at(pod.slot), pod));
    let with: BTreeSet<i32> = snapshot.pods.iter().map(|pod| pod.slot).collect();
    let without = slots.wanted().filter(|slot| !with.contains(&slot.index)).map(|slot| missing(snapshot, slot));
    let mut all: Vec<Instance> = of_pods.chain(without).collect();
    all.sort_by(|a, b| (a.instance, &a.pod).cmp(&(b.instance, &b.pod)));
    all
}

fn missing(snapshot: &Snapshot, slot: &Slot<'_>) -> Instance {
    Instance { state: "Missing", ..of_slot(snapshot, Some(slot), slot.index) }
}

fn of_slot(snapshot: &Snapshot, slot: Option<&Slot<'_>>, index: i32) -> Instance {
    let target = slot.and_then(|slot| slot.assigned);
    let known = snapshot.revisions.iter().find(|revision| Some(revision.name.as_str()) == target);
    let rollout = snapshot.rollout.metadata.name.as_deref().unwrap_or_default();
    Instance {
        instance: index,
        name: names::instance_name(rollout, index),
        target_revision: target.map(str::to_owned),
        target_version: known.map(|revision| revision::version(&revision.data)),
        pinned: slot.is_some_and(|slot| slot.pin.is_some()),
        ..Instance::default()
    }
}

fn of_pod(snapshot: &Snapshot, slot: Option<&Slot<'_>>, pod: &Pod) -> Instance {
    let troubled = pod_state(snapshot, pod);
    let (state, reason, message) = troubled
        .map_or(("Available", String::new(), String::new()), |(state, reason, message)| {
            (state.as_str(), reason, message)
        });
    let mut exits = pod
        .containers
        .iter()
        .filter_map(|container| Some(format!("{}: {}", container.name, container.last_exit.as_ref()?)));
    Instance {
        pod: Some(pod.name.clone()),
        revision: Some(pod.revision.clone()),
        version: Some(pod.version.clone()),
        state,
        reason,
        message,
        restarts: pod.restarts(),
        last_exit: exits.next_back(),
        node: pod.node.clone(),
        ip: pod.ip.clone(),
        created: Some(pod.created.to_string()),
        ..of_slot(snapshot, slot, pod.slot)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        plan::rollout::tests::fixture::Fixture,
        snapshot::{InPlace, in_place::Reload},
    };

    /// It serves, at what it should be, and its application has yet to answer.
    #[test]
    fn who_reloads_says_so() {
        let settings = json!({"httpPost": {"path": "/reload", "port": 8080}});
        let spec = json!({"strategy": {"update": "HotReload", "hotReload": settings}});
        let mut snapshot = Fixture::new("b a", 'b', spec).snapshot;
        let reload = Some(Reload::default());
        snapshot.pod_mut(0).in_place =
            Some(InPlace { at: snapshot.now, containers: [].into(), resources: [].into(), reload });
        let told = instances(&snapshot);
        assert_eq!((told[0].state, told[1].state), ("Reloading", "Available"));
        assert_eq!(told[0].message, "its application has yet to answer POST :8080/reload with 200");
    }

    /// X2: version, target, state and last error of each.
    #[test]
    fn each_instance_is_told_in_full() {
        let pins = json!([{"instances": "3", "revision": "c"}]);
        let spec = json!({"pins": pins, "strategy": {"batchSize": 2, "maxSurge": 1, "maxUnavailable": 1}});
        let mut snapshot = Fixture::new("b ab! . c", 'b', spec).opened(2).snapshot;
        snapshot.rollout.spec.replicas = 4;
        let told = instances(&snapshot);
        let short = |one: &Instance| {
            let word = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
            format!("{} {} → {} {} {}", one.name, word(&one.version), word(&one.target_version), one.state, one.reason)
        };
        assert_eq!(
            told.iter().map(short).collect::<Vec<_>>(),
            [
                "web-0 b → b Available ",
                "web-1 a → b Available ",
                "web-1 b → b Failed CrashLoopBackOff",
                "web-2 - → a Missing ",
                "web-3 c → c Available ",
            ]
        );
        assert_eq!((told[2].restarts, told[2].last_exit.as_deref()), (1, Some("web: Error, exit code 1")));
        assert_eq!(told.iter().map(|one| one.pinned).collect::<Vec<_>>(), [false, false, false, false, true]);
        let object = serde_json::to_value(&told[3]).unwrap();
        let expected = json!({"instance": 2, "name": "web-2", "targetRevision": "a", "targetVersion": "a",
            "state": "Missing", "restarts": 0});
        assert_eq!(object, expected, "what is not known is left out");
    }
}
