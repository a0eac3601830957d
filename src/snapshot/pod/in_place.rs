//! What a Pod is known to run, where it was changed in place.
use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::{Container, ContainerState, Pod};
use crate::snapshot::in_place::{Before, GRACE_SECONDS, InPlace, Ran};

/// See [`Pod::in_transit`]: added to the time in which a container of the old image would have been ended.
const RETAG_SECONDS: i64 = 10;

/// A container that is started anew by a change, and is not known to run what it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transit<'a> {
    /// Its name.
    pub container: &'a str,
    /// When it is believed to run it all the same; None: an event will tell.
    pub until: Option<Timestamp>,
}

impl Pod {
    /// When one of its containers was last given something that starts it anew.
    pub fn swapped_at(&self) -> Option<Timestamp> {
        self.in_place.as_ref().filter(|in_place| in_place.restarts()).map(|in_place| in_place.at)
    }

    /// When it was last given another image, or something to reload.
    pub(super) fn changed_at(&self) -> Option<Timestamp> {
        let is_it = |in_place: &&InPlace| in_place.restarts() || in_place.reload.is_some();
        self.in_place.as_ref().filter(is_it).map(|in_place| in_place.at)
    }

    /// When what it runs was last given to it: as it was made, or in place.
    pub fn given_at(&self) -> Timestamp {
        let resized_at = self.in_place.as_ref().filter(|_| self.resize.is_some()).map(|in_place| in_place.at);
        self.changed_at().or(resized_at).map_or(self.created, |at| at.max(self.created))
    }

    /// Since when its application has to be told that it was changed; None: it need not be.
    pub fn untold_since(&self) -> Option<Timestamp> {
        let in_place = self.in_place.as_ref()?;
        in_place.reload.as_ref().filter(|reload| reload.told_at.is_none()).map(|_| in_place.at)
    }

    /// When its application had reloaded what it was given last.
    pub fn told_at(&self) -> Option<Timestamp> {
        self.in_place.as_ref()?.reload.as_ref()?.told_at
    }

    /// The first container that is not known to run what it was given. One of a Pod in service is: its gate was opened for that.
    ///
    /// A proof is a status of this very spec (observedGeneration) with a *new* container that is of the wanted image, by its
    /// name or digest, or at least of another one than before. None of these suffices alone: the old image's container may
    /// crash and be restarted before the kubelet has seen the spec, and a status of the new spec is written before the old
    /// container is ended. Where the image before was the same one under another name, of two names the runtime may report
    /// either: then a new container has to outlive the time in which one from before would have been ended, since it was started
    /// and since the change: the node's clock may be behind. Where the image was taken back before the kubelet had seen the other, the old container is the right one.
    pub fn in_transit(&self, now: Timestamp) -> Option<Transit<'_>> {
        let in_place = self.in_place.as_ref().filter(|_| self.in_service != Some(true))?;
        in_place.containers.iter().find_map(|(name, before)| self.transit_of(name, before, now))
    }

    fn transit_of<'a>(&self, name: &'a str, before: &Before, now: Timestamp) -> Option<Transit<'a>> {
        self.unproven(name, before).filter(|transit| transit.until.is_none_or(|until| until > now))
    }

    /// No status proves that this container runs what it was given; with the time from which on that is believed.
    fn unproven<'a>(&self, name: &'a str, before: &Before) -> Option<Transit<'a>> {
        let transit = |until| Some(Transit { container: name, until });
        if before.resized && self.resize.is_some() {
            return transit(None);
        }
        let ran = before.ran.as_ref()?;
        let found = self.containers.iter().find(|container| container.name == name && !container.id.is_empty());
        let Some(container) = found.filter(|_| self.is_observed) else { return transit(None) };
        if container.id == ran.id {
            let is_taken_back = ran.image == container.given;
            return if is_taken_back { None } else { transit(None) };
        }
        let is_other_than_before = match &ran.image_id {
            Some(before) => !container.image_id.is_empty() && container.image_id != *before,
            None => false,
        };
        if is_other_than_before
            || is_same_image(&container.image, &container.given)
            || digest(&container.given).is_some_and(|wanted| container.digest() == Some(wanted))
        {
            return None;
        }
        let patience = self.grace_seconds.unwrap_or(GRACE_SECONDS).saturating_add(RETAG_SECONDS);
        let changed_at = self.in_place.as_ref()?.at;
        let started_at = container.started_at.filter(|_| container.state == ContainerState::Running);
        let since = started_at.map(|at| at.max(changed_at));
        transit(since.and_then(|at| at.saturating_add(SignedDuration::from_secs(patience)).ok()))
    }

    /// How often its containers have been restarted since it was made.
    pub fn restarts(&self) -> i32 {
        self.containers.iter().map(|container| container.restarts.max(0)).sum()
    }

    /// How often this container has been restarted since the Pod was made, or changed in place; that change's own restart
    /// does not count.
    pub fn restarts_of(&self, container: &Container) -> i32 {
        let Some(before) = self.before(container) else { return container.restarts };
        let own = i32::from(before.ran.is_some()) + i32::from(before.resized);
        container.restarts.saturating_sub(before.restarts).saturating_sub(own).max(0)
    }

    /// When the last of its containers was started, as far as none has been restarted by itself since; by the node's clock.
    pub fn first_started_at(&self) -> Option<Timestamp> {
        let is_first = |container: &&Container| !container.init && self.restarts_of(container) == 0;
        self.containers.iter().filter(is_first).filter_map(|container| container.started_at).max()
    }

    /// What is told of this container may be about what it ran before.
    pub fn may_be_of_before(&self, container: &Container) -> bool {
        let before = self.before(container).filter(|_| self.in_service != Some(true));
        before.is_some_and(|before| self.unproven(&container.name, before).is_some())
    }

    fn before(&self, container: &Container) -> Option<&Before> {
        self.in_place.as_ref()?.containers.get(&container.name)
    }

    /// What it has to remember when these containers are given other images now.
    pub fn remember(&self, changed: &BTreeSet<&str>, now: Timestamp) -> InPlace {
        let mut containers = BTreeMap::new();
        for container in &self.containers {
            let is_changed = changed.contains(container.name.as_str());
            let before = self.before(container).filter(|_| self.in_service != Some(true));
            let pending = before.filter(|before| self.transit_of(&container.name, before, now).is_some());
            let ran = match (is_changed, pending.and_then(|before| before.ran.clone())) {
                (false, pending) => pending,
                // Nothing has become of the change before: it is the image from before that which runs, and what comes next
                // may be either.
                (true, Some(ran)) if ran.id == container.id => Some(Ran { image_id: None, ..ran }),
                (true, Some(_)) => {
                    Some(Ran { id: container.id.clone(), image: container.image.clone(), image_id: None })
                }
                (true, None) => Some(Ran {
                    id: container.id.clone(),
                    image: container.given.clone(),
                    image_id: Some(container.image_id.clone()).filter(|id| !id.is_empty()),
                }),
            };
            if ran.is_some() || container.restarts > 0 {
                containers.insert(container.name.clone(), Before { restarts: container.restarts, ran, resized: false });
            }
        }
        // No status tells of these yet: the next one is new.
        for name in changed.iter().filter(|name| !self.containers.iter().any(|container| container.name == **name)) {
            containers.insert((*name).to_owned(), Before { ran: Some(Ran::default()), ..Before::default() });
        }
        InPlace { at: now, containers, resources: BTreeMap::new(), reload: None }
    }
}

/// `…@sha256:0123` → `sha256:0123`.
fn digest(image: &str) -> Option<&str> {
    image.split_once('@').map(|(_, digest)| digest)
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
