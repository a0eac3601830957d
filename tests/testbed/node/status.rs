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
    resize,
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
    /// The status that was told last.
    pub told: &'a PodStatus,
    pub now: Timestamp,
}

/// Computes the status. Conditions of others, such as readiness gates, are not in it.
pub fn pod_status(situation: &Situation<'_>) -> PodStatus {
    let spec = situation.pod.spec.clone().unwrap_or_default();
    let policy = RestartPolicy::of(&spec);
    let progress = progress(policy, situation.containers);
    let verdict = phase(situation, progress);
    let phase = phase_to_tell(situation, verdict);
    let failure = situation.failure.filter(|_| phase == "Failed");
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
        conditions: Some(conditions(situation, &spec, progress, verdict)),
        container_statuses: Some(of(false)),
        init_container_statuses: Some(of(true)).filter(|statuses| !statuses.is_empty()),
        pod_ips: address.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip: address,
        host_ip: Some(situation.host_ip.to_string()),
        host_ips: Some(vec![HostIP { ip: situation.host_ip.to_string() }]),
        start_time: Some(Time(situation.start_time)),
        observed_generation: situation.pod.metadata.generation,
        reason: failure.map(|(reason, _)| reason.to_owned()),
        message: failure.map(|(_, message)| message.to_owned()),
        ..PodStatus::default()
    }
}

/// Others take a Pod whose phase is Succeeded or Failed for one that uses nothing any more: so neither is told before
/// the last process has ended, and it is never taken back. Conditions say at once what will be.
fn phase_to_tell<'a>(situation: &Situation<'a>, verdict: &'a str) -> &'a str {
    let ended = |phase: &str| matches!(phase, "Succeeded" | "Failed");
    let told = situation.told.phase.as_deref().unwrap_or("Pending");
    let busy = situation.containers.iter().any(Container::active);
    if ended(told) || (ended(verdict) && busy) { told } else { verdict }
}

