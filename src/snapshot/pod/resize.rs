//! How far a Pod is with the resources that it was given in place.
use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::Pod;
use crate::snapshot::{
    in_place::{Amounts, GRACE_SECONDS, InPlace},
    resize::Resize,
};

/// What a node may take before it counts as unable.
const PATIENCE_SECONDS: i64 = 60;

impl InPlace {
    /// The same with other resources, of which some start these containers anew. What the Pod has yet to get from before it
    /// still has to.
    #[must_use]
    pub fn resized(mut self, pod: &Pod, resources: &BTreeMap<String, Amounts>, anew: &BTreeSet<String>) -> Self {
        let before = pod.in_place.as_ref().filter(|_| pod.resize.is_some());
        let due = before.into_iter().flat_map(|before| &before.resources).chain(resources);
        for (container, amounts) in due {
            let known = self.resources.entry(container.clone()).or_default();
            for (list, amounts) in amounts {
                known.entry(list.clone()).or_default().extend(amounts.clone());
            }
        }
        let still = before.into_iter().flat_map(|before| &before.containers).filter(|(_, before)| before.resized);
        for name in still.map(|(name, _)| name).chain(anew) {
            self.containers.entry(name.clone()).or_default().resized = true;
        }
        self
    }
}

impl Pod {
    /// Reason and message of a Pod that has yet to get its resources: its kubelet's, where that says some.
    pub fn resizing(&self) -> Option<(String, String)> {
        match self.resize.as_ref()? {
            Resize::Awaited { reason, message, .. } if !reason.is_empty() => {
                Some((format!("Resize{reason}"), message.clone()))
            }
            _ => Some(("Resizing".into(), "it has yet to get its resources".into())),
        }
    }

    /// From when on its node counts as unable to give it its resources.
    pub fn resize_fails_at(&self) -> Option<Timestamp> {
        let in_place = self.in_place.as_ref()?;
        let since = match self.resize.as_ref()? {
            Resize::Done => return None,
            // Refused, or taken back by others, again and again: no longer than a refusal is remembered.
            Resize::Due => in_place.at,
            // A condition of before that does not say of which specification it is may be about an earlier one.
            Resize::Awaited { reason, since, .. }
                if reason == "Infeasible" && since.is_none_or(|since| since.as_second() >= in_place.at.as_second()) =>
            {
                return Some(in_place.at);
            }
            // Its kubelet has yet to look at it: that says nothing of resources.
            Resize::Awaited { since: None, .. } if !self.is_observed => return None,
            // By the node's clock, which may be behind.
            Resize::Awaited { since, .. } => since.unwrap_or(in_place.at).max(in_place.at),
        };
        let grace = if in_place.is_resized_anew() { self.grace_seconds.unwrap_or(GRACE_SECONDS) } else { 0 };
        since.saturating_add(SignedDuration::from_secs(grace.saturating_add(PATIENCE_SECONDS))).ok()
    }
}
