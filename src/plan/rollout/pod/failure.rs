//! What is wrong with a Pod by itself, deadlines of the run aside. Pods that were evicted, preempted
//! or lost with their node are replaced and do not count.
use jiff::Timestamp;

use crate::{
    plan::rollout::time::after,
    snapshot::{ContainerState, Fetched, Pod, PodPhase},
};

/// How long an image may be unpullable, a ConfigMap or Secret missing, or a container's creation or start fail, before the
/// instance counts as failed: registries blink, container runtimes are restarted, and what is applied together need not arrive
/// in order. And how long a Pod that no batch waits for may
/// take to get ready.
pub(crate) const PATIENCE_SECONDS: i64 = 60;
/// Restarts since creation, or since a change in place, at which an instance counts as failed, even while it happens to run.
const RESTARTS_MAX: i32 = 3;

/// A Pod is, or at `at` will be, failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// One CamelCase word, Kubernetes' own where there is one.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// From when on it counts; None = at once.
    pub at: Option<Timestamp>,
}

impl Failure {
    /// The Pod is failed by now.
    pub fn counts(&self, now: Timestamp) -> bool {
        self.at.is_none_or(|at| at <= now)
    }
}

/// What is wrong with this Pod by itself (deadlines of the run aside).
pub fn failure_of(pod: &Pod) -> Option<Failure> {
    if pod.phase == PodPhase::Failed {
        let reason = pod.reason.clone().unwrap_or_else(|| "PodFailed".into());
        let message = pod.message.clone().unwrap_or_else(|| exit_of(pod).unwrap_or_else(|| "the Pod failed".into()));
        let failure = package_failure(pod).unwrap_or(Failure { reason, message, at: None });
        return (!ended_by_others(pod)).then_some(failure);
    }
    if !pod.is_live() {
        return None;
    }
    if let Some(failure) = package_failure(pod) {
        return Some(failure); // its container only says that it has ended
    }
    pod.containers.iter().find_map(|container| {
        let at_once = |reason: &str, message: String| Some(Failure { reason: reason.into(), message, at: None });
        // What went wrong before it was given another image says nothing of that. The kubelet tells of it for as long as the
        // other one is pulled; but what it says of an image names it.
        if pod.may_be_of_before(container) && !tells_of(&container.state, &container.given) {
            return None;
        }
        let named = |text: &str| format!("container {}: {text}", container.name);
        if let ContainerState::Waiting { reason, message } = &container.state {
            match reason.as_str() {
                "ErrImagePull"
                | "ImagePullBackOff"
                | "CreateContainerConfigError"
                | "CreateContainerError"
                | "RunContainerError" => {
                    // Containers are started one after the other, and again after each end.
                    let begun = if container.init { pod.started_at } else { pod.initialized_at.or(pod.started_at) };
                    let begun = begun.unwrap_or(pod.created).max(pod.containers_changed_at.unwrap_or(pod.created));
                    let at = Some(after(pod.swapped_at().map_or(begun, |at| at.max(begun)), PATIENCE_SECONDS));
                    return Some(Failure { reason: reason.clone(), message: named(message), at });
                }
                "InvalidImageName" => return at_once(reason, named(message)),
                "CrashLoopBackOff" => {
                    let exit = container.last_exit.as_ref().map(ToString::to_string);
                    return at_once(reason, named(exit.as_deref().unwrap_or(message)));
                }
                _ => {}
            }
        }
        // An init container that had to try more than once (until its database was there) and came through is fine.
        let came_through =
            container.init && matches!(&container.state, ContainerState::Terminated(exit) if exit.code == 0);
        let restarts = pod.restarts_of(container);
        if restarts >= RESTARTS_MAX && !came_through {
            let exit = container.last_exit.as_ref().map(|exit| format!(", last {exit}")).unwrap_or_default();
            return at_once("Restarting", named(&format!("{restarts} restarts{exit}")));
        }
        None
    })
}

/// What is wrong with this Pod's package. The agent has tried for a while before it says so.
fn package_failure(pod: &Pod) -> Option<Failure> {
    let (reason, message) = match pod.package.as_ref()? {
        Fetched::Unpacked { .. } => return None,
        Fetched::Rejected { message } => ("PackageRejected", message),
        Fetched::Unavailable { message } => ("PackageUnavailable", message),
    };
    Some(Failure { reason: reason.into(), message: message.clone(), at: None })
}

/// A container waits for this image.
fn tells_of(state: &ContainerState, image: &str) -> bool {
    const OF_IMAGES: [&str; 3] = ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"];
    let ContainerState::Waiting { reason, message } = state else { return false };
    OF_IMAGES.contains(&reason.as_str()) && message.contains(image)
}

/// From when on a Pod that no batch waits for counts as broken: deadlines are those of a batch, so one that has never
/// become ready has so many seconds, for any reason. One that blinks is left alone. None: it is not broken, as far as
/// one can see.
pub fn broken_at(pod: &Pod, patience_seconds: i64) -> Option<Timestamp> {
    let failure = failure_of(pod).map(|failure| failure.at.unwrap_or(pod.created));
    let never_ready = has_never_been_ready(pod).then(|| after(pod.given_at(), patience_seconds));
    failure.into_iter().chain(never_ready).min()
}

/// The Ready condition still says what it said when the node took the Pod, by the node's own clock; or no node has.
fn has_never_been_ready(pod: &Pod) -> bool {
    /// Between startTime and the first conditions, which are written one after the other in whole seconds.
    const FIRST_STATUS_SECONDS: i64 = 5;
    let since = pod.unready_since.zip(pod.started_at);
    pod.is_live()
        && !pod.is_ready()
        && since.is_none_or(|(since, started)| {
            // One that was changed in place left service for that: by the operator's clock, or by when the node started it anew.
            let anew = pod.swapped_at().map(|at| pod.first_started_at().map_or(at, |first| first.max(at)));
            since <= after(anew.map_or(started, |at| at.max(started)), FIRST_STATUS_SECONDS)
        })
}

fn exit_of(pod: &Pod) -> Option<String> {
    pod.containers.iter().find_map(|container| match &container.state {
        ContainerState::Terminated(exit) if exit.code != 0 => Some(format!("container {}: {exit}", container.name)),
        _ => None,
    })
}

/// Evicted, preempted, refused by its node, lost with it: not the revision's fault.
pub(crate) fn ended_by_others(pod: &Pod) -> bool {
    const REASONS: [&str; 9] = [
        "Evicted",
        "Preempting",
        "Terminated",
        "NodeShutdown",
        "NodeAffinity",
        "NodeLost",
        "UnexpectedAdmissionError",
        "Shutdown",
        "DeletionByTaintManager",
    ];
    pod.disruption.is_some()
        || pod.deletion.is_some()
        || pod.reason.as_deref().is_some_and(|reason| REASONS.contains(&reason) || reason.starts_with("OutOf"))
}
