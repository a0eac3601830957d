//! What a Pod worker knows of its containers, as values: no process handles, no I/O.
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as ContainerSpec, Pod, PodSpec, ResourceRequirements};
use serde::{Deserialize, Serialize};

use super::{backoff::BackOff, resize};

/// The reason of a container whose image could not be pulled just now.
pub const PULL_ERROR: &str = "ErrImagePull";

/// The part a container plays in its Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Runs to completion before the next one.
    Init,
    /// An init container with `restartPolicy: Always`: keeps running beside the main ones.
    Sidecar,
    Main,
}

/// One start of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// 0 for the first start; the restart count once this one exists.
    pub number: u32,
    /// `process://` and 64 hexadecimal digits, new with every start.
    pub id: String,
    /// As the Pod names it.
    pub image: String,
    /// With the digest of the image's folder.
    pub image_id: String,
    /// The epoch if the process could never be started.
    pub started_at: Timestamp,
    pub end: Option<End>,
}

/// How a container's process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// 128 + the signal's number when a signal ended it.
    pub exit_code: i32,
    pub signal: Option<i32>,
    /// `Completed`, `Error`, `StartError`, `ContainerStatusUnknown`.
    pub reason: String,
    pub message: Option<String>,
    pub finished_at: Timestamp,
}

/// Why a container does not run yet, or not again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub reason: &'static str,
    pub message: String,
}

/// What probes and hooks say of a container's process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// The postStart hook has not ended yet.
    pub hook_runs: bool,
    /// The startup probe has succeeded, or there is none.
    pub started: bool,
    /// The readiness probe succeeds, or there is none.
    pub ready: bool,
}

/// A container of a Pod and what has become of it.
#[derive(Clone, Debug)]
pub struct Container {
    pub name: String,
    pub kind: Kind,
    /// The image that the Pod gives it now.
    pub image: String,
    /// What the node has set aside for it.
    pub allocated: ResourceRequirements,
    /// What it runs with.
    pub resources: ResourceRequirements,
    /// It is to be started anew, to run with what is set aside.
    pub anew: bool,
    /// The newest start.
    pub attempt: Option<Attempt>,
    /// The one before it.
    pub previous: Option<Attempt>,
    /// A start is under way.
    pub starting: bool,
    /// Its end is under way.
    pub stopping: bool,
    pub waiting: Option<Waiting>,
    /// The next start is not tried before, as the last one failed.
    pub not_before: Option<Timestamp>,
    /// Until then a failed pull is told as such, and afterwards as the wait for the next one.
    pub pull_error_until: Option<Timestamp>,
    pub health: Health,
    pub crashes: BackOff,
    pub pulls: BackOff,
}

impl Container {
    pub fn new(spec: &ContainerSpec, kind: Kind) -> Self {
        Self {
            name: spec.name.clone(),
            kind,
            image: spec.image.clone().unwrap_or_default(),
            allocated: spec.resources.clone().unwrap_or_default(),
            resources: spec.resources.clone().unwrap_or_default(),
            anew: false,
            attempt: None,
            previous: None,
            starting: false,
            stopping: false,
            waiting: None,
            not_before: None,
            pull_error_until: None,
            health: Health::default(),
            crashes: BackOff::default(),
            pulls: BackOff::default(),
        }
    }

    /// The Pod gives it an image: what went wrong with another one is forgotten.
    pub fn give(&mut self, image: &str) {
        if self.image == image {
            return;
        }
        image.clone_into(&mut self.image);
        (self.waiting, self.not_before, self.pull_error_until) = (None, None, None);
        (self.crashes, self.pulls) = (BackOff::default(), BackOff::default());
    }

    /// The node sets aside for it what the Pod gives it now. What runs gets that at once, unless its policy is another one.
    pub fn allocate(&mut self, spec: &ContainerSpec) {
        let wanted = spec.resources.clone().unwrap_or_default();
        if self.allocated == wanted || self.kind == Kind::Init {
            return;
        }
        self.anew |= self.running() && resize::starts_anew(spec, &self.allocated, &wanted);
        self.allocated = wanted;
        if self.running() && !self.anew {
            self.resources.clone_from(&self.allocated);
        }
    }

