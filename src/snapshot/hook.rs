//! Jobs of hooks and their Pods, as far as decisions need them.
use std::{collections::BTreeSet, str::FromStr};

use jiff::Timestamp;

use super::{
    exit::{Exit, on_one_line},
    owner::controller,
    views::{JobView, PodView},
};
use crate::api::{
    bounds::BACKUP_CHARS_MAX,
    hooks::Point,
    names::{
        ANNOTATION_HOOK_CONTAINER, ANNOTATION_HOOK_KEY, ANNOTATION_POINT, LABEL_ATTEMPT, LABEL_HOOK, LABEL_REVISION,
        LABEL_RUN,
    },
};

/// The Jobs of a Rollout's hooks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HookJobs {
    /// Jobs, or the Pods of hooks, have not been listed: it is not known which hooks have run.
    #[default]
    Unknown,
    /// All there are.
    Seen(SeenHooks),
}

/// All Jobs of a Rollout's hooks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenHooks {
    /// Jobs whose controller ownerRef is this very Rollout, sorted by (run, created, name).
    pub jobs: Vec<HookJob>,
    /// Pods of hooks that name this Rollout, also of Jobs that are gone, sorted by name.
    pub pods: Vec<HookPod>,
    /// Names of Jobs of which one of the two watches has not told as much as the other: one that has ended, whose Pod may have yet
    /// to be seen to end; and one that is not seen, while a Pod of it is.
    pub untold: BTreeSet<String>,
}

/// A Job of a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookJob {
    /// Object name.
    pub name: String,
    /// Object uid.
    pub uid: String,
    /// Object resourceVersion.
    pub resource_version: String,
    /// Name of the hook.
    pub hook: String,
    /// Its point; None if that cannot be read.
    pub point: Option<Point>,
    /// Number of the run.
    pub run: i64,
    /// Number of the attempt, from 1.
    pub attempt: i32,
    /// Name of the ControllerRevision that the run worked towards.
    pub revision: String,
    /// What all attempts of this hook at this point of this run share.
    pub key: String,
    /// creationTimestamp.
    pub created: Timestamp,
    /// Its deletion was requested.
    pub is_deleting: bool,
    /// How it ended; None: it has not, as far as the Job controller says.
    pub end: Option<JobEnd>,
}

/// How a Job ended: its condition Complete or Failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobEnd {
    /// Since when.
    pub at: Timestamp,
    /// None: it is Complete. Else the reason of the condition Failed.
    pub failure: Option<String>,
}

/// A Pod of a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookPod {
    /// Object name.
    pub name: String,
    /// Object resourceVersion.
    pub resource_version: String,
    /// Name of its Job.
    pub job: String,
    /// uid of its Job.
    pub job_uid: String,
    /// creationTimestamp.
    pub created: Timestamp,
    /// Its containers have ended for good.
    pub is_finished: bool,
    /// A container (also an init container) has been started.
    pub has_started: bool,
    /// Why it cannot start, in the kubelet's word and sentence: `ErrImagePull: …`.
    pub waiting: Option<String>,
    /// It was lost with its node, evicted or preempted: in Kubernetes' word.
    pub disruption: Option<String>,
    /// How the container failed that made the Pod fail, or else how the first container ended.
    pub exit: Option<Exit>,
    /// The first line of the main container's termination message, if it can be the id of a backup.
    pub backup: Option<String>,
}

impl SeenHooks {
    /// The Job of this name.
    pub fn job(&self, name: &str) -> Option<&HookJob> {
        self.jobs.iter().find(|job| job.name == name)
    }

    /// Pods of the Job of this name, newest last.
    pub fn pods_of<'s>(&'s self, job: &'s str) -> impl Iterator<Item = &'s HookPod> {
        self.pods.iter().filter(move |pod| pod.job == job)
    }
}

impl HookJobs {
    /// None where nothing is known.
    pub fn seen(&self) -> Option<&SeenHooks> {
        match self {
            Self::Unknown => None,
            Self::Seen(seen) => Some(seen),
        }
    }
}

