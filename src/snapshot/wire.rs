//! API objects → values. What is decoded here is all that Baton ever knows of a Pod, a ControllerRevision or a Node:
//! what else the object holds (managedFields above all) is dropped on the spot, which keeps a Pod at about 1 KB.
use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{ContainerState as ApiContainerState, ContainerStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{
    Container, ContainerState, Exit, Fetched, InPlace, Pod, PodPhase, Resize, Revision, Service, Switched, ends::ends,
    owner::controller, specimen::Specimen,
};
pub use super::{
    owner::{ORPHANED, orphaned_by, owner},
    views::*,
};
use crate::api::names;

/// A Service as a value. Annotations that do not read as a switch are none.
pub fn service(view: ServiceView) -> Service {
    let ServiceView { metadata, spec, .. } = view;
    let annotations = metadata.annotations.unwrap_or_default();
    let at = annotations.get(names::ANNOTATION_SWITCHED_AT).and_then(|at| at.parse().ok());
    let from = annotations.get(names::ANNOTATION_SWITCHED_FROM).cloned();
    Service {
        name: metadata.name.unwrap_or_default(),
        uid: metadata.uid.unwrap_or_default(),
        resource_version: metadata.resource_version.unwrap_or_default(),
        selector: spec.selector,
        rollout: annotations.get(names::ANNOTATION_ROLLOUT).cloned(),
        switched: from.zip(at).map(|(from, at)| Switched { from, at }),
    }
}

/// A Pod as a value. None when the labels that place it in a slot are missing or unreadable: a person took the Pod out
/// of Baton's hands by relabelling it, as one does with a Pod of a ReplicaSet.
pub fn pod(view: PodView) -> Option<Pod> {
    let PodView { metadata, spec, status, unreadable } = view;
    let is_loose = controller(&metadata).is_none();
    let labels = metadata.labels.unwrap_or_default();
    let specimen = Specimen::read(&labels, metadata.annotations.as_ref());
    let (slot, revision) = if let Some(specimen) = &specimen {
        (specimen.slot, specimen.revision.clone())
    } else {
        let slot = labels.get(names::LABEL_INSTANCE)?.parse().ok().filter(|slot| *slot >= 0)?;
        (slot, labels.get(names::LABEL_REVISION)?.clone())
    };
    let is_true = |type_: &str| status.conditions.iter().find(|c| c.type_ == type_ && c.status == "True");
    let is_false = |type_: &str| status.conditions.iter().find(|c| c.type_ == type_ && c.status == "False");
    let ready_since = is_true("Ready").and_then(|condition| since(condition).or(held(status.start_time.as_ref())));
    let unready_since = is_false("Ready").and_then(since);
    let is_gated = spec.readiness_gates.iter().any(|gate| gate.condition_type == names::CONDITION_IN_SERVICE);
    let in_service = is_gated.then(|| is_true(names::CONDITION_IN_SERVICE).is_some());
    let gate = status.conditions.iter().find(|condition| condition.type_ == names::CONDITION_IN_SERVICE);
    let in_service_since = gate.and_then(since);
    let containers_ready_since = is_true("ContainersReady").map(|it| since(it).unwrap_or(Timestamp::UNIX_EPOCH));
    let drained = status.conditions.iter().find(|condition| condition.type_ == names::CONDITION_DRAINED);
    let drained = drained.map(|condition| condition.status == "True");
    let initialized_at = is_true("Initialized").and_then(since);
    let unschedulable = is_false("PodScheduled").map(|condition| condition.message.clone().unwrap_or_default());
    let disruption = is_true("DisruptionTarget").map(|condition| condition.reason.clone().unwrap_or_default());
    let statuses = || status.init_container_statuses.iter().chain(&status.container_statuses);
    let ends = ends(&spec, &status);
    let package = package(&status);
    let containers_changed_at = statuses().flat_map(|container| [&container.state, &container.last_state]).flatten();
    let containers_changed_at = containers_changed_at.filter_map(changed_at).max();
    // Older servers count no generations of Pods, older kubelets do not tell.
    let generation = metadata.generation.unwrap_or_default();
    let is_observed = unreadable.is_none() && status.observed_generation.is_none_or(|seen| seen >= generation);
    let in_place = InPlace::read(metadata.annotations.as_ref());
    let resize = in_place.as_ref().and_then(|in_place| Resize::of(in_place, generation, &spec, &status));
    let init = status.init_container_statuses.into_iter().map(|container| self::container(container, true));
    let main = status.container_statuses.into_iter().map(|container| self::container(container, false));
    let given = |mut container: Container| {
        let spec = spec.containers.iter().find(|known| known.name == container.name);
        container.given = spec.map(|spec| spec.image.clone()).unwrap_or_default();
        container
    };
    Some(Pod {
        name: metadata.name.unwrap_or_default(),
        uid: metadata.uid.unwrap_or_default(),
        resource_version: metadata.resource_version.unwrap_or_default(),
        slot,
        revision,
        version: annotation(metadata.annotations.as_ref(), names::ANNOTATION_VERSION).unwrap_or_default(),
        created: held(metadata.creation_timestamp.as_ref()).unwrap_or(Timestamp::UNIX_EPOCH),
        restarted_at: annotation(metadata.annotations.as_ref(), names::ANNOTATION_RESTARTED_AT)
            .and_then(|text| text.parse().ok()),
        specimen,
        in_place,
        resize,
        is_observed,
        is_unreadable: unreadable.is_some(),
        deletion: held(metadata.deletion_timestamp.as_ref()),
        phase: PodPhase::read(status.phase.as_deref()),
        reason: status.reason,
        message: status.message,
        has_agent: annotation(metadata.annotations.as_ref(), names::ANNOTATION_HAS_AGENT).is_some(),
        in_service,
        in_service_since,
        containers_ready_since,
        drained,
        grace_seconds: spec.termination_grace_period_seconds,
        ready_since,
        unready_since,
        initialized_at,
        started_at: held(status.start_time.as_ref()),
        unschedulable,
        disruption,
        node: spec.node_name,
        ip: status.pod_ip,
        on_host_network: spec.host_network,
        containers_changed_at,
        containers: init.chain(main).map(given).collect(),
        package,
        ends,
        loose_labels: is_loose.then(|| Box::new(labels)),
    })
}

/// What the init container that fetches the package said when it last ended.
fn package(status: &PodStatusView) -> Option<Fetched> {
    let fetch = status.init_container_statuses.iter().find(|container| container.name == names::CONTAINER_PACKAGE)?;
    let mut ends =
        [&fetch.state, &fetch.last_state].into_iter().flatten().filter_map(|state| state.terminated.as_ref());
    Fetched::read(ends.next()?.message.as_deref()?)
}

fn container(status: ContainerStatus, init: bool) -> Container {
    let running = status.state.as_ref().and_then(|state| state.running.as_ref());
    let started_at = running.and_then(|running| held(running.started_at.as_ref()));
    let last_exit = status.last_state.and_then(|state| state.terminated);
    Container {
        name: status.name,
        init,
        ready: status.ready,
        restarts: status.restart_count,
        state: container_state(status.state),
        last_exit: last_exit.map(Exit::of),
        id: status.container_id.unwrap_or_default(),
        given: String::new(),
        image: status.image,
        image_id: status.image_id,
        started_at,
    }
}

/// When a container came into this state, as far as the kubelet tells: it does not for a waiting one.
fn changed_at(state: &ApiContainerState) -> Option<Timestamp> {
    let started = state.running.as_ref().and_then(|running| held(running.started_at.as_ref()));
    started.max(state.terminated.as_ref().and_then(|exit| held(exit.finished_at.as_ref())))
}

/// A container without a state waits: that is what the API means by absence.
fn container_state(state: Option<ApiContainerState>) -> ContainerState {
    let state = state.unwrap_or_default();
    if state.running.is_some() {
        return ContainerState::Running;
    }
    if let Some(exit) = state.terminated {
        return ContainerState::Terminated(Exit::of(exit));
    }
    let waiting = state.waiting.unwrap_or_default();
    ContainerState::Waiting { reason: waiting.reason.unwrap_or_default(), message: waiting.message.unwrap_or_default() }
}

/// A ControllerRevision as a value.
pub fn revision(object: RevisionView) -> Revision {
    let RevisionView { metadata, data, revision, .. } = object;
    let annotations = metadata.annotations.as_ref();
    let at = |name: &str| annotation(annotations, name).and_then(|text| text.parse().ok());
    Revision {
        name: metadata.name.unwrap_or_default(),
        uid: metadata.uid.unwrap_or_default(),
        resource_version: metadata.resource_version.unwrap_or_default(),
        hash: annotation(metadata.labels.as_ref(), names::LABEL_REVISION_HASH).unwrap_or_default(),
        number: revision.unwrap_or_default(),
        data,
        created: held(metadata.creation_timestamp.as_ref()),
        completed_at: at(names::ANNOTATION_COMPLETED_AT),
        failed_at: at(names::ANNOTATION_FAILED_AT),
        failed_reason: annotation(annotations, names::ANNOTATION_FAILED_REASON),
        change_cause: annotation(annotations, names::ANNOTATION_CHANGE_CAUSE),
        package_sha256: annotation(annotations, names::ANNOTATION_PACKAGE_SHA256),
        image_digests: annotation(annotations, names::ANNOTATION_IMAGE_DIGESTS)
            .map(|text| serde_json::from_str(&text).unwrap_or_default()),
        backup: annotation(annotations, names::ANNOTATION_BACKUP),
        deleting: metadata.deletion_timestamp.is_some(),
    }
}

fn annotation(map: Option<&BTreeMap<String, String>>, name: &str) -> Option<String> {
    map?.get(name).cloned()
}

fn held(time: Option<&Time>) -> Option<Timestamp> {
    time.map(|time| time.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn decode(value: serde_json::Value) -> PodView {
        serde_json::from_value(value).expect("a Pod")
    }

    #[test]
    fn a_pod_keeps_what_decisions_need() {
        let image_id = format!("registry:5000/web@sha256:{}", "0f".repeat(32));
        let pod = pod(decode(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "web-3-abc", "namespace": "shop", "uid": "u1", "resourceVersion": "42",
                "creationTimestamp": "2026-01-01T10:00:00Z",
                "labels": {"baton.dev/instance": "3", "baton.dev/revision": "web-abc", "baton.dev/rollout": "web"},
                "annotations": {"baton.dev/version": "1.4.2", "baton.dev/restarted-at": "2026-01-01T09:59:00Z"},
                "managedFields": [{"manager": "kubelet", "operation": "Update", "fieldsV1": {"f:status": {}}}],
            },
            "spec": {"nodeName": "node-1", "containers": [{"name": "app", "image": "web:1.4.2"}]},
            "status": {
                "phase": "Running", "podIP": "10.0.0.7", "startTime": "2026-01-01T10:00:01Z",
                "conditions": [
                    {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T10:00:05Z"},
                    {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"},
                ],
                "containerStatuses": [{
                    "name": "app", "ready": true, "restartCount": 2, "image": "web:1.4.2", "imageID": image_id,
                    "state": {"running": {"startedAt": "2026-01-01T10:00:04Z"}},
                    "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": "out\nof memory"}},
                }],
            },
        })))
        .expect("placed in a slot");
        assert_eq!((pod.slot, pod.revision.as_str(), pod.version.as_str()), (3, "web-abc", "1.4.2"));
        assert_eq!(pod.ready_since, Some("2026-01-01T10:00:05Z".parse().expect("time")));
        assert_eq!(pod.restarted_at, Some("2026-01-01T09:59:00Z".parse().expect("time")));
        assert_eq!(pod.disruption.as_deref(), Some("EvictionByEvictionAPI"));
        assert_eq!(pod.containers_changed_at, Some("2026-01-01T10:00:04Z".parse().expect("time")));
        let last_exit = Exit { reason: "OOMKilled".into(), code: 137, message: "out | of memory".into() };
        assert_eq!(pod.containers[0].last_exit, Some(last_exit));
        assert_eq!(pod.containers[0].digest(), Some(&*format!("sha256:{}", "0f".repeat(32))));
        for image_id in ["", "x", "sha256:0f", "web@sha256:0f", &format!("sha256:{}", "0f".repeat(32))] {
            let container = Container { image_id: image_id.into(), ..pod.containers[0].clone() };
            assert_eq!(container.digest(), None, "{image_id}");
        }
        assert_eq!((pod.node.as_deref(), pod.ip.as_deref()), (Some("node-1"), Some("10.0.0.7")));
    }

    /// C8: the newest of what the init container has said, in any state.
    #[test]
    fn a_pod_tells_what_became_of_its_package() {
        let ended = |code: i32, message: &str| json!({"terminated": {"exitCode": code, "message": message}});
        let (rejected, unpacked) = (
            r#"{"result":"Rejected","message":"no"}"#,
            &format!(r#"{{"result":"Unpacked","sha256":"{}"}}"#, "0f".repeat(32)),
        );
        let read = |name: &str, state: serde_json::Value, last: serde_json::Value| {
            let fetch = json!({"name": name, "ready": false, "restartCount": 1, "image": "", "imageID": "", "state": state, "lastState": last});
            let labels = json!({"baton.dev/instance": "3", "baton.dev/revision": "web-abc"});
            let status = json!({"initContainerStatuses": [fetch]});
            pod(decode(json!({"metadata": {"name": "a", "labels": labels}, "status": status}))).expect("a Pod").package
        };
        let (waiting, running) = (json!({"waiting": {"reason": "CrashLoopBackOff"}}), json!({"running": {}}));
        let said = Some(Fetched::Rejected { message: "no".into() });
        assert_eq!(read("baton-package", ended(1, rejected), json!({})), said);
        assert_eq!(read("baton-package", waiting, ended(1, rejected)), said);
        assert_eq!(read("baton-package", running.clone(), ended(1, rejected)), said, "it tries again");
        let came_through = read("baton-package", ended(0, unpacked), ended(1, rejected));
        assert_eq!(came_through, Some(Fetched::Unpacked { sha256: "0f".repeat(32) }));
        assert_eq!(read("baton-package", running, json!({})), None);
        assert_eq!(read("baton-package", ended(137, ""), ended(1, rejected)), None, "the kubelet says that");
        assert_eq!(read("migrate", ended(1, rejected), json!({})), None);
    }

    #[test]
    fn a_relabelled_pod_is_out_of_our_hands() {
        let labels = json!({"baton.dev/instance": "three", "baton.dev/revision": "web-abc"});
        assert_eq!(pod(decode(json!({"metadata": {"name": "a", "labels": labels}}))), None);
        assert_eq!(pod(decode(json!({"metadata": {"name": "a"}}))), None);
    }
}