    /// It is not what the Pod has given it by now.
    pub fn awaits_resources(&self, spec: &ContainerSpec) -> bool {
        self.kind != Kind::Init && spec.resources.clone().unwrap_or_default() != self.allocated
    }

    /// It runs, or has run, another image than the Pod gives it now, or is to start anew with other resources. Init containers
    /// have done their work with theirs.
    pub fn is_outdated(&self) -> bool {
        let is_of_before = |attempt: &Attempt| self.anew || attempt.image != self.image;
        self.kind != Kind::Init && self.attempt.as_ref().is_some_and(is_of_before)
    }

    pub fn end(&self) -> Option<&End> {
        self.attempt.as_ref()?.end.as_ref()
    }

    /// Its process exists.
    pub fn running(&self) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| attempt.end.is_none())
    }

    /// A process exists or is about to.
    pub fn active(&self) -> bool {
        self.starting || self.running()
    }

    pub fn started(&self) -> bool {
        self.running() && self.health.started && !self.health.hook_runs
    }

    pub fn ready(&self) -> bool {
        self.started() && self.health.ready
    }

    pub fn succeeded(&self) -> bool {
        self.end().is_some_and(|end| end.exit_code == 0)
    }

    pub fn restarts(&self) -> u32 {
        self.attempt.as_ref().map_or(0, |attempt| attempt.number)
    }
}

/// All containers of a Pod in the order of their specification, init containers first.
pub fn containers(pod: &Pod) -> Vec<Container> {
    specs(pod).map(|(spec, kind)| Container::new(spec, kind)).collect()
}

/// The specifications of all containers and their kinds, init containers first.
pub fn specs(pod: &Pod) -> impl Iterator<Item = (&ContainerSpec, Kind)> {
    let init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten()).map(|spec| {
        let sidecar = spec.restart_policy.as_deref() == Some("Always");
        (spec, if sidecar { Kind::Sidecar } else { Kind::Init })
    });
    init.chain(pod.spec.iter().flat_map(|spec| &spec.containers).map(|spec| (spec, Kind::Main)))
}

/// When ended containers are started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    pub fn of(spec: &PodSpec) -> Self {
        match spec.restart_policy.as_deref() {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }

    /// Whether a container of this kind is started again after such an end.
    pub fn restarts(self, kind: Kind, exit_code: i32) -> bool {
        match (self, kind) {
            (_, Kind::Sidecar) | (Self::Always, Kind::Main) => true,
            (Self::Never, _) => false,
            // An init container that succeeded has done its work under every policy.
            (Self::OnFailure, _) | (Self::Always, Kind::Init) => exit_code != 0,
        }
    }
}

/// `namespace/name`, for logs.
pub fn full_name(pod: &Pod) -> String {
    format!("{}/{}", namespace(pod), name(pod))
}

pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// The host name that its containers see.
pub fn hostname(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.hostname.as_deref()).unwrap_or(name(pod))
}

pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// Containers for tests, one word each: `i` init, `s` sidecar, `m` main; then `-` never started,
/// `r` running, `R` running, started and ready, `0` or another number ended with that code at second 100.
#[cfg(test)]
pub fn sketch(text: &str) -> Vec<Container> {
    let container = |(position, word): (usize, &str)| {
        let (kind, state) = word.split_at(1);
        let kind = match kind {
            "i" => Kind::Init,
            "s" => Kind::Sidecar,
            _ => Kind::Main,
        };
        let end = state.parse().ok().map(|exit_code| End {
            exit_code,
            signal: None,
            reason: if exit_code == 0 { "Completed" } else { "Error" }.into(),
            message: None,
            finished_at: Timestamp::from_second(100).unwrap(),
        });
        let spec = ContainerSpec {
            name: format!("c{position}"),
            image: Some("example.local/sh:1.0".into()),
            ..ContainerSpec::default()
        };
        let mut container = Container::new(&spec, kind);
        container.health = Health { hook_runs: false, started: state == "R", ready: state == "R" };
        container.attempt = (state != "-").then(|| Attempt {
            number: 0,
            id: format!("process://{position}"),
            image: "example.local/sh:1.0".into(),
            image_id: "example.local/sh@sha256:0".into(),
            started_at: Timestamp::from_second(50).unwrap(),
            end,
        });
        container
    };
    text.split_whitespace().enumerate().map(container).collect()
}
