//! A change in place: what a Pod remembers of its containers as they were before, and from when on each is known to run what
//! it was given.
use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Container, ContainerState, Pod};

/// Grace period of a Pod that does not say one.
const GRACE_SECONDS: i64 = 30;
/// For how long after its start, and the time in which a container of the old image would have been ended, a container is
/// not believed to run what it was given if the runtime calls its image by another name.
const ALIAS_SECONDS: i64 = 10;

/// What the annotation [`crate::api::names::ANNOTATION_IN_PLACE`] says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InPlace {
    /// When the Pod was patched, by the operator's clock.
    pub at: Timestamp,
    /// By name: containers that had restarted before, and those that were given another image.
    #[serde(default)]
    pub containers: BTreeMap<String, Before>,
}

/// A container as it was before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// restartCount.
    #[serde(default)]
    pub restarts: i32,
    /// What ran, where it was given another image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran: Option<Ran>,
    /// Image that the Pod's spec gives it now. Not stored: the spec says it.
    #[serde(skip)]
    pub wanted: String,
}

/// What ran in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    /// containerID; empty where nothing ran.
    pub id: String,
    /// Its image.
    pub image: String,
}

/// A container that was given another image and is not known to run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transit<'a> {
    /// Its name.
    pub container: &'a str,
    /// The image.
    pub wanted: &'a str,
    /// When it is believed to run it all the same; None: an event will tell.
    pub until: Option<Timestamp>,
}

impl InPlace {
    /// Some container was given another image.
    pub fn restarts(&self) -> bool {
        self.containers.values().any(|before| before.ran.is_some())
    }
}

impl Pod {
    /// When one of its containers was last given another image.
    pub fn swapped_at(&self) -> Option<Timestamp> {
        self.in_place.as_ref().filter(|in_place| in_place.restarts()).map(|in_place| in_place.at)
    }

    /// The first container that is not known to run what it was given.
    ///
    /// A proof is a status of this very spec (observedGeneration) with a *new* container that reports the wanted image.
    /// Neither suffices alone: the old image's container may crash and be restarted before the kubelet has seen the
    /// spec, and a status of the new spec is written before the old container is ended. A runtime may know an image under
    /// several names and report another one: then a new container has to outlive the time in which one of the old image
    /// would have been ended. Where the image was taken back before the kubelet had seen the other, the old container is
    /// the right one.
    pub fn in_transit(&self, now: Timestamp) -> Option<Transit<'_>> {
        self.in_place.as_ref()?.containers.iter().find_map(|(name, before)| self.transit_of(name, before, now))
    }

    fn transit_of<'a>(&'a self, name: &'a str, before: &'a Before, now: Timestamp) -> Option<Transit<'a>> {
        let until = self.unproven(name, before)?;
        until.is_none_or(|until| until > now).then_some(Transit { container: name, wanted: &before.wanted, until })
    }

    /// No status proves that this container runs what it was given; with the time from which on that is believed.
    fn unproven(&self, name: &str, before: &Before) -> Option<Option<Timestamp>> {
        let ran = before.ran.as_ref()?;
        let found = self.containers.iter().find(|container| container.name == name && !container.id.is_empty());
        let Some(container) = found.filter(|_| self.is_observed) else { return Some(None) };
        if container.id == ran.id {
            let is_taken_back = is_same_image(&ran.image, &before.wanted);
            return (!is_taken_back && !mutant!(OldContainerBelieved)).then_some(None);
        }
        if is_same_image(&container.image, &before.wanted) {
            return None;
        }
        let patience = self.grace_seconds.unwrap_or(GRACE_SECONDS).saturating_add(ALIAS_SECONDS);
        let since = container.started_at.filter(|_| container.state == ContainerState::Running);
        Some(since.and_then(|at| at.saturating_add(SignedDuration::from_secs(patience)).ok()))
    }

    /// How often this container has been restarted since the Pod was made, or changed in place; that change's own restart
    /// does not count.
    pub fn restarts_of(&self, container: &Container) -> i32 {
        let Some(before) = self.before(container) else { return container.restarts };
        let own = i32::from(before.ran.is_some());
        container.restarts.saturating_sub(before.restarts).saturating_sub(own).max(0)
    }

    /// What is told of this container may be about what it ran before.
    pub fn may_be_of_before(&self, container: &Container) -> bool {
        self.before(container).is_some_and(|before| self.unproven(&container.name, before).is_some())
    }

    fn before(&self, container: &Container) -> Option<&Before> {
        self.in_place.as_ref()?.containers.get(&container.name)
    }

    /// What it has to remember when its containers are given these images now: by name of the container.
    pub fn remember(&self, images: &BTreeMap<String, String>, now: Timestamp) -> InPlace {
        let mut containers = BTreeMap::new();
        for container in &self.containers {
            let pending =
                self.before(container).filter(|before| self.transit_of(&container.name, before, now).is_some());
            let pending = pending.and_then(|before| before.ran.clone());
            let ran = match (images.contains_key(&container.name), pending) {
                (false, pending) => pending,
                // Nothing has become of the change before: it is the image from before that which runs.
                (true, Some(ran)) if ran.id == container.id => Some(ran),
                (true, _) => Some(Ran { id: container.id.clone(), image: container.image.clone() }),
            };
            if ran.is_some() || container.restarts > 0 {
                let before = Before { restarts: container.restarts, ran, wanted: String::new() };
                containers.insert(container.name.clone(), before);
            }
        }
        // No status tells of these yet: whatever comes is new.
        for name in images.keys().filter(|name| !self.containers.iter().any(|container| container.name == **name)) {
            containers.insert(name.clone(), Before { ran: Some(Ran::default()), ..Before::default() });
        }
        InPlace { at: now, containers }
    }
}

/// The same image, by the names that it is given: short names are Docker Hub's, and `latest` is the tag of one without.
fn is_same_image(a: &str, b: &str) -> bool {
    a == b || in_full(a) == in_full(b)
}

/// `nginx` → `docker.io/library/nginx:latest`.
fn in_full(image: &str) -> String {
    let is_host = |first: &str| first.contains(['.', ':']) || first == "localhost";
    let named = match image.split_once('/') {
        Some((first, _)) if is_host(first) => image.to_owned(),
        Some(_) => format!("docker.io/{image}"),
        None => format!("docker.io/library/{image}"),
    };
    let last = named.rsplit('/').next().unwrap_or_default();
    if last.contains([':', '@']) { named } else { format!("{named}:latest") }
}
