//! Why a container ended stands in the reason of a failure.
use serde_json::json;

use super::{
    faults::{container, waiting},
    fixture::Fixture,
};
use crate::{
    api::{bounds::FAILURE_CHARS_MAX, status::Failed},
    plan::{revision, rollout::plan},
    snapshot::{Container, ContainerState, Exit, PodPhase, exit::MESSAGE_CHARS_MAX},
};

const FATAL: &str = "FATAL cannot read /etc/shop.conf";

fn exit(message: &str) -> Exit {
    Exit { reason: "Error".into(), code: 3, message: message.into() }
}

/// What is remembered where the Pod of instance 0 is in this state.
fn failed(phase: PodPhase, container: Container) -> Failed {
    let strategy = json!({"strategy": {"batchSize": 1, "maxSurge": 0, "maxUnavailable": 1}});
    let mut fixture = Fixture::new("b~ a a a", 'b', strategy).opened(1);
    let pod = fixture.snapshot.pod_mut(0);
    (pod.phase, pod.containers) = (phase, vec![container]);
    plan(&fixture.snapshot).memory.failed.expect("it has failed")
}

/// B7
#[test]
fn what_a_container_said_last_is_the_reason() {
    let ended = Some(exit(FATAL));
    let crashing = Container { last_exit: ended.clone(), ..container(false, 1, waiting("CrashLoopBackOff")) };
    let said = failed(PodPhase::Running, crashing);
    assert_eq!(
        (said.reason.as_str(), said.message),
        ("CrashLoopBackOff", format!("web-0: container web: Error, exit code 3: {FATAL}"))
    );

    let restarting = Container { last_exit: ended, ..container(false, 3, ContainerState::Running) };
    let said = failed(PodPhase::Running, restarting);
    assert_eq!(
        (said.reason.as_str(), said.message),
        ("Restarting", format!("web-0: container web: 3 restarts, last Error, exit code 3: {FATAL}"))
    );

    let said = failed(PodPhase::Failed, container(true, 0, ContainerState::Terminated(exit(FATAL))));
    assert_eq!(
        (said.reason.as_str(), said.message),
        ("PodFailed", format!("web-0: container web: Error, exit code 3: {FATAL}"))
    );
}

/// The longest names leave what was said last whole.
#[test]
fn the_end_of_a_long_message_is_not_cut_off() {
    let longest = format!("{}end", "x".repeat(MESSAGE_CHARS_MAX - 3));
    let crashing = Container {
        name: "c".repeat(63),
        last_exit: Some(Exit { reason: "ContainerCannotRun".into(), code: -1_000_000, message: longest }),
        ..container(false, 1, waiting("CrashLoopBackOff"))
    };
    let said = failed(PodPhase::Running, crashing).message;
    assert!(said.ends_with("xend"), "{said}");
    let longer_name = crate::api::bounds::NAME_CHARS_MAX - "web".len() + "9999".len();
    assert!(said.chars().count() + longer_name <= FAILURE_CHARS_MAX, "{}", said.chars().count());
}

/// The kubelet takes the end of the log for what was said last; a template that says otherwise has its way. No revision changes.
#[test]
fn containers_fall_back_to_their_log() {
    let containers = json!([{"name": "a"}, {"name": "b", "terminationMessagePolicy": "File"}]);
    let template = json!({"spec": {"containers": containers, "initContainers": [{"name": "c"}]}});
    let data = json!({"template": template});
    let recipe = revision::PodRecipe {
        rollout: "web",
        namespace: "shop",
        rollout_uid: "u",
        slot: 0,
        revision: "web-b",
        hash: "b",
        data: &data,
        restarted_at: None,
        package_sha256: None,
        agent_image: None,
        is_gated: false,
    };
    let pod = revision::pod(&recipe, "web-0-b").unwrap();
    let policy = |field: &str, index: usize| pod["spec"][field][index]["terminationMessagePolicy"].clone();
    let policies = [policy("containers", 0), policy("containers", 1), policy("initContainers", 0)];
    assert_eq!(policies, ["FallbackToLogsOnError", "File", "FallbackToLogsOnError"]);
    assert_eq!(data["template"], template);
}
