//! What the API is told about a Pod: a pure function of its specification and its containers.
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, HostIP,
    Pod, PodCondition, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    lifecycle::{Progress, progress},
    model::{Attempt, Container, Kind, RestartPolicy, specs},
};

/// Everything a status says.
pub struct Situation<'a> {
    pub pod: &'a Pod,
    pub containers: &'a [Container],
    /// The Pod's address, once its volumes are there and containers can be made.
    pub pod_ip: Option<IpAddr>,
    pub host_ip: IpAddr,
    /// When the node first saw the Pod.
    pub start_time: Timestamp,
    /// Nothing of the Pod runs or will run any more.
    pub ended: bool,
    /// The Pod has failed as a whole: reason and message.
    pub failure: Option<(&'a str, &'a str)>,
    /// The conditions that were told last.
    pub told: &'a [PodCondition],
    pub now: Timestamp,
}

/// Computes the status. Conditions of others, such as readiness gates, are not in it.
pub fn pod_status(situation: &Situation<'_>) -> PodStatus {
    let spec = situation.pod.spec.clone().unwrap_or_default();
    let policy = RestartPolicy::of(&spec);
    let progress = progress(policy, situation.containers);
    let phase = phase(situation, policy, progress);
    let of = |init: bool| -> Vec<ContainerStatus> {
        let wanted = situation.containers.iter().zip(specs(situation.pod));
        let wanted = wanted.filter(|(container, _)| (container.kind != Kind::Main) == init);
        wanted
            .map(|(container, (spec, _))| {
                let image = spec.image.clone().unwrap_or_default();
                container_status(container, image, progress)
            })
            .collect()
    };
    let address = situation.pod_ip.map(|ip| ip.to_string());
    PodStatus {
        phase: Some(phase.into()),
        conditions: Some(conditions(situation, &spec, progress, phase)),
        container_statuses: Some(of(false)),
        init_container_statuses: Some(of(true)).filter(|statuses| !statuses.is_empty()),
        pod_ips: address.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip: address,
        host_ip: Some(situation.host_ip.to_string()),
        host_ips: Some(vec![HostIP { ip: situation.host_ip.to_string() }]),
        start_time: Some(Time(situation.start_time)),
        observed_generation: situation.pod.metadata.generation,
        reason: situation.failure.map(|(reason, _)| reason.to_owned()),
        message: situation.failure.map(|(_, message)| message.to_owned()),
        ..PodStatus::default()
    }
}