/// The phase that the containers' states amount to.
fn phase(situation: &Situation<'_>, progress: Progress) -> &'static str {
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
    if progress != Progress::Finished && !situation.ended {
        return "Running"; // one is about to be restarted
    }
    if mains().all(Container::succeeded) { "Succeeded" } else { "Failed" }
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
        resources: Some(if container.running() { &container.resources } else { &container.allocated }.clone()),
        allocated_resources: container.allocated.requests.clone(),
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
    let always = [
        ("PodReadyToStartContainers", surroundings),
        ("Initialized", initialized(situation, progress, phase)),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", YES),
    ];
    always.into_iter().chain(resizing(situation)).map(|(kind, verdict)| condition(situation, kind, verdict)).collect()
}

/// While a Pod has not got the resources that its specification says.
fn resizing(situation: &Situation<'_>) -> Option<(&'static str, Verdict)> {
    let mut known = situation.containers.iter().zip(specs(situation.pod));
    if known.any(|(container, (spec, _))| container.awaits_resources(spec)) {
        let (reason, message) = resize::refusal(situation.pod)?;
        return Some(("PodResizePending", (true, Some(reason), Some(message))));
    }
    let is_in_progress = situation.containers.iter().any(|container| container.anew && container.running());
    is_in_progress.then_some(("PodResizeInProgress", YES))
}

fn condition(situation: &Situation<'_>, kind: &str, (holds, reason, message): Verdict) -> PodCondition {
    let status = if holds { "True" } else { "False" };
    let mut told = situation.told.conditions.iter().flatten();
    let same = told.find(|condition| condition.type_ == kind && condition.status == status);
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

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::node::model::{Waiting, sketch};

    /// A Pod with containers as in [`sketch`] and the given fields of its specification.
    fn pod(containers: &[Container], fields: serde_json::Value) -> Pod {
        let mut spec = serde_json::json!({ "containers": [], "initContainers": [] });
        let serde_json::Value::Object(fields) = fields else { panic!("fields of a specification are an object") };
        spec.as_object_mut().unwrap().extend(fields);
        for container in containers {
            let list = if container.kind == Kind::Main { "containers" } else { "initContainers" };
            let policy = (container.kind == Kind::Sidecar).then_some("Always");
            spec[list].as_array_mut().unwrap().push(serde_json::json!({
                "name": container.name, "image": "example.local/sh:1.0", "restartPolicy": policy,
            }));
        }
        serde_json::from_value(serde_json::json!({ "metadata": { "generation": 3 }, "spec": spec })).unwrap()
    }

    fn situation<'a>(pod: &'a Pod, containers: &'a [Container]) -> Situation<'a> {
        static NOTHING: LazyLock<PodStatus> = LazyLock::new(PodStatus::default);
        Situation {
            pod,
            containers,
            pod_ip: Some([10, 244, 1, 2].into()),
            host_ip: [10, 244, 1, 1].into(),
            start_time: Timestamp::UNIX_EPOCH,
            ended: false,
            failure: None,
            told: &NOTHING,
            now: Timestamp::from_second(200).unwrap(),
        }
    }

    fn status_of(pod: &Pod, containers: &[Container], ended: bool) -> PodStatus {
        pod_status(&Situation { ended, ..situation(pod, containers) })
    }

    /// `phase Initialized Ready ContainersReady` with `+` for True and reasons for False.
    fn told(policy: &str, containers: &str, ended: bool) -> String {
        let containers = sketch(containers);
        let status = status_of(&pod(&containers, serde_json::json!({ "restartPolicy": policy })), &containers, ended);
        let conditions = status.conditions.unwrap();
        let condition = |kind: &str| {
            let condition = conditions.iter().find(|condition| condition.type_ == kind).unwrap();
            if condition.status == "True" { "+".into() } else { condition.reason.clone().unwrap_or("-".into()) }
        };
        let verdicts = ["Initialized", "Ready", "ContainersReady"].map(condition);
        format!("{} {}", status.phase.unwrap(), verdicts.join(" "))
    }

    #[test]
    fn phase_and_conditions_follow_the_containers() {
        let not_ready = "ContainersNotReady ContainersNotReady";
        let cases = [
            ("Always", "m-", false, format!("Pending + {not_ready}")),
            ("Always", "mr", false, format!("Running + {not_ready}")),
            ("Always", "mR", false, "Running + + +".into()),
            ("Always", "mR m-", false, format!("Pending + {not_ready}")),
            ("Always", "mR m1", false, format!("Running + {not_ready}")),
            ("Always", "m0", false, format!("Running + {not_ready}")),
            ("OnFailure", "m1", false, format!("Running + {not_ready}")),
            ("OnFailure", "m0 m0", false, "Succeeded + PodCompleted PodCompleted".into()),
            ("Never", "m0 m1", false, "Failed + PodFailed PodFailed".into()),
            ("Never", "m0 mR", false, format!("Running + {not_ready}")),
            ("Always", "ir m-", false, format!("Pending ContainersNotInitialized {not_ready}")),
            ("Always", "i1 m-", false, format!("Pending ContainersNotInitialized {not_ready}")),
            ("Never", "i1 m-", false, "Failed ContainersNotInitialized PodFailed PodFailed".into()),
            ("Always", "i0 mR", false, "Running + + +".into()),
            ("Always", "sr m-", false, format!("Pending ContainersNotInitialized {not_ready}")),
            ("Always", "sR mR", false, "Running + + +".into()),
            ("Always", "sr mR", false, format!("Running + {not_ready}")),
            ("Never", "s143 m0", false, "Succeeded + PodCompleted PodCompleted".into()),
            // What will be is told as a phase only when nothing runs any more.
            ("Never", "sR m0", false, "Pending + PodCompleted PodCompleted".into()),
            ("Never", "sR m1", false, "Pending + PodFailed PodFailed".into()),
            ("Never", "sR i1 m-", false, "Pending ContainersNotInitialized PodFailed PodFailed".into()),
            // Deleted Pods, of which nothing is left.
            ("Always", "m0", true, "Succeeded + PodCompleted PodCompleted".into()),
            ("Always", "m143", true, "Failed + PodFailed PodFailed".into()),
            ("Always", "m-", true, "Failed + PodFailed PodFailed".into()),
            ("Always", "i- m-", true, "Failed ContainersNotInitialized PodFailed PodFailed".into()),
        ];
        for (policy, containers, ended, expected) in cases {
            assert_eq!(told(policy, containers, ended), expected, "{policy} {containers} ended: {ended}");
        }
    }

    #[test]
    fn a_failure_is_told_when_the_last_process_has_ended_and_then_stays() {
        let told = |phase: &str, containers: &str| {
            let containers = sketch(containers);
            let pod = pod(&containers, serde_json::json!({}));
            let told = PodStatus { phase: Some(phase.into()), ..PodStatus::default() };
            let failure = Some(("DeadlineExceeded", "too long"));
            let status = pod_status(&Situation { told: &told, failure, ..situation(&pod, &containers) });
            (status.phase.unwrap(), status.reason)
        };
        let failed = ("Failed".to_owned(), Some("DeadlineExceeded".to_owned()));
        assert_eq!(told("Running", "mR m0"), ("Running".into(), None));
        assert_eq!(told("Running", "m143 m0"), failed);
        assert_eq!(told("Failed", "mR m0"), failed, "a phase that has been told is not taken back");
    }

    #[test]
    fn a_container_that_waits_for_its_restart_shows_its_end_as_last_state() {
        let mut containers = sketch("m1");
        let waiting = Waiting { reason: "CrashLoopBackOff", message: "back-off 10s".into() };
        containers[0].waiting = Some(waiting);
        let status = status_of(&pod(&containers, serde_json::json!({})), &containers, false);
        let main = &status.container_statuses.unwrap()[0];
        assert_eq!(main.state.as_ref().unwrap().waiting.as_ref().unwrap().reason.as_deref(), Some("CrashLoopBackOff"));
        assert_eq!(main.last_state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 1);
        assert_eq!(main.container_id.as_deref(), Some("process://0"));
    }

    #[test]
    fn a_condition_keeps_the_time_of_its_last_change() {
        let containers = sketch("mR");
        let pod = pod(&containers, serde_json::json!({ "readinessGates": [{ "conditionType": "x/y" }] }));
        let told = |kind: &str, status: &str| PodCondition {
            type_: kind.into(),
            status: status.into(),
            last_transition_time: Some(Time(Timestamp::from_second(7).unwrap())),
            ..PodCondition::default()
        };
        let told = vec![told("ContainersReady", "True"), told("Ready", "True")];
        let told = PodStatus { conditions: Some(told), ..PodStatus::default() };
        let situation = Situation { told: &told, ..situation(&pod, &containers) };
        let conditions = pod_status(&situation).conditions.unwrap();
        let second = |kind: &str| {
            let condition = conditions.iter().find(|condition| condition.type_ == kind).unwrap();
            condition.last_transition_time.as_ref().unwrap().0.as_second()
        };
        assert_eq!((second("ContainersReady"), second("Ready")), (7, 200), "the gate has closed");
    }
}
