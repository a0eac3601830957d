//! Which containers of a Pod are known to have ended.
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus};

use super::{
    pod::{ContainerEnd, PodEnds},
    views::{PodSpecView, PodStatusView},
};
use crate::api::names;

/// Ends of the containers that may run listeners, or the agent that runs them.
///
/// Where none is called [`names::CONTAINER_AGENT`] any of them may be the agent's. Then each must have ended, and which of
/// them goes first is all the same: a process that was running when the last one ended has not ended before.
pub(super) fn ends(spec: &PodSpecView, status: &PodStatusView) -> PodEnds {
    // An init container that is no sidecar has ended before anything began; its end says nothing.
    let is_sidecar = |name: &str| {
        spec.init_containers.iter().any(|init| init.name == name && init.restart_policy.as_deref() == Some("Always"))
    };
    let sidecars = status.init_container_statuses.iter().filter(|container| is_sidecar(&container.name));
    let mut containers: Vec<&ContainerStatus> = status.container_statuses.iter().chain(sidecars).collect();
    if let Some(agent) = containers.iter().position(|container| container.name == names::CONTAINER_AGENT) {
        containers[..=agent].rotate_right(1);
    }
    let mut ends = containers.into_iter().map(ends_of);
    PodEnds { agent: ends.next().unwrap_or_default(), applications: ends.collect() }
}

/// The exit code that containerd reports of a container whose end it did not see (`unknownExitCode` of its CRI plugin), because
/// its shim was killed, say. A program that exits with this code by itself cannot be told apart.
const EXIT_CODE_UNKNOWN: i32 = 255;
/// The reasons that containerd and the kubelet give in that case.
const REASONS_UNKNOWN: [&str; 2] = ["Unknown", "ContainerStatusUnknown"];

