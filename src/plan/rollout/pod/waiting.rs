//! What a Pod that is not ready waits for, in the kubelet's words where it has said some.
use std::fmt;

use crate::{
    api::names,
    snapshot::{Container, ContainerState, Pod, PodPhase},
};

/// It runs, and is not ready: the kubelet does not say why.
pub const CONTAINERS_NOT_READY: &str = "ContainersNotReady";
/// Its containers are ready, and a readiness gate is not passed.
pub const GATES_NOT_READY: &str = "ReadinessGatesNotReady";

/// Why a live Pod is not ready.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// It is on its way, as far as one can see.
    pub is_starting: bool,
    /// One CamelCase word, Kubernetes' own where there is one.
    pub reason: String,
    /// A sentence; may be empty.
    pub message: String,
}

impl Waiting {
    fn not_ready(reason: &str, message: String) -> Self {
        Self { is_starting: false, reason: reason.into(), message }
    }

    fn starting(reason: &str) -> Self {
        Self { is_starting: true, reason: reason.into(), message: String::new() }
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&with_reason(&self.reason, &self.message))
    }
}

/// `ErrImagePull: container web: not found`, or whichever of the two there is.
pub fn with_reason(reason: &str, message: &str) -> String {
    let is_whole = !reason.is_empty() && !message.is_empty();
    if is_whole { format!("{reason}: {message}") } else { format!("{reason}{message}") }
}

/// Of a live Pod that is not ready.
pub fn waiting(pod: &Pod) -> Waiting {
    const YOUTH: [&str; 2] = ["ContainerCreating", "PodInitializing"];
    let mut starting = None;
    for container in &pod.containers {
        let named = |text: &str| format!("container {}: {text}", container.name);
        match &container.state {
            ContainerState::Waiting { reason, .. } if YOUTH.contains(&reason.as_str()) => {
                starting.get_or_insert(reason);
            }
            ContainerState::Waiting { reason, message } => return Waiting::not_ready(reason, named(message)),
            // An init container that has ended well has done its work.
            ContainerState::Terminated(exit) if !container.init || exit.code != 0 => {
                return Waiting::not_ready(&exit.reason, named(&format!("ended: {exit}")));
            }
            ContainerState::Terminated(_) | ContainerState::Running => {}
        }
    }
    match (starting, pod.phase) {
        (Some(reason), _) => Waiting::starting(reason),
        (None, PodPhase::Pending) => Waiting::starting("Pending"),
        (None, PodPhase::Unknown) => Waiting::not_ready("NodeLost", "its node is silent".into()),
        (None, _) => runs_unready(pod),
    }
}

/// Its containers run.
fn runs_unready(pod: &Pod) -> Waiting {
    let is_unready = |container: &&Container| !container.init && !container.ready;
    let unready: Vec<&str> = pod.containers.iter().filter(is_unready).map(|it| it.name.as_str()).collect();
    match unready.as_slice() {
        [] if pod.in_service == Some(false) => {
            let gate = names::CONDITION_IN_SERVICE;
            let why = "it is changed in place, or its agent does not hold its session";
            Waiting::not_ready(GATES_NOT_READY, format!("readiness gate {gate}: {why}"))
        }
        [] => Waiting::not_ready(GATES_NOT_READY, "a readiness gate is not passed".into()),
        [name] => {
            let message = format!("container {name} is not ready: its readiness or startup probe does not succeed");
            Waiting::not_ready(CONTAINERS_NOT_READY, message)
        }
        names => {
            let names = names.join(", ");
            let message = format!("containers {names} are not ready: their readiness or startup probes do not succeed");
            Waiting::not_ready(CONTAINERS_NOT_READY, message)
        }
    }
}
