//! B7, R13: a status blames an instance, and calls a version stable, only for what has been seen.
use std::collections::BTreeSet;

use baton::{
    api::Rollout,
    snapshot::{Pod, Ranges},
};

use super::bounds::runs_what_it_was_given;

/// What instances of one Rollout were given, and which revisions worked, over all its life.
#[derive(Default)]
pub struct Proofs {
    /// Slots, with each revision that a Pod of theirs has had.
    given: BTreeSet<(i32, String)>,
    /// Revisions of which a Pod was Ready.
    works: BTreeSet<String>,
}

impl Proofs {
    /// Revisions of an earlier Rollout of the name are adopted with their marks: what completed, and why what failed.
    pub fn inherit(&mut self, earlier: &Self) {
        self.given.extend(earlier.given.iter().cloned());
        self.works.extend(earlier.works.iter().cloned());
    }

    /// A Pod was written.
    pub fn note(&mut self, pod: &Pod) {
        self.given.insert((pod.slot, pod.revision.clone()));
        if pod.is_ready() && runs_what_it_was_given(pod) {
            self.works.insert(pod.revision.clone());
        }
    }

    /// B7: an instance that was never given a version is not blamed for it, neither by number nor by name.
    pub fn blame(&self, rollout: &Rollout) -> Result<(), String> {
        let Some(failed) = rollout.status.as_ref().and_then(|status| status.failed.as_ref()) else { return Ok(()) };
        let mut blamed = Ranges::parse(&failed.slots).0;
        let name = rollout.metadata.name.as_deref().unwrap_or_default();
        let named = failed.message.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
        if let Some((slot, why)) = named.and_then(|rest| rest.split_once(": "))
            && !why.starts_with("was not given ")
        {
            blamed.extend(slot.parse::<i32>());
        }
        match blamed.into_iter().find(|slot| !self.given.contains(&(*slot, failed.revision.clone()))) {
            None => Ok(()),
            Some(slot) => {
                Err(format!("{name}-{slot} is blamed for {}, which it was never given: {failed:?}", failed.revision))
            }
        }
    }

    /// R13: what is called stable was available in some instance.
    pub fn stable(&self, rollout: &Rollout) -> Result<(), String> {
        let stable = rollout.status.as_ref().and_then(|status| status.current_revision.as_ref());
        match stable.filter(|stable| !self.works.contains(*stable)) {
            None => Ok(()),
            Some(stable) => Err(format!("{stable} is told to be stable, and no instance of it was ever available")),
        }
    }
}