/// How a container has ended, now and the time before, as far as its kubelet reports it. Left out are:
/// - an end that the runtime did not see: the container's processes may live on, as after the death of a shim under
///   containerd 2.3.7;
/// - an end that was later than the next beginning: the node's clock has been set back in between, and what has begun since
///   would seem to be over.
pub fn ends_of(container: &ContainerStatus) -> Vec<ContainerEnd> {
    let state = container.state.as_ref();
    let now = state.and_then(|state| state.terminated.as_ref());
    let began_at = match state.and_then(|state| state.running.as_ref()) {
        Some(running) => running.started_at.as_ref(),
        None => now.and_then(|end| end.started_at.as_ref()),
    };
    let before = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let is_before = |end: &&ContainerStateTerminated| match (&end.finished_at, began_at) {
        (Some(finished_at), Some(began_at)) => finished_at.0 <= began_at.0,
        _ => true,
    };
    let was_seen = |end: &&ContainerStateTerminated| {
        let reason = end.reason.as_deref().unwrap_or_default();
        end.exit_code != EXIT_CODE_UNKNOWN && !REASONS_UNKNOWN.contains(&reason)
    };
    let ends = now.into_iter().chain(before.filter(is_before)).filter(was_seen);
    ends.map(|end| ContainerEnd {
        container_id: end.container_id.clone(),
        started_at: end.started_at.as_ref().map(|time| time.0),
        finished_at: end.finished_at.as_ref().map(|time| time.0),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;
    use crate::snapshot::{agent::AgentPod, listener_set::Course, views::PodView};

    fn agent_pod(labels: &Value, deletion: Option<&str>, status: &Value) -> AgentPod {
        let sidecars = json!([{"name": "baton-agent", "restartPolicy": "Always"}, {"name": "install"}]);
        let view: PodView = serde_json::from_value(json!({
            "metadata": {"name": "bots-2", "uid": "u", "resourceVersion": "7", "labels": labels, "deletionTimestamp": deletion},
            "spec": {"nodeName": "node-1", "initContainers": sidecars},
            "status": status,
        }))
        .unwrap();
        view.into()
    }

    fn container(name: &str, states: &[(&str, &str)]) -> Value {
        let ended = |id: &str| {
            let (at, id) = ("2026-01-01T10:00:00Z", format!("containerd://{id}"));
            json!({"terminated": {"exitCode": 1, "containerID": id, "startedAt": at, "finishedAt": at}})
        };
        let mut container = json!({"name": name, "ready": false, "restartCount": 0, "image": "", "imageID": ""});
        for (state, id) in states {
            container[*state] = ended(id);
        }
        container
    }

    fn ids(ends: &[ContainerEnd]) -> Vec<&str> {
        ends.iter().filter_map(|end| end.container_id.as_deref()).collect()
    }

    #[test]
    fn an_agent_beside_its_application_is_told_apart() {
        let status = json!({
            "initContainerStatuses": [container("install", &[("state", "i")]), container("baton-agent", &[("lastState", "a")])],
            "containerStatuses": [container("web", &[("state", "w1"), ("lastState", "w0")]), container("log", &[])],
        });
        let ends = agent_pod(&json!({}), None, &status).pod.ends;
        assert_eq!(ids(&ends.agent), ["containerd://a"]);
        let applications: Vec<_> = ends.applications.iter().map(|ends| ids(ends)).collect();
        assert_eq!(applications, [vec!["containerd://w1", "containerd://w0"], vec![]]);
    }

    #[test]
    fn an_agent_inside_the_application_is_the_application() {
        let status = json!({
            "initContainerStatuses": [container("install", &[("state", "i")])],
            "containerStatuses": [container("web", &[("state", "w")])],
        });
        let ends = agent_pod(&json!({}), None, &status).pod.ends;
        assert_eq!((ids(&ends.agent), ends.applications.len()), (vec!["containerd://w"], 0));
    }

    /// L1: an end that was later than what runs now began is of a clock that was set back; it may seem to cover what runs.
    #[test]
    fn an_end_by_a_clock_that_was_set_back_since_proves_nothing() {
        let ends = |started_at: &str| {
            let status: ContainerStatus = serde_json::from_value(json!({
                "name": "web", "ready": true, "restartCount": 1, "image": "", "imageID": "",
                "state": {"running": {"startedAt": started_at}},
                "lastState": {"terminated": {"exitCode": 1, "containerID": "containerd://w",
                    "startedAt": "2026-01-01T10:00:00Z", "finishedAt": "2026-01-01T10:10:00Z"}},
            }))
            .unwrap();
            ends_of(&status).len()
        };
        assert_eq!(["2026-01-01T10:10:00Z", "2026-01-01T10:10:05Z"].map(ends), [1, 1]);
        assert_eq!(ends("2026-01-01T10:05:00Z"), 0);
    }

    /// L1: a real kubelet has reported code 255 of containers whose shim was killed and whose processes lived on.
    #[test]
    fn an_end_that_the_runtime_did_not_see_proves_nothing() {
        let ends = |exit_code: i32, reason: &str| {
            let ended = json!({"terminated": {"exitCode": exit_code, "reason": reason, "containerID": "containerd://w",
                "startedAt": "2026-01-01T10:00:00Z", "finishedAt": "2026-01-01T10:10:00Z"}});
            let status: ContainerStatus = serde_json::from_value(json!({
                "name": "web", "ready": false, "restartCount": 0, "image": "", "imageID": "", "state": ended, "lastState": ended,
            }))
            .unwrap();
            ends_of(&status).len()
        };
        assert_eq!(
            [(255, "Error"), (255, "Unknown"), (137, "ContainerStatusUnknown")].map(|(code, it)| ends(code, it)),
            [0; 3]
        );
        assert_eq!([(0, "Completed"), (1, "Error"), (137, "OOMKilled")].map(|(code, it)| ends(code, it)), [1; 3]);
    }

    /// L6
    #[test]
    fn a_pod_that_ends_is_not_ready() {
        let ready = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        let labels = json!({"apps.kubernetes.io/pod-index": "2", "app": "bots"});
        let live = agent_pod(&labels, None, &ready);
        assert_eq!((live.pod.is_ready, live.pod.slot, live.pod.course), (true, Some(2), Course::Target));
        assert!(live.matches(&[("app".to_owned(), "bots".to_owned())].into()) && live.matches(&BTreeMap::new()));
        assert!(!live.matches(&[("app".to_owned(), "web".to_owned())].into()));
        let leaving = agent_pod(&labels, Some("2026-01-01T10:00:00Z"), &ready);
        assert_eq!((leaving.pod.is_ready, leaving.pod.course), (false, Course::Leaves));
        let mut failed = ready;
        failed["phase"] = json!("Failed");
        assert!(!agent_pod(&labels, None, &failed).pod.is_ready);
    }
}