fn phase(situation: &Situation<'_>, policy: RestartPolicy, progress: Progress) -> &'static str {
    if situation.failure.is_some() {
        return "Failed";
    }
    match progress {
        Progress::InitFailed => return "Failed",
        Progress::Initializing(_) if situation.ended => return "Failed",
        Progress::Initializing(_) => return "Pending",
        Progress::Initialized | Progress::Finished => {}
    }
    let mains = || situation.containers.iter().filter(|container| container.kind == Kind::Main);
    if mains().any(Container::running) {
        return if mains().all(|container| container.attempt.is_some()) { "Running" } else { "Pending" };
    }
    if mains().any(|container| container.attempt.is_none()) {
        return if situation.ended { "Failed" } else { "Pending" };
    }
    match () {
        () if progress != Progress::Finished && !situation.ended => "Running", // one is about to be restarted
        () if mains().all(Container::succeeded) && (situation.ended || policy != RestartPolicy::Always) => "Succeeded",
        () => "Failed",
    }
}

fn container_status(container: &Container, image: String, progress: Progress) -> ContainerStatus {
    let attempt = container.attempt.as_ref();
    let told = attempt.filter(|_| container.waiting.is_none() && !container.health.hook_runs);
    // While it waits for a restart, its latest end is the last state.
    let last = if told.is_some() { container.previous.as_ref() } else { attempt };
    let state = match told {
        Some(attempt) => state_of(attempt),
        None => waiting(container, progress),
    };
    ContainerStatus {
        name: container.name.clone(),
        container_id: attempt.map(|attempt| attempt.id.clone()),
        image: attempt.map_or(image, |attempt| attempt.image.clone()),
        image_id: attempt.map(|attempt| attempt.image_id.clone()).unwrap_or_default(),
        ready: match container.kind {
            Kind::Init => container.succeeded(),
            Kind::Sidecar | Kind::Main => container.ready(),
        },
        started: Some(container.started()),
        restart_count: container.restarts() as i32,
        state: Some(state),
        last_state: Some(last.filter(|attempt| attempt.end.is_some()).map(state_of).unwrap_or_default()),
        ..ContainerStatus::default()
    }
}

fn waiting(container: &Container, progress: Progress) -> ContainerState {
    let (reason, message) = match &container.waiting {
        Some(waiting) => (waiting.reason, Some(waiting.message.clone())),
        None if matches!(progress, Progress::Initializing(_) | Progress::InitFailed) => ("PodInitializing", None),
        None => ("ContainerCreating", None),
    };
    let waiting = ContainerStateWaiting { reason: Some(reason.into()), message };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

fn state_of(attempt: &Attempt) -> ContainerState {
    let started_at = Some(Time(attempt.started_at));
    let Some(end) = &attempt.end else {
        let running = Some(ContainerStateRunning { started_at });
        return ContainerState { running, ..ContainerState::default() };
    };
    let terminated = ContainerStateTerminated {
        container_id: Some(attempt.id.clone()),
        exit_code: end.exit_code,
        signal: end.signal,
        reason: Some(end.reason.clone()),
        message: end.message.clone(),
        started_at,
        finished_at: Some(Time(end.finished_at)),
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

/// A condition's status, reason and message.
type Verdict = (bool, Option<&'static str>, Option<String>);

const YES: Verdict = (true, None, None);

fn conditions(situation: &Situation<'_>, spec: &PodSpec, progress: Progress, phase: &str) -> Vec<PodCondition> {
    let containers_ready = containers_ready(situation, phase);
    let ready = match &containers_ready {
        (true, ..) => gates_pass(situation, spec),
        not_ready => not_ready.clone(),
    };
    // True from the moment the Pod's surroundings exist until everything of it has ended.
    let surroundings = (situation.pod_ip.is_some() && !situation.ended, None, None);
    [
        ("PodReadyToStartContainers", surroundings),
        ("Initialized", initialized(situation, progress, phase)),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", YES),
    ]
    .map(|(kind, verdict)| condition(situation, kind, verdict))
    .into()
}

fn condition(situation: &Situation<'_>, kind: &str, (holds, reason, message): Verdict) -> PodCondition {
    let status = if holds { "True" } else { "False" };
    let same = situation.told.iter().find(|condition| condition.type_ == kind && condition.status == status);
    PodCondition {
        type_: kind.into(),
        status: status.into(),
        reason: reason.map(Into::into),
        message,
        last_transition_time: same
            .and_then(|condition| condition.last_transition_time.clone())
            .or(Some(Time(situation.now))),
        observed_generation: situation.pod.metadata.generation,
        last_probe_time: None,
    }
}

fn initialized(situation: &Situation<'_>, progress: Progress, phase: &str) -> Verdict {
    match progress {
        _ if phase == "Succeeded" => (true, Some("PodCompleted"), None),
        Progress::Initialized | Progress::Finished => YES,
        Progress::Initializing(_) | Progress::InitFailed => {
            let incomplete = situation.containers.iter().filter(|container| match container.kind {
                Kind::Init => !container.succeeded(),
                Kind::Sidecar => !container.started(),
                Kind::Main => false,
            });
            let message = format!("containers with incomplete status: [{}]", names(incomplete));
            (false, Some("ContainersNotInitialized"), Some(message))
        }
    }
}

fn containers_ready(situation: &Situation<'_>, phase: &str) -> Verdict {
    match phase {
        "Succeeded" => return (false, Some("PodCompleted"), None),
        "Failed" => return (false, Some("PodFailed"), None),
        _ => {}
    }
    let unready = || {
        let counted = situation.containers.iter().filter(|container| container.kind != Kind::Init);
        counted.filter(|container| !container.ready())
    };
    if unready().next().is_none() {
        return YES;
    }
    let message = format!("containers with unready status: [{}]", names(unready()));
    (false, Some("ContainersNotReady"), Some(message))
}

fn names<'a>(containers: impl Iterator<Item = &'a Container>) -> String {
    containers.map(|container| container.name.as_str()).collect::<Vec<_>>().join(" ")
}

fn gates_pass(situation: &Situation<'_>, spec: &PodSpec) -> Verdict {
    let known = situation.pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let complaints: Vec<String> = spec
        .readiness_gates
        .iter()
        .flatten()
        .filter_map(|gate| {
            let gate = &gate.condition_type;
            match known.clone().find(|condition| condition.type_ == *gate) {
                Some(condition) if condition.status == "True" => None,
                Some(condition) => Some(format!(
                    "the status of pod readiness gate \"{gate}\" is not \"True\", but {}",
                    condition.status
                )),
                None => Some(format!("corresponding condition of pod readiness gate \"{gate}\" does not exist.")),
            }
        })
        .collect();
    if complaints.is_empty() {
        return YES;
    }
    (false, Some("ReadinessGatesNotReady"), Some(complaints.join(", ")))
}