/// A Job as a value. What cannot be read says of itself that it has not ended.
pub fn job(view: JobView) -> HookJob {
    let JobView { metadata, status, .. } = view;
    let label = |name: &str| metadata.labels.as_ref().and_then(|all| all.get(name)).cloned().unwrap_or_default();
    let annotation =
        |name: &str| metadata.annotations.as_ref().and_then(|all| all.get(name)).cloned().unwrap_or_default();
    let created = metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |at| at.0);
    let ended = |type_: &str| status.conditions.iter().find(|it| it.type_ == type_ && it.status == "True");
    // A Job that has failed is not complete, whatever else it says.
    let end = ended("Failed").map(|it| (it, true)).or_else(|| ended("Complete").map(|it| (it, false)));
    HookJob {
        hook: label(LABEL_HOOK),
        point: Point::from_str(&annotation(ANNOTATION_POINT)).ok(),
        run: label(LABEL_RUN).parse().unwrap_or(0),
        attempt: label(LABEL_ATTEMPT).parse().unwrap_or(0),
        revision: label(LABEL_REVISION),
        key: annotation(ANNOTATION_HOOK_KEY),
        created,
        is_deleting: metadata.deletion_timestamp.is_some(),
        end: end.map(|(condition, has_failed)| JobEnd {
            at: condition.last_transition_time.as_ref().map_or(created, |at| at.0),
            failure: has_failed.then(|| condition.reason.clone()),
        }),
        name: metadata.name.unwrap_or_default(),
        uid: metadata.uid.unwrap_or_default(),
        resource_version: metadata.resource_version.unwrap_or_default(),
    }
}

/// Words of a container that will not start by waiting a little.
const CANNOT_START: [&str; 6] = [
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
];

/// A Pod of a hook as a value. None: no Job controls it.
pub fn pod(view: PodView) -> Option<HookPod> {
    let PodView { metadata, status, .. } = view;
    let job = controller(&metadata).filter(|owner| owner.kind == "Job")?.clone();
    let all = || status.init_container_statuses.iter().chain(&status.container_statuses);
    let states = || all().filter_map(|container| container.state.as_ref());
    let has_started = all().any(|container| {
        let states = [&container.state, &container.last_state];
        states.into_iter().flatten().any(|state| state.running.is_some() || state.terminated.is_some())
    });
    let mut waiting = states().filter_map(|state| state.waiting.as_ref());
    let waiting = waiting.find(|it| it.reason.as_deref().is_some_and(|reason| CANNOT_START.contains(&reason)));
    let waiting = waiting.map(|it| {
        let message = it.message.as_deref().unwrap_or_default();
        format!("{}: {}", it.reason.as_deref().unwrap_or_default(), on_one_line(message))
    });
    let target = status.conditions.iter().find(|it| it.type_ == "DisruptionTarget" && it.status == "True");
    let disruption = target.and_then(|it| it.reason.clone()).or_else(|| {
        let reason = status.reason.as_deref().filter(|reason| ["Evicted", "NodeLost", "NodeShutdown"].contains(reason));
        reason.map(str::to_owned)
    });
    let ends = || states().filter_map(|state| state.terminated.as_ref());
    let exit = ends().find(|end| end.exit_code != 0).or_else(|| ends().next_back());
    // Statuses are sorted by name, and what others inject may stand first.
    let main = metadata.annotations.as_ref().and_then(|all| all.get(ANNOTATION_HOOK_CONTAINER));
    let main = status.container_statuses.iter().find(|container| Some(&container.name) == main);
    let said = main.and_then(|container| container.state.as_ref()?.terminated.as_ref());
    let line = said.and_then(|end| end.message.as_deref()?.lines().next()).map(str::trim).unwrap_or_default();
    let is_id = (1..=BACKUP_CHARS_MAX).contains(&line.len())
        && line.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:/@+-".contains(&byte));
    Some(HookPod {
        name: metadata.name.unwrap_or_default(),
        resource_version: metadata.resource_version.unwrap_or_default(),
        job: job.name,
        job_uid: job.uid,
        created: metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |at| at.0),
        is_finished: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
        has_started,
        waiting,
        disruption,
        exit: exit.cloned().map(Exit::of),
        backup: is_id.then(|| line.to_owned()),
    })
}
